//! Small C and C++ programs and libraries to be patched, with what is expected of them
//! written in their own source.
//!
//! A directive is a line of its own:
//!
//! ```text
//! //#ExpectVerdict: safe
//! //#ExpectChanged: parse_header
//! //#ExpectNoise: print_banner
//! //#ExpectRefusal: struct-layout      (or ExpectReason)
//! //#Flags: -O2 -fcf-protection
//! //#Package: 1.0-1 1.0-2
//! //#Kind: library
//! //#Also: clang -O2
//! //#AlsoUnnamed: gcc -O0
//! ```
//!
//! With `Package`, the two sides are packed as `.deb`s of these versions: then
//! what a version string says can be told from what a program means.
//!
//! `Also` names another compiler and its flags with which the same is expected;
//! with `AlsoUnnamed` the verdict and the codes are, but which functions change
//! is not compared, because compilers split and join them in their own ways.
//!
//! One source makes both sides: it is compiled with `-DNEW=0` and `-DNEW=1`,
//! so what changed stands between `#if NEW` and `#endif`, in sight.

use crate::needs::{self, Need};
use anyhow::{Context as _, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the source says should come of its two versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// `unchanged`, `safe`, `review` or `refused`.
    pub verdict: Option<String>,
    /// Functions that must be in the livepatch.
    pub changed: Vec<String>,
    /// Functions that differ and must be left out, on proof.
    pub noise: Vec<String>,
    /// Reason codes that must be among those given.
    pub refusals: Vec<String>,
    /// Further arguments for the compiler.
    pub flags: Vec<String>,
    /// Versions, old and new, of the packages that the two sides are packed as.
    pub package: Option<[String; 2]>,
    /// What the verdict is about, a program unless said otherwise.
    pub kind: Option<Kind>,
    /// Further compilers with which the same is expected.
    pub also: Vec<Build>,
}

/// A compiler, and how it is to optimise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    pub compiler: String,
    pub flags: Vec<String>,
    /// The functions that change are the expected ones.
    pub names_expected: bool,
}

impl Build {
    /// As distributors build.
    pub fn usual() -> Self {
        Self { compiler: "gcc".to_owned(), flags: vec!["-O2".to_owned()], names_expected: true }
    }

    fn parse(text: &str, names_expected: bool) -> Result<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        let compiler = words.next().context("no compiler")?;
        let known = ["gcc", "clang"].contains(&compiler.as_str());
        if !known {
            bail!("no such compiler: {compiler}");
        }
        Ok(Self { compiler, flags: words.collect(), names_expected })
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.compiler, self.flags.join(" "))
    }
}

impl Expectations {
    /// Reads the directives of a source; one that is not known is an error, not a comment.
    pub fn parse(source: &str) -> Result<Self> {
        let mut all = Self::default();
        for (index, line) in source.lines().enumerate() {
            let Some(directive) = line.trim().strip_prefix("//#") else { continue };
            let (key, value) = directive.split_once(':').with_context(|| format!("line {}: no colon", index + 1))?;
            let value = value.trim();
            if value.is_empty() {
                bail!("line {}: nothing after {key}:", index + 1);
            }
            match key {
                "ExpectVerdict" if all.verdict.is_some() => bail!("line {}: a second verdict", index + 1),
                "ExpectVerdict" => all.verdict = Some(value.to_owned()),
                "ExpectChanged" => all.changed.push(value.to_owned()),
                "ExpectNoise" => all.noise.push(value.to_owned()),
                "ExpectRefusal" | "ExpectReason" => all.refusals.push(value.to_owned()),
                "Package" => {
                    let versions: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
                    let versions = versions.try_into();
                    all.package = Some(versions.map_err(|_| anyhow!("line {}: not two versions", index + 1))?);
                }
                "Kind" => {
                    all.kind = Some(match value {
                        "program" => Kind::Program,
                        "library" => Kind::Library,
                        other => bail!("line {}: no such kind: {other}", index + 1),
                    });
                }
                "Also" | "AlsoUnnamed" => {
                    all.also.push(Build::parse(value, key == "Also").with_context(|| format!("line {}", index + 1))?);
                }
                "Flags" => all.flags.extend(value.split_whitespace().map(str::to_owned)),
                other => bail!("line {}: no such directive: {other}", index + 1),
            }
        }
        Ok(all)
    }
}

/// What to make of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Program,
    StaticProgram,
    Library,
}

/// A C or C++ source of the project, and what it expects.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    pub expectations: Expectations,
}

impl Source {
    /// One of `crates/testkit/victims/`, by file name.
    pub fn named(file: &str) -> Result<Self> {
        Self::at(directory().join(file))
    }

    pub fn at(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let expectations = Expectations::parse(&text).with_context(|| path.display().to_string())?;
        Ok(Self { path, expectations })
    }

    /// Every way in which its verdict is asked for: the usual one, and what `Also` names.
    pub fn builds(&self) -> Vec<Build> {
        std::iter::once(Build::usual()).chain(self.expectations.also.iter().cloned()).collect()
    }

    /// Compiles both sides, old and new, into `directory`, under its own name and as `NAME-new`.
    pub fn programs(&self, directory: &Path, extra: &[&str]) -> Result<[PathBuf; 2]> {
        let name = self.path.file_stem().context("a source without a name")?.to_string_lossy();
        let pair = [directory.join(&*name), directory.join(format!("{name}-new"))];
        for (new, program) in [false, true].into_iter().zip(&pair) {
            self.compile(Kind::Program, new, program, extra)?;
        }
        Ok(pair)
    }

    /// Compiles one side of it to `output`; `extra` comes last, for libraries and run paths.
    pub fn compile(&self, kind: Kind, new: bool, output: &Path, extra: &[&str]) -> Result<()> {
        self.compile_with(&Build::usual(), kind, new, output, extra)
    }

    fn compile_with(&self, build: &Build, kind: Kind, new: bool, output: &Path, extra: &[&str]) -> Result<()> {
        needs::ensure(&[Need::Compiler])?;
        let plus_plus = is_plus_plus(&self.path);
        let (compiler, standard) = match (build.compiler.as_str(), plus_plus) {
            ("gcc", true) => ("g++", "-std=gnu++17"),
            ("clang", true) => ("clang++", "-std=gnu++17"),
            (compiler, _) => (compiler, "-std=gnu11"),
        };
        let mut gcc = Command::new(compiler);
        gcc.args([standard, "-g0", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-attributes", "-pthread"]);
        gcc.args(&build.flags);
        gcc.arg(format!("-DNEW={}", u8::from(new)));
        match kind {
            Kind::Program => gcc.args(["-fPIE", "-pie"]),
            Kind::StaticProgram => gcc.args(["-static", "-no-pie"]),
            Kind::Library => gcc.args(["-fPIC", "-shared"]),
        };
        gcc.args(&self.expectations.flags).arg("-o").arg(output).arg(&self.path).args(extra);
        let done = gcc.output().with_context(|| format!("cannot run {}", build.compiler))?;
        if !done.status.success() {
            bail!("{build} refused {}: {}", self.path.display(), String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }
}

impl Source {
    /// Both sides as `salve derive` takes them: two programs, or two packages of one program each.
    pub fn sides(&self, build: &Build, directory: &Path) -> Result<[PathBuf; 2]> {
        let kind = self.expectations.kind.unwrap_or(Kind::Program);
        let sides = [directory.join("old"), directory.join("new")];
        for (side, new) in sides.iter().zip([false, true]) {
            match &self.expectations.package {
                None => self.compile_with(build, kind, new, side, &[])?,
                Some([old_version, new_version]) => {
                    let programs = side.join("usr/bin");
                    std::fs::create_dir_all(&programs).context("cannot make a directory")?;
                    self.compile_with(build, kind, new, &programs.join("victim"), &[])?;
                    pack(side, if new { new_version } else { old_version })?;
                }
            }
        }
        Ok(if self.expectations.package.is_some() { sides.map(|side| side.with_extension("deb")) } else { sides })
    }
}

/// `TREE` → `TREE.deb`, a package called `victim`.
pub fn pack(tree: &Path, version: &str) -> Result<()> {
    let control = format!(
        "Package: victim\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\n\
         Description: a victim\n"
    );
    std::fs::create_dir_all(tree.join("DEBIAN")).context("cannot make a directory")?;
    std::fs::write(tree.join("DEBIAN/control"), control).context("cannot write the control file")?;
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-b"]).arg(tree).arg(tree.with_extension("deb"));
    let done = command.output().context("cannot run dpkg-deb")?;
    if !done.status.success() {
        bail!("dpkg-deb refused: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// Two programs as two packages of `victim` in `directory`, the older one first:
/// packages prove the direction, files do not.
pub fn packages(directory: &Path, old: &Path, new: &Path) -> Result<[PathBuf; 2]> {
    let sides = [(old, "1.0-1", "old-package"), (new, "1.0-2", "new-package")];
    for (program, version, name) in sides {
        let tree = directory.join(name);
        std::fs::create_dir_all(tree.join("usr/bin")).context("cannot make a directory")?;
        std::fs::copy(program, tree.join("usr/bin/victim")).context("cannot copy the program")?;
        pack(&tree, version)?;
    }
    Ok(sides.map(|(_, _, name)| directory.join(name).with_extension("deb")))
}

/// Where the sources are.
pub fn directory() -> PathBuf {
    crate::tree::root().join("crates/testkit/victims")
}

/// Every source in [`directory`], by name.
pub fn all() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory()).context("no victims")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let path = Path::new(&name);
        if is_plus_plus(path) || path.extension().is_some_and(|extension| extension == "c") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_plus_plus(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_what_it_expects() -> Result<()> {
        let text = "//#ExpectVerdict: refused\n//#ExpectRefusal: struct-layout\nint x;\n  //#ExpectNoise: banner\n//# Flags : a";
        assert!(Expectations::parse(text).is_err(), "a directive with blanks in its name is none");
        let text = "//#ExpectVerdict: safe\n//#ExpectChanged: f\n//#ExpectChanged: g\n//#Flags: -O0 -g\n// plain";
        let got = Expectations::parse(text)?;
        assert_eq!(got.verdict.as_deref(), Some("safe"));
        assert_eq!(got.changed, ["f", "g"]);
        assert_eq!(got.flags, ["-O0", "-g"]);
        Ok(())
    }

    #[test]
    fn a_directive_that_nobody_knows_is_an_error() {
        assert!(Expectations::parse("//#ExpectVerdikt: safe").is_err());
        assert!(Expectations::parse("//#ExpectVerdict:").is_err());
        assert!(Expectations::parse("//#ExpectVerdict: safe\n//#ExpectVerdict: safe").is_err());
    }
}
