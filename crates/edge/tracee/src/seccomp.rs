//! Judging a target's system call filters before a call is made in it.
//!
//! A filter that refuses may kill the target, so a call is made only when every
//! filter, run here on the very arguments, says `ALLOW` or `LOG`. Suspending the
//! filters instead is not crash-safe: the suspension ends with the tracer.

use crate::sys::{self, BpfInstruction};

/// `struct seccomp_data` (`seccomp(2)`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) instruction_pointer: u64,
    pub(crate) arguments: [u64; 6],
}

/// As many as are read of one thread.
const MAX_FILTERS: usize = 64;

/// Those of a stopped thread, the newest first.
pub(crate) fn filters(tid: i32) -> Result<Vec<Vec<BpfInstruction>>, String> {
    let mut filters = Vec::new();
    for index in 0..MAX_FILTERS {
        match sys::seccomp_filter(tid, index) {
            Ok(Some(filter)) => filters.push(filter),
            Ok(None) => return Ok(filters),
            Err(errno) => return Err(errno.to_string()),
        }
    }
    Err("it has too many filters".to_owned())
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ACTION: u32 = 0xffff_0000;

/// Whether every filter lets the call pass; `None` when one cannot be judged.
pub(crate) fn allows(filters: &[Vec<BpfInstruction>], call: &Call) -> Option<bool> {
    let data = call.bytes();
    for filter in filters {
        match run(filter, &data)? & RET_ACTION {
            RET_ALLOW | RET_LOG => {}
            _ => return Some(false),
        }
    }
    Some(true)
}

impl Call {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let number = u32::try_from(self.number).unwrap_or(u32::MAX).to_le_bytes();
        let all = number
            .into_iter()
            .chain(AUDIT_ARCH_X86_64.to_le_bytes())
            .chain(self.instruction_pointer.to_le_bytes())
            .chain(self.arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }
}

/// The subset of classic BPF that `seccomp_check_filter` of the kernel admits.
/// Jumps only go forward, so a program ends.
fn run(program: &[BpfInstruction], data: &[u8; 64]) -> Option<u32> {
    let mut scratch = [0_u32; 16];
    let (mut a, mut x) = (0_u32, 0_u32);
    let mut at = 0_usize;
    loop {
        let BpfInstruction { code, jump_true, jump_false, k } = *program.get(at)?;
        at = at.checked_add(1)?;
        let slot = usize::try_from(k).ok()?;
        match code {
            0x20 => a = word(data, slot)?,
            0x00 => a = k,
            0x01 => x = k,
            0x80 => a = 64,
            0x81 => x = 64,
            0x60 => a = *scratch.get(slot)?,
            0x61 => x = *scratch.get(slot)?,
            0x02 => *scratch.get_mut(slot)? = a,
            0x03 => *scratch.get_mut(slot)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x84 => a = a.wrapping_neg(),
            0x05 => at = at.checked_add(slot)?,
            _ if code & 7 == 4 => a = arithmetic(code & 0xf0, a, if code & 8 == 0 { k } else { x })?,
            _ if code & 7 == 5 => {
                let jump =
                    if test(code & 0xf0, a, if code & 8 == 0 { k } else { x })? { jump_true } else { jump_false };
                at = at.checked_add(usize::from(jump))?;
            }
            _ => return None,
        }
    }
}

fn word(data: &[u8; 64], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    at.is_multiple_of(4).then_some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn arithmetic(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        // A division by zero ends the kernel's program with 0, which kills.
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.checked_shl(operand)?,
        0x70 => a.checked_shr(operand)?,
        0x90 => a.checked_rem(operand)?,
        0xa0 => a ^ operand,
        _ => return None,
    })
}

fn test(operation: u16, a: u32, operand: u32) -> Option<bool> {
    Some(match operation {
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        0x40 => a & operand != 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> BpfInstruction {
        BpfInstruction { code, jump_true, jump_false, k }
    }

    /// Allows call 9 with protection bit 4 clear, logs 11, kills the rest.
    fn filter() -> Vec<BpfInstruction> {
        vec![
            instruction(0x20, 0, 0, 4),
            instruction(0x15, 1, 0, AUDIT_ARCH_X86_64),
            instruction(0x06, 0, 0, 0x8000_0000),
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 3, 9),
            instruction(0x20, 0, 0, 32),
            instruction(0x45, 3, 0, 4),
            instruction(0x06, 0, 0, RET_ALLOW),
            instruction(0x15, 0, 1, 11),
            instruction(0x06, 0, 0, RET_LOG),
            instruction(0x06, 0, 0, 0x0005_0001),
        ]
    }

    fn call(number: u64, third: u64) -> Call {
        Call { number, instruction_pointer: 0, arguments: [0, 0, third, 0, 0, 0] }
    }

    #[test]
    fn a_filter_is_judged_on_numbers_and_arguments() {
        let filters = [filter()];
        assert_eq!(allows(&filters, &call(9, 3)), Some(true));
        assert_eq!(allows(&filters, &call(9, 7)), Some(false));
        assert_eq!(allows(&filters, &call(11, 0)), Some(true));
        assert_eq!(allows(&filters, &call(53, 0)), Some(false));
        assert_eq!(allows(&[], &call(53, 0)), Some(true));
    }

    #[test]
    fn an_unknown_instruction_or_a_jump_past_the_end_is_unknown() {
        assert_eq!(allows(&[vec![instruction(0xff, 0, 0, 0)]], &call(9, 0)), None);
        assert_eq!(allows(&[vec![instruction(0x05, 0, 0, 9)]], &call(9, 0)), None);
        assert_eq!(allows(&[vec![]], &call(9, 0)), None);
    }
}
