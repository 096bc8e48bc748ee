//! Real packages, read as they are.

use core::ops::ControlFlow;
use salve_package::Version;
use salve_package::deb::{self, DebError, Kind, Limits};
use salve_patch::Cves;
use std::fs::File;
use std::path::PathBuf;

type Checked = Result<(), Box<dyn std::error::Error>>;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../corpus").join(name)
}

fn open(name: &str) -> File {
    let path = corpus(name);
    File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_package_says_who_it_is() -> Checked {
    let control = deb::control(open("haproxy_2.6.12-1+deb12u3_amd64.deb"), &Limits::default())?;
    assert_eq!(control.id.name, "haproxy");
    assert_eq!(control.id.source, "haproxy");
    assert_eq!(control.id.version, "2.6.12-1+deb12u3");
    assert_eq!(control.id.architecture, "amd64");
    let control = deb::control(open("libpng16-16_1.6.39-2+deb12u5_amd64.deb"), &Limits::default())?;
    assert_eq!((control.id.name.as_str(), control.id.source.as_str()), ("libpng16-16", "libpng1.6"));
    assert_eq!(control.multi_arch.as_deref(), Some("same"));
    Ok(())
}

#[test]
fn the_elf_files_and_the_links_between_them_are_found() -> Checked {
    let mut found = Vec::new();
    let summary = deb::elves(open("libexpat1_2.5.0-1+deb12u5_amd64.deb"), &Limits::default(), &mut |control, file| {
        assert_eq!(control.id.name, "libexpat1");
        assert!(file.bytes.starts_with(b"\x7fELF"));
        found.push((file.path, file.mode, file.bytes.len()));
        ControlFlow::Continue(())
    })?;
    let paths: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["/lib/x86_64-linux-gnu/libexpat.so.1.8.10", "/usr/lib/x86_64-linux-gnu/libexpatw.so.1.8.10"]);
    assert!(found.iter().all(|(_, mode, len)| *mode == 0o644 && *len > 100_000), "{found:?}");
    let link = summary.links.get("/lib/x86_64-linux-gnu/libexpat.so.1");
    assert_eq!(link, Some(&Kind::Symlink { target: "libexpat.so.1.8.10".to_owned() }));
    Ok(())
}

#[test]
fn the_changelog_names_what_an_update_is_about() -> Checked {
    for (name, old, expected) in [
        ("haproxy_2.6.12-1+deb12u4_amd64.deb", "2.6.12-1+deb12u3", None),
        ("memcached_1.6.18-1+deb12u1_amd64.deb", "1.6.18-1", Some(4)),
        ("liblzma5_5.4.1-1+deb12u2_amd64.deb", "5.4.1-1+deb12u1", None),
    ] {
        let summary = deb::elves(open(name), &Limits::default(), &mut |_, _| ControlFlow::Continue(()))?;
        let cves = summary.cves_since(&Version::parse(old)?);
        let Cves::Known { ids } = &cves else { panic!("{name}: {cves:?}") };
        assert!(expected.is_none_or(|count| ids.len() == count), "{name}: {ids:?}");
        assert_eq!(summary.cves_since(&Version::parse("0.1-1")?), Cves::Unknown);
    }
    Ok(())
}

#[test]
fn reading_can_stop_early() -> Checked {
    let mut seen = 0;
    deb::visit(open("haproxy_2.6.12-1+deb12u4_amd64.deb"), &Limits::default(), &mut |_, _, _| {
        seen += 1;
        Ok(if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    assert_eq!(seen, 3);
    Ok(())
}

#[test]
fn the_same_files_are_seen_as_dpkg_sees() -> Checked {
    let path = corpus("haproxy_2.6.12-1+deb12u4_amd64.deb");
    let listed = std::process::Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&path).output()?;
    assert!(listed.status.success());
    let mut expected = Vec::new();
    for entry in tar::Archive::new(listed.stdout.as_slice()).entries()? {
        let entry = entry?;
        expected.push((entry.path()?.to_string_lossy().into_owned(), entry.size()));
    }
    let mut found = Vec::new();
    deb::visit(File::open(&path)?, &Limits::default(), &mut |_, member, contents| {
        let len = contents.read()?.len() as u64;
        assert_eq!(len, member.len_bytes, "{}", member.path);
        found.push((member.path.clone(), len));
        Ok(ControlFlow::Continue(()))
    })?;
    let expected: Vec<(String, u64)> = expected
        .into_iter()
        .map(|(path, len)| (format!("/{}", path.trim_start_matches("./").trim_end_matches('/')), len))
        .collect();
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn every_package_of_the_corpus_can_be_read() -> Checked {
    let mut count = 0;
    for entry in std::fs::read_dir(corpus(""))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let mut elves = 0;
            let summary = deb::elves(File::open(&path)?, &Limits::default(), &mut |_, _| {
                elves += 1;
                ControlFlow::Continue(())
            })?;
            assert!(elves > 0 && summary.files > 2, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 10, "the corpus has only {count} packages");
    Ok(())
}

#[test]
fn limits_are_kept() {
    let limit = |limits: Limits| {
        deb::elves(open("haproxy_2.6.12-1+deb12u4_amd64.deb"), &limits, &mut |_, _| ControlFlow::Continue(())).err()
    };
    for (limits, name) in [
        (Limits { max_package_bytes: 1_000_000, ..Limits::default() }, "package"),
        (Limits { max_control_bytes: 1000, ..Limits::default() }, "unpacked size"),
        (Limits { max_unpacked_bytes: 2_000_000, ..Limits::default() }, "unpacked size"),
        (Limits { max_entries: 20, ..Limits::default() }, "number of files"),
        (Limits { max_file_bytes: 1_000_000, ..Limits::default() }, "file"),
    ] {
        match limit(limits) {
            Some(DebError::TooLarge { what, .. }) => assert_eq!(what, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let little = Limits { max_decoder_bytes: 1 << 20, ..Limits::default() };
    assert!(matches!(limit(little), Some(DebError::Damaged { .. })));
}
