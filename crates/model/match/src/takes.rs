//! Where functions whose code changed take the address of another function.
//!
//! Which new function has the role of an old one whose address is held somewhere is
//! shown by who hands it out: code that stays, a slot of corresponding data, or, here,
//! two versions of a changed function that take both addresses in the same place. "The
//! same place" is more than aligned instructions: all the straight code around them,
//! from the branch or call before to the one behind, is equal, and everything in it
//! leads to the same thing. So what else is handed over together with the function
//! (where it is registered, under which name, with which object) is the same too.
//!
//! Where another place of the function is like it, what makes the difference between them
//! lies elsewhere, and may have been exchanged. And what is in registers before that code
//! begins, and what is done behind it, is not looked at; so this shows a role, and no more.

use crate::align::{AlignedPair, Difference, OperandChange, compare_operands};
use crate::content::telling_text_at;
use crate::side::{Place, Side};
use crate::verify::{Learnt, Verifier};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use salve_code::is_immediate;
use salve_elf::{Binding, SectionRole, Va, VaRange};
use std::collections::{HashMap, HashSet};

/// Instructions of straight code, jumps included, that are compared at most.
const LONGEST_PATH: usize = 256;

/// Two aligned instructions that take the addresses of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taking {
    /// The two versions that take them; indices into `functions()`.
    pub taker: (usize, usize),
    pub old_at: Va,
    pub new_at: Va,
    /// The functions whose addresses are taken.
    pub taken: (usize, usize),
    /// The straight code around both is equal.
    pub surrounded: bool,
    /// And there is none like it.
    pub unique: bool,
}

/// Whether the function takes the address of any other one.
pub(crate) fn takes_any(side: &Side<'_, '_>, function: usize) -> bool {
    let references = side.code.get(function).into_iter().flat_map(|code| &code.references);
    references.into_iter().any(|r| {
        let value = matches!(r.kind, salve_code::ReferenceKind::Address | salve_code::ReferenceKind::Memory);
        value && entry(side, r.target).is_some()
    })
}

/// Every place where both versions take the address of a function.
pub(crate) fn takings(verifier: &Verifier<'_, '_, '_>, taker: (usize, usize), difference: &Difference) -> Vec<Taking> {
    let functions = (verifier.old.image.functions().get(taker.0), verifier.new.image.functions().get(taker.1));
    let (Some(f), Some(g)) = functions else { return Vec::new() };
    let (old, new) = (difference.aligned.iter().map(|p| &p.old), difference.aligned.iter().map(|p| &p.new));
    let blocks = (
        Blocks::of(verifier.old, f.range, old.chain(&difference.only_old)),
        Blocks::of(verifier.new, g.range, new.chain(&difference.only_new)),
    );
    let around = Surroundings { verifier, aligned: &difference.aligned, blocks, ranges: (f.range, g.range) };
    let mut found = Vec::new();
    for (index, pair) in difference.aligned.iter().enumerate() {
        let Some(taken) = taken(verifier.old, &pair.old).zip(taken(verifier.new, &pair.new)) else { continue };
        let (old_at, new_at) = (Va::new(pair.old.ip()), Va::new(pair.new.ip()));
        let surrounded = around.backwards(index) && around.forwards(index).is_some();
        let unique = surrounded && around.is_unique(pair);
        found.push(Taking { taker, old_at, new_at, taken, surrounded, unique });
    }
    found
}

/// The function whose address the instruction makes or loads.
fn taken(side: &Side<'_, '_>, instruction: &Instruction) -> Option<usize> {
    let value = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Mov)
        && instruction.op0_kind() == OpKind::Register
        && instruction.is_ip_rel_memory_operand();
    value.then(|| entry(side, Va::new(instruction.ip_rel_memory_address()))).flatten()
}

/// The function that begins at this address, or whose address the slot there holds.
fn entry(side: &Side<'_, '_>, va: Va) -> Option<usize> {
    let place = match side.place(va) {
        Place::Slot(Binding::Relative { target }) => side.place(target),
        place => place,
    };
    match place {
        Place::Code { function, offset: 0 } => Some(function),
        _ => None,
    }
}

/// The straight code of one version of a function.
struct Blocks {
    /// Where it begins: at the start of the function, and behind a branch or call.
    begins: HashSet<u64>,
    /// Where functions are taken and no other place of this version hands one over alike.
    unique: HashSet<u64>,
}

impl Blocks {
    fn of<'c>(side: &Side<'_, '_>, range: VaRange, code: impl Iterator<Item = &'c Instruction>) -> Self {
        let mut code: Vec<Instruction> = code.copied().collect();
        code.sort_unstable_by_key(Instruction::ip);
        let mut begins = HashSet::from([range.start().raw()]);
        let mut places: HashMap<Vec<Instruction>, Vec<u64>> = HashMap::new();
        for block in code.split_inclusive(|i| i.flow_control() != FlowControl::Next) {
            begins.extend(block.last().map(Instruction::next_ip));
            let mut path = block.to_vec();
            follow_jumps(&code, &mut path);
            for taking in block.iter().filter(|i| taken(side, i).is_some()) {
                // All of it that tells one place from another, but for what is taken.
                let telling = path.iter().filter(|i| tells(i, range));
                let alike = telling.map(|i| if i.ip() == taking.ip() { Instruction::default() } else { *i });
                places.entry(alike.collect()).or_default().push(taking.ip());
            }
        }
        let unique = places.into_values().filter_map(|places| <[u64; 1]>::try_from(places).ok());
        Self { begins, unique: unique.flatten().collect() }
    }
}

/// Where a path ends in a jump within the function, what is run next, up to another branch.
fn follow_jumps(code: &[Instruction], path: &mut Vec<Instruction>) {
    while let Some(last) = path.last().filter(|last| last.flow_control() == FlowControl::UnconditionalBranch) {
        let target = last.near_branch_target();
        let Ok(at) = code.binary_search_by_key(&target, Instruction::ip) else { return };
        let rest = code.get(at..).unwrap_or_default();
        let block = rest.split_inclusive(|i| i.flow_control() != FlowControl::Next).next().unwrap_or_default();
        if path.len().saturating_add(block.len()) > LONGEST_PATH {
            return;
        }
        path.extend_from_slice(block);
    }
}

/// Whether an instruction holds something that another place might have in its stead. What
/// is in registers is not compared, so moving it about tells nothing; nor do jumps that are
/// followed.
fn tells(instruction: &Instruction, range: VaRange) -> bool {
    if instruction.flow_control() == FlowControl::UnconditionalBranch {
        return !range.contains(Va::new(instruction.near_branch_target()));
    }
    let number = (0..instruction.op_count()).any(|operand| is_immediate(instruction.op_kind(operand)));
    let on_stack = instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP;
    instruction.flow_control() != FlowControl::Next || instruction.is_ip_rel_memory_operand() || number && !on_stack
}

struct Surroundings<'s, 'v, 'i, 'a> {
    verifier: &'s Verifier<'v, 'i, 'a>,
    aligned: &'s [AlignedPair],
    blocks: (Blocks, Blocks),
    ranges: (VaRange, VaRange),
}

impl Surroundings<'_, '_, '_, '_> {
    fn is_unique(&self, pair: &AlignedPair) -> bool {
        self.blocks.0.unique.contains(&pair.old.ip()) && self.blocks.1.unique.contains(&pair.new.ip())
    }

    /// To the branch or call before, or the start of the functions.
    fn backwards(&self, index: usize) -> bool {
        let mut at = index;
        loop {
            let Some(pair) = self.aligned.get(at) else { return false };
            match (self.blocks.0.begins.contains(&pair.old.ip()), self.blocks.1.begins.contains(&pair.new.ip())) {
                (true, true) => return true,
                (false, false) => {}
                _ => return false,
            }
            let before = at.checked_sub(1).and_then(|before| Some((before, self.aligned.get(before)?)));
            let Some((before, _)) = before.filter(|(_, previous)| follows(previous, pair) && self.equal(previous))
            else {
                return false;
            };
            at = before;
        }
    }

    /// Through the next branch or call; jumps within the functions are gone along.
    fn forwards(&self, index: usize) -> Option<()> {
        let mut at = index;
        for _ in 0..LONGEST_PATH {
            let pair = self.aligned.get(at)?;
            if at != index && !self.equal(pair) {
                return None;
            }
            at = match pair.old.flow_control() {
                FlowControl::Next => {
                    at.checked_add(1).filter(|next| self.aligned.get(*next).is_some_and(|next| follows(pair, next)))?
                }
                FlowControl::UnconditionalBranch => {
                    let targets = (pair.old.near_branch_target(), pair.new.near_branch_target());
                    if !self.ranges.0.contains(Va::new(targets.0)) {
                        return Some(());
                    }
                    self.aligned.iter().position(|pair| (pair.old.ip(), pair.new.ip()) == targets)?
                }
                _ => return Some(()),
            };
        }
        None
    }

    /// The same instruction, leading to the same thing.
    fn equal(&self, pair: &AlignedPair) -> bool {
        if pair.old.code() != pair.new.code() || pair.old.len() != pair.new.len() {
            return false;
        }
        compare_operands(pair, self.ranges.0, self.ranges.1).into_iter().all(|change| match change {
            OperandChange::Target { old, new } => self.same(old, new, Reads::of(&pair.new)),
            // Where in its frame a function keeps something is its own business.
            OperandChange::Displacement { base: Register::RSP, index: Register::None, .. } => true,
            OperandChange::Immediate { .. } | OperandChange::Displacement { .. } => false,
        })
    }

    /// Constants count only where as much of them as is `read` is equal, or they are equal
    /// texts: how far anything else reaches is not known here.
    fn same(&self, old: Va, new: Va, read: Reads) -> bool {
        let Verifier { old: a, new: b, .. } = self.verifier;
        if b.role_at(new) == Some(SectionRole::ReadOnlyData) {
            if a.role_at(old) != Some(SectionRole::ReadOnlyData) {
                return false;
            }
            let constants = match read {
                Reads::Bytes(len) => (constant_at(a, old, len), constant_at(b, new, len)),
                Reads::Address => (telling_text_at(a, old), telling_text_at(b, new)),
                Reads::Unknown => return false,
            };
            return constants.0.is_some() && constants.0 == constants.1;
        }
        if let (Some(f), Some(g)) = (entry(a, old), entry(b, new)) {
            return self.verifier.pairing.old_of(g) == Some(f);
        }
        self.verifier.same_address(old, new, None, &mut Learnt::default()) == Ok(true)
    }
}

/// What an instruction uses of where it refers to.
#[derive(Clone, Copy)]
enum Reads {
    Address,
    Bytes(usize),
    Unknown,
}

impl Reads {
    fn of(instruction: &Instruction) -> Self {
        let len = instruction.memory_size().size();
        // The register says how far from there the bit is.
        let far = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts)
            && instruction.op1_kind() == OpKind::Register;
        match instruction.mnemonic() {
            Mnemonic::Lea => Self::Address,
            _ if instruction.is_ip_rel_memory_operand() && len > 0 && !far => Self::Bytes(len),
            _ => Self::Unknown,
        }
    }
}

fn constant_at<'a>(side: &Side<'_, 'a>, va: Va, len: usize) -> Option<&'a [u8]> {
    side.image.section_at(va)?.tail(va)?.get(..len)
}

fn follows(first: &AlignedPair, second: &AlignedPair) -> bool {
    (first.old.next_ip(), first.new.next_ip()) == (second.old.ip(), second.new.ip())
}
