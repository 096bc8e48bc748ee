//! Parses foreign files, and nothing else.
//!
//! One process, one request: descriptors and a request come in over the socket
//! on standard input, everything is given up (`sandbox`), and only then is
//! the first foreign byte read. The answer goes back over the socket, a patch
//! file into the descriptor that was given for it. The library is for the
//! program and its tests; nobody else links it.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test that fails to set up has failed"
    )
)]

mod channel;
mod fault;
mod input;
mod output;
mod packages;
mod pairing;
pub mod pipeline;
mod pool;
mod report;
mod sandbox;
mod serve;
mod side;
mod task;

pub use sandbox::Mode;
pub use serve::{ServeError, serve};
