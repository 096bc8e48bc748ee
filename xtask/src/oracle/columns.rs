//! The tests of one recipe, in three columns: old, patched, new.
//!
//! Every result is kept in a file of its own, so that a run goes on where the last one
//! ended. A test counts as patched only if Salve recorded that it applied the livepatch
//! to a process of it: a test that passes because nothing was patched proves nothing.

use super::recipes::{Recipe, Test};
use anyhow::{Context as _, Result};
use salve_elf::ContentHash;
use salve_testkit::corpus::{Pair, Side};
use salve_testkit::events;
use salve_testkit::salve::Salve;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Old,
    Patched,
    New,
}

impl Column {
    const ALL: [Self; 3] = [Self::Old, Self::Patched, Self::New];

    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Patched => "patched",
            Self::New => "new",
        }
    }
}

/// How often a test is run in all where the patched and the new column differ: some of
/// the maintainers' tests draw lots or look at the clock.
const TURNS: u32 = 3;
const LIMIT_SECONDS: &str = "900";

pub(super) struct Columns<'c> {
    pub pair: &'c Pair,
    pub salve: &'c Salve,
    pub place: &'c Path,
    pub accept: &'c [String],
    pub runs: Runs<'c>,
}

/// Which tests are run; of the others only what other runs left is told.
#[derive(Clone, Copy)]
pub(super) enum Runs<'c> {
    None,
    /// Those with one of these in their name; all if there is none.
    Named(&'c [String]),
}

impl Runs<'_> {
    fn contain(self, test: &Test) -> bool {
        match self {
            Self::None => false,
            Self::Named(parts) => parts.is_empty() || parts.iter().any(|part| test.name.contains(part.as_str())),
        }
    }
}

/// How one test ended in each column.
struct Row<'t> {
    name: &'t str,
    ends: [String; 3],
}

impl Row<'_> {
    /// Otherwise patched than new; but for what passes where new does sometimes, and what
    /// varies without a livepatch as well.
    fn is_wrong(&self) -> bool {
        let [old, patched, new] = self.ends.each_ref().map(|end| end.starts_with(VARIES));
        let passes = self.ends[1] == "ok";
        self.ends[1] != self.ends[2] && !(new && (passes || patched)) && !(old && patched)
    }
}

const VARIES: &str = "varies";

fn is_kept(file: &Path, now: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|before| before == now)
}

impl Columns<'_> {
    fn patch(&self) -> PathBuf {
        self.place.join("pair.salve")
    }

    /// Results of another livepatch, or that another Salve applied, are none of this one's; nor
    /// are any of tests that are made or started in another way.
    pub(super) fn keep_patch(&self, file: &Path, recipe: &Recipe, tests: &[Test]) -> Result<()> {
        let drop = |column: Column| -> Result<()> {
            let results = self.place.join(column.name());
            if results.exists() {
                std::fs::remove_dir_all(&results).context("cannot drop results")?;
            }
            Ok(())
        };
        let commands = tests.iter().flat_map(|test| [test.name.as_str(), test.command.as_str()]);
        let way = core::iter::once(recipe.prepare).chain(commands).collect::<Vec<_>>().join("\n");
        if !is_kept(&self.place.join("way"), way.as_bytes()) {
            Column::ALL.into_iter().try_for_each(drop)?;
        }
        let patch = std::fs::read(file).context("no patch file")?;
        let salve = std::fs::read(self.salve.program()).context("no salve")?;
        let salve = ContentHash::of(&salve).to_string();
        if !is_kept(&self.patch(), &patch) || !is_kept(&self.place.join("salve"), salve.as_bytes()) {
            drop(Column::Patched)?;
        }
        std::fs::write(self.place.join("way"), way).context("cannot keep how tests are started")?;
        std::fs::write(self.place.join("salve"), salve).context("cannot keep which Salve it is")?;
        std::fs::write(self.patch(), patch).context("cannot keep the patch file")
    }

    /// Writes the table; gives how many tests come out wrong.
    pub(super) fn table(&self, recipe: &Recipe, tests: &[Test], text: &mut String) -> Result<usize> {
        let (old, new) = (self.pair.extract(Side::Old)?, self.pair.extract(Side::New)?);
        let trees = [old.path(), old.path(), new.path()];
        let mut rows = Vec::new();
        for test in tests {
            let run = self.runs.contain(test);
            if !run && !Column::ALL.iter().all(|column| self.kept(test, *column, 0).exists()) {
                continue;
            }
            let row = self.row(test, trees)?;
            eprintln!("{} {}: {}", self.pair.package, test.name, row.ends.join(" | "));
            rows.push(row);
        }
        let count = |column: usize| rows.iter().filter(|row| row.ends.get(column).is_some_and(|r| r == "ok")).count();
        let wrong = rows.iter().filter(|row| row.is_wrong()).count();
        writeln!(text, "\n| | old | patched | new |\n|---|---|---|---|")?;
        writeln!(text, "| {} tests, passed | {} | {} | {} |", rows.len(), count(0), count(1), count(2))?;
        let mut kinds: Vec<&[String; 3]> = Vec::new();
        for row in rows.iter().filter(|row| row.ends.iter().any(|end| end != "ok")) {
            if !kinds.contains(&&row.ends) {
                kinds.push(&row.ends);
            }
        }
        for ends in kinds {
            let names: Vec<String> =
                rows.iter().filter(|row| row.ends == *ends).map(|row| format!("`{}`", row.name)).collect();
            writeln!(text, "| {} | {} |", names.join(", "), ends.join(" | "))?;
        }
        let patched = self.patched()?;
        let open = tests.len().saturating_sub(rows.len());
        if open > 0 {
            writeln!(text, "\n{open} more tests were not run in all three columns; they are none of the above.")?;
        }
        writeln!(
            text,
            "\n{wrong} come out otherwise patched than new. {patched} processes were patched. Not reached: {}.",
            recipe.left_out
        )?;
        Ok(wrong)
    }

    /// Processes that got the livepatch, over all tests.
    fn patched(&self) -> Result<usize> {
        let directory = self.place.join(Column::Patched.name());
        let mut sum = 0_usize;
        for entry in std::fs::read_dir(&directory).context("no results")? {
            let path = entry.context("cannot read the results")?.path();
            if path.extension().is_some_and(|extension| extension == "events") {
                sum = sum.saturating_add(applied(&path)?);
            }
        }
        Ok(sum)
    }

    fn row<'t>(&self, test: &'t Test, trees: [&Path; 3]) -> Result<Row<'t>> {
        let mut ends = [String::new(), String::new(), String::new()];
        for ((end, column), tree) in ends.iter_mut().zip(Column::ALL).zip(trees) {
            *end = self.result(test, column, tree, 0)?;
        }
        let [_, patched, new] = &ends;
        if patched != new {
            for ((end, column), tree) in ends.iter_mut().zip(Column::ALL).zip(trees) {
                let mut turns = vec![end.clone()];
                for turn in 1..TURNS {
                    if self.runs.contain(test) || self.kept(test, column, turn).exists() {
                        turns.push(self.result(test, column, tree, turn)?);
                    }
                }
                *end = summed_up(&turns);
            }
        }
        Ok(Row { name: &test.name, ends })
    }

    /// Where the result of one turn is kept.
    fn kept(&self, test: &Test, column: Column, turn: u32) -> PathBuf {
        let name = test.name.replace(['/', ' '], "_");
        let turn = if turn > 0 { format!("~{turn}") } else { String::new() };
        self.place.join(column.name()).join(format!("{name}{turn}.result"))
    }

    /// `ok`, or how it ended; kept.
    fn result(&self, test: &Test, column: Column, tree: &Path, turn: u32) -> Result<String> {
        let kept = self.kept(test, column, turn);
        if let Ok(before) = std::fs::read_to_string(&kept) {
            return Ok(before);
        }
        std::fs::create_dir_all(self.place.join(column.name())).context("cannot make a directory")?;
        let log = kept.with_extension("events");
        let _absent = std::fs::remove_file(&log);
        let libraries: Vec<String> = ["lib", "usr/lib"]
            .iter()
            .map(|part| tree.join(part).join("x86_64-linux-gnu"))
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string())
            .collect();
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=10", LIMIT_SECONDS, "sh", "-c", &test.command]).current_dir(&test.directory);
        shell.env("LD_LIBRARY_PATH", libraries.join(":")).env("ORACLE_TREE", tree);
        shell.env("ORACLE_RUN", self.prefix(column, &log)).env("LC_ALL", "C");
        let said = shell.stdin(Stdio::null()).output().context("cannot run a test")?;
        let result = match said.status.code() {
            // Automake's convention.
            Some(77) => "skipped".to_owned(),
            _ if column == Column::Patched && applied(&log)? == 0 => "not patched".to_owned(),
            Some(0) => "ok".to_owned(),
            Some(124) => "timed out".to_owned(),
            Some(code) => format!("failed ({code})"),
            None => "killed".to_owned(),
        };
        let output = [said.stdout, said.stderr].concat();
        std::fs::write(kept.with_extension("log"), output).context("cannot keep a log")?;
        std::fs::write(&kept, &result).context("cannot keep a result")?;
        Ok(result)
    }

    /// What a program under test is started through.
    fn prefix(&self, column: Column, log: &Path) -> String {
        if column != Column::Patched {
            return String::new();
        }
        let mut words = vec![self.salve.program().display().to_string(), "run".to_owned()];
        words.extend(["--events".to_owned(), log.display().to_string()]);
        words.extend(["--patch".to_owned(), self.patch().display().to_string()]);
        words.extend(self.accept.iter().map(|code| format!("--accept {code}")));
        words.push("--".to_owned());
        words.join(" ")
    }
}

/// How many processes a log says were patched.
fn applied(log: &Path) -> Result<usize> {
    Ok(events::named(&events::read(log)?, "applied").len())
}

/// One word for several turns of one test.
fn summed_up(turns: &[String]) -> String {
    match turns {
        [first, rest @ ..] if rest.iter().all(|turn| turn == first) => first.clone(),
        _ => format!("{VARIES}: {} of {} ok", turns.iter().filter(|turn| *turn == "ok").count(), turns.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, summed_up};

    fn row(ends: [&str; 3]) -> Row<'static> {
        Row { name: "t", ends: ends.map(str::to_owned) }
    }

    #[test]
    fn a_test_that_fails_patched_only_is_wrong_and_one_that_the_fix_mends_is_not() {
        assert!(row(["ok", "failed (1)", "ok"]).is_wrong());
        assert!(row(["failed (1)", "failed (1)", "ok"]).is_wrong());
        assert!(row(["ok", "not patched", "ok"]).is_wrong());
        assert!(!row(["failed (1)", "ok", "ok"]).is_wrong());
        assert!(!row(["ok", "skipped", "skipped"]).is_wrong());
    }

    #[test]
    fn a_test_that_varies_is_excused_only_where_it_varies_without_a_livepatch_too() {
        let varies = summed_up(&["ok".to_owned(), "failed (1)".to_owned(), "ok".to_owned()]);
        assert_eq!(varies, "varies: 2 of 3 ok");
        assert!(row(["ok", &varies, "ok"]).is_wrong());
        assert!(!row(["ok", "ok", &varies]).is_wrong());
        assert!(!row([&varies, &varies, "ok"]).is_wrong());
        assert!(row([&varies, "failed (1)", "ok"]).is_wrong());
        assert_eq!(summed_up(&["ok".to_owned(), "ok".to_owned()]), "ok");
    }
}
