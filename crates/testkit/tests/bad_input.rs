//! Input that is not what it should be: each kind has its exit code and its
//! error code, nothing is written, and nothing takes Salve down.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::corpus::{self, Side};
use salve_testkit::salve::{Salve, exit};
use salve_testkit::spinner::Programs;
use salve_testkit::victim::{Kind, Source};
use salve_testkit::{patchfile, tree};
use std::path::{Path, PathBuf};

/// Where fields of the ELF header lie (gABI, "ELF Header").
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const E_PHOFF: usize = 32;
const E_SHOFF: usize = 40;
const E_SHNUM: usize = 60;

struct Case {
    what: &'static str,
    old: PathBuf,
    new: PathBuf,
    exit: i32,
    /// Any of these.
    codes: &'static [&'static str],
}

struct Workshop {
    programs: Programs,
    directory: tempfile::TempDir,
}

impl Workshop {
    fn open() -> Result<Self> {
        Ok(Self { programs: Programs::compile(&[])?, directory: tree::scratch("bad-input")? })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).context("cannot write a bad file")?;
        Ok(path)
    }

    /// The new program with some bytes replaced.
    fn altered(&self, name: &str, at: usize, with: &[u8]) -> Result<PathBuf> {
        let mut bytes = std::fs::read(&self.programs.new)?;
        bytes.get_mut(at..at + with.len()).context("outside the file")?.copy_from_slice(with);
        self.file(name, &bytes)
    }

    /// Derives, and checks all that has to hold of a refusal or failure.
    fn check(salve: &Salve, case: &Case) -> Result<()> {
        let derived = patchfile::derive(salve, &case.old, &case.new).context(case.what)?;
        let (run, what) = (&derived.run, case.what);
        ensure!(run.code == Some(case.exit), "{what}: {:?}, not {}: {}{}", run.code, case.exit, run.stdout, run.stderr);
        ensure!(!derived.file.exists(), "{what}: a patch file was written");
        let code = run.error_code()?.with_context(|| format!("{what}: no error in the report"))?;
        ensure!(case.codes.contains(&code.as_str()), "{what}: {code}");
        ensure!(run.stderr.starts_with("error: "), "{what}: {}", run.stderr);
        Ok(())
    }
}

#[test]
fn every_kind_of_bad_input_has_its_error_and_its_exit_code() -> Result<()> {
    let shop = Workshop::open()?;
    let salve = Salve::built()?;
    let good = || shop.programs.old.clone();
    let program = std::fs::read(&shop.programs.new)?;
    let (png, xz) = (corpus::pair("libpng16-16")?, corpus::pair("liblzma5")?);
    let deb = std::fs::read(xz.deb(Side::New))?;
    let relocatable = 1_u16.to_le_bytes();
    let case = |what, new: PathBuf, exit, codes| Case { what, old: good(), new, exit, codes };
    let pair = |what, old, new, exit, codes| Case { what, old, new, exit, codes };
    let static_old = shop.directory.path().join("static-old");
    let static_new = shop.directory.path().join("static-new");
    let source = Source::named("version_banner.c")?;
    source.compile(Kind::StaticProgram, false, &static_old, &[])?;
    source.compile(Kind::StaticProgram, true, &static_new, &[])?;
    let not_elf: &[&str] = &["not-elf", "not-recognised", "different-kinds"];
    let cases = [
        case("a text", shop.file("text", b"#!/bin/sh\nexit 0\n")?, exit::FAILED, not_elf),
        case("nothing at all", shop.file("empty", b"")?, exit::FAILED, not_elf),
        case("no such file", shop.directory.path().join("missing"), exit::FAILED, &["cannot-open"]),
        case("a device", "/dev/null".into(), exit::FAILED, &["not-a-file", "not-recognised", "different-kinds"]),
        case("only a magic number", shop.file("magic", b"\x7fELF")?, exit::FAILED, &["not-elf", "truncated"]),
        case(
            "half a program",
            shop.file("half", program.get(..program.len() / 2).unwrap_or(&[]))?,
            exit::FAILED,
            &["truncated", "malformed-elf"],
        ),
        case("a 32-bit program", shop.altered("32-bit", EI_CLASS, &[1])?, exit::REFUSED, &["other-architecture"]),
        case(
            "a big-endian program",
            shop.altered("big-endian", EI_DATA, &[2])?,
            exit::REFUSED,
            &["other-architecture"],
        ),
        case(
            "a program for AArch64",
            shop.altered("aarch64", E_MACHINE, &183_u16.to_le_bytes())?,
            exit::REFUSED,
            &["other-architecture"],
        ),
        case("an object file", shop.altered("object", E_TYPE, &relocatable)?, exit::REFUSED, &["not-loadable"]),
        case(
            "section headers beyond the end",
            shop.altered("shoff", E_SHOFF, &(1_u64 << 40).to_le_bytes())?,
            exit::FAILED,
            &["truncated", "malformed-elf"],
        ),
        case(
            "section headers that wrap around",
            shop.altered("wrap", E_SHOFF, &u64::MAX.to_le_bytes())?,
            exit::FAILED,
            &["truncated", "malformed-elf"],
        ),
        case(
            "program headers beyond the end",
            shop.altered("phoff", E_PHOFF, &(1_u64 << 50).to_le_bytes())?,
            exit::FAILED,
            &["truncated", "malformed-elf"],
        ),
        case(
            "more sections than fit",
            shop.altered("shnum", E_SHNUM, &0xff00_u16.to_le_bytes())?,
            exit::FAILED,
            &["truncated", "malformed-elf"],
        ),
        pair("static programs", static_old, static_new, exit::REFUSED, &["static-program"]),
        pair("a package and a program", xz.deb(Side::Old), good(), exit::USAGE, &["different-kinds"]),
        pair(
            "two packages that are not the same",
            png.deb(Side::Old),
            xz.deb(Side::New),
            exit::REFUSED,
            &["different-packages"],
        ),
        pair("a downgrade", xz.deb(Side::New), xz.deb(Side::Old), exit::REFUSED, &["downgrade"]),
        pair("one version twice", xz.deb(Side::New), xz.deb(Side::New), exit::REFUSED, &["same-version"]),
        pair(
            "a .deb that is none",
            xz.deb(Side::Old),
            shop.file("none.deb", b"!<arch>\nthis is no package")?,
            exit::FAILED,
            &["not-a-deb", "malformed-deb"],
        ),
        pair(
            "half a .deb",
            xz.deb(Side::Old),
            shop.file("half.deb", deb.get(..deb.len() / 2).unwrap_or(&[]))?,
            exit::FAILED,
            &["malformed-deb", "truncated"],
        ),
    ];
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| Workshop::check(&salve, case).err()).map(|error| format!("{error:#}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn an_image_truncated_at_any_byte_or_with_any_header_byte_changed_ends_in_an_answer() -> Result<()> {
    let shop = Workshop::open()?;
    let salve = Salve::built()?;
    let program = std::fs::read(&shop.programs.new)?;
    let cuts = (0..16).map(|i| i * 16).chain((1..16).map(|i| program.len() * i / 16)).chain([program.len() - 1]);
    for cut in cuts {
        let file = shop.file("cut", program.get(..cut).context("cut beyond the end")?)?;
        let derived = patchfile::derive(&salve, &shop.programs.old, &file)?;
        let code = derived.run.code;
        ensure!(code == Some(exit::FAILED) || code == Some(exit::REFUSED), "cut at {cut}: {code:?}");
        ensure!(derived.run.error_code()?.is_some_and(|code| code != "hostile-input"), "cut at {cut}");
    }
    for at in 0..64 {
        let byte = program.get(at).copied().unwrap_or(0);
        let file = shop.altered("flipped", at, &[byte ^ 0xff])?;
        let derived = patchfile::derive(&salve, &shop.programs.old, &file)?;
        ensure!(derived.run.code.is_some_and(|code| code <= exit::INCOMPLETE), "byte {at}: {:?}", derived.run);
        ensure!(derived.run.error_code()?.is_none_or(|code| code != "hostile-input"), "byte {at}");
    }
    Ok(())
}

#[test]
fn a_patch_file_with_any_byte_flipped_is_no_patch_file() -> Result<()> {
    let shop = Workshop::open()?;
    let salve = Salve::built()?;
    let derived = patchfile::derive(&salve, &shop.programs.old, &shop.programs.new)?;
    ensure!(derived.run.code == Some(exit::DONE), "{}", derived.run.stderr);
    let good = std::fs::read(&derived.file)?;
    let step = (good.len() / 120).max(1);
    for at in (0..good.len()).step_by(step).chain([good.len() - 1]) {
        let mut bytes = good.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x10;
        }
        let file = shop.file("flipped.salve", &bytes)?;
        let run = inspect(&salve, &file)?;
        ensure!(run.code == Some(exit::FAILED), "byte {at}: {:?} {}", run.code, run.stdout);
        ensure!(run.error_code()?.as_deref() == Some("not-a-patch"), "byte {at}: {}", run.stdout);
    }
    for cut in [0, 1, 64, good.len() / 2, good.len() - 1] {
        let file = shop.file("cut.salve", good.get(..cut).context("cut beyond the end")?)?;
        ensure!(inspect(&salve, &file)?.code == Some(exit::FAILED), "cut at {cut}");
    }
    Ok(())
}

fn inspect(salve: &Salve, file: &Path) -> Result<salve_testkit::salve::Run> {
    salve.json(&["inspect".as_ref(), file.as_os_str()])
}
