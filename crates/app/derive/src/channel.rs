//! The socket on standard input: one request in, responses out.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use salve_protocol::{
    LineBuffer, LineError, MAX_DESCRIPTORS, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Request, RequestError, Response,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;

/// Most descriptors that the kernel passes in one message (`SCM_MAX_FD`).
const DESCRIPTORS_A_MESSAGE: usize = 253;

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("cannot read from the channel")]
    Read {
        #[source]
        source: Errno,
    },
    #[error("descriptors were lost on the way (the limit on open descriptors is too low)")]
    DescriptorsLost,
    #[error("the channel ended before a request came")]
    Ended,
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A checked request and the descriptors it names, in order.
#[derive(Debug)]
pub(crate) struct Received {
    pub request: Request,
    pub descriptors: Vec<OwnedFd>,
}

pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Received, ReceiveError> {
    let mut lines = LineBuffer::new(MAX_REQUEST_BYTES);
    let mut descriptors = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    let line = loop {
        if let Some(line) = lines.next_line()? {
            break line;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(Errno::INTR) => continue,
            other => other.map_err(|source| ReceiveError::Read { source })?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ReceiveError::DescriptorsLost);
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(RequestError::TooManyDescriptors { have: descriptors.len(), limit: MAX_DESCRIPTORS }.into());
        }
        match bytes.get(..message.bytes) {
            Some([]) | None => return Err(ReceiveError::Ended),
            Some(read) => lines.push(read),
        }
    };
    let request: Request = salve_protocol::decode(&line)?;
    request.check(descriptors.len())?;
    Ok(Received { request, descriptors })
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("cannot write to the channel")]
    Write {
        #[source]
        source: Errno,
    },
}

/// Where responses go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replies<'fd> {
    socket: BorrowedFd<'fd>,
}

impl<'fd> Replies<'fd> {
    pub(crate) fn new(socket: BorrowedFd<'fd>) -> Self {
        Self { socket }
    }

    pub(crate) fn send(self, response: &Response) -> Result<(), SendError> {
        self.send_bytes(&salve_protocol::encode(response, MAX_RESPONSE_BYTES)?)
    }

    pub(crate) fn send_bytes(self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            match rustix::io::write(self.socket.as_fd(), bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(source) => return Err(SendError::Write { source }),
            }
        }
        Ok(())
    }
}
