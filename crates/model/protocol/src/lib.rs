//! What `salve` and `salve-derive` say to each other.
//!
//! `salve-derive` is the process that parses foreign files: without privilege,
//! sandboxed, one request in its life. The two talk over one socket in JSON
//! lines: first the descriptors (as ancillary data of blank lines), then one
//! [`Request`] line; back come one [`Response::Hello`], any number of
//! [`Response::Progress`], and exactly one last line, a result or a
//! [`Response::Failed`]. A patch file is never sent through the socket: it is
//! written to a descriptor that the caller gave.
//!
//! Invariants: each direction has a limit on the length of a line; a reader
//! refuses another version, an unknown field and an unknown kind; a request
//! names a file by the index of its descriptor ([`Descriptor`]) and never by a
//! path that somebody would open.
//!
//! The two programs are built and shipped together, so the version has to be
//! equal; there is no negotiation to get wrong.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod assembly;
mod failure;
mod limits;
mod line;
mod probe;
mod request;
mod response;
mod sandbox;

pub use assembly::{AssemblyLine, AssemblyRow, AssemblyView, RowKind};
pub use failure::{Failure, FailureKind, LimitedResource, SideName};
pub use limits::{MAX_DESCRIPTORS, MAX_FILES_PER_SIDE, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ResourceLimits};
pub use line::{LineBuffer, LineError, decode, encode};
pub use probe::{ElfFacts, ProbeReport, ProbedFile, ProbedKind, UnusableFile};
pub use request::{Attempt, Descriptor, InputFile, InspectSides, Request, RequestError, Side, Task};
pub use response::{AttemptReport, DerivedImage, DerivedSummary, Hello, Progress, Response, Stage};
pub use sandbox::{Degradation, Enforcement, SandboxReport};

/// Version of the messages' shape. Both ends have to be of the same one.
pub const PROTOCOL_VERSION: u32 = 1;
