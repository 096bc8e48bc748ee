use crate::superset;
use core::hash::Hasher as _;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use salve_elf::{Image, ImageKind, Va, VaRange};
use std::hash::DefaultHasher;

/// How an instruction refers to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// Near call, relative.
    Call,
    /// Near jump or conditional jump, relative.
    Jump,
    /// `lea`: the address itself becomes a value.
    Address,
    /// An operand in memory at this address.
    Memory,
    /// A call or jump through a pointer in memory at this address.
    Indirect,
    /// A number in a fixed-address program that lies within the image: an
    /// address, or perhaps only a number.
    Absolute,
}

/// One field of one instruction that leads out of its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Offset of the instruction from the start of the function.
    pub at: u32,
    /// Offset of the field within the instruction.
    pub field: u8,
    pub field_len_bytes: u8,
    pub instruction_len_bytes: u8,
    pub kind: ReferenceKind,
    pub target: Va,
}

/// A function as the matcher sees it.
#[derive(Clone, Debug)]
pub struct CodeSummary {
    /// Over the bytes with reference fields masked.
    pub hash: u64,
    pub references: Vec<Reference>,
    /// Every byte was decoded into an instruction. Where not, the references are those of
    /// everything that could be executed there (`superset`), and all bytes are in the hash.
    pub decoded: bool,
    /// Holds a jump through a register: a switch's jump table, or a tail call.
    pub indirect_jump: bool,
}

/// A decoder over the bytes of `range`, with the addresses of the image.
pub fn decode<'a>(image: &Image<'a>, range: VaRange) -> Option<Decoder<'a>> {
    image.read(range).map(|bytes| Decoder::with_ip(64, bytes, range.start().raw(), DecoderOptions::NONE))
}

/// The one instruction at `at`.
pub fn decode_at(image: &Image<'_>, at: Va) -> Option<Instruction> {
    const LONGEST: u64 = 15;
    let left = image.section_at(at)?.range.end().raw().checked_sub(at.raw())?;
    decode(image, VaRange::new(at, left.min(LONGEST))?)?.into_iter().next()
}

/// Decodes one function. `None` if the range has no bytes.
///
/// Where that comes upon what is no instruction, nobody can say what the bytes are, and
/// the references are those of everything that might be executed there.
pub fn summarize(image: &Image<'_>, range: VaRange) -> Option<CodeSummary> {
    let bytes = image.read(range)?;
    let (references, indirect_jump, decoded) = match in_order(image, range, bytes) {
        Some((references, indirect_jump)) => (references, indirect_jump, true),
        None => (superset::references(image, range)?, false, false),
    };
    let mut hasher = DefaultHasher::new();
    if !decoded {
        // Equal byte for byte: which of them are a reference's nobody knows.
        hasher.write(bytes);
        return Some(CodeSummary { hash: hasher.finish(), references, decoded, indirect_jump });
    }
    // Bytes from here on are not in the hash yet.
    let mut unhashed = 0;
    for reference in &references {
        let from = usize::try_from(reference.at).ok()?.saturating_add(usize::from(reference.field));
        hasher.write(bytes.get(unhashed..from).unwrap_or_default());
        hasher.write_u8(kind_tag(reference.kind));
        unhashed = from.saturating_add(usize::from(reference.field_len_bytes));
    }
    hasher.write(bytes.get(unhashed..).unwrap_or_default());
    Some(CodeSummary { hash: hasher.finish(), references, decoded, indirect_jump })
}

/// The references, and whether one jumps through a register; `None` if not all of it is instructions.
pub(crate) fn in_order(image: &Image<'_>, range: VaRange, bytes: &[u8]) -> Option<(Vec<Reference>, bool)> {
    let mut decoder = Decoder::with_ip(64, bytes, range.start().raw(), DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut references = Vec::new();
    let mut indirect_jump = false;
    while decoder.can_decode() {
        let at = decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.code() == Code::INVALID {
            return None;
        }
        indirect_jump |=
            instruction.flow_control() == FlowControl::IndirectBranch && instruction.op0_kind() == OpKind::Register;
        references.extend(reference(image, range, &decoder, &instruction, at));
    }
    Some((references, indirect_jump))
}

fn kind_tag(kind: ReferenceKind) -> u8 {
    match kind {
        ReferenceKind::Call => 1,
        ReferenceKind::Jump => 2,
        ReferenceKind::Address => 3,
        ReferenceKind::Memory => 4,
        ReferenceKind::Indirect => 5,
        ReferenceKind::Absolute => 6,
    }
}

/// What one instruction refers to outside of its function.
pub(crate) fn reference(
    image: &Image<'_>,
    range: VaRange,
    decoder: &Decoder<'_>,
    instruction: &Instruction,
    at: usize,
) -> Option<Reference> {
    let offsets = decoder.get_constant_offsets(instruction);
    let make = |field: usize, len: usize, kind, target| {
        Some(Reference {
            at: u32::try_from(at).ok()?,
            field: u8::try_from(field).ok()?,
            field_len_bytes: u8::try_from(len).ok()?,
            instruction_len_bytes: u8::try_from(instruction.len()).ok()?,
            kind,
            target,
        })
    };
    if matches!(instruction.op0_kind(), OpKind::NearBranch64) {
        let target = Va::new(instruction.near_branch64());
        let kind =
            if instruction.flow_control() == FlowControl::Call { ReferenceKind::Call } else { ReferenceKind::Jump };
        // Within the function the distance is part of the code; a recursive call
        // to the entry is no different.
        if range.contains(target) {
            return None;
        }
        return make(offsets.immediate_offset(), offsets.immediate_size(), kind, target);
    }
    // Nothing executes it: what stands in place of its operand is a mark, such as that of
    // restartable sequences (`rseq(2)`).
    if matches!(instruction.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1) {
        return None;
    }
    if instruction.is_ip_rel_memory_operand() {
        let target = Va::new(instruction.ip_rel_memory_address());
        if range.contains(target) {
            return None;
        }
        let kind = match instruction.flow_control() {
            FlowControl::IndirectCall | FlowControl::IndirectBranch => ReferenceKind::Indirect,
            _ if instruction.mnemonic() == Mnemonic::Lea => ReferenceKind::Address,
            _ => ReferenceKind::Memory,
        };
        return make(offsets.displacement_offset(), offsets.displacement_size(), kind, target);
    }
    if image.kind() == ImageKind::PositionIndependent {
        return None;
    }
    absolute(image, instruction).and_then(|(target, is_displacement)| {
        let (field, len) = if is_displacement {
            (offsets.displacement_offset(), offsets.displacement_size())
        } else {
            (offsets.immediate_offset(), offsets.immediate_size())
        };
        if len < 4 {
            return None;
        }
        make(field, len, ReferenceKind::Absolute, target)
    })
}

/// A 32- or 64-bit number in an instruction that lies within the loaded image.
fn absolute(image: &Image<'_>, instruction: &Instruction) -> Option<(Va, bool)> {
    let span = image.span()?;
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
                let target = Va::new(instruction.immediate(operand));
                if span.contains(target) {
                    return Some((target, false));
                }
            }
            OpKind::Memory if instruction.memory_base() != Register::RIP => {
                let target = Va::new(instruction.memory_displacement64());
                if span.contains(target) {
                    return Some((target, true));
                }
            }
            _ => {}
        }
    }
    None
}
