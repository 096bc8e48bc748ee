//! Calls that a stop can cut short.
//!
//! The kernel makes a call again that a stop interrupted before it had done anything. One
//! that has moved a part by then returns that part, as after a signal: a `write` to a pipe of
//! fewer bytes than it was given. Programs without handlers need not expect that, and what
//! a call has moved so far cannot be seen from outside, nor can the rest be moved in its name
//! without a death of Salve coming between the two. So a thread that sleeps in such a call is
//! in the way, as one in a replaced function is (ADR 0102).
//!
//! Threads are looked at before anybody is interrupted, and the registers of those that stand
//! tell what was cut short all the same.

mod call;
mod look;
mod notes;

pub use look::{Asked, CutShort};
pub(crate) use look::{find, is_still_in, keep_in_mind, of_thread, tell};
pub(crate) use notes::Notes;
