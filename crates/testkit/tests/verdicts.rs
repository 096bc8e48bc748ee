//! The verdicts on real pairs, and on small programs that say themselves what is expected.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::corpus::{self, Side};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::victim::{self, Source};
use salve_testkit::{needs, not_run, patchfile, tree};

fn derive_pair(package: &str) -> Result<(corpus::Pair, patchfile::Derived)> {
    let pair = corpus::pair(package)?;
    let derived = patchfile::derive(&Salve::built()?, &pair.deb(Side::Old), &pair.deb(Side::New))?;
    Ok((pair, derived))
}

#[test]
fn memcached_is_unchanged_this_update_changes_no_code_in_the_program() -> Result<()> {
    let (pair, derived) = derive_pair("memcached")?;
    let image = derived.image(|path| pair.is_largest(path))?;
    assert_eq!(image.verdict(), "unchanged", "{:?}", image.codes());
    assert_eq!(image.changed(), Vec::<&str>::new());
    assert_eq!(derived.run.code, Some(exit::DONE), "{}", derived.run.stderr);
    Ok(())
}

#[test]
fn libexpat_is_refused_with_the_shifted_layout_as_evidence() -> Result<()> {
    let (pair, derived) = derive_pair("libexpat1")?;
    assert_eq!(derived.run.code, Some(exit::REFUSED), "{}", derived.run.stderr);
    let image = derived.image(|path| pair.is_largest(path))?;
    assert_eq!(image.verdict(), "refused");
    assert!(image.codes().contains(&"struct-layout"), "{:?}", image.codes());
    let evidence = image.evidence("struct-layout");
    assert!(evidence.iter().filter(|(function, _)| function.is_some()).count() > 1, "{evidence:?}");
    assert!(evidence.iter().all(|(_, seen)| !seen.is_empty()));
    assert_eq!(image.changed(), Vec::<&str>::new(), "a refused image carries a livepatch");
    Ok(())
}

#[test]
fn haproxy_is_safe_few_functions_are_carried_and_main_with_its_banner_is_noise() -> Result<()> {
    let (pair, derived) = derive_pair("haproxy")?;
    let image = derived.image(|path| pair.is_largest(path))?;
    assert_eq!(image.verdict(), "safe", "{:?}", image.codes());
    let (changed, noise) = (image.changed(), image.noise());
    // Three really change; two that only name the version are carried as well,
    // because where the text goes is not proven (docs/adr/0005).
    for really in ["openssl_compare_current_version", "h1_parse_msg_data"] {
        assert!(changed.contains(&really), "{changed:?}");
    }
    assert_eq!(changed.len(), 5, "{changed:?}");
    assert_eq!(noise.len(), 35, "{noise:?}");
    assert!(noise.contains(&"main"), "{noise:?}");
    Ok(())
}

#[test]
fn both_libraries_that_only_a_few_functions_of_changed_are_safe() -> Result<()> {
    for package in ["libpng16-16", "liblzma5"] {
        let (pair, derived) = derive_pair(package)?;
        let image = derived.image(|path| pair.is_largest(path))?;
        assert_eq!(image.verdict(), "safe", "{package}: {:?}", image.codes());
        assert!(!image.changed().is_empty() && image.changed().len() < 20, "{package}: {:?}", image.changed());
    }
    Ok(())
}

#[test]
fn deriving_twice_gives_the_same_bytes() -> Result<()> {
    let (_, once) = derive_pair("liblzma5")?;
    let (_, twice) = derive_pair("liblzma5")?;
    let bytes = |derived: &patchfile::Derived| std::fs::read(&derived.file).context("no patch file");
    ensure!(bytes(&once)? == bytes(&twice)?, "the same pair gave two different patch files");
    Ok(())
}

#[test]
fn every_victim_gets_the_verdict_that_its_source_expects() -> Result<()> {
    let salve = Salve::built()?;
    let mut judged = 0;
    let mut wrong = Vec::new();
    for name in victim::all()? {
        let source = Source::named(&name)?;
        let Some(expected) = &source.expectations.verdict else { continue };
        for build in source.builds() {
            let what = format!("{name} with {build}");
            if !needs::on_path(&build.compiler) && build.compiler != "gcc" {
                not_run::record(&what, "this compiler is not installed");
                continue;
            }
            let directory = tree::scratch("victim")?;
            let [old, new] = source.sides(&build, directory.path())?;
            let derived = patchfile::derive(&salve, &old, &new)?;
            let image = derived.only_image().with_context(|| what.clone())?;
            let got = format!("{:?} {:?} {:?}", image.verdict(), image.codes(), image.changed());
            let codes = source.expectations.refusals.iter().all(|code| image.codes().contains(&code.as_str()));
            let mut changed = image.changed();
            changed.sort_unstable();
            let names = build.names_expected && !source.expectations.changed.is_empty() || expected == "unchanged";
            let named = !names || changed == source.expectations.changed;
            let noise = source.expectations.noise.iter().all(|f| image.noise().contains(&f.as_str()));
            if image.verdict() != expected || !codes || !named || !noise {
                wrong.push(format!("{what}: {got}, noise {:?}", image.noise()));
            }
        }
        judged += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged >= 4, "only {judged} victims state a verdict");
    Ok(())
}
