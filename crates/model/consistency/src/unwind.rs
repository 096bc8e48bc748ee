//! One step of strict unwinding by DWARF call frame information (DWARF 5 §6.4,
//! psABI §3.7). Every rule that is not understood ends the walk as unproven.

use crate::memory::{Memory, Missing};
use crate::tables::{Entry, Slice, UnwindTablesOf};
use gimli::{CfaRule, EvaluationResult, Register, RegisterRule, UnwindContext, UnwindExpression, Value};
use salve_elf::RuntimeAddr;

/// DWARF numbers of x86-64 registers (psABI figure 3.36).
pub(crate) const RSP: usize = 7;
const RETURN_ADDRESS: Register = Register(16);
/// rbx, rbp, r12 to r15 belong to the caller (psABI §3.2.1).
const CALLEE_SAVED: [usize; 6] = [3, 6, 12, 13, 14, 15];
/// Steps of one DWARF expression; the longest in use (signal frames) has four.
const MAX_EXPRESSION_STEPS: u32 = 256;

/// A frame as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) pc: RuntimeAddr,
    /// `pc` is where execution stands, not where a call returns to.
    pub(crate) exact: bool,
    pub(crate) registers: [Option<u64>; 16],
}

impl Frame {
    /// The address whose rules apply. A return address may lie behind the last
    /// instruction of its function, so one less is looked up.
    pub(crate) fn lookup(&self) -> RuntimeAddr {
        if self.exact { self.pc } else { RuntimeAddr::new(self.pc.raw().wrapping_sub(1)) }
    }
}

pub(crate) enum Unwound {
    Caller(Box<Frame>),
    /// The return address is declared undefined: there is no caller.
    Outermost,
}

/// What keeps a step from being made.
pub(crate) enum Stop {
    Memory(Missing),
    Unproven,
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Self {
        Self::Memory(missing)
    }
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Self {
        Self::Unproven
    }
}

pub(crate) fn step(frame: &Frame, images: &[UnwindTablesOf<'_>], memory: &Memory) -> Result<Unwound, Stop> {
    let at = frame.lookup();
    let entry = images.iter().find(|image| image.covers(at)).and_then(|image| image.entry(at)).ok_or(Stop::Unproven)?;
    let mut context = UnwindContext::new();
    let row = entry.fde.unwind_info_for_address(&entry.section, &entry.bases, &mut context, entry.va)?;
    let reader = Reader { entry: &entry, frame, memory };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => reader.register(*register)?.wrapping_add_signed(*offset),
        CfaRule::Expression(expression) => reader.evaluate(expression, None)?,
    };
    let signal_frame = entry.fde.cie().is_signal_trampoline();
    // A caller's frame lies above its callee's. Only a signal frame may lead elsewhere:
    // from an alternate stack back to the thread's own.
    let stack_pointer = reader.register(Register(7))?;
    if cfa <= stack_pointer && !signal_frame {
        return Err(Stop::Unproven);
    }
    if entry.fde.cie().return_address_register() != RETURN_ADDRESS {
        return Err(Stop::Unproven);
    }
    let pc = match row.register(RETURN_ADDRESS) {
        Some(RegisterRule::Undefined) => return Ok(Unwound::Outermost),
        Some(rule) => reader.rule(&rule, RETURN_ADDRESS, cfa)?.ok_or(Stop::Unproven)?,
        None => return Err(Stop::Unproven),
    };
    let mut registers = [None; 16];
    for (index, slot) in registers.iter_mut().enumerate() {
        let register = Register(u16::try_from(index).map_err(|_| Stop::Unproven)?);
        *slot = match row.register(register) {
            Some(rule) => reader.rule(&rule, register, cfa)?,
            None if index == RSP => Some(cfa),
            None if CALLEE_SAVED.contains(&index) => frame.registers.get(index).copied().flatten(),
            None => None,
        };
    }
    Ok(Unwound::Caller(Box::new(Frame { pc: RuntimeAddr::new(pc), exact: signal_frame, registers })))
}

struct Reader<'r, 'a> {
    entry: &'r Entry<'a>,
    frame: &'r Frame,
    memory: &'r Memory,
}

impl Reader<'_, '_> {
    fn register(&self, register: Register) -> Result<u64, Stop> {
        self.frame.registers.get(usize::from(register.0)).copied().flatten().ok_or(Stop::Unproven)
    }

    /// The caller's value of `register`; `None` where it is not recoverable.
    fn rule(&self, rule: &RegisterRule<usize>, register: Register, cfa: u64) -> Result<Option<u64>, Stop> {
        Ok(match rule {
            RegisterRule::Undefined => None,
            RegisterRule::SameValue => self.frame.registers.get(usize::from(register.0)).copied().flatten(),
            RegisterRule::Offset(offset) => Some(self.memory.word(cfa.wrapping_add_signed(*offset))?),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => Some(self.register(*other)?),
            RegisterRule::Expression(expression) => Some(self.memory.word(self.evaluate(expression, Some(cfa))?)?),
            RegisterRule::ValExpression(expression) => Some(self.evaluate(expression, Some(cfa))?),
            RegisterRule::Constant(value) => Some(*value),
            RegisterRule::Architectural => return Err(Stop::Unproven),
        })
    }

    fn evaluate(&self, expression: &UnwindExpression<usize>, cfa: Option<u64>) -> Result<u64, Stop> {
        let expression: gimli::Expression<Slice<'_>> = expression.get(&self.entry.section)?;
        let mut evaluation = expression.evaluation(self.entry.fde.cie().encoding());
        evaluation.set_max_iterations(MAX_EXPRESSION_STEPS);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut state = evaluation.evaluate()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                    evaluation.resume_with_memory(Value::Generic(self.memory.word(address)?))?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.register(register)?))?
                }
                _ => return Err(Stop::Unproven),
            };
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                gimli::Location::Address { address } => Ok(address),
                _ => Err(Stop::Unproven),
            },
            _ => Err(Stop::Unproven),
        }
    }
}
