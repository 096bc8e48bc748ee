//! The life of the process: receive, give up everything, work, answer.

use crate::channel::{ReceiveError, Received, Replies, SendError, receive};
use crate::sandbox::{self, Mode, SandboxError};
use crate::task::{Work, attempt, derive, inspect, probe};
use rustix::fd::{AsRawFd, BorrowedFd};
use salve_protocol::{Failure, FailureKind, Hello, PROTOCOL_VERSION, Request, Response, Task};
use std::sync::Arc;

/// The channel did not do: there is nobody to tell but the exit status.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot receive a request")]
    Receive {
        #[source]
        source: ReceiveError,
    },
    #[error("cannot answer")]
    Send {
        #[source]
        source: SendError,
    },
}

/// Serves the one request that comes over `socket`. A request that fails is
/// answered, and no error here.
pub fn serve(socket: BorrowedFd<'_>, mode: Mode) -> Result<(), ServeError> {
    let replies = Replies::new(socket);
    let answer =
        |failure: Failure| replies.send(&Response::Failed(failure)).map_err(|source| ServeError::Send { source });
    let sandboxed = |error: SandboxError| Failure::new(FailureKind::Sandbox).caused_by(&error);
    let closed = match sandbox::close_inherited() {
        Ok(closed) => closed,
        Err(error) => return answer(sandboxed(error)),
    };
    let Received { request, descriptors } = match receive(socket) {
        Ok(received) => received,
        Err(error @ (ReceiveError::Line(_) | ReceiveError::Request(_) | ReceiveError::DescriptorsLost)) => {
            return answer(Failure::new(FailureKind::BadRequest).caused_by(&error));
        }
        Err(source @ (ReceiveError::Read { .. } | ReceiveError::Ended)) => {
            return Err(ServeError::Receive { source });
        }
    };
    let mut writable = vec![socket.as_raw_fd(), rustix::stdio::stderr().as_raw_fd()];
    if let Task::Derive { output, .. } = &request.task {
        let output = usize::try_from(output.0).ok().and_then(|index| descriptors.get(index));
        writable.extend(output.map(AsRawFd::as_raw_fd));
    }
    let (pool, report) = match sandbox::enter(mode, &request.limits, closed, &writable) {
        Ok(entered) => entered,
        Err(error) => return answer(sandboxed(error)),
    };
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        sandbox: report,
    };
    replies.send(&Response::Hello(hello)).map_err(|source| ServeError::Send { source })?;
    let work = Work { pool: &pool, replies, descriptors: Arc::new(descriptors), limits: request.limits };
    let response = dispatch(&work, &request).unwrap_or_else(Response::Failed);
    match replies.send(&response) {
        // An answer that is too long for the channel is a failure that is not.
        Err(SendError::Line(error)) => answer(Failure::new(FailureKind::Internal).caused_by(&error)),
        other => other.map_err(|source| ServeError::Send { source }),
    }
}

fn dispatch(work: &Work<'_>, request: &Request) -> Result<Response, Failure> {
    match &request.task {
        Task::Derive { old, new, output, created_by } => derive::run(work, old, new, *output, created_by),
        Task::InspectAssembly { function, image, sides } => inspect::run(work, function, image.as_deref(), sides),
        Task::Probe { side } => probe::run(work, side),
        Task::TrySandbox { attempt, input } => attempt::run(work, *attempt, *input),
    }
}
