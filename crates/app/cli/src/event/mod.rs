//! Every decision and act, as an event with a stable shape (docs/events.md).

mod course;
mod history;
mod logs;
mod record;
mod sink;

pub(crate) use course::{Course, ProcessKey, StepKind, UpdateKey, seconds};
#[cfg(test)]
pub(crate) use history::Cause;
pub(crate) use history::{Day, History, Tried};
pub(crate) use record::{Blocker, Event, ImageRef, LeftSubject, LivepatchRef, ProcessRef, UpdateRef};
pub(crate) use sink::{EventLog, LogState, log_path};
