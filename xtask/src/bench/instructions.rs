//! How many instructions the analysis of one pair of images takes.
//!
//! The one figure of a derivation that can be compared between machines and between
//! busy and quiet times. Counted by callgrind over `crates/app/derive/examples/one_pair.rs`,
//! because valgrind does not run inside the sandbox; reading packages and the processes
//! themselves are not in it. Hash tables are seeded at random, so two counts of one
//! build differ in the third or fourth digit.

use super::table::{Table, Unit};
use crate::cargo;
use anyhow::{Context as _, Result, ensure};
use salve_testkit::corpus;
use salve_testkit::tree;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Counts for the file called `file` of two packages; where valgrind is not there, the table says so.
pub(crate) fn count(table: &mut Table, name: &str, debs: [&Path; 2], file: &str, scratch: &Path) -> Result<()> {
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        table.note(format!("{name}: instructions are not counted, for want of valgrind"));
        return Ok(());
    }
    let package = ["--quiet", "--release", "--package", "salve-derive", "--example", "one_pair"];
    cargo::run("build", &package)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree::root().join("target"), PathBuf::from);
    let mut images = Vec::new();
    for (side, deb) in ["old", "new"].iter().zip(debs) {
        let into = scratch.join(format!("{name}-counted-{side}"));
        std::fs::create_dir_all(&into).context("cannot make a directory")?;
        corpus::extract(deb, &into)?;
        let wanted = |path: &PathBuf| {
            let is_elf = std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
            path.file_name().is_some_and(|n| n == file) && is_elf
        };
        let found = corpus::files(&into)?.into_iter().find(wanted);
        images.push(found.with_context(|| format!("{} has no ELF file {file}", deb.display()))?);
    }
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // Threads that wait for work count instructions too.
        .env("RAYON_NUM_THREADS", "1")
        .arg(target.join("release/examples/one_pair"))
        .args(&images)
        .output()
        .context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind ended with {}: {said}", output.status);
    let collected = collected(&said).with_context(|| format!("valgrind counted nothing: {said}"))?;
    table.add(format!("{name}: instructions to analyse {file}, by callgrind"), Unit::Instructions, vec![collected]);
    Ok(())
}

/// Millions, from `==PID== Collected : N`.
fn collected(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?.1;
    line.trim().parse::<f64>().ok().map(|count| count / 1e6)
}

#[cfg(test)]
mod tests {
    use super::collected;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==1== Events    : Ir\n==1== Collected : 2500000\n==1== \n";
        assert_eq!(collected(said), Some(2.5));
        assert_eq!(collected("==1== Collected : none"), None);
        assert_eq!(collected("valgrind: not found"), None);
    }
}
