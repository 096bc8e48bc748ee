//! What a livepatch must do to a running program, one small program for each line.
//!
//! The sources in `victims/behaviours/` are asked on standard input and answer on
//! standard output. Each says in its own first lines what it answers before it is
//! patched and after:
//!
//! ```text
//! //#ExpectVerdict: safe
//! //#Images: program one plugin:two
//! //#LibraryFlags: -Wl,-Bsymbolic
//! //#ExpectOutcome: not-applied stack-switching
//! //#Exchange: asked | old answer | new answer
//! ```
//!
//! One source makes every image: it is compiled once for each with `IMAGE_name`
//! defined. A `plugin` is a library that the program is not linked with. What holds
//! for all of them is written once, in [`Behaviour::check`]: patched, patched again,
//! reverted and patched once more, the program answers as it should and is otherwise
//! as it was.

mod asked;
mod check;

pub use asked::Asked;
pub use check::Prepared;

use crate::victim::Expectations;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One question, and what is answered before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exchange {
    asked: String,
    old: String,
    new: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Library {
    name: String,
    linked: bool,
}

/// A source of `victims/behaviours/`, and what it expects.
#[derive(Clone, Debug)]
pub struct Behaviour {
    source: PathBuf,
    expectations: Expectations,
    exchanges: Vec<Exchange>,
    libraries: Vec<Library>,
    library_flags: Vec<String>,
    /// The outcome of `apply`, and its code.
    outcome: (String, Option<String>),
    otherwise: Option<Variant>,
}

/// Another way to compile the same source. What is then derived may be refused; what is
/// applied has to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub c: &'static str,
    pub cpp: &'static str,
    /// Behind the source's own flags.
    pub flags: &'static [&'static str],
}

/// Where the sources are.
pub fn directory() -> PathBuf {
    crate::victim::directory().join("behaviours")
}

/// Every behaviour, by the name of its source without extension.
pub fn all() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory()).context("no behaviours")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c" || extension == "cc") {
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Behaviour {
    pub fn named(name: &str) -> Result<Self> {
        let with = |extension| directory().join(name).with_extension(extension);
        let source = if with("cc").exists() { with("cc") } else { with("c") };
        let text = std::fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        Self::parse(source, &text).with_context(|| name.to_owned())
    }

    fn parse(source: PathBuf, text: &str) -> Result<Self> {
        let mut behaviour = Self {
            source,
            expectations: Expectations::default(),
            exchanges: Vec::new(),
            libraries: Vec::new(),
            library_flags: Vec::new(),
            outcome: ("applied".to_owned(), None),
            otherwise: None,
        };
        let mut common = String::new();
        for line in text.lines() {
            let Some((key, value)) = line.strip_prefix("//#").and_then(|line| line.split_once(": ")) else { continue };
            match key {
                "Exchange" => behaviour.exchanges.push(Exchange::parse(value)?),
                "Images" => behaviour.libraries = value.split_whitespace().filter_map(Library::parse).collect(),
                "LibraryFlags" => behaviour.library_flags = value.split_whitespace().map(str::to_owned).collect(),
                "ExpectOutcome" => {
                    let mut words = value.split_whitespace().map(str::to_owned);
                    behaviour.outcome = (words.next().context("no outcome")?, words.next());
                }
                _ => common.extend([line, "\n"]),
            }
        }
        behaviour.expectations = Expectations::parse(&common)?;
        ensure!(behaviour.expectations.verdict.is_some(), "it expects no verdict");
        ensure!(
            behaviour.outcome.0 != "applied"
                || behaviour.exchanges.iter().any(|e| e.old != e.new)
                || behaviour.refused(),
            "no answer tells old from new"
        );
        Ok(behaviour)
    }

    /// The same, compiled otherwise.
    #[must_use]
    pub fn compiled(self, otherwise: Variant) -> Self {
        Self { otherwise: Some(otherwise), ..self }
    }

    fn refused(&self) -> bool {
        self.expectations.verdict.as_deref() == Some("refused")
    }

    /// `OLD` or `NEW`: a tree with `bin/victim` and its libraries in `lib/`.
    pub fn compile(&self, tree: &Path, new: bool) -> Result<()> {
        let (bin, lib) = (tree.join("bin"), tree.join("lib"));
        for directory in [&bin, &lib] {
            std::fs::create_dir_all(directory).context("cannot make a directory")?;
        }
        for library in &self.libraries {
            let file = format!("lib{}.so", library.name);
            let mut compiler = self.compiler(&library.name, new);
            compiler.args(["-fPIC", "-shared", &format!("-Wl,-soname,{file}")]).args(&self.library_flags);
            compile(compiler.arg("-o").arg(lib.join(file)).arg(&self.source))?;
        }
        let mut compiler = self.compiler("program", new);
        compiler.args(["-fPIE", "-pie"]).arg("-o").arg(bin.join("victim")).arg(&self.source);
        // RPATH, not RUNPATH: `dlopen` goes by it as well.
        compiler.arg("-L").arg(&lib).args(["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--disable-new-dtags"]);
        compiler.args(self.libraries.iter().filter(|library| library.linked).map(|l| format!("-l{}", l.name)));
        compile(&mut compiler)
    }

    fn compiler(&self, image: &str, new: bool) -> Command {
        let cpp = self.source.extension().is_some_and(|extension| extension == "cc");
        let (c, cxx) = self.otherwise.map_or(("gcc", "g++"), |variant| (variant.c, variant.cpp));
        let mut compiler = Command::new(if cpp { cxx } else { c });
        // Stripped, as distributors ship.
        compiler.args(["-O2", "-g0", "-s", "-Wall", "-Wextra", "-Werror", "-pthread"]);
        compiler.args([format!("-DNEW={}", u8::from(new)), format!("-DIMAGE_{image}")]);
        compiler.args(&self.expectations.flags);
        if let Some(variant) = self.otherwise {
            // What another compiler warns of is no matter of these tests.
            compiler.args(["-Wno-error", "-w"]).args(variant.flags);
        }
        compiler
    }
}

impl Exchange {
    fn parse(line: &str) -> Result<Self> {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        match parts.as_slice() {
            [asked, old, new] => {
                Ok(Self { asked: (*asked).to_owned(), old: (*old).to_owned(), new: (*new).to_owned() })
            }
            _ => bail!("not asked | old | new: {line}"),
        }
    }
}

impl Library {
    /// `program` is no library.
    fn parse(word: &str) -> Option<Self> {
        match word.strip_prefix("plugin:") {
            Some(name) => Some(Self { name: name.to_owned(), linked: false }),
            None => (word != "program").then(|| Self { name: word.to_owned(), linked: true }),
        }
    }
}

/// The compiler does not take this source with these flags.
#[derive(Debug, thiserror::Error)]
#[error("the compiler refused: {said}")]
struct CompilerRefused {
    said: String,
}

fn compile(compiler: &mut Command) -> Result<()> {
    let done = compiler.output().context("cannot run the compiler")?;
    let said = || String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(()) } else { Err(CompilerRefused { said: said() }.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Behaviour> {
        Behaviour::parse(PathBuf::from("x.c"), text)
    }

    #[test]
    fn what_cannot_fail_is_no_behaviour() {
        assert!(parse("//#ExpectVerdict: safe\n//#Exchange: 1 | 2 | 2\n").is_err(), "no answer tells old from new");
        assert!(parse("//#Exchange: 1 | 2 | 3\n").is_err(), "no verdict");
        assert!(parse("//#ExpectVerdict: safe\n//#Exchange: 1 | 2\n").is_err(), "half an exchange");
        assert!(parse("//#ExpectVerdict: safe\n//#Exchange: 1 | 2 | 3\n//#Odd: x\n").is_err(), "an unknown directive");
    }

    #[test]
    fn a_plugin_is_not_linked() -> Result<()> {
        let behaviour = parse("//#ExpectVerdict: safe\n//#Images: program one plugin:two\n//#Exchange: 1 | 2 | 3\n")?;
        let linked: Vec<(&str, bool)> = behaviour.libraries.iter().map(|l| (l.name.as_str(), l.linked)).collect();
        assert_eq!(linked, [("one", true), ("two", false)]);
        Ok(())
    }
}
