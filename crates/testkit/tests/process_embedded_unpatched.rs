//! Before anything is patched: the programs that embed a library of the corpus
//! run with the old file, go on when it is deleted or replaced, and notice a
//! wrong result.

use anyhow::{Result, ensure};
use salve_testkit::embedded::Embedded;
use salve_testkit::observe::Text;

const ALL: [(&str, &str, &str); 3] = [
    ("libpng16-16", "libpng16.so.16", "decode_png.c"),
    ("liblzma5", "liblzma.so.5", "decode_xz.c"),
    ("libexpat1", "libexpat.so.1", "parse_xml.c"),
];

#[test]
fn an_undisturbed_program_works_on_while_its_library_is_deleted_and_replaced() -> Result<()> {
    for (package, soname, source) in ALL {
        let mut victim = Embedded::start(package, soname, source)?;
        let before = Text::of(victim.pid())?;
        victim.delete_library()?;
        victim.works_on(5)?;
        victim.install_new_library()?;
        victim.works_on(5)?;
        assert_eq!(Text::of(victim.pid())?.differences_from(&before), Vec::<String>::new());
        let status = victim.end()?;
        ensure!(status.success(), "{package}: {status}");
    }
    Ok(())
}

#[test]
fn a_changed_byte_of_text_is_seen() -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let victim = Embedded::start("libexpat1", "libexpat.so.1", "parse_xml.c")?;
    let before = Text::of(victim.pid())?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", victim.pid()))?;
    let line = maps.lines().find(|l| l.contains("libexpat") && l.contains(" r-xp ")).unwrap_or_default();
    let end = u64::from_str_radix(line.split(['-', ' ']).nth(1).unwrap_or_default(), 16)?;
    // The last byte of the last page of text lies behind all code.
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", victim.pid()))?;
    memory.write_all_at(&[0x5a], end - 1)?;
    let differences = Text::of(victim.pid())?.differences_from(&before);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences.iter().all(|d| d.contains("libexpat") && d.contains("1 bytes differ")), "{differences:?}");
    Ok(())
}
