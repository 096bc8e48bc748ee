//! One process: what it carries, and what is in it that nobody would want.

use super::carried::{Carried, State};
use crate::event::ProcessRef;
use crate::machine::disk::Disk;
use crate::problem::one_line;
use salve_elf::ContentHash;
use salve_tracee::ProcessStatus;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
pub(crate) struct ProcessView {
    pub(super) process: ProcessRef,
    pub(super) livepatches: Vec<Carried>,
    /// Payloads that are not what Salve would have delivered.
    pub(super) unreadable: Vec<Unreadable>,
    /// Code that differs from its file and that no livepatch explains.
    pub(super) modified_text: Vec<Modified>,
    pub(super) leftover_stubs: u64,
    /// Why `heal` and `apply --all` leave it alone, if they do.
    pub(super) left_alone: Option<LeftAlone>,
}

#[derive(Serialize)]
pub(super) struct LeftAlone {
    pub(super) code: &'static str,
    pub(super) why: String,
}

#[derive(Serialize)]
pub(super) struct Unreadable {
    at: String,
    name: String,
    why: String,
}

#[derive(Serialize)]
pub(super) struct Modified {
    pub(super) path: String,
    pub(super) va: String,
    pub(super) len_bytes: u64,
}

impl ProcessView {
    pub(super) fn of(process: ProcessRef, status: &ProcessStatus, disk: &mut Disk) -> Self {
        Self {
            process,
            livepatches: status.livepatches.iter().map(|livepatch| Carried::of(livepatch, disk)).collect(),
            unreadable: status
                .unreadable
                .iter()
                .map(|payload| Unreadable {
                    at: payload.at.to_string(),
                    name: payload.name.to_string_lossy().into_owned(),
                    why: payload.why.clone(),
                })
                .collect(),
            modified_text: status
                .modified_text
                .iter()
                .map(|text| Modified {
                    path: text.path.to_string_lossy().into_owned(),
                    va: text.va.to_string(),
                    len_bytes: text.len_bytes,
                })
                .collect(),
            leftover_stubs: u64::try_from(status.leftover_stubs).unwrap_or(u64::MAX),
            left_alone: None,
        }
    }

    /// The contents that livepatches in force replace.
    pub(super) fn replaced(&self) -> impl Iterator<Item = ContentHash> + '_ {
        self.livepatches.iter().filter(|one| one.state != State::Reverted).filter_map(|one| one.old_sha256)
    }

    /// Nothing that anybody would want to hear of.
    pub(super) fn is_plain(&self) -> bool {
        self.livepatches.is_empty() && self.unreadable.is_empty() && self.modified_text.is_empty()
    }

    pub(super) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        writeln!(out, "pid {} {}", self.process.pid, one_line(&self.process.program))?;
        self.livepatches.iter().try_for_each(|livepatch| livepatch.lines(out, verbose))?;
        self.strange_lines(out)
    }

    pub(crate) fn strange_lines(&self, out: &mut dyn Write) -> io::Result<()> {
        for payload in &self.unreadable {
            writeln!(
                out,
                "  unreadable payload {} at {}: {}",
                one_line(&payload.name),
                payload.at,
                one_line(&payload.why)
            )?;
        }
        for text in &self.modified_text {
            writeln!(
                out,
                "  code of {} differs from its file at {} ({} bytes), and no livepatch explains it",
                one_line(&text.path),
                text.va,
                text.len_bytes
            )?;
        }
        Ok(())
    }

    pub(crate) fn process(&self) -> &ProcessRef {
        &self.process
    }
}
