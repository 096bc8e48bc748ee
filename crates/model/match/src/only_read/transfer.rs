//! What one instruction makes of what is held.

use super::frame::{Frame, Place};
use super::state::{Registers, State};
use iced_x86::{ConditionCode, Instruction, InstructionInfo, Mnemonic, OpAccess, OpKind, Register};
use salve_elf::{Va, VaRange};

/// What is shorter holds no address in a program that is not at a fixed one.
const ADDRESS_BYTES: usize = 8;

/// What is held behind it. `None` where an address goes to where it is not followed.
pub(super) fn transfer(
    instruction: &Instruction,
    info: &InstructionInfo,
    range: VaRange,
    state: &State,
) -> Option<State> {
    let leads_there =
        instruction.is_ip_rel_memory_operand() && range.contains(Va::new(instruction.ip_rel_memory_address()));
    let is_lea = instruction.mnemonic() == Mnemonic::Lea;
    let used = used(instruction, info);
    let mut address = used.data.meets(state.addresses) || (is_lea && leads_there);
    let mut value = used.data.meets(state.values);
    let mut out = state.clone();
    let is_table = |register: Register| state.addresses.has(register);
    for memory in info.used_memory() {
        let reads = reads(memory.access());
        let through = [memory.base(), memory.index()].into_iter().any(is_table);
        let place = Place::of(memory, is_table).filter(|_| reads);
        let kept = |frame: &Frame| place.as_ref().is_some_and(|place| frame.loads(place));
        value |= reads && (through || (leads_there && !is_lea)) || kept(&state.kept_values);
        if writes(memory.access()) && (through || (leads_there && !is_lea)) {
            // Nobody writes to a table among code: this is none.
            return None;
        }
    }
    if is_no_address(instruction.mnemonic()) {
        (address, value) = (false, value || address);
    }
    for memory in info.used_memory().iter().filter(|memory| writes(memory.access())) {
        let place = Place::of(memory, is_table);
        let part = memory.memory_size().size() < ADDRESS_BYTES;
        let (address, value) = (address && !part, value || address);
        if address {
            return None;
        }
        if let Some(place) = place.filter(|_| value) {
            out.kept_values.store(&place);
        }
    }
    for register in info.used_registers() {
        let (whole, merges) = match register.access() {
            OpAccess::Write | OpAccess::ReadWrite => (is_whole(instruction, register.register()), false),
            OpAccess::CondWrite | OpAccess::ReadCondWrite => (false, true),
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess => continue,
        };
        let register = register.register();
        if register.full_register() == Register::RSP {
            out.kept_values.moved(instruction);
        }
        if used.moves.has(register) {
            // A place in memory that moves on with each step.
            continue;
        }
        let keeps = !whole || merges;
        let part = register.is_gpr() && written_bytes(instruction, register) < ADDRESS_BYTES;
        out.addresses.set(register, (address && !part) || (keeps && state.addresses.has(register)));
        out.fresh.set(register, out.addresses.has(register));
        out.values.set(register, value || (address && part) || (keeps && state.values.has(register)));
    }
    Some(out)
}

/// Results that lead nowhere, whatever they are made of: products, shifts, long sums.
fn is_no_address(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Adc, Adcx, Adox, Bsf, Bsr, Bt, Bzhi, Div, Idiv, Imul, Lzcnt, Mul, Mulx, Popcnt, Rcl, Rcr, Sbb, Shld, Shrd,
        Tzcnt,
    };
    matches!(
        mnemonic,
        Adc | Adcx
            | Adox
            | Bsf
            | Bsr
            | Bt
            | Bzhi
            | Div
            | Idiv
            | Imul
            | Lzcnt
            | Mul
            | Mulx
            | Popcnt
            | Rcl
            | Rcr
            | Sbb
            | Shld
            | Shrd
            | Tzcnt
    )
}

/// What an instruction reads as data, and not to say where memory is.
struct Used {
    data: Registers,
    /// Say where memory is, and move on by themselves.
    moves: Registers,
}

fn used(instruction: &Instruction, info: &InstructionInfo) -> Used {
    let mut places = Registers::NONE;
    let mut moves = Registers::NONE;
    let is_lea = instruction.mnemonic() == Mnemonic::Lea;
    let mut explicit = Registers::NONE;
    for (operand, access) in (0..instruction.op_count()).zip(0..) {
        match instruction.op_kind(operand) {
            OpKind::Register if reads(info.op_access(access)) => explicit.set(instruction.op_register(operand), true),
            OpKind::Memory if !is_lea => {
                places.set(instruction.memory_base(), true);
                places.set(instruction.memory_index(), true);
            }
            OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => {
                moves = moves.and(Registers::of(&[Register::RSI, Register::RDI]));
                places = places.and(moves);
            }
            _ => {}
        }
    }
    // The stack's top says where memory is in pushes, pops, calls and returns.
    if instruction.is_stack_instruction() {
        places.set(Register::RSP, true);
        moves.set(Register::RSP, true);
    }
    let read = info.used_registers().iter().filter(|register| reads(register.access()));
    let mut data = Registers::NONE;
    for register in read {
        let register = register.register();
        if !places.has(register) || explicit.has(register) {
            data.set(register, true);
        }
    }
    Used { data, moves }
}

/// How many of its bytes an instruction gives a register; the others become zero, or stay.
fn written_bytes(instruction: &Instruction, register: Register) -> usize {
    let named = (0..instruction.op_count())
        .filter(|operand| instruction.op_kind(*operand) == OpKind::Register)
        .map(|operand| instruction.op_register(operand));
    named.filter(|named| named.full_register() == register.full_register()).map(Register::size).next().unwrap_or(8)
}

/// Whether nothing of the register stays when this part of it is written.
fn is_whole(instruction: &Instruction, register: Register) -> bool {
    let part = register.is_gpr16() || register.is_gpr8();
    // What these make of it is used as a truth value.
    !part || instruction.op_count() == 1 && instruction.condition_code() != ConditionCode::None
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}
