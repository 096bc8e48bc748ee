//! Libraries of real packages inside running programs that never stop working.

use anyhow::{Result, ensure};
use salve_testkit::corpus::Side;
use salve_testkit::embedded::Embedded;
use salve_testkit::observe::{self, Text};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::{events, not_run, patchfile, tree};
use std::path::PathBuf;

const NOTHING: Vec<String> = Vec::new();

fn heal_from_packages(salve: &Salve, victim: &Embedded) -> Result<salve_testkit::salve::Run> {
    let pid = victim.pid().to_string();
    let mut words: Vec<PathBuf> = vec!["heal".into(), "--from".into(), victim.pair.deb(Side::New)];
    words.extend(["--was".into(), victim.pair.deb(Side::Old), "--pid".into(), pid.into()]);
    salve.json(&words)
}

/// Deleted under a process that decodes on three threads: derived as `safe`,
/// applied, still right, reverted, still right.
fn a_deleted_library_is_healed_and_reverted(package: &str, soname: &str, source: &str, replace: bool) -> Result<()> {
    if not_run::unless_root(&format!("{package} inside a running program")) {
        return Ok(());
    }
    let scratch = tree::scratch("libraries")?;
    let log = scratch.path().join("events.jsonl");
    let salve = Salve::built()?.events_to(&log);
    let mut victim = Embedded::start(package, soname, source)?;

    let derived = patchfile::derive(&salve, &victim.pair.deb(Side::Old), &victim.pair.deb(Side::New))?;
    let image = derived.image(|path| victim.pair.is_largest(path))?;
    assert_eq!(image.verdict(), "safe", "{:?}", image.codes());
    assert!(!image.changed().is_empty());

    let identity = observe::identity(victim.pid())?;
    let before = Text::of(victim.pid())?;
    victim.delete_library()?;
    if replace {
        victim.install_new_library()?;
    }
    victim.works_on(50)?;

    heal_from_packages(&salve, &victim)?.expect_code(exit::DONE)?;
    victim.works_on(50)?;
    let patched = Text::of(victim.pid())?;
    assert_ne!(patched.changes_to(&before), NOTHING, "nothing was changed");
    assert_eq!(observe::writable_and_executable(victim.pid())?, NOTHING);
    let recorded = events::read(&log)?;
    let applied = events::named(&recorded, "applied");
    ensure!(applied.len() == 1, "{recorded:?}");

    // A second time it is there already, and nothing is touched.
    heal_from_packages(&salve, &victim)?.expect_code(exit::DONE)?;
    assert_eq!(Text::of(victim.pid())?.differences_from(&patched), NOTHING);

    salve.json(&["revert", "--pid", &victim.pid().to_string()])?.expect_code(exit::DONE)?;
    victim.works_on(50)?;
    assert_eq!(Text::of(victim.pid())?.changes_to(&before), NOTHING);
    assert_eq!(observe::identity(victim.pid())?, identity);
    assert_eq!(observe::tracer(victim.pid())?, 0);
    let status = victim.end()?;
    ensure!(status.success(), "the program ended with {status}");
    Ok(())
}

#[test]
fn libpng_is_healed_in_a_program_that_keeps_decoding_while_its_file_is_deleted() -> Result<()> {
    a_deleted_library_is_healed_and_reverted("libpng16-16", "libpng16.so.16", "decode_png.c", false)
}

#[test]
fn liblzma_is_healed_in_a_program_that_keeps_decoding_while_its_file_is_replaced() -> Result<()> {
    a_deleted_library_is_healed_and_reverted("liblzma5", "liblzma.so.5", "decode_xz.c", true)
}

#[test]
fn libexpat_is_refused_because_a_struct_layout_shifted_and_the_process_is_left_as_it_was() -> Result<()> {
    if not_run::unless_root("libexpat inside a running program") {
        return Ok(());
    }
    let scratch = tree::scratch("expat")?;
    let log = scratch.path().join("events.jsonl");
    let salve = Salve::built()?.events_to(&log);
    let mut victim = Embedded::start("libexpat1", "libexpat.so.1", "parse_xml.c")?;
    let before = Text::of(victim.pid())?;
    heal_from_packages(&salve, &victim)?.expect_code(exit::REFUSED)?;
    assert_eq!(Text::of(victim.pid())?.differences_from(&before), NOTHING);
    victim.works_on(5)?;
    let recorded = events::read(&log)?;
    assert!(events::named(&recorded, "applied").is_empty());
    let judged = events::named(&recorded, "judged");
    let codes: Vec<&str> = judged.iter().flat_map(|event| salve_testkit::salve::texts(event, "code")).collect();
    assert!(codes.contains(&"struct-layout"), "{codes:?}");
    ensure!(victim.end()?.success());
    Ok(())
}
