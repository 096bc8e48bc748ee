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

use crate::observe::{self, Text};
use crate::patchfile::{self, Derived};
use crate::salve::{Run, Salve, exit, texts};
use crate::tree;
use crate::victim::Expectations;
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

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

    /// Both sides compiled, and the patch file derived from them.
    pub fn prepare(&self, salve: &Salve) -> Result<Prepared> {
        let directory = tree::scratch("behaviour")?;
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        self.compile(&old, false)?;
        self.compile(&new, true)?;
        let derived = patchfile::derive(salve, &old, &new)?;
        self.check_verdict(&derived)?;
        Ok(Prepared { old, new, derived, directory })
    }

    /// Runs it through all that it expects.
    pub fn check(&self) -> Result<()> {
        let salve = Salve::built()?;
        let prepared = self.prepare(&salve)?;
        let derived = &prepared.derived;
        let mut asked = Asked::start(&mut Command::new(prepared.program()))?;
        if self.refused() {
            return asked.end();
        }
        let before = Text::of(asked.pid())?;
        self.answers(&mut asked, false)?;
        let run = self.apply(&salve, derived, &asked)?;
        let outcome = run.only_outcome()?;
        ensure!(outcome == self.outcome, "{outcome:?}, not {:?}: {}{}", self.outcome, run.stdout, run.stderr);
        let applied = outcome.0 == "applied";
        self.answers(&mut asked, applied)?;
        ensure!(observe::tracer(asked.pid())? == 0, "it is still traced");
        let both = observe::writable_and_executable(asked.pid())?;
        ensure!(both.is_empty(), "writable and executable at once: {both:?}");
        if applied {
            self.there_and_back(&salve, derived, &mut asked, &before)?;
        } else {
            let changed = Text::of(asked.pid())?.differences_from(&before);
            ensure!(changed.is_empty(), "not applied, but {changed:?}");
        }
        asked.end()
    }

    /// Whatever the verdict of this variant: what is applied answers as it should.
    /// Gives the worst verdict.
    pub fn check_variant(&self) -> Result<String> {
        let salve = Salve::built()?;
        let directory = tree::scratch("behaviour")?;
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let compiled = self.compile(&old, false).and_then(|()| self.compile(&new, true));
        match compiled {
            // Some sources say it in flags that only one compiler knows.
            Err(_) if self.otherwise.is_some_and(|variant| variant.c != "gcc") => return Ok("not compiled".to_owned()),
            other => other?,
        }
        let derived = patchfile::derive(&salve, &old, &new)?;
        let verdicts: Vec<String> = derived.images().iter().map(|image| image.verdict().to_owned()).collect();
        ensure!(verdicts.iter().any(|verdict| verdict != "unchanged"), "nothing changed: {}", derived.run.stderr);
        let is = |wanted: &str| verdicts.iter().any(|verdict| verdict == wanted);
        if is("refused") {
            return Ok("refused".to_owned());
        }
        let prepared = Prepared { old, new, derived, directory };
        let mut asked = Asked::start(&mut Command::new(prepared.program()))?;
        let before = Text::of(asked.pid())?;
        self.answers(&mut asked, false)?;
        let reviewed = Self {
            expectations: Expectations { verdict: Some("review".to_owned()), ..self.expectations.clone() },
            ..self.clone()
        };
        let run = reviewed.apply(&salve, &prepared.derived, &asked)?;
        let outcome = run.only_outcome()?;
        let applied = outcome.0 == "applied";
        // Threads that hardly ever leave what is replaced may outlast the wait on a busy machine.
        let left = outcome == self.outcome || outcome.0 == "deferred";
        ensure!(applied || left, "{outcome:?}: {}{}", run.stdout, run.stderr);
        self.answers(&mut asked, applied)?;
        if applied {
            reviewed.there_and_back(&salve, &prepared.derived, &mut asked, &before)?;
        }
        asked.end()?;
        Ok(if is("review") { "review" } else { "safe" }.to_owned())
    }

    /// Applied it is: again, off, and on once more.
    fn there_and_back(&self, salve: &Salve, derived: &Derived, asked: &mut Asked, before: &Text) -> Result<()> {
        let again = self.apply(salve, derived, asked)?.expect_code(exit::DONE)?.only_outcome()?;
        ensure!(again.0 == "already-applied", "applied again: {again:?}");
        for _ in 0..2 {
            let pid = asked.pid().to_string();
            salve.json(&["revert", "--pid", &pid, "--wait", "30s"])?.expect_code(exit::DONE)?;
            self.answers(asked, false)?;
            let changed = Text::of(asked.pid())?.changes_to(before);
            ensure!(changed.is_empty(), "reverted, but {changed:?}");
            self.apply(salve, derived, asked)?.expect_code(exit::DONE)?;
            self.answers(asked, true)?;
        }
        Ok(())
    }

    fn check_verdict(&self, derived: &Derived) -> Result<()> {
        let images = derived.images();
        let changed: Vec<_> = images.iter().filter(|image| image.verdict() != "unchanged").collect();
        ensure!(!changed.is_empty(), "nothing changed: {}{}", derived.run.stdout, derived.run.stderr);
        for image in changed {
            let verdict = image.verdict();
            ensure!(
                Some(verdict) == self.expectations.verdict.as_deref(),
                "{} is {verdict}: {:?}",
                image.path(),
                image.codes()
            );
            for code in &self.expectations.refusals {
                ensure!(image.codes().contains(&code.as_str()), "{}: {:?}", image.path(), image.codes());
            }
        }
        Ok(())
    }

    fn apply(&self, salve: &Salve, derived: &Derived, asked: &Asked) -> Result<Run> {
        let pid = asked.pid().to_string();
        let mut words: Vec<&str> = vec!["apply", "--pid", &pid, "--wait", "30s", "--accept", "direction-unknown"];
        let report = derived.inspected.as_ref().context("no patch file")?;
        let codes = texts(report, "code");
        if self.expectations.verdict.as_deref() == Some("review") {
            words.extend(codes.iter().flat_map(|&code| ["--accept", code]));
        }
        salve.json(&words.iter().map(AsRef::as_ref).chain([derived.file.as_os_str()]).collect::<Vec<_>>())
    }

    fn answers(&self, asked: &mut Asked, new: bool) -> Result<()> {
        for _ in 0..3 {
            for exchange in &self.exchanges {
                let answer = asked.ask(&exchange.asked)?;
                let expected = if new { &exchange.new } else { &exchange.old };
                ensure!(&answer == expected, "asked {:?} it answered {answer:?}, not {expected:?}", exchange.asked);
            }
        }
        Ok(())
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

fn compile(compiler: &mut Command) -> Result<()> {
    let done = compiler.output().context("cannot run the compiler")?;
    ensure!(done.status.success(), "the compiler refused: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// A behaviour with its two sides on disk.
#[derive(Debug)]
pub struct Prepared {
    /// Trees with `bin/victim` and `lib/`.
    pub old: PathBuf,
    pub new: PathBuf,
    pub derived: Derived,
    directory: TempDir,
}

impl Prepared {
    /// The old program.
    pub fn program(&self) -> PathBuf {
        self.old.join("bin/victim")
    }

    /// A scratch directory that lives as long as this.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A running victim that is asked and answers.
#[derive(Debug)]
pub struct Asked {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Asked {
    /// Starts it and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let mut asked = Self { child, input, output: BufReader::new(output) };
        let ready = asked.line()?;
        ensure!(ready == "ready", "it began with {ready:?}");
        Ok(asked)
    }

    /// The process that was started, which may have started the victim.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("it cannot be read from")?;
        if line.is_empty() {
            bail!("it ended by itself: {}", self.child.wait().context("cannot wait for it")?);
        }
        Ok(line.trim_end().to_owned())
    }

    pub fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.input.as_mut().context("it has ended")?, "{question}").context("it does not listen")?;
        self.line()
    }

    /// Nobody asks any more: it ends in order.
    pub fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().context("cannot wait for it")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
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
