//! Where the value that one instruction makes goes, within its function.
//!
//! The value is followed along every path from the instruction that makes it,
//! through registers and through the function's own frame, until it is
//! overwritten everywhere or handed to a call. What is asked is whether the
//! function itself ever *examines* it: reads through it, compares it,
//! calculates with it, stores it outside its frame or returns it. Anything the
//! trace does not understand counts as examined.

mod calculate;
mod call;
mod frame;
mod stack;
mod state;
mod step;
mod trace;

use crate::side::Side;
pub use calculate::{Addend, calculated, is_used};
use iced_x86::{Instruction, OpKind};
use salve_code::decode;
use salve_elf::{Va, VaRange};
pub use stack::{StackChange, stack_change};
use state::number;
pub(crate) use state::{ARGUMENTS, PRESERVED};
use std::collections::{BTreeSet, HashMap};
use trace::trace;

/// Whether and whither a value leaves its function unexamined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Only ever handed to these calls (targets as the instructions state them).
    Calls(BTreeSet<Destination>),
    /// Examined at this instruction, or the trace ended in doubt there.
    Examined { at: Va, how: &'static str },
}

/// A call that receives the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub call_at: Va,
    /// `None` for a call through a register or memory that is no import slot.
    pub target: Option<Va>,
    /// How it is handed over.
    pub by: Handover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handover {
    /// In the n-th integer argument register (psABI §3.2.3).
    Register(u8),
    /// In the frame: a stack argument, or an object whose address the callee gets.
    Frame,
    /// Still in a slot below the stack pointer's base while a later call is made,
    /// which may have the address of an object there.
    Lingering,
}

/// Follows the value in the first operand of the instruction at `from`.
pub fn follow(side: &Side<'_, '_>, range: VaRange, from: Va) -> Flow {
    let doubt = |how| Flow::Examined { at: from, how };
    let Some(code) = instructions(side, range) else { return doubt("no code") };
    let Some(origin) = code.get(&from.raw()) else { return doubt("no instruction") };
    let Some(register) = (origin.op0_kind() == OpKind::Register).then(|| number(origin.op0_register())).flatten()
    else {
        return doubt("not a value in a register");
    };
    trace(&code, range, origin.next_ip(), register)
}

/// Follows the n-th integer argument of the function in `range`.
pub(crate) fn follow_argument(side: &Side<'_, '_>, range: VaRange, argument: u8) -> Flow {
    let doubt = |how| Flow::Examined { at: range.start(), how };
    let Some(code) = instructions(side, range) else { return doubt("no code") };
    let register = ARGUMENTS.get(usize::from(argument)).and_then(|r| number(*r));
    let Some(register) = register else { return doubt("no argument register") };
    trace(&code, range, range.start().raw(), register)
}

fn instructions(side: &Side<'_, '_>, range: VaRange) -> Option<HashMap<u64, Instruction>> {
    decode(side.image, range).map(|decoder| decoder.into_iter().map(|i| (i.ip(), i)).collect())
}
