//! Disassembles the parts of one function.

use iced_x86::{
    Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter, OpKind, SymbolResolver, SymbolResult,
};
use salve_elf::{Va, VaRange};
use salve_protocol::AssemblyLine;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

/// An instruction to show, and what it is compared by: the same text, with
/// every place in the code or data by its name, or by none.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) shown: AssemblyLine,
    pub(crate) key: String,
}

/// What is known to lie at an address.
pub(crate) type Names = BTreeMap<Va, String>;

/// The instructions of all parts, in their order. Bytes that are no
/// instruction are shown as such, one by one.
pub(crate) fn disassemble(parts: &[(Va, &[u8])], names: &Rc<Names>) -> Vec<Line> {
    let own: Rc<[VaRange]> =
        parts.iter().filter_map(|(start, bytes)| VaRange::new(*start, u64::try_from(bytes.len()).ok()?)).collect();
    let resolver = |nameless| Resolver { names: Rc::clone(names), own: Rc::clone(&own), nameless };
    let mut shown = formatter(resolver(false));
    let mut compared = formatter(resolver(true));
    let mut lines = Vec::new();
    for (start, bytes) in parts {
        let mut decoder = Decoder::with_ip(64, bytes, start.raw(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            let from = decoder.position();
            decoder.decode_out(&mut instruction);
            let (mut text, mut key) = (String::new(), String::new());
            shown.format(&instruction, &mut text);
            compared.format(&instruction, &mut key);
            let bytes = hex(bytes.get(from..decoder.position()).unwrap_or_default());
            lines.push(Line { shown: AssemblyLine { va: Va::new(instruction.ip()), bytes, text }, key });
        }
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn formatter(resolver: Resolver) -> IntelFormatter {
    let mut formatter = IntelFormatter::with_options(Some(Box::new(resolver)), None);
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_space_after_operand_separator(true);
    options.set_rip_relative_addresses(false);
    formatter
}

struct Resolver {
    names: Rc<Names>,
    own: Rc<[VaRange]>,
    /// Stand-ins for places without a name, so that moving them is no difference.
    nameless: bool,
}

impl SymbolResolver for Resolver {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        // Immediates and displacements come by here too; a place is a branch's
        // target or what the instruction pointer is added to.
        let kind = instruction.op_kind(instruction_operand?);
        let branch = matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
        if !(branch || kind == OpKind::Memory && instruction.is_ip_rel_memory_operand()) {
            return None;
        }
        let va = Va::new(address);
        let inside = self.own.iter().any(|range| range.contains(va));
        match self.names.get(&va) {
            Some(name) if !inside => Some(SymbolResult::with_str(address, name)),
            _ if self.nameless => Some(SymbolResult::with_str(address, if inside { "here" } else { "elsewhere" })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `call 0x2000; lea rax, [rip+0x10]; mov eax, 0x2000; jmp self`, at `base`.
    fn code(base: u32) -> Vec<u8> {
        let mut bytes = vec![0xe8];
        bytes.extend((0x2000_u32.wrapping_sub(base + 5)).to_le_bytes());
        bytes.extend([0x48, 0x8d, 0x05, 0x10, 0, 0, 0]);
        bytes.extend([0xb8, 0x00, 0x20, 0, 0]);
        bytes.extend([0xeb, 0xfe]);
        bytes
    }

    #[test]
    fn places_are_named_and_numbers_are_not() {
        let names = Rc::new(Names::from([(Va::new(0x2000), "helper".to_owned())]));
        let bytes = code(0x1000);
        let lines = disassemble(&[(Va::new(0x1000), &bytes)], &names);
        let texts: Vec<&str> = lines.iter().map(|line| line.shown.text.as_str()).collect();
        assert_eq!(texts, ["call helper", "lea rax, [0x101c]", "mov eax, 0x2000", "jmp short 0x1011"]);
        assert_eq!(lines[0].shown.bytes, "e8fb0f0000");
    }

    #[test]
    fn code_that_moved_compares_equal() {
        let names = Rc::new(Names::from([(Va::new(0x2000), "helper".to_owned())]));
        let (here, there) = (code(0x1000), code(0x1300));
        let keys = |at: u64, bytes: &[u8]| {
            disassemble(&[(Va::new(at), bytes)], &names).into_iter().map(|line| line.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(0x1000, &here), keys(0x1300, &there));
    }
}
