//! Sends descriptors and the request, without ever blocking past the deadline.

use crate::error::DeriverError;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// A batch that fits into one message; the kernel's own limit is 253.
const DESCRIPTORS_A_MESSAGE: usize = 128;

/// What is still to be sent: blank lines that carry descriptors, then the request.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    descriptors: &'a [BorrowedFd<'a>],
    line: &'a [u8],
}

/// What became of one attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Some,
    /// The socket is full.
    Full,
    /// Too many descriptors are on their way; the other side has to take some.
    InFlight,
    /// Nobody reads any more; why will be seen on the reading side.
    Closed,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(descriptors: &'a [BorrowedFd<'a>], line: &'a [u8]) -> Self {
        Self { descriptors, line }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.descriptors.is_empty() && self.line.is_empty()
    }

    pub(crate) fn send_some(&mut self, socket: BorrowedFd<'_>) -> Result<Sent, DeriverError> {
        let batch = self.descriptors.get(..DESCRIPTORS_A_MESSAGE.min(self.descriptors.len())).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let bytes = if batch.is_empty() {
            self.line
        } else {
            control.push(SendAncillaryMessage::ScmRights(batch));
            b"\n"
        };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(sent) if batch.is_empty() => self.line = self.line.get(sent..).unwrap_or_default(),
            Ok(_) => self.descriptors = self.descriptors.get(batch.len()..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Sent::Full),
            Err(Errno::TOOMANYREFS) => return Ok(Sent::InFlight),
            Err(Errno::PIPE | Errno::CONNRESET) => {
                (self.descriptors, self.line) = (&[], &[]);
                return Ok(Sent::Closed);
            }
            Err(source) => return Err(DeriverError::Send { source }),
        }
        Ok(Sent::Some)
    }
}
