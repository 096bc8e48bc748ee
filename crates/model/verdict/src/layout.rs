//! Whether objects changed their layout.
//!
//! A field that moves shows as one displacement shift in many functions, a
//! structure that grows as another size handed to an allocator. A displacement
//! that changes in one place is an ordinary change of code if both offsets are
//! in use elsewhere in code that stays; otherwise nobody can tell.
//!
//! Where a function was written anew, instructions are aligned that have nothing to do
//! with each other. A shift shows nothing if both versions use both offsets anyway and
//! the instructions around it are not the same; then nobody can tell, either.

use crate::carry::Carried;
use crate::frame_pointer::FramePointer;
use crate::registry;
use core::cell::OnceCell;
use iced_x86::{FlowControl, Instruction, MemorySize, Mnemonic, OpKind, Register};
use salve_code::is_immediate;
use salve_elf::{Binding, Symbol, Va, VaRange};
use salve_match::{AlignedPair, Difference, ImageDiff, OperandChange, Side, compare_operands};
use salve_patch::{Evidence, Reason};
use std::collections::{BTreeMap, BTreeSet};

/// Allocators, and which argument is a size or one factor of it.
pub(crate) const ALLOCATORS: &[(&str, usize)] = &[
    ("malloc", 0),
    ("calloc", 0),
    ("calloc", 1),
    ("realloc", 1),
    ("reallocarray", 2),
    ("aligned_alloc", 1),
    ("memalign", 1),
    ("posix_memalign", 2),
    ("valloc", 0),
    ("_Znwm", 0),
    ("_Znam", 0),
    ("_ZnwmRKSt9nothrow_t", 0),
    ("_ZnamRKSt9nothrow_t", 0),
    ("g_malloc", 0),
    ("g_malloc0", 0),
    ("g_realloc", 1),
    ("g_slice_alloc", 0),
    ("g_slice_alloc0", 0),
    ("CRYPTO_malloc", 0),
    ("CRYPTO_zalloc", 0),
    ("CRYPTO_realloc", 1),
    ("apr_palloc", 1),
    ("apr_pcalloc", 1),
];

/// Argument registers (psABI §3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

#[derive(Clone, Debug)]
struct Shift {
    function: String,
    old_at: Va,
    new_at: Va,
    old: i64,
    new: i64,
    /// Both versions use both offsets, and the code around is not the same.
    rewritten: bool,
}

/// Findings over all carried pairs.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    shifts: Vec<Shift>,
    sizes: Vec<Evidence>,
    /// Numbers that changed, `(old, new)`, with where.
    numbers: BTreeMap<(u64, u64), Vec<Evidence>>,
    pub(crate) too_large: Vec<Evidence>,
}

impl Layout {
    pub(crate) fn of(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Self {
        let mut layout = Self::default();
        for pair in &carried.pairs {
            let functions = (diff.old.image.functions().get(pair.old), diff.new.image.functions().get(pair.new));
            let (Some(f), Some(g)) = functions else { continue };
            let delta = diff.difference(pair.old, pair.new);
            if delta.too_large {
                layout.too_large.push(Evidence {
                    function: Some(g.display_name()),
                    old_va: Some(f.range.start()),
                    new_va: Some(g.range.start()),
                    seen: format!("{} and {} bytes", f.range.len_bytes(), g.range.len_bytes()),
                });
                continue;
            }
            layout.shifts_of(&g.display_name(), &delta, f.range, g.range);
            layout.sizes_of(diff, &g.display_name(), &delta);
            layout.numbers_of(diff, &g.display_name(), &delta, (f.range, g.range));
        }
        layout
    }

    fn shifts_of(&mut self, function: &str, delta: &Difference, old_range: VaRange, new_range: VaRange) {
        let before = || delta.aligned.iter().map(|p| &p.old).chain(&delta.only_old);
        let after = || delta.aligned.iter().map(|p| &p.new).chain(&delta.only_new);
        let pointers = (FramePointer::of(before()), FramePointer::of(after()));
        let accesses = (accesses(before()), accesses(after()));
        for (index, pair) in delta.aligned.iter().enumerate() {
            if is_sum(&pair.old) || (pair.old.mnemonic() == Mnemonic::Nop && pair.old.memory_index() != Register::None)
            {
                continue;
            }
            for change in compare_operands(pair, old_range, new_range) {
                let OperandChange::Displacement { base, index: _, old, new } = change else { continue };
                let through_rbp = base == Register::RBP && pointers.0.is_frame(old) && pointers.1.is_frame(new);
                let frame = base == Register::RSP || through_rbp;
                if frame || base == Register::None || pair.old.mnemonic() == Mnemonic::Nop {
                    continue;
                }
                let in_both = |offset| {
                    let access = (offset, pair.old.memory_size());
                    accesses.0.contains(&access) && accesses.1.contains(&access)
                };
                self.shifts.push(Shift {
                    function: function.to_owned(),
                    old_at: Va::new(pair.old.ip()),
                    new_at: Va::new(pair.new.ip()),
                    old,
                    new,
                    rewritten: in_both(old) && in_both(new) && !is_in_step(&delta.aligned, index),
                });
            }
        }
    }

    fn numbers_of(
        &mut self,
        diff: &ImageDiff<'_, '_>,
        function: &str,
        delta: &Difference,
        (old_range, new_range): (VaRange, VaRange),
    ) {
        for pair in &delta.aligned {
            let stack = pair.old.op0_kind() == OpKind::Register && pair.old.op0_register() == Register::RSP;
            if stack {
                continue;
            }
            for change in compare_operands(pair, old_range, new_range) {
                let (old, new) = match change {
                    OperandChange::Immediate { old, new } => (old, new),
                    OperandChange::Displacement { old, new, .. } if is_sum(&pair.old) => {
                        (old.cast_unsigned(), new.cast_unsigned())
                    }
                    _ => continue,
                };
                if crate::dependency::explain(diff.new.image.needed(), &change).is_some() {
                    continue;
                }
                self.numbers.entry((old, new)).or_default().push(Evidence {
                    function: Some(function.to_owned()),
                    old_va: Some(Va::new(pair.old.ip())),
                    new_va: Some(Va::new(pair.new.ip())),
                    seen: format!("{new:#x}, before {old:#x}"),
                });
            }
        }
    }

    /// Numbers that changed alike in several functions, or by as much as a field moved.
    fn renumbered(&self) -> Option<Reason> {
        let shifted: BTreeSet<i64> = self.shifts.iter().map(|s| s.new.wrapping_sub(s.old)).collect();
        let evidence: Vec<Evidence> = self
            .numbers
            .iter()
            .filter(|((old, new), places)| {
                let functions: BTreeSet<_> = places.iter().map(|e| e.function.as_deref()).collect();
                functions.len() >= 2 || shifted.contains(&new.wrapping_sub(*old).cast_signed())
            })
            .flat_map(|(_, places)| places.iter().cloned())
            .collect();
        (!evidence.is_empty())
            .then(|| registry::CONSTANT_RENUMBERED.because("numbers changed alike in several places", evidence))
    }

    fn sizes_of(&mut self, diff: &ImageDiff<'_, '_>, function: &str, delta: &Difference) {
        const WINDOW: usize = 8;
        for (index, pair) in delta.aligned.iter().enumerate() {
            let (Some(x), Some(y)) = (import_at(&diff.old, &pair.old), import_at(&diff.new, &pair.new)) else {
                continue;
            };
            if x != y {
                continue;
            }
            let before = delta.aligned.get(index.saturating_sub(WINDOW)..index).unwrap_or_default();
            // What a register held before another call is no argument of this one.
            let calls = |i: &Instruction| matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            let ends = |alone: &[Instruction], at: &Instruction| {
                alone.iter().filter(|i| calls(i)).map(Instruction::ip).filter(|ip| *ip < at.ip()).max().unwrap_or(0)
            };
            let from = (ends(&delta.only_old, &pair.old), ends(&delta.only_new, &pair.new));
            let straight = |p: &&AlignedPair| !calls(&p.old) && p.old.ip() > from.0 && p.new.ip() > from.1;
            for (name, argument) in ALLOCATORS.iter().filter(|(name, _)| *name == x) {
                let Some(register) = ARGUMENTS.get(*argument) else { continue };
                let mut straight = before.iter().rev().take_while(straight);
                let size = straight.find(|p| p.old.op0_register().full_register() == *register);
                let Some(size) = size.filter(|p| {
                    p.old.mnemonic() == Mnemonic::Mov
                        && is_immediate(p.old.op1_kind())
                        && is_immediate(p.new.op1_kind())
                }) else {
                    continue;
                };
                let (a, b) = (size.old.immediate(1), size.new.immediate(1));
                if a != b {
                    self.sizes.push(Evidence {
                        function: Some(function.to_owned()),
                        old_va: Some(Va::new(size.old.ip())),
                        new_va: Some(Va::new(size.new.ip())),
                        seen: format!("{name} is asked for {b:#x} bytes, before for {a:#x}"),
                    });
                }
            }
        }
    }

    /// The layout reasons that the findings amount to.
    pub(crate) fn reasons(&self, diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut by_delta: BTreeMap<i64, Vec<&Shift>> = BTreeMap::new();
        for shift in &self.shifts {
            by_delta.entry(shift.new.wrapping_sub(shift.old)).or_default().push(shift);
        }
        let mut explained = BTreeSet::new();
        // Would be a layout if all that is aligned belonged together.
        let mut doubtful = BTreeSet::new();
        // A field that moved to where no object of the old image has any.
        let all_known = OnceCell::new();
        let known = || all_known.get_or_init(|| displacements(&diff.old, 0..diff.old.image.functions().len()));
        for (delta, all) in &by_delta {
            let shifts: Vec<&Shift> = all.iter().copied().filter(|s| !s.rewritten).collect();
            let shifts = if is_layout(&shifts) {
                shifts
            } else if is_shared(all) && shifts.iter().any(|shift| !known().contains(&shift.new)) {
                all.clone()
            } else {
                doubtful.extend(is_layout(all).then_some(*delta));
                continue;
            };
            explained.insert(*delta);
            let functions: BTreeSet<&str> = shifts.iter().map(|s| s.function.as_str()).collect();
            let lowest = shifts.iter().map(|s| s.old).min().unwrap_or(0);
            reasons.push(registry::STRUCT_LAYOUT.because(
                format!(
                    "fields from offset {lowest:#x} on moved by {}{:#x} bytes, seen in {} functions",
                    if *delta < 0 { "-" } else { "+" },
                    delta.unsigned_abs(),
                    functions.len()
                ),
                shifts.iter().take(64).map(|s| evidence(s)).collect(),
            ));
        }
        if !self.sizes.is_empty() {
            reasons
                .push(registry::STRUCT_LAYOUT.because("an object is allocated with another size", self.sizes.clone()));
        }
        let delta = |s: &Shift| s.new.wrapping_sub(s.old);
        let rewritten: Vec<Evidence> =
            self.shifts.iter().filter(|s| doubtful.contains(&delta(s))).map(evidence).collect();
        if !rewritten.is_empty() {
            reasons.push(registry::FIELD_OFFSET.because(
                "code was written anew and uses the same offsets in other places; a field may have moved",
                rewritten,
            ));
        }
        let rest: Vec<&Shift> =
            self.shifts.iter().filter(|s| !explained.contains(&delta(s)) && !doubtful.contains(&delta(s))).collect();
        if !rest.is_empty() {
            let replaced = carried.new_functions();
            let staying = diff.identical.iter().map(|(_, n)| *n).filter(|n| !replaced.contains(n));
            let used = displacements(&diff.new, staying);
            // Two fields that changed places are both in use anywhere.
            let swapped: BTreeSet<(&str, i64, i64)> =
                rest.iter().map(|s| (s.function.as_str(), s.new, s.old)).collect();
            let unknown: Vec<Evidence> = rest
                .iter()
                .filter(|s| {
                    swapped.contains(&(s.function.as_str(), s.old, s.new))
                        || !(used.contains(&s.old) && used.contains(&s.new))
                })
                .map(|s| evidence(s))
                .collect();
            if !unknown.is_empty() {
                reasons.push(
                    registry::FIELD_OFFSET
                        .because("an access moved to an offset that no unchanged code uses, or from one", unknown),
                );
            }
        }
        reasons.extend(self.renumbered());
        if !self.too_large.is_empty() {
            reasons
                .push(registry::TOO_LARGE_TO_COMPARE.because("functions too large to align", self.too_large.clone()));
        }
        reasons
    }
}

/// One shift in several functions, or of several fields, is a layout that moved.
fn is_layout(shifts: &[&Shift]) -> bool {
    let functions: BTreeSet<&str> = shifts.iter().map(|s| s.function.as_str()).collect();
    let fields: BTreeSet<i64> = shifts.iter().map(|s| s.old).collect();
    let mut by_field: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    for shift in shifts {
        by_field.entry(shift.old).or_default().insert(&shift.function);
    }
    let one_field_everywhere = by_field.values().any(|f| f.len() >= 2);
    one_field_everywhere || functions.len() >= 3 || (functions.len() >= 2 && fields.len() >= 3) || fields.len() >= 4
}

/// The offsets of objects that are accessed, and how much is there.
fn accesses<'i>(instructions: impl Iterator<Item = &'i Instruction>) -> BTreeSet<(i64, MemorySize)> {
    instructions
        .filter(|i| !matches!(i.memory_base(), Register::None | Register::RSP | Register::RIP | Register::EIP))
        .map(|i| (i.memory_displacement64().cast_signed(), i.memory_size()))
        .collect()
}

/// Whether the instructions around an aligned pair are aligned as well, without any between them.
fn is_in_step(aligned: &[AlignedPair], index: usize) -> bool {
    const AROUND: usize = 2;
    let around = index.saturating_sub(AROUND)..index.saturating_add(AROUND + 1).min(aligned.len());
    aligned.get(around).unwrap_or_default().windows(2).all(|pairs| {
        let [before, after] = pairs else { return false };
        before.old.next_ip() == after.old.ip() && before.new.next_ip() == after.new.ip()
    })
}

/// One shift of different fields in different functions: a layout if that is not all.
fn is_shared(shifts: &[&Shift]) -> bool {
    let functions: BTreeSet<&str> = shifts.iter().map(|s| s.function.as_str()).collect();
    let fields: BTreeSet<i64> = shifts.iter().map(|s| s.old).collect();
    functions.len() >= 2 && fields.len() >= 2
}

fn evidence(shift: &Shift) -> Evidence {
    Evidence {
        function: Some(shift.function.clone()),
        old_va: Some(shift.old_at),
        new_va: Some(shift.new_at),
        seen: format!("access at offset {:#x}, before at {:#x}", shift.new, shift.old),
    }
}

/// Arithmetic in the guise of an address: `lea` that scales an index, or whose result
/// is too narrow to be one.
fn is_sum(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Lea
        && (instruction.memory_index() != Register::None || instruction.op0_register().size() < 8)
}

/// Where a call or jump leads, or the slot it goes through.
pub(crate) fn call_target(instruction: &Instruction) -> Option<Va> {
    match instruction.mnemonic() {
        Mnemonic::Call | Mnemonic::Jmp if instruction.op0_kind() == OpKind::NearBranch64 => {
            Some(Va::new(instruction.near_branch64()))
        }
        Mnemonic::Call | Mnemonic::Jmp if instruction.is_ip_rel_memory_operand() => {
            Some(Va::new(instruction.ip_rel_memory_address()))
        }
        _ => None,
    }
}

/// The import that a direct call reaches through its stub or slot.
pub(crate) fn import_at<'a>(side: &Side<'_, 'a>, instruction: &Instruction) -> Option<&'a str> {
    symbol_at(side, instruction).map(|symbol| symbol.name)
}

/// The symbol that the dynamic linker looks up for a call, in this image or another.
pub(crate) fn symbol_at<'s, 'a>(side: &'s Side<'_, 'a>, instruction: &Instruction) -> Option<&'s Symbol<'a>> {
    let target = call_target(instruction)?;
    let slot = side.plt.slot_of(target).unwrap_or(target);
    match side.image.reloc_at(slot)?.binding {
        Binding::Symbol { symbol, .. } => side.image.symbols().get(symbol),
        Binding::Relative { .. } | Binding::Indirect { .. } | Binding::ThreadLocal { .. } | Binding::Copy { .. } => {
            None
        }
    }
}

/// Every offset at which these functions access objects.
fn displacements(side: &Side<'_, '_>, functions: impl IntoIterator<Item = usize>) -> BTreeSet<i64> {
    let mut used = BTreeSet::new();
    for function in functions.into_iter().filter_map(|index| side.image.functions().get(index)) {
        let Some(decoder) = salve_code::decode(side.image, function.range) else { continue };
        for instruction in decoder {
            let base = instruction.memory_base();
            let through = !matches!(base, Register::None | Register::RSP | Register::RIP | Register::EIP);
            if through && instruction.mnemonic() != Mnemonic::Nop {
                used.insert(instruction.memory_displacement64().cast_signed());
            }
        }
    }
    used
}
