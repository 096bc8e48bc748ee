//! Texts in data that name the build, and what it comes to that a process keeps the old one.
//!
//! A livepatch leaves initialised data alone: the process goes on with the text
//! it was started with. Code that stays reads what it always read and does what
//! it always did, so the old text can do harm through replaced code only, or
//! where it is the token by which the two builds tell each other apart
//! (docs/adr/0070). Hence three answers: everybody provably only writes it out;
//! or it is examined, but nothing compares it and replaced code neither gets at
//! it nor calls who does; or it matters.

use crate::carry::Carried;
use crate::registry;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use salve_code::ReferenceKind;
use salve_elf::{Binding, VaRange};
use salve_match::{
    ImageDiff, NoiseContext, Place, Purpose, Reader, Side, exported_names, new_names, object_around, only_stamps,
    readers,
};
use salve_patch::Reason;
use std::collections::{BTreeSet, HashMap};

/// What became known; the text says how.
pub(crate) enum Standing {
    WrittenOut(String),
    Named(String),
    Matters(String),
}

pub(crate) struct Kept<'d, 'i, 'a> {
    diff: &'d ImageDiff<'i, 'a>,
    /// Carried functions whose instructions changed, or that are new.
    replaced: BTreeSet<usize>,
    /// Functions of the new image whose results may reach replaced code.
    reached: BTreeSet<usize>,
}

impl<'d, 'i, 'a> Kept<'d, 'i, 'a> {
    pub(crate) fn of(diff: &'d ImageDiff<'i, 'a>, carried: &Carried, context: &NoiseContext) -> Self {
        let mut replaced = carried.new_functions();
        // What is carried although its instructions are the same does as its old version did.
        replaced.retain(|n| !carried.joined.contains(n));
        for pair in diff.changed.iter().filter(|p| only_stamps(diff, p, context)) {
            replaced.remove(&pair.new);
        }
        let reached = reachable(&diff.new, &replaced);
        Self { diff, replaced, reached }
    }

    /// A text that lies in initialised data itself.
    pub(crate) fn text(&self, old: VaRange, new: VaRange) -> Standing {
        let (Some(old), Some(new)) = (object_around(&self.diff.old, old), object_around(&self.diff.new, new)) else {
            return Standing::Matters("its extent is unknown".to_owned());
        };
        self.object(old, new)
    }

    /// A text that the pointer in this slot leads to.
    pub(crate) fn pointer(&self, old: VaRange, new: VaRange) -> Standing {
        self.text(old, new)
    }

    fn object(&self, old: VaRange, new: VaRange) -> Standing {
        let (staying, replaced) = (readers(&self.diff.old, old), readers(&self.diff.new, new));
        if let Some(reader) = replaced.iter().find(|r| self.replaced.contains(&r.function) && !writes_out(r)) {
            return Standing::Matters(format!("replaced code gets at it: {}", said(&self.diff.new, reader)));
        }
        let mut examined = Vec::new();
        for reader in &staying {
            let function = self.diff.new_of(reader.function);
            if function.is_some_and(|f| self.replaced.contains(&f)) {
                continue;
            }
            match &reader.purpose {
                Purpose::WritesOut(_) => {}
                Purpose::Compares(_) => {
                    return Standing::Matters(format!("compared: {}", said(&self.diff.old, reader)));
                }
                Purpose::Examines(_) if function.is_none_or(|f| self.reached.contains(&f)) => {
                    let how = said(&self.diff.old, reader);
                    return Standing::Matters(format!("replaced code calls what examines it: {how}"));
                }
                Purpose::Examines(_) => examined.push(said(&self.diff.old, reader)),
            }
        }
        let exported = exported_names(&self.diff.old, old);
        let library = self.diff.old.image.section_named(".interp").is_none();
        if let (Some(name), true) = (exported.first(), library) {
            return Standing::Matters(format!("programs may compare what the library exports as {name}"));
        }
        let count = staying.len();
        if examined.is_empty() && exported.is_empty() {
            return Standing::WrittenOut(format!("each of its {count} readers only writes it out"));
        }
        let exports = exported.iter().map(|name| format!("exported as {name}"));
        let readers: Vec<String> = examined.into_iter().chain(exports).take(8).collect();
        Standing::Named(format!("no replaced code depends on it; of its {count} readers {}", readers.join("; ")))
    }
}

/// Replaced code that compares with the new name, where other code or data keep the old one.
pub(crate) fn mixed(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    reasons: &[Reason],
    noise: bool,
    context: &NoiseContext,
) -> Option<Reason> {
    let keeps = |reason: &Reason| [registry::BUILD_STAMP.code, registry::BUILD_NAME_KEPT.code].contains(&&*reason.code);
    if !noise && !reasons.iter().any(keeps) {
        return None;
    }
    let evidence = new_names(diff, carried.new_functions(), context);
    let summary = "replaced code compares with the name of the new build, while the old one is still given";
    (!evidence.is_empty()).then(|| registry::NAMES_MIXED.because(summary, evidence))
}

fn said(side: &Side<'_, '_>, reader: &Reader) -> String {
    let (Purpose::WritesOut(how) | Purpose::Compares(how) | Purpose::Examines(how)) = &reader.purpose;
    let name = side.image.functions().get(reader.function).map(salve_elf::Function::display_name);
    format!("{} at {}: {how}", name.unwrap_or_default(), reader.at)
}

fn writes_out(reader: &Reader) -> bool {
    matches!(reader.purpose, Purpose::WritesOut(_))
}

/// What `from` calls and gets something back from, and what that does, and so on.
fn reachable(side: &Side<'_, '_>, from: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut reached = from.clone();
    let mut queue: Vec<usize> = from.iter().copied().collect();
    while let Some(function) = queue.pop() {
        for callee in heard_from(side, function) {
            if reached.insert(callee) {
                queue.push(callee);
            }
        }
    }
    reached
}

/// Functions that `function` jumps to, or calls and gets something back from: a
/// value, or what is put into an object of its frame.
fn heard_from(side: &Side<'_, '_>, function: usize) -> BTreeSet<usize> {
    let (Some(f), Some(code)) = (side.image.functions().get(function), side.code.get(function)) else {
        return BTreeSet::new();
    };
    let instructions: Vec<Instruction> = salve_code::decode(side.image, f.range).into_iter().flatten().collect();
    let index: HashMap<u64, usize> = instructions.iter().enumerate().map(|(i, x)| (x.ip(), i)).collect();
    let mut callees = BTreeSet::new();
    for reference in &code.references {
        let place = match side.place(reference.target) {
            Place::Slot(Binding::Relative { target }) => side.place(target),
            place => place,
        };
        let Place::Code { function: callee, .. } = place else { continue };
        let at = index.get(&f.range.start().wrapping_offset(i64::from(reference.at)).raw()).copied();
        let hears = match reference.kind {
            ReferenceKind::Jump => true,
            ReferenceKind::Call | ReferenceKind::Indirect => at.is_none_or(|at| {
                hands_over_frame(&instructions, at) || uses_result(&instructions, &index, at.saturating_add(1))
            }),
            ReferenceKind::Address | ReferenceKind::Memory | ReferenceKind::Absolute => false,
        };
        if hears {
            callees.insert(callee);
        }
    }
    callees
}

/// Whether the address of something in the frame may be among the arguments of the call.
fn hands_over_frame(instructions: &[Instruction], call: usize) -> bool {
    const FURTHEST: usize = 24;
    let before = instructions.get(call.saturating_sub(FURTHEST)..call).unwrap_or_default();
    let frame = |r: Register| matches!(r, Register::RSP | Register::RBP);
    before.iter().rev().take_while(|i| i.flow_control() == FlowControl::Next).any(|i| {
        let address = i.mnemonic() == Mnemonic::Lea && frame(i.memory_base()) && i.op0_register() != Register::RSP;
        let copy = i.mnemonic() == Mnemonic::Mov
            && i.op1_kind() == OpKind::Register
            && i.op1_register() == Register::RSP
            && i.op0_register() != Register::RBP;
        address || copy
    })
}

/// Whether `rax` is read before it is overwritten, on any path from here.
fn uses_result(instructions: &[Instruction], index: &HashMap<u64, usize>, from: usize) -> bool {
    const MOST_STEPS: usize = 256;
    let mut factory = InstructionInfoFactory::new();
    let mut queue = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = queue.pop() {
        if !seen.insert(at) {
            continue;
        }
        let Some(instruction) = instructions.get(at) else { return true };
        if seen.len() > MOST_STEPS {
            return true;
        }
        let ours = |u: &&iced_x86::UsedRegister| u.register().full_register() == Register::RAX;
        let info = factory.info(instruction);
        let plain_zero = matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
            && instruction.op0_register() == instruction.op1_register();
        let used: Vec<_> = info.used_registers().iter().filter(ours).map(|u| (u.register(), u.access())).collect();
        let writes = used.iter().any(|(r, a)| *a == OpAccess::Write && r.size() >= 4) || plain_zero && !used.is_empty();
        if !plain_zero && used.iter().any(|(_, a)| *a != OpAccess::Write) {
            return true;
        }
        if writes {
            continue;
        }
        let next = at.saturating_add(1);
        match instruction.flow_control() {
            FlowControl::Next => queue.push(next),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                let Some(to) = index.get(&instruction.near_branch64()) else { return true };
                queue.push(*to);
                if instruction.flow_control() == FlowControl::ConditionalBranch {
                    queue.push(next);
                }
            }
            // Overwritten by the callee, or gone for good.
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt | FlowControl::Exception => {}
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::XbeginXabortXend => return true,
        }
    }
    false
}
