//! Two versions of one function, instruction by instruction.

use crate::side::Side;
use foldhash::{HashMap, HashMapExt as _};
use iced_x86::{Instruction, OpKind, Register};
use salve_code::{decode, is_immediate};
use salve_elf::{Va, VaRange};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Indices of a longest common subsequence of two sequences (Hunt–Szymanski's
/// problem by dynamic programming after common ends are cut off). Bounded by the
/// caller: the table takes `a.len() * b.len()` entries of the differing middle.
pub(crate) fn longest_common_subsequence<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let a_rest = a.get(head..).unwrap_or_default();
    let b_rest = b.get(head..).unwrap_or_default();
    let tail = a_rest.iter().rev().zip(b_rest.iter().rev()).take_while(|(x, y)| x == y).count();
    let a_mid = a_rest.get(..a_rest.len().saturating_sub(tail)).unwrap_or_default();
    let b_mid = b_rest.get(..b_rest.len().saturating_sub(tail)).unwrap_or_default();
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|i| (i, i)).collect();
    pairs.extend(middle(a_mid, b_mid).into_iter().map(|(i, j)| (i.saturating_add(head), j.saturating_add(head))));
    let (a_tail, b_tail) = (a.len().saturating_sub(tail), b.len().saturating_sub(tail));
    pairs.extend((0..tail).map(|i| (a_tail.saturating_add(i), b_tail.saturating_add(i))));
    pairs
}

/// Entries of the largest table that is worth its memory (two bytes each).
const LARGEST_TABLE: usize = 16_000_000;

/// Whether the differing middles of two sequences are too long to compare.
fn too_long<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let a_rest = a.get(head..).unwrap_or_default();
    let b_rest = b.get(head..).unwrap_or_default();
    let tail = a_rest.iter().rev().zip(b_rest.iter().rev()).take_while(|(x, y)| x == y).count();
    a_rest.len().saturating_sub(tail).saturating_mul(b_rest.len().saturating_sub(tail)) > LARGEST_TABLE
}

fn middle<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    if a.is_empty() || b.is_empty() || a.len().saturating_mul(b.len()) > LARGEST_TABLE {
        return Vec::new();
    }
    let width = b.len().saturating_add(1);
    let mut table = vec![0_u16; a.len().saturating_add(1).saturating_mul(width)];
    let at = |i: usize, j: usize| i.saturating_mul(width).saturating_add(j);
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let value = if x == y {
                table.get(at(i.saturating_add(1), j.saturating_add(1))).copied().unwrap_or(0).saturating_add(1)
            } else {
                let down = table.get(at(i.saturating_add(1), j)).copied().unwrap_or(0);
                down.max(table.get(at(i, j.saturating_add(1))).copied().unwrap_or(0))
            };
            if let Some(slot) = table.get_mut(at(i, j)) {
                *slot = value;
            }
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            pairs.push((i, j));
            i = i.saturating_add(1);
            j = j.saturating_add(1);
        } else if table.get(at(i.saturating_add(1), j)) >= table.get(at(i, j.saturating_add(1))) {
            i = i.saturating_add(1);
        } else {
            j = j.saturating_add(1);
        }
    }
    pairs
}

/// An instruction without the numbers in it: what two versions of it share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    mnemonic: u16,
    operands: [(u8, u16); 4],
    memory: (u16, u16, u8, u16),
}

fn shape(instruction: &Instruction) -> Shape {
    let number = |v: usize| u16::try_from(v).unwrap_or(u16::MAX);
    let mut operands = [(0, 0); 4];
    for (slot, operand) in operands.iter_mut().zip(0..instruction.op_count()) {
        let kind = instruction.op_kind(operand);
        let class = match kind {
            OpKind::Register => 1,
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => 2,
            OpKind::FarBranch16 | OpKind::FarBranch32 => 3,
            OpKind::Memory => 5,
            kind if is_immediate(kind) => 4,
            _string_operands => 6,
        };
        let register = if kind == OpKind::Register { number(instruction.op_register(operand) as usize) } else { 0 };
        *slot = (class, register);
    }
    let memory = (
        number(instruction.memory_base() as usize),
        number(instruction.memory_index() as usize),
        u8::try_from(instruction.memory_index_scale()).unwrap_or(0),
        number(instruction.segment_prefix() as usize),
    );
    Shape { mnemonic: number(instruction.mnemonic() as usize), operands, memory }
}

/// A number that differs between two versions of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperandChange {
    Immediate {
        old: u64,
        new: u64,
    },
    /// Distance from a base register that is not the instruction pointer.
    Displacement {
        base: Register,
        index: Register,
        old: i64,
        new: i64,
    },
    /// Where a relative branch or an instruction-pointer-relative operand leads.
    Target {
        old: Va,
        new: Va,
    },
}

/// Two instructions at the same place of two versions.
#[derive(Clone, Copy, Debug)]
pub struct AlignedPair {
    pub old: Instruction,
    pub new: Instruction,
}

/// How two versions of a function differ.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    pub aligned: Vec<AlignedPair>,
    pub only_old: Vec<Instruction>,
    pub only_new: Vec<Instruction>,
    /// The versions were too large to align: only counts are known.
    pub too_large: bool,
}

impl Difference {
    /// Instruction for instruction the same, numbers apart.
    pub fn same_shape(&self) -> bool {
        !self.too_large && self.only_old.is_empty() && self.only_new.is_empty()
    }
}

/// Alignments of pairs of functions, each made once, when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Alignments(Mutex<HashMap<(usize, usize), Arc<Difference>>>);

impl Alignments {
    /// How the two functions differ; indices into `functions()`.
    pub(crate) fn of(&self, old: (&Side<'_, '_>, usize), new: (&Side<'_, '_>, usize)) -> Arc<Difference> {
        let pair = (old.1, new.1);
        if let Some(made) = self.known().get(&pair) {
            return Arc::clone(made);
        }
        let range = |side: &Side<'_, '_>, index: usize| side.image.functions().get(index).map(|f| f.range);
        let made = match (range(old.0, old.1), range(new.0, new.1)) {
            (Some(f), Some(g)) => align(old.0, f, new.0, g),
            _ => Difference { too_large: true, ..Difference::default() },
        };
        // Two threads may have made it: both made the same.
        Arc::clone(self.known().entry(pair).or_insert_with(|| Arc::new(made)))
    }

    /// Nobody aligns, or waits for another thread, while he holds this.
    fn known(&self) -> MutexGuard<'_, HashMap<(usize, usize), Arc<Difference>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn instructions(side: &Side<'_, '_>, range: VaRange) -> Vec<Instruction> {
    decode(side.image, range).map(|decoder| decoder.into_iter().collect()).unwrap_or_default()
}

/// Aligns two versions of a function.
pub fn align(old: &Side<'_, '_>, old_range: VaRange, new: &Side<'_, '_>, new_range: VaRange) -> Difference {
    let a = instructions(old, old_range);
    let b = instructions(new, new_range);
    let mut ids: HashMap<Shape, u32> = HashMap::new();
    let mut number = |instruction: &Instruction| {
        let next = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        *ids.entry(shape(instruction)).or_insert(next)
    };
    let x: Vec<u32> = a.iter().map(&mut number).collect();
    let y: Vec<u32> = b.iter().map(&mut number).collect();
    let pairs = longest_common_subsequence(&x, &y);
    // Alignments are kept, so they take what they need and no more.
    let room = |whole: usize| whole.saturating_sub(pairs.len());
    let mut difference = Difference {
        aligned: Vec::with_capacity(pairs.len()),
        only_old: Vec::with_capacity(room(a.len())),
        only_new: Vec::with_capacity(room(b.len())),
        too_large: too_long(&x, &y),
    };
    let (mut i, mut j) = (0, 0);
    for (p, q) in pairs {
        difference.only_old.extend(a.get(i..p).unwrap_or_default());
        difference.only_new.extend(b.get(j..q).unwrap_or_default());
        if let (Some(old), Some(new)) = (a.get(p), b.get(q)) {
            difference.aligned.push(AlignedPair { old: *old, new: *new });
        }
        i = p.saturating_add(1);
        j = q.saturating_add(1);
    }
    difference.only_old.extend(a.get(i..).unwrap_or_default());
    difference.only_new.extend(b.get(j..).unwrap_or_default());
    difference
}

/// The numbers in which two instructions of one shape differ. Targets inside
/// the two functions are compared as distances from their starts.
pub fn compare_operands(pair: &AlignedPair, old_range: VaRange, new_range: VaRange) -> Vec<OperandChange> {
    let (old, new) = (&pair.old, &pair.new);
    let mut changes = Vec::new();
    for operand in 0..old.op_count().min(new.op_count()) {
        match old.op_kind(operand) {
            OpKind::NearBranch64 => {
                target(Va::new(old.near_branch64()), Va::new(new.near_branch64()), old_range, new_range, &mut changes);
            }
            OpKind::Memory if old.is_ip_rel_memory_operand() => target(
                Va::new(old.ip_rel_memory_address()),
                Va::new(new.ip_rel_memory_address()),
                old_range,
                new_range,
                &mut changes,
            ),
            OpKind::Memory => {
                let (a, b) = (old.memory_displacement64().cast_signed(), new.memory_displacement64().cast_signed());
                if a != b {
                    changes.push(OperandChange::Displacement {
                        base: old.memory_base(),
                        index: old.memory_index(),
                        old: a,
                        new: b,
                    });
                }
            }
            kind if is_immediate(kind) => {
                let (a, b) = (old.immediate(operand), new.immediate(operand));
                if a != b {
                    changes.push(OperandChange::Immediate { old: a, new: b });
                }
            }
            _registers_and_string_operands => {}
        }
    }
    changes
}

fn target(old: Va, new: Va, old_range: VaRange, new_range: VaRange, changes: &mut Vec<OperandChange>) {
    if old_range.contains(old) && new_range.contains(new) {
        // Distances within a function shift with what is inserted; the aligned
        // instructions there speak for themselves.
        return;
    }
    changes.push(OperandChange::Target { old, new });
}
