//! What an instruction does with what is known.

use super::form::{Form, Origin, Store};
use super::state::State;
use super::vector::Lanes;
use super::{Access, Call, Comparison, Forms, LOADED, Tested, Worked};
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use salve_elf::{Va, VaRange};
use smallvec::smallvec;

/// Records what the instruction accesses, compares and calls.
pub(super) fn note(
    state: &State,
    store: &mut Store,
    instruction: &Instruction,
    range: VaRange,
    factory: &mut InstructionInfoFactory,
    found: &mut Forms,
) {
    let calls = match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => true,
        FlowControl::UnconditionalBranch => !range.contains(Va::new(instruction.near_branch64())),
        FlowControl::IndirectBranch => instruction.is_ip_rel_memory_operand(),
        _ => false,
    };
    if calls {
        let arguments = state.arguments().map(|id| id.map(|id| store.form(id).clone()).unwrap_or_default());
        found.calls.push(Call { at: Va::new(instruction.ip()), arguments });
    }
    if instruction.mnemonic() == Mnemonic::Cmp
        && let (Some(left), Some(right)) = (state.operand(store, instruction, 0), state.operand(store, instruction, 1))
    {
        let (left, right) = (store.form(left).clone(), store.form(right).clone());
        found.comparisons.push(Comparison { at: Va::new(instruction.ip()), left, right });
    }
    found.tested.extend(tested(state, store, instruction));
    if works_on_bits(instruction) {
        for operand in 0..instruction.op_count().min(2) {
            if instruction.op_kind(operand) == OpKind::Register
                && let Some(value) = state.get(instruction.op_register(operand))
            {
                found.worked.push(Worked { at: Va::new(instruction.ip()), value: store.form(value).clone() });
            }
        }
    }
    if matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop) {
        return;
    }
    let has_operand = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    if has_operand && let Some(whole) = access(state, store, instruction, factory) {
        lanes(state, store, instruction, whole, &mut found.accesses);
    }
}

/// The operand in memory, where it is not in the frame.
fn access(
    state: &State,
    store: &mut Store,
    instruction: &Instruction,
    factory: &mut InstructionInfoFactory,
) -> Option<Access> {
    let used = factory.info(instruction).used_memory().first()?.access();
    let address = state.address(store, instruction);
    if State::slot(store, address).is_some() {
        return None;
    }
    let writes = !matches!(used, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
    let moves = instruction.mnemonic() == Mnemonic::Mov;
    let exchanges = instruction.mnemonic() == Mnemonic::Xchg && instruction.op0_kind() == OpKind::Memory;
    let stored = if (moves || exchanges) && writes { state.operand(store, instruction, 1) } else { None };
    let is_integer = moves
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::Cmp | Mnemonic::Cvtsi2ss | Mnemonic::Cvtsi2sd
        );
    Some(Access {
        at: Va::new(instruction.ip()),
        address: store.form(address).clone(),
        len_bytes: instruction.memory_size().size(),
        writes,
        stored: stored.map(|id| store.form(id).clone()),
        is_integer,
        is_float: is_float(instruction),
    })
}

/// What a vector register stores, lane by lane; a part of which nothing is known by itself.
fn lanes(state: &State, store: &Store, instruction: &Instruction, whole: Access, accesses: &mut Vec<Access>) {
    let lanes = if whole.writes { state.stored_lanes(instruction) } else { Lanes::new() };
    let behind = |at: u8| {
        let mut address = whole.address.clone();
        address.constant = address.constant.wrapping_add(i64::from(at));
        address
    };
    for lane in &lanes {
        accesses.push(Access {
            address: behind(lane.at),
            len_bytes: usize::from(lane.len_bytes),
            stored: Some(store.form(lane.value).clone()),
            ..whole.clone()
        });
    }
    let known: usize = lanes.iter().map(|lane| usize::from(lane.len_bytes)).sum();
    if known < whole.len_bytes {
        let first = lanes.iter().map(|lane| lane.at).min();
        let behind_them = lanes.iter().map(|lane| lane.at.saturating_add(lane.len_bytes)).max().unwrap_or(0);
        let at = if first == Some(0) { behind_them } else { 0 };
        accesses.push(Access { address: behind(at), len_bytes: whole.len_bytes.saturating_sub(known), ..whole });
    }
}

/// Takes bits of what it is given, moves them or changes them, and not its own to test or clear it.
fn works_on_bits(instruction: &Instruction) -> bool {
    use Mnemonic::{And, Bswap, Bt, Btc, Btr, Bts, Not, Or, Rol, Ror, Sar, Shl, Shr, Test, Xor};
    let with_itself = instruction.op_count() == 2
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let works = matches!(
        instruction.mnemonic(),
        And | Bswap | Bt | Btc | Btr | Bts | Not | Or | Rol | Ror | Sar | Shl | Shr | Test | Xor
    );
    works && !with_itself
}

/// A comparison with a number; `test` of a register with itself is one with zero.
fn tested(state: &State, store: &Store, instruction: &Instruction) -> Option<Tested> {
    let mnemonic = instruction.mnemonic();
    let itself = mnemonic == Mnemonic::Test
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let number = match instruction.op1_kind() {
        OpKind::Register | OpKind::Memory => None,
        _ if mnemonic == Mnemonic::Cmp => Some(instruction.immediate(1)),
        _ => None,
    };
    let with = if itself { 0 } else { number? };
    let (value, len_bytes) = match instruction.op0_kind() {
        OpKind::Register => {
            let value = store.form(state.get(instruction.op0_register())?);
            (value.clone(), instruction.op0_register().size())
        }
        OpKind::Memory => {
            let terms = smallvec![(Origin::Made(instruction.ip(), LOADED), 1)];
            (Form { terms, constant: 0 }, instruction.memory_size().size())
        }
        _ => return None,
    };
    let bits = u32::try_from(len_bytes.saturating_mul(8)).ok().filter(|bits| (1..=64).contains(bits))?;
    let mask = u64::MAX.checked_shr(64_u32.saturating_sub(bits))?;
    Some(Tested { at: Va::new(instruction.ip()), value, with: with & mask, len_bytes })
}

/// Scalar arithmetic of SSE on a single or double: the operand in memory is one.
fn is_float(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Movss
            | Mnemonic::Addss
            | Mnemonic::Addsd
            | Mnemonic::Subss
            | Mnemonic::Subsd
            | Mnemonic::Mulss
            | Mnemonic::Mulsd
            | Mnemonic::Divss
            | Mnemonic::Divsd
            | Mnemonic::Comiss
            | Mnemonic::Comisd
            | Mnemonic::Ucomiss
            | Mnemonic::Ucomisd
            | Mnemonic::Cvtss2sd
            | Mnemonic::Cvtsd2ss
            | Mnemonic::Cvttss2si
            | Mnemonic::Cvttsd2si
    )
}
