//! What the command says, to people and to programs.

use super::carried::Carried;
use super::process::ProcessView;
use crate::command::exposure::Exposure;
use crate::command::without::Without;
use crate::console::Report;
use crate::event::ProcessRef;
use crate::exit::Exit;
use crate::problem::one_line;
use crate::switch;
use crate::view::{not_looked_at_line, programs};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
pub(crate) struct StatusReport {
    /// Whether Salve may change anything on this host.
    pub(super) switch: switch::State,
    /// Processes that carry something, or the one that was asked for.
    pub(super) processes: Vec<ProcessView>,
    pub(super) looked_at: u64,
    /// Processes that could not be looked at, for want of permission most often.
    pub(super) not_looked_at: u64,
    /// Who runs code that a livepatch replaces in others.
    pub(super) without: Vec<Without>,
    #[serde(flatten)]
    pub(super) exposure: Exposure,
    /// One process, that was asked for.
    #[serde(skip)]
    pub(super) single: bool,
}

impl StatusReport {
    /// What processes carry, each livepatch in each state once, with who carries it.
    pub(crate) fn carried(&self) -> Vec<(&Carried, Vec<&ProcessRef>)> {
        let mut by: Vec<(&Carried, Vec<&ProcessRef>)> = Vec::new();
        for view in &self.processes {
            for carried in &view.livepatches {
                let same = |one: &&mut (&Carried, Vec<&ProcessRef>)| {
                    (&one.0.id, one.0.state, one.0.on_restart, &one.0.path)
                        == (&carried.id, carried.state, carried.on_restart, &carried.path)
                };
                match by.iter_mut().find(same) {
                    Some((_, processes)) => processes.push(&view.process),
                    None => by.push((carried, vec![&view.process])),
                }
            }
        }
        by
    }

    /// Processes in which something is that nobody would want.
    pub(crate) fn strange(&self) -> impl Iterator<Item = &ProcessView> {
        self.processes.iter().filter(|view| !view.unreadable.is_empty() || !view.modified_text.is_empty())
    }

    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    pub(crate) fn switch(&self) -> &switch::State {
        &self.switch
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.looked_at, self.not_looked_at)
    }

    fn by_livepatch(&self, out: &mut dyn Write) -> io::Result<()> {
        let carried = self.carried();
        if !carried.is_empty() {
            writeln!(out, "livepatches in processes:")?;
        }
        for (carried, processes) in carried {
            carried.lines(out, false)?;
            programs(&processes, out, false)?;
        }
        self.without.iter().try_for_each(|without| without.lines(out, false))?;
        for view in self.strange() {
            writeln!(out, "pid {} {}", view.process.pid, one_line(&view.process.program))?;
            view.strange_lines(out)?;
        }
        Ok(())
    }
}

impl Report for StatusReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(words) = self.switch.words() {
            writeln!(out, "{words}: nothing is changed until `salve on`")?;
        }
        self.exposure.lines(out, verbose)?;
        if self.processes.iter().all(ProcessView::is_plain) {
            writeln!(out, "no process carries a livepatch ({} looked at)", self.looked_at)?;
        }
        for view in &self.processes {
            if let Some(left) = &view.left_alone {
                let program = one_line(&view.process.program);
                writeln!(out, "pid {} {program} is left alone: {} [{}]", view.process.pid, left.why, left.code)?;
            }
        }
        if self.single || verbose {
            self.processes.iter().filter(|view| !view.is_plain()).try_for_each(|view| view.lines(out, verbose))?;
            self.without.iter().try_for_each(|without| without.lines(out, verbose))?;
        } else {
            self.by_livepatch(out)?;
        }
        not_looked_at_line(self.not_looked_at, out)
    }
}
