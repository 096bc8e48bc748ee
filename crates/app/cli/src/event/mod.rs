//! Every decision and act, as an event with a stable shape (docs/events.md).

mod record;
mod sink;

pub(crate) use record::{Blocker, Event, ImageRef, LeftSubject, LivepatchRef, ProcessRef, UpdateRef};
pub(crate) use sink::{EventLog, LogState};
