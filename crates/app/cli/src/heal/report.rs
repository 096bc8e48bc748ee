//! What `heal` reports.

use super::offers::Offered;
use crate::carry::{Action, Ending, is_done_already};
use crate::console::Report;
use crate::event::{ProcessRef, UpdateRef};
use crate::exit::Exit;
use crate::machine::processes::{FIRST_THREAD_ENDED, Seen, Unseen};
use crate::problem::{Problem, ProblemReport, one_line};
use crate::view::{ImageView, action_lines, cve_list, not_healed_lines, not_looked_at_line};
use salve_elf::ContentHash;
use salve_patch::{Cves, NotHealed, Origin, PatchFile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The code for processes that could not be read.
pub(super) const NOT_LOOKED_AT: &str = "not-looked-at";
/// It is ours to look at, and Salve lacked something to do it with.
const UNREADABLE: &str = "unreadable";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    Disk,
    Candidate,
    From,
}

#[derive(Serialize)]
pub(crate) struct HealReport {
    mode: Mode,
    dry_run: bool,
    accepted: Vec<String>,
    updates: Vec<UpdateView>,
    processes: Vec<Action>,
    left: Vec<Left>,
}

/// One update, and the images of it that some process maps.
#[derive(Serialize)]
struct UpdateView {
    #[serde(flatten)]
    update: UpdateRef,
    package: String,
    cves: Cves,
    patch_sha256: Option<ContentHash>,
    derived_ms: Option<u64>,
    images: Vec<ImageView>,
    /// What else the update changes; null where nothing could be derived.
    not_healed: Option<NotHealed>,
    /// Why nothing could be derived.
    problem: Option<ProblemReport>,
    #[serde(skip)]
    exit: Exit,
}

/// Something that was found and left as it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Left {
    pub(crate) process: Option<ProcessRef>,
    pub(crate) update: Option<UpdateRef>,
    pub(crate) path: Option<String>,
    pub(crate) code: String,
    pub(crate) why: String,
    /// What to do next, for people.
    #[serde(skip)]
    hint: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Left {
    /// Code and words, and all that is left for that reason.
    pub(crate) fn by_reason<'a>(
        all: impl IntoIterator<Item = &'a Self>,
    ) -> BTreeMap<(&'a str, &'a str), Vec<&'a Self>> {
        let mut by_reason: BTreeMap<(&str, &str), Vec<&Self>> = BTreeMap::new();
        for left in all {
            by_reason.entry((&left.code, &left.why)).or_default().push(left);
        }
        by_reason
    }

    pub(crate) fn image(process: &Seen, path: &str, code: &str, why: String) -> Self {
        Self {
            process: Some(process.name.clone()),
            update: None,
            path: Some(path.to_owned()),
            code: code.to_owned(),
            why,
            hint: None,
            exit: exit_of(code),
        }
    }

    pub(crate) fn update(update: &UpdateRef, code: &str, why: String) -> Self {
        Self {
            process: None,
            update: Some(update.clone()),
            path: None,
            code: code.to_owned(),
            why,
            hint: None,
            exit: exit_of(code),
        }
    }

    pub(crate) fn problem(update: &UpdateRef, problem: &Problem) -> Self {
        let report = problem.report();
        let why = core::iter::once(report.message).chain(report.causes).collect::<Vec<_>>().join(": ");
        Self { exit: problem.exit, hint: report.hint, ..Self::update(update, &report.code, why) }
    }

    pub(crate) fn unseen(unseen: Unseen) -> Self {
        let name = unseen.name.unwrap_or_else(|| ProcessRef {
            pid: u32::try_from(unseen.pid).unwrap_or(u32::MAX),
            start_ticks: 0,
            program: String::new(),
        });
        let (code, exit) = match (unseen.barred, unseen.outlived) {
            (true, _) => (NOT_LOOKED_AT, Exit::Done),
            (false, true) => (FIRST_THREAD_ENDED, Exit::Refused),
            (false, false) => (UNREADABLE, Exit::Incomplete),
        };
        Self {
            process: Some(name),
            update: None,
            path: None,
            code: code.into(),
            why: unseen.why,
            hint: unseen.outlived.then(|| "what runs there cannot be told: restart it".to_owned()),
            exit,
        }
    }
}

/// What leaving something for this reason means for the end of the command:
/// what is left by policy is as it should be; what waits is incomplete; what
/// could not be proven is refused.
fn exit_of(code: &str) -> Exit {
    match code {
        "init" | "own-ancestor" | "root-storage" | "elsewhere" | "listed-path" | "listed-user" | "listed-group"
        | "not-running" | NOT_LOOKED_AT => Exit::Done,
        "half-configured" | "changed-meanwhile" | "interrupted" => Exit::Incomplete,
        _unproven => Exit::Refused,
    }
}

impl HealReport {
    pub(crate) fn new(
        mode: Mode,
        dry_run: bool,
        accepted: Vec<String>,
        offered: &[Offered],
        processes: Vec<Action>,
        left: Vec<Left>,
    ) -> Self {
        let updates = offered.iter().map(UpdateView::of).collect();
        Self { mode, dry_run, accepted, updates, processes, left }
    }
}

impl UpdateView {
    fn of(offered: &Offered) -> Self {
        let (problem, exit) = match &offered.result {
            Ok(_) => (None, Exit::Done),
            Err((report, exit)) => (Some(report.clone()), *exit),
        };
        let derived = offered.result.as_ref().ok();
        Self {
            update: offered.update.clone(),
            package: offered.package.clone(),
            cves: match offered.patch().map(|patch| &patch.origin) {
                Some(Origin::Packages { cves, .. }) => cves.clone(),
                Some(Origin::Files { .. }) | None => Cves::Unknown,
            },
            patch_sha256: derived.map(|derived| derived.sha256),
            derived_ms: derived.map(|derived| u64::try_from(derived.took.as_millis()).unwrap_or(u64::MAX)),
            images: offered.images().map(ImageView::of).collect(),
            not_healed: offered.patch().map(PatchFile::not_healed),
            problem,
            exit,
        }
    }

    fn lines(&self, said_before: bool, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let version = |version: &Option<String>| version.as_deref().map_or_else(|| "?".into(), one_line);
        writeln!(
            out,
            "{} {} -> {}",
            one_line(&self.package),
            version(&self.update.old_version),
            version(&self.update.new_version)
        )?;
        if let Some(problem) = &self.problem {
            writeln!(out, "  cannot be derived: {}", one_line(&problem.message))?;
            problem.causes.iter().try_for_each(|cause| writeln!(out, "    caused by: {cause}"))?;
            return problem.hint.iter().try_for_each(|hint| writeln!(out, "    hint: {}", one_line(hint)));
        }
        writeln!(out, "CVEs: {}", cve_list(&self.cves))?;
        let told = self.images.iter();
        told.into_iter().try_for_each(|image| if said_before { image.brief(out) } else { image.summary(out, verbose) })
    }
}

impl Report for HealReport {
    fn exit(&self) -> Exit {
        let actions = self.processes.iter().map(|action| action.outcome.exit());
        let left = self.left.iter().map(|left| left.exit);
        let updates = self.updates.iter().map(|update| update.exit);
        actions.chain(left).chain(updates).fold(Exit::Done, Exit::and)
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.updates.is_empty() && self.processes.is_empty() && self.left.iter().all(Left::is_quiet) {
            writeln!(out, "{}", self.nothing())?;
            self.left_lines(out, verbose)?;
            return self.unseen_line(out);
        }
        for update in &self.updates {
            let actions = self.processes.iter().filter(|action| action.update == update.update);
            update.lines(!verbose && is_done_already(actions.clone()), out, verbose)?;
            action_lines(actions.clone(), out, verbose)?;
            if actions.clone().any(|action| action.restart_falls_back) {
                writeln!(out, "  the next restart falls back to the old code until the package is installed")?;
            }
            update.not_healed.as_ref().map_or(Ok(()), |list| not_healed_lines(list, out, verbose))?;
            writeln!(out)?;
        }
        let known = |action: &&Action| !self.updates.iter().any(|update| update.update == action.update);
        let mut others = self.processes.iter().filter(known).peekable();
        if others.peek().is_some() {
            writeln!(out, "up to date already:")?;
            action_lines(others, out, verbose)?;
            writeln!(out)?;
        }
        self.left_lines(out, verbose)?;
        self.summary(out)?;
        self.unseen_line(out)
    }
}

/// What one reason left that is named without `--verbose`.
const SHOWN: usize = 10;

impl HealReport {
    fn nothing(&self) -> &'static str {
        match self.mode {
            Mode::Disk => "no process that was looked at runs older code than the disk has",
            Mode::Candidate => "no process that was looked at runs code for which the archive has something newer",
            Mode::From => "no process that was looked at runs code of these packages",
        }
    }

    fn unseen_line(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = self.left.iter().filter(|left| left.is_quiet()).count();
        not_looked_at_line(u64::try_from(count).unwrap_or(u64::MAX), out)
    }

    fn left_lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let told = self.left.iter().filter(|left| verbose || !left.is_quiet());
        for ((code, why), what) in Left::by_reason(told) {
            writeln!(out, "left: {} [{}]", one_line(why), one_line(code))?;
            let shown = if verbose { what.len() } else { SHOWN };
            for left in what.iter().take(shown) {
                writeln!(out, "  {}", left.subject())?;
            }
            if let Some(rest) = what.len().checked_sub(shown).filter(|rest| *rest > 0) {
                writeln!(out, "  and {rest} more (-v lists them)")?;
            }
            if let Some(hint) = what.iter().find_map(|left| left.hint.as_deref()) {
                writeln!(out, "  hint: {}", one_line(hint))?;
            }
        }
        Ok(())
    }

    fn summary(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut counts: BTreeMap<Ending, usize> = BTreeMap::new();
        for action in &self.processes {
            let count = counts.entry(action.outcome).or_default();
            *count = count.saturating_add(1);
        }
        if counts.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = counts.iter().map(|(ending, count)| format!("{count} {}", ending.words())).collect();
        writeln!(out, "processes: {}", words.join(", "))?;
        let advised: Vec<_> = counts.keys().filter_map(|ending| Some((ending.words(), ending.advice()?))).collect();
        if !advised.is_empty() {
            writeln!(out, "what to do instead:")?;
        }
        advised.iter().try_for_each(|(words, advice)| writeln!(out, "  {words}: {advice}"))
    }
}

impl Left {
    /// Said only to who asked to hear more.
    fn is_quiet(&self) -> bool {
        self.code == NOT_LOOKED_AT
    }

    fn subject(&self) -> String {
        let process = self.process.as_ref().map(|p| format!("pid {} {}", p.pid, one_line(&p.program)));
        let path = self.path.as_deref().map(one_line);
        let update = self.update.as_ref().map(|update| {
            format!("{} {}", one_line(&update.source), one_line(update.new_version.as_deref().unwrap_or("")))
        });
        match (process, path, update) {
            (Some(process), Some(path), _) => format!("{process}: {path}"),
            (Some(process), None, _) => process,
            (None, Some(path), Some(update)) => format!("{path} of {update}"),
            (None, Some(path), None) => path,
            (None, None, Some(update)) => update,
            (None, None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_patch::{ChangeKind, FileChange, FileClass, NotHealedGroup};

    fn process(pid: u32) -> ProcessRef {
        ProcessRef { pid, start_ticks: 4711, program: "/usr/sbin/haproxy".into() }
    }

    fn update() -> UpdateRef {
        UpdateRef { source: "haproxy".into(), old_version: Some("1".into()), new_version: Some("2".into()) }
    }

    fn report() -> HealReport {
        let left = |code: &str, exit| Left {
            process: Some(process(1)),
            update: None,
            path: Some("/usr/lib/libz.so.1".into()),
            code: code.into(),
            why: "in words".into(),
            hint: None,
            exit,
        };
        let view = UpdateView {
            update: update(),
            package: "haproxy".into(),
            cves: Cves::Known { ids: vec!["CVE-2026-33555".into()] },
            patch_sha256: Some(ContentHash::of(b"patch")),
            derived_ms: Some(520),
            images: Vec::new(),
            not_healed: Some(NotHealed::Known {
                groups: vec![NotHealedGroup {
                    class: FileClass::Conffile,
                    files: 1,
                    named: vec![FileChange { path: "/etc/haproxy.cfg".into(), change: ChangeKind::Contents }],
                }],
            }),
            problem: None,
            exit: Exit::Done,
        };
        let applied =
            Action { restart_falls_back: true, ..Action::new(process(812), update(), Vec::new(), Ending::Applied) };
        let deferred =
            Action::new(process(813), update(), Vec::new(), Ending::Deferred).because("in-use", "threads are inside");
        HealReport {
            mode: Mode::From,
            dry_run: false,
            accepted: vec!["runs-once".into()],
            updates: vec![view],
            processes: vec![applied, deferred],
            left: vec![left("init", exit_of("init")), left("unknown-direction", exit_of("unknown-direction"))],
        }
    }

    #[test]
    fn the_json_of_heal_has_its_documented_shape() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report()).expect("JSON"));
    }

    #[test]
    fn people_read_what_was_done_what_was_left_and_what_a_restart_does() {
        let mut out = anstream::StripStream::new(Vec::new());
        report().human(&mut out, false).expect("written");
        insta::assert_snapshot!(String::from_utf8_lossy(&out.into_inner()));
    }

    #[test]
    fn what_is_left_by_policy_does_not_count_and_what_is_unproven_does() {
        let exit = |keep: &dyn Fn(&str) -> bool, endings: &[Ending]| {
            let mut report = report();
            report.left.retain(|left| keep(&left.code));
            report.processes.retain(|action| endings.contains(&action.outcome));
            report.exit()
        };
        assert_eq!(exit(&|code| code == "init", &[Ending::Applied]), Exit::Done);
        assert_eq!(exit(&|_| true, &[Ending::Applied]), Exit::Refused);
        assert_eq!(exit(&|_| true, &[Ending::Applied, Ending::Deferred]), Exit::Incomplete);
        assert_eq!(exit_of("half-configured"), Exit::Incomplete);
    }
}
