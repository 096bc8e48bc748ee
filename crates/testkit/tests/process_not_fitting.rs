//! What is seen in a process and rules it out: nothing is written there.

use anyhow::{Context as _, Result};
use salve_testkit::backend::Backend;
use salve_testkit::corpus::{self, Side};
use salve_testkit::haproxy::Haproxy;
use salve_testkit::observe::Text;
use salve_testkit::running::Running;
use salve_testkit::salve::{Salve, exit};
use salve_testkit::victim::{Source, packages};
use salve_testkit::{not_run, patchfile, tree};
use std::path::Path;
use std::process::Command;

const NOTHING: Vec<String> = Vec::new();

/// HAProxy's update bakes a version of OpenSSL's headers in; here the libcrypto
/// that is mapped says that it is another one.
#[test]
fn a_library_of_another_version_than_the_update_was_built_for_refuses_before_anything_is_written() -> Result<()> {
    if not_run::unless_root("a dependency's constant") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let pair = corpus::pair("haproxy")?;
    let directory = tree::scratch("libcrypto")?;
    other_libcrypto(&directory.path().join("libcrypto.so.3"))?;
    let backend = Backend::start()?;
    let mut haproxy = Haproxy::start_by(Side::Old, backend.address(), |program| {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", directory.path());
        command
    })?;
    let before = Text::of(haproxy.pid())?;
    let derived = patchfile::derive(&salve, &pair.deb(Side::Old), &pair.deb(Side::New))?;
    let pid = haproxy.pid().to_string();
    let run = salve.json(&["apply".as_ref(), "--pid".as_ref(), pid.as_ref(), derived.file.as_os_str()])?;
    let run = run.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("requirement-not-met".to_owned())));
    assert!(run.stdout.contains("libcrypto.so.3"), "{}", run.stdout);
    assert_eq!(Text::of(haproxy.pid())?.differences_from(&before), NOTHING);
    assert!(haproxy.behaviour()?.is_old());
    haproxy.must_run()
}

/// The machine's libcrypto with another number in the one function that tells its
/// version: `mov eax, NUMBER` (`b8`), after `endbr64` where there is one.
fn other_libcrypto(to: &Path) -> Result<()> {
    let from = Path::new("/usr/lib/x86_64-linux-gnu/libcrypto.so.3");
    let mut bytes = std::fs::read(from).with_context(|| from.display().to_string())?;
    let symbols = Command::new("readelf").args(["-W", "--dyn-syms"]).arg(from).output()?.stdout;
    let symbols = String::from_utf8_lossy(&symbols).into_owned();
    let line = symbols.lines().find(|line| line.contains("OpenSSL_version_num@")).context("no such function")?;
    let va = u64::from_str_radix(line.split_whitespace().nth(1).context("no address")?, 16)?;
    let segments = Command::new("readelf").args(["-W", "-l"]).arg(from).output()?.stdout;
    let segments = String::from_utf8_lossy(&segments).into_owned();
    let text = segments.lines().find(|line| line.contains("LOAD") && line.contains("R E")).context("no text")?;
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).context("no number");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (offset, start) = (hex(words.get(1).context("no offset")?)?, hex(words.get(2).context("no address")?)?);
    let at = usize::try_from(va - start + offset)?;
    let code = bytes.get_mut(at..at + 16).context("outside the file")?;
    let mov = code.iter().position(|byte| *byte == 0xb8).context("it does not return a constant")?;
    // 3.0.x becomes 3.9.x.
    let minor = code.get_mut(mov + 3).context("cut off")?;
    *minor = 0x90;
    std::fs::write(to, bytes).context("cannot write the library")
}

#[test]
fn an_image_that_is_mapped_twice_is_refused() -> Result<()> {
    if not_run::unless_root("an image mapped twice") {
        return Ok(());
    }
    let salve = Salve::built()?;
    let directory = tree::scratch("twice")?;
    let [old, new] = Source::named("mapped_twice.c")?.programs(directory.path(), &[])?;
    let [was, from] = packages(directory.path(), &old, &new)?;
    let derived = patchfile::derive(&salve, &was, &from)?;
    let mut process = Running::start(&mut Command::new(&old), directory.path().join("output"))?;
    process.wait_for_line("got 100")?;
    let before = Text::of(process.pid())?;
    let pid = process.pid().to_string();
    let refused = ("not-applied".to_owned(), Some("mapped-twice".to_owned()));
    let run = salve.json(&["apply".as_ref(), "--pid".as_ref(), pid.as_ref(), derived.file.as_os_str()])?;
    assert_eq!(run.expect_code(exit::REFUSED)?.only_outcome()?, refused);
    // It shows by looking, so a dry run tells it as well.
    let words = ["heal".as_ref(), "--dry-run".as_ref(), "--pid".as_ref(), pid.as_ref()];
    let pair = ["--was".as_ref(), was.as_os_str(), "--from".as_ref(), from.as_os_str()];
    let dry = salve.json(&[words.as_slice(), pair.as_slice()].concat())?;
    assert_eq!(dry.expect_code(exit::REFUSED)?.only_outcome()?, refused);
    assert_eq!(Text::of(process.pid())?.differences_from(&before), NOTHING);
    process.must_run()
}
