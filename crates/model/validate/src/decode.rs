//! One instruction at a time: how long it is, where control goes next, and which
//! of its bytes are a reference.
//!
//! The decoder says what the operands are; where their bytes stand is found by a
//! second, much smaller reading of the encoding ([`crate::encoding`]). The two
//! have to agree on whether there is a reference and on its value, or the
//! instruction counts as not understood: an operand that one of them overlooks
//! cannot become a reference that nobody checked. Nothing here depends on the values of displacements and
//! immediates, so two byte strings that differ only there decode alike.

use crate::encoding::{Encoding, Undecoded};
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec, Segment};

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    /// Conditional branch; the target is a reference.
    Branch,
    /// Direct jump; the target is a reference.
    Jump,
    /// Direct call; the target is a reference.
    Call,
    IndirectJump,
    IndirectCall,
    /// Return, trap or halt: nothing follows.
    Stop,
    /// A system call: something follows unless the kernel does not return.
    SystemCall,
}

/// What an instruction does with the place it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Jumps or branches there.
    Jump,
    Call,
    /// Reads or writes so many bytes there; `None` where that depends on the processor.
    Access(Option<u8>),
    /// Jumps or calls through the pointer there.
    Through,
    /// Takes the address.
    Address,
    /// Not an instruction: a pointer in data.
    Pointer,
    /// Not an instruction: what may be an entry of a jump table.
    Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Signed distance from the following instruction.
    Next,
    /// The address itself, perhaps with registers added.
    Absolute,
}

/// A field of an instruction that may hold a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Offset in the instruction.
    pub(crate) offset: usize,
    /// 1, 4 or 8, little endian, sign-extended.
    pub(crate) width: usize,
    pub(crate) base: Base,
    pub(crate) role: Use,
}

impl Field {
    pub(crate) fn read(&self, instruction: &[u8]) -> Option<i64> {
        let bytes = instruction.get(self.offset..)?;
        match self.width {
            1 => Some(i64::from(i8::from_le_bytes(*bytes.first_chunk()?))),
            4 => Some(i64::from(i32::from_le_bytes(*bytes.first_chunk()?))),
            8 => Some(i64::from_le_bytes(*bytes.first_chunk()?)),
            _ => None,
        }
    }

    pub(crate) fn covers(&self, offset: usize) -> bool {
        (self.offset..self.offset.saturating_add(self.width)).contains(&offset)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Instr {
    pub(crate) len: usize,
    pub(crate) flow: Flow,
    /// References; absolute ones only where the caller asked for them.
    pub(crate) fields: [Option<Field>; 2],
    /// Bytes of the immediate operand at the end.
    pub(crate) immediate: usize,
    /// Refers to thread-local storage by a distance from the thread pointer.
    pub(crate) thread_relative: bool,
    pub(crate) is_nop: bool,
    /// May write to the memory that it names: all but those that are known not to.
    pub(crate) writes: bool,
    /// Offset and width of the distance from the stack pointer alone at which it names memory.
    pub(crate) in_frame: Option<(usize, usize)>,
}

impl Instr {
    /// The byte at `offset` says where in the function's frame something is.
    pub(crate) fn is_in_frame(&self, offset: usize) -> bool {
        self.in_frame.is_some_and(|(at, width)| (at..at.saturating_add(width)).contains(&offset))
    }
}

pub(crate) struct Decoder(InstDecoder);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(InstDecoder::default())
    }

    /// The instruction at the start of `bytes`; `None` if it is not understood.
    /// `absolute` asks for absolute fields too, which only fixed images have.
    pub(crate) fn decode(&self, bytes: &[u8], absolute: bool) -> Option<Instr> {
        // No instruction is longer; a longer slice only invites overreading.
        let window = bytes.get(..bytes.len().min(15))?;
        let Ok(instruction) = self.0.decode_slice(window) else { return undecoded(window, absolute) };
        let len = usize::try_from(yaxpeax_arch::LengthedInstruction::len(&instruction).to_const()).ok()?;
        let bytes = window.get(..len)?;
        let encoding = Encoding::of(bytes)?;
        let opcode = instruction.opcode();
        let flow = flow(&instruction, opcode);
        let mut out = Instr {
            len,
            flow,
            fields: [None; 2],
            immediate: 0,
            thread_relative: false,
            is_nop: opcode == Opcode::NOP,
            writes: false,
            in_frame: None,
        };
        if encoding.is_branch != matches!(flow, Flow::Branch | Flow::Jump | Flow::Call) {
            return None;
        }
        let mut refers_to_next = false;
        for index in 0..instruction.operand_count().min(4) {
            let operand = instruction.operand(index);
            if let Some(value) = immediate(&operand) {
                if encoding.is_branch {
                    let role = if flow == Flow::Call { Use::Call } else { Use::Jump };
                    out.push(encoding.immediate(bytes, value, Base::Next, role)?);
                } else {
                    out.immediate = encoding.immediate_width;
                    if absolute && out.immediate >= 4 {
                        out.push(encoding.immediate(bytes, value, Base::Absolute, Use::Address)?);
                    }
                }
                continue;
            }
            let Some(memory) = memory(&operand)? else { continue };
            // Nothing executes it: what stands in place of its operand is a mark, such as that
            // of restartable sequences (`rseq(2)`).
            if matches!(opcode, Opcode::UD0 | Opcode::UD1) {
                refers_to_next |= memory.rip;
                continue;
            }
            if matches!(operand, Operand::Disp { base, .. } if base == RegSpec::rsp()) {
                out.in_frame = Some((encoding.displacement_at, encoding.displacement_width));
            }
            out.writes |= opcode == Opcode::XCHG || index == 0 && !only_reads(opcode);
            if matches!(instruction.segment_override_for_op(index), Some(Segment::FS | Segment::GS)) {
                // The stack protector's cookie is part of the platform, not of the image.
                out.thread_relative |= !(memory.is_bare() && memory.value == 0x28);
                // A distance from the instruction would have no meaning here.
                if memory.rip {
                    return None;
                }
                continue;
            }
            if memory.rip {
                refers_to_next = true;
                let role = role(&instruction, flow, opcode);
                out.push(encoding.displacement(bytes, memory.value, Base::Next, role)?);
            } else if absolute && encoding.displacement_width >= 4 {
                let role = if memory.is_bare() { role(&instruction, flow, opcode) } else { Use::Address };
                out.push(encoding.displacement(bytes, memory.value, Base::Absolute, role)?);
            }
        }
        (encoding.is_next_relative == refers_to_next).then_some(out)
    }
}

/// An instruction that the decoder does not know. It may read as much as a register holds.
fn undecoded(window: &[u8], absolute: bool) -> Option<Instr> {
    const WIDEST: u8 = 64;
    let instruction = Undecoded::of(window)?;
    let bytes = window.get(..instruction.len)?;
    let encoding = Encoding::of(bytes)?;
    let mut out = Instr {
        len: instruction.len,
        flow: Flow::Next,
        fields: [None; 2],
        immediate: encoding.immediate_width,
        thread_relative: false,
        is_nop: false,
        writes: true,
        in_frame: None,
    };
    if absolute && instruction.has_memory && encoding.displacement_width >= 4 && !encoding.is_next_relative {
        return None;
    }
    if encoding.is_next_relative {
        let (offset, width) = (encoding.displacement_at, encoding.displacement_width);
        out.push(Field { offset, width, base: Base::Next, role: Use::Access(Some(WIDEST)) });
    }
    Some(out)
}

impl Instr {
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        self.fields.iter().flatten().copied()
    }

    fn push(&mut self, field: Field) {
        match &mut self.fields {
            [first @ None, _] => *first = Some(field),
            // An instruction that reads and writes one place (`xchg`) names it once.
            [Some(first), second @ None] if *first != field => *second = Some(field),
            [..] => {}
        }
    }
}

fn flow(instruction: &Instruction, opcode: Opcode) -> Flow {
    let direct = instruction.operand_count() > 0 && immediate(&instruction.operand(0)).is_some();
    match opcode {
        Opcode::JMP if direct => Flow::Jump,
        Opcode::JMP | Opcode::JMPF => Flow::IndirectJump,
        Opcode::CALL if direct => Flow::Call,
        Opcode::CALL | Opcode::CALLF => Flow::IndirectCall,
        Opcode::RETURN
        | Opcode::RETF
        | Opcode::IRET
        | Opcode::IRETD
        | Opcode::IRETQ
        | Opcode::UD0
        | Opcode::UD1
        | Opcode::UD2
        | Opcode::HLT
        // int3 and int 0x29: assertions that nothing survives.
        | Opcode::INT => Flow::Stop,
        Opcode::SYSCALL | Opcode::SYSENTER => Flow::SystemCall,
        Opcode::LOOP | Opcode::LOOPZ | Opcode::LOOPNZ | Opcode::JRCXZ | Opcode::XBEGIN => Flow::Branch,
        _ if instruction.opcode().is_jcc() => Flow::Branch,
        _ => Flow::Next,
    }
}

fn role(instruction: &Instruction, flow: Flow, opcode: Opcode) -> Use {
    match (flow, opcode) {
        (Flow::IndirectJump | Flow::IndirectCall, _) => Use::Through,
        // A no-operation reads nothing, like `lea`.
        (_, Opcode::LEA | Opcode::NOP) => Use::Address,
        _ => Use::Access(instruction.mem_size().and_then(|size| size.bytes_size())),
    }
}

/// Instructions whose first operand is read and not written.
fn only_reads(opcode: Opcode) -> bool {
    use Opcode::{BT, CALL, CALLF, CMP, DIV, IDIV, IMUL, JMP, JMPF, MUL, NOP, PUSH, TEST};
    matches!(opcode, BT | CALL | CALLF | CMP | DIV | IDIV | IMUL | JMP | JMPF | MUL | NOP | PUSH | TEST)
}

fn immediate(operand: &Operand) -> Option<i64> {
    match operand {
        Operand::ImmediateI8 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateU8 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateI16 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateU16 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateI32 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateU32 { imm } => Some(i64::from(*imm)),
        Operand::ImmediateI64 { imm } => Some(*imm),
        Operand::ImmediateU64 { imm } => Some(imm.cast_signed()),
        _ => None,
    }
}

/// A memory operand, as far as references are concerned.
struct Memory {
    rip: bool,
    has_base: bool,
    indexed: bool,
    value: i64,
}

impl Memory {
    fn is_bare(&self) -> bool {
        !self.has_base && !self.indexed
    }
}

/// Outer `None`: a kind of operand that is not known here.
#[expect(clippy::option_option, reason = "not understood, and no memory operand, are different answers")]
fn memory(operand: &Operand) -> Option<Option<Memory>> {
    let rip = RegSpec::rip();
    let plain =
        |base: RegSpec, value: i32| Memory { rip: base == rip, has_base: true, indexed: false, value: value.into() };
    let scaled = |has_base: bool, value: i32| Memory { rip: false, has_base, indexed: true, value: value.into() };
    let bare = |value: i64| Memory { rip: false, has_base: false, indexed: false, value };
    Some(match *operand {
        Operand::AbsoluteU32 { addr } => Some(bare(addr.into())),
        Operand::AbsoluteU64 { addr } => Some(bare(addr.cast_signed())),
        Operand::MemDeref { base } | Operand::MemDerefMasked { base, .. } => Some(plain(base, 0)),
        Operand::Disp { base, disp } | Operand::DispMasked { base, disp, .. } => Some(plain(base, disp)),
        Operand::MemIndexScale { .. } | Operand::MemIndexScaleMasked { .. } => Some(scaled(false, 0)),
        Operand::MemIndexScaleDisp { disp, .. } | Operand::MemIndexScaleDispMasked { disp, .. } => {
            Some(scaled(false, disp))
        }
        Operand::MemBaseIndexScale { .. } | Operand::MemBaseIndexScaleMasked { .. } => Some(scaled(true, 0)),
        Operand::MemBaseIndexScaleDisp { disp, .. } | Operand::MemBaseIndexScaleDispMasked { disp, .. } => {
            Some(scaled(true, disp))
        }
        Operand::Register { .. }
        | Operand::RegisterMaskMerge { .. }
        | Operand::RegisterMaskMergeSae { .. }
        | Operand::RegisterMaskMergeSaeNoround { .. }
        | Operand::Nothing => None,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len(bytes: &[u8]) -> Option<usize> {
        Decoder::new().decode(bytes, false).map(|i| i.len)
    }

    #[test]
    fn vector_instructions_that_the_decoder_does_not_know_are_read_by_their_encoding() {
        // vprotd $0xe,%xmm4,%xmm5; vfmaddsd %xmm2,%xmm1,%xmm0,%xmm0; kmovq %rbx,%k1
        assert_eq!(len(&[0x8f, 0xe8, 0x78, 0xc2, 0xec, 0x0e, 0x41, 0xc1, 0xce, 0x09]), Some(6));
        assert_eq!(len(&[0xc4, 0xe3, 0xf9, 0x6b, 0xc2, 0x10, 0x66, 0x48, 0x0f]), Some(6));
        assert_eq!(len(&[0xc4, 0xe1, 0xfb, 0x92, 0xcb, 0x62, 0xf1]), Some(5));
        assert_eq!(len(&[0xc5, 0xf8, 0x92, 0xc8, 0x62, 0xf1]), Some(4));
        // vpsrlq $0x30,%zmm8,%zmm9
        assert_eq!(len(&[0x62, 0xd1, 0xb5, 0x48, 0x73, 0xd0, 0x30, 0x62]), Some(7));
    }

    #[test]
    fn padlock_instructions_are_read_by_their_encoding() {
        // rep xcrypt-ecb; rep xsha256; xstore-rng
        assert_eq!(len(&[0xf3, 0x0f, 0xa7, 0xc8, 0x4c, 0x89, 0xc3]), Some(4));
        assert_eq!(len(&[0xf3, 0x0f, 0xa6, 0xd0, 0xc3]), Some(4));
        assert_eq!(len(&[0x0f, 0xa7, 0xc0, 0xf3, 0xc3]), Some(3));
        // Their opcodes with an operand in memory are nothing.
        assert_eq!(len(&[0x0f, 0xa7, 0x05, 0, 0, 0, 0]), None);
        assert_eq!(len(&[0x0f, 0xa6, 0xc1]), None);
    }

    #[test]
    fn a_mark_in_place_of_an_operand_is_no_reference() {
        let read = |bytes| Decoder::new().decode(bytes, false).map(|i| (i.len, i.flow, i.fields().count()));
        // ud1 0x53053053(%rip),%edi: the signature of restartable sequences
        assert_eq!(read(&[0x0f, 0xb9, 0x3d, 0x53, 0x30, 0x05, 0x53]), Some((7, Flow::Stop, 0)));
        // mov 0x53053053(%rip),%edi
        assert_eq!(read(&[0x8b, 0x3d, 0x53, 0x30, 0x05, 0x53]), Some((6, Flow::Next, 1)));
    }
}
