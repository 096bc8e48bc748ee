//! Many processes to which the same happened: one line for each program, not for each process.
//!
//! On a host of three hundred processes a line for each hides the one that
//! differs. What is told of single threads, or of a group, stays told one by one.

use super::{bytes_for_people, duration_for_people, numbers};
use crate::carry::Action;
use crate::problem::one_line;
use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// So many of one program are a crowd.
const CROWD: usize = 4;

/// What has to be the same.
fn same(a: &Action, b: &Action) -> bool {
    (&a.process.program, a.outcome, &a.code, &a.why) == (&b.process.program, b.outcome, &b.code, &b.why)
}

fn is_told_alone(action: &Action) -> bool {
    !action.blocking.is_empty() || !action.group.is_empty()
}

/// The lines of all of them; with `verbose` each by itself.
pub(crate) fn action_lines<'a>(
    actions: impl Iterator<Item = &'a Action>,
    out: &mut dyn Write,
    verbose: bool,
) -> io::Result<()> {
    let actions: Vec<&Action> = actions.collect();
    let mut told = BTreeSet::new();
    for (index, action) in actions.iter().enumerate() {
        if told.contains(&index) {
            continue;
        }
        let alike: Vec<(usize, &&Action)> =
            actions.iter().enumerate().filter(|(_, other)| same(action, other) && !is_told_alone(other)).collect();
        if verbose || is_told_alone(action) || alike.len() < CROWD {
            action.lines(out, verbose)?;
            continue;
        }
        told.extend(alike.iter().map(|(index, _)| *index));
        crowd(&alike.into_iter().map(|(_, action)| *action).collect::<Vec<_>>(), out)?;
    }
    Ok(())
}

fn crowd(alike: &[&Action], out: &mut dyn Write) -> io::Result<()> {
    let Some(first) = alike.first() else { return Ok(()) };
    let program = one_line(&first.process.program);
    write!(out, "  {program}: {} processes {}", alike.len(), first.outcome.words())?;
    let measured = || alike.iter().filter_map(|action| action.measured);
    if let Some(longest) = measured().map(|measured| measured.longest_stop_ns).max() {
        let added = measured().fold(0_u64, |sum, measured| sum.saturating_add(measured.memory_added_bytes));
        let longest = duration_for_people(Duration::from_nanos(longest));
        write!(out, " (stopped {longest} at most, {} of memory added in all)", bytes_for_people(added))?;
    }
    if let (Some(why), Some(code)) = (&first.why, &first.code) {
        write!(out, "; {} [{}]", one_line(why), one_line(code))?;
    }
    let pids: Vec<u32> = alike.iter().map(|action| action.process.pid).collect();
    writeln!(out, "\n    {}", numbers(&pids, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carry::Ending;
    use crate::event::{ProcessRef, UpdateRef};

    fn action(pid: u32, program: &str, ending: Ending) -> Action {
        let update = UpdateRef { source: "x".into(), old_version: None, new_version: None };
        Action::new(ProcessRef { pid, start_ticks: 1, program: program.into() }, update, Vec::new(), ending)
    }

    fn text(actions: &[Action], verbose: bool) -> String {
        let mut out = Vec::new();
        action_lines(actions.iter(), &mut out, verbose).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_crowd_is_one_line_and_the_one_that_differs_stands_out() {
        let mut actions: Vec<Action> = (1..=12).map(|pid| action(pid, "/usr/sbin/nginx", Ending::Planned)).collect();
        actions.push(action(13, "/usr/sbin/nginx", Ending::Refused).because("struct-layout", "refused: struct-layout"));
        actions.extend((20..23).map(|pid| action(pid, "/usr/sbin/sshd", Ending::Planned)));
        assert_eq!(
            text(&actions, false),
            "  /usr/sbin/nginx: 12 processes would be patched\n\
             \x20   pids 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more (-v lists them)\n\
             \x20 pid 13 /usr/sbin/nginx: left: refused; refused: struct-layout [struct-layout]\n\
             \x20 pid 20 /usr/sbin/sshd: would be patched\n\
             \x20 pid 21 /usr/sbin/sshd: would be patched\n\
             \x20 pid 22 /usr/sbin/sshd: would be patched\n"
        );
        assert_eq!(text(&actions, true).lines().count(), 16, "with -v each by itself");
    }

    #[test]
    fn members_of_a_group_are_told_one_by_one() {
        let member = |pid| Action { group: vec![1, 2, 3, 4], ..action(pid, "/usr/bin/x", Ending::Planned) };
        let actions: Vec<Action> = (1..=4).map(member).collect();
        assert_eq!(text(&actions, false).lines().count(), 4);
    }
}
