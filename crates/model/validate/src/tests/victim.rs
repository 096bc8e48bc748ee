//! A small real pair of images, with correct claims and a correct livepatch made
//! from their symbol tables: what a matcher would have to find, written down.

use crate::correspond::stub_slot;
use crate::decode::{Base, Decoder, Use};
use crate::image::{Binding, Image, Role, Section};
use crate::lockstep::{looks_like_table, table_entry};
use object::{Object as _, ObjectSymbol as _, SymbolKind};
use salve_elf::{Va, VaRange};
use salve_patch::{
    Access, Claims, DataRun, Detour, Fixup, FixupKind, FunctionPair, JumpTable, Livepatch, NoiseClaim, NoiseKind,
    NoiseSite, ReplacedFunction, RevertPolicy, Segment,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

#[derive(Clone)]
pub(super) struct Victim {
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
    pub(super) claims: Claims,
    pub(super) livepatch: Livepatch,
    old_names: BTreeMap<String, VaRange>,
    new_names: BTreeMap<String, VaRange>,
}

type Names = BTreeMap<String, VaRange>;

impl Victim {
    pub(super) fn check(&self) -> Result<crate::Proof, crate::Invalid> {
        crate::validate(&self.old, &self.new, &self.livepatch, &self.claims)
    }

    pub(super) fn old_at(&self, name: &str) -> VaRange {
        self.old_names[name]
    }

    pub(super) fn new_at(&self, name: &str) -> VaRange {
        self.new_names[name]
    }

    pub(super) fn build(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("scratch directory");
        let old = compile(dir.path(), "old", include_str!("old.c"), flags);
        let new = compile(dir.path(), "new", include_str!("new.c"), flags);
        let (old_names, new_names) = (names(&old), names(&new));
        let (a, b) = (Image::parse(&old).expect("old image"), Image::parse(&new).expect("new image"));
        let mut claims = code_claims(&a, &b, &old_names, &new_names);
        data_claims(&a, &b, &mut claims, &old_names, &new_names);
        let livepatch = livepatch(&a, &b, &claims);
        drop((a, b));
        Self { old, new, claims, livepatch, old_names, new_names }
    }
}

fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    let (from, to) = (dir.join(name).with_extension("c"), dir.join(name));
    std::fs::write(&from, source).expect("source");
    let status = Command::new("gcc")
        .args(["-O2", "-fPIC", "-shared", "-fno-inline", "-fno-ipa-cp", "-fno-ipa-icf", "-fno-ipa-sra"])
        .args(["-fno-toplevel-reorder", "-fcf-protection=none"])
        .args(flags)
        .arg("-o")
        .arg(&to)
        .arg(&from)
        .status();
    assert!(status.expect("gcc").success());
    std::fs::read(&to).expect("image")
}

/// Functions with their sizes from the symbol table, and sized objects.
fn names(bytes: &[u8]) -> Names {
    let file = object::File::parse(bytes).expect("an object file");
    let sized = file.symbols().filter(|s| s.size() > 0 && s.is_definition());
    let sized = sized.filter(|s| matches!(s.kind(), SymbolKind::Text | SymbolKind::Data));
    sized
        .map(|s| (s.name().expect("name").to_owned(), VaRange::new(Va::new(s.address()), s.size()).expect("range")))
        .collect()
}

const CARRIED: [&str; 2] = ["parse", "bound"];

fn code_claims(old: &Image<'_>, new: &Image<'_>, old_names: &Names, new_names: &Names) -> Claims {
    let mut claims = Claims::default();
    let is_code = |image: &Image<'_>, range: &VaRange| image.section_at(range.start()).is_some_and(Section::is_code);
    for (name, range) in new_names.iter().filter(|(_, r)| is_code(new, r)) {
        match old_names.get(name) {
            None => claims.added.push(*range),
            Some(there) if CARRIED.iter().any(|c| name.starts_with(c)) => {
                claims.changed.push(FunctionPair { old: *there, new: *range });
            }
            Some(there) if name == "banner" || name == "line" => {
                claims.noise.push(noise(old, new, FunctionPair { old: *there, new: *range }));
            }
            Some(there) => claims.same.push(FunctionPair { old: *there, new: *range }),
        }
    }
    claims
        .gone
        .extend(old_names.iter().filter(|(n, r)| is_code(old, r) && !new_names.contains_key(*n)).map(|(_, r)| *r));
    // The linker's own code has no sizes: what lies before, between and behind, in order.
    let known = |names: &Names, image| {
        let mut known: Vec<VaRange> = names.values().copied().filter(|r| is_code(image, r)).collect();
        known.sort_unstable();
        known
    };
    let gaps = gaps(old, &known(old_names, old)).into_iter().zip(gaps(new, &known(new_names, new)));
    claims.same.extend(gaps.map(|(old, new)| FunctionPair { old, new }));
    claims.same.sort_unstable_by_key(|p| p.new);
    claims
}

fn gaps(image: &Image<'_>, known: &[VaRange]) -> Vec<VaRange> {
    let decoder = Decoder::new();
    let mut gaps = Vec::new();
    for section in image.sections.iter().filter(|s| s.role == Role::Code) {
        let mut at = section.range.start();
        let inside = known.iter().copied().filter(|r| section.range.contains(r.start()));
        for next in inside.chain(VaRange::new(section.range.end(), 0)) {
            let start = crate::lockstep::skip_nops(image, &decoder, at);
            if start < next.start() {
                gaps.push(VaRange::try_from((start, next.start())).expect("ordered"));
            }
            at = next.end();
        }
    }
    gaps
}

/// The one instruction that differs.
fn noise(old: &Image<'_>, new: &Image<'_>, pair: FunctionPair) -> NoiseClaim {
    let (a, b) = (old.bytes(pair.old).expect("code"), new.bytes(pair.new).expect("code"));
    let decoder = Decoder::new();
    let mut at = 0;
    let mut sites = Vec::new();
    while at < b.len() {
        let instr = decoder.decode(&b[at..], false).expect("instruction");
        let step = i64::try_from(at).expect("small");
        let (old_at, new_at) = (pair.old.start().wrapping_offset(step), pair.new.start().wrapping_offset(step));
        let constant = instr.fields().any(|f| {
            let target = new_at.wrapping_offset(instr.len as i64 + f.read(&b[at..]).expect("field"));
            f.role == Use::Address && new.section_at(target).is_some_and(Section::is_constant)
        });
        if constant {
            sites.push(NoiseSite { old_at, new_at, kind: NoiseKind::String });
        } else if instr.immediate > 0 && a[at..at + instr.len] != b[at..at + instr.len] {
            sites.push(NoiseSite { old_at, new_at, kind: NoiseKind::Immediate });
        }
        at += instr.len;
    }
    assert_eq!(sites.len(), 1, "{pair:?}");
    NoiseClaim { pair, sites }
}

fn data_claims(old: &Image<'_>, new: &Image<'_>, claims: &mut Claims, old_names: &Names, new_names: &Names) {
    let mut runs = Vec::new();
    for (name, range) in new_names.iter().filter(|(_, r)| new.section_at(r.start()).is_some_and(|s| !s.is_code())) {
        runs.push(DataRun { new: range.start(), old: old_names[name].start(), len_bytes: range.len_bytes() });
    }
    // `__dso_handle` starts .data and has no size.
    for (name, len_bytes) in [(&b".data"[..], Some(8)), (b".init_array", None), (b".fini_array", None)] {
        let (a, b) = (old.section_named(name).expect("section"), new.section_named(name).expect("section"));
        let len_bytes = len_bytes.unwrap_or(b.range.len_bytes());
        runs.push(DataRun { new: b.range.start(), old: a.range.start(), len_bytes });
    }
    for (a, b) in pointers(old, new, claims, &runs) {
        if new.section_at(b).is_some_and(Section::is_constant) && !runs.iter().any(|r| r.new == b) {
            constant(old, new, claims, &mut runs, a, b);
        }
    }
    runs.sort_unstable();
    claims.data = runs;
    claims.jump_tables.sort_unstable_by_key(|t| t.new);
}

/// A string or a jump table that code or data that stays refers to.
fn constant(old: &Image<'_>, new: &Image<'_>, claims: &mut Claims, runs: &mut Vec<DataRun>, a: Va, b: Va) {
    let len_bytes = if looks_like_table(new, b) {
        // `choose` has seven cases; what follows may be another table and look like more.
        let entries = 7_u32;
        let first = table_entry(new, b, b).expect("entry");
        let owner = claims.same.iter().find(|p| p.new.contains(first)).expect("owner").new.start();
        claims.jump_tables.push(JumpTable { new: b, old: a, entries, new_owner: owner });
        u64::from(entries) * 4
    } else {
        let text = |image: &Image<'_>, at: Va| {
            let bytes = image.section_at(at).and_then(|s| s.from(at)).expect("text");
            bytes.iter().position(|b| *b == 0).expect("terminated") as u64 + 1
        };
        assert_eq!(text(old, a), text(new, b));
        text(new, b)
    };
    runs.push(DataRun { new: b, old: a, len_bytes });
}

/// Places that functions said to be the same, and slots of data said to be the same, refer to, in pairs.
fn pointers(old: &Image<'_>, new: &Image<'_>, claims: &Claims, runs: &[DataRun]) -> Vec<(Va, Va)> {
    let decoder = Decoder::new();
    let mut found = Vec::new();
    for pair in &claims.same {
        let (a, b) = (old.bytes(pair.old).expect("code"), new.bytes(pair.new).expect("code"));
        let mut at = 0;
        while at < b.len() {
            let instr = decoder.decode(&b[at..], false).expect("instruction");
            let end = (at + instr.len) as i64;
            for field in instr.fields() {
                let (x, y) = (field.read(&a[at..]).expect("field"), field.read(&b[at..]).expect("field"));
                found.push((pair.old.start().wrapping_offset(end + x), pair.new.start().wrapping_offset(end + y)));
            }
            at += instr.len;
        }
    }
    for run in runs {
        for slot in new.slots_in(VaRange::new(run.new, run.len_bytes).expect("range")) {
            let there = run.old.wrapping_offset(slot.at.wrapping_distance_from(run.new));
            let target = old.slot(there).and_then(|s| s.binding.target());
            found.extend(target.zip(slot.binding.target()));
        }
    }
    found
}

/// The place in the old image that means what `target` means in the new one.
fn old_place(old: &Image<'_>, new: &Image<'_>, claims: &Claims, target: Va) -> Va {
    let name = |image: &Image<'_>, slot: Va| match image.slot(slot)?.binding {
        Binding::Jump { symbol, .. } | Binding::Address { symbol, .. } => Some(image.symbol(symbol)?.name.to_vec()),
        _ => None,
    };
    match new.section_at(target).expect("section").role {
        Role::Code => {
            let noise = claims.noise.iter().map(|n| &n.pair);
            let pairs = claims.same.iter().chain(noise).chain(&claims.changed);
            pairs.into_iter().find(|p| p.new.start() == target).expect("pair").old.start()
        }
        Role::Stubs => {
            let wanted = name(new, stub_slot(new, target).expect("stub")).expect("name");
            let stubs = old.sections.iter().filter(|s| s.role == Role::Stubs);
            let mut places = stubs.flat_map(|s| (s.range.start().raw()..s.range.end().raw()).step_by(8).map(Va::new));
            places.find(|at| stub_slot(old, *at).and_then(|s| name(old, s)).as_ref() == Some(&wanted)).expect("stub")
        }
        Role::Got => {
            let wanted = name(new, target);
            old.slots.iter().find(|s| name(old, s.at) == wanted).expect("slot").at
        }
        Role::Data => {
            let run = claims.data.iter().rfind(|r| r.new <= target).expect("run");
            run.old.wrapping_offset(target.wrapping_distance_from(run.new))
        }
    }
}

fn livepatch(old: &Image<'_>, new: &Image<'_>, claims: &Claims) -> Livepatch {
    let mut carried: Vec<VaRange> = claims.changed.iter().map(|p| p.new).chain(claims.added.iter().copied()).collect();
    carried.sort_unstable();
    let mut fixups = Vec::new();
    let decoder = Decoder::new();
    for range in &carried {
        let bytes = new.bytes(*range).expect("code");
        let mut at = 0;
        while at < bytes.len() {
            let instr = decoder.decode(&bytes[at..], false).expect("instruction");
            let next = range.start().wrapping_offset((at + instr.len) as i64);
            for field in instr.fields().filter(|f| f.base == Base::Next) {
                let target = next.wrapping_offset(field.read(&bytes[at..]).expect("field"));
                let inside = carried.iter().any(|r| r.contains(target));
                if inside || new.section_at(target).is_some_and(Section::is_constant) {
                    continue;
                }
                let new_va = range.start().wrapping_offset((at + field.offset) as i64);
                let old_target = old_place(old, new, claims, target);
                fixups.push(Fixup { new_va, kind: FixupKind::PcRel32 { new_next: next, old_target } });
            }
            at += instr.len;
        }
    }
    let rodata = new.section_named(b".rodata").expect("section").range;
    let code = VaRange::try_from((carried[0].start(), carried[carried.len() - 1].end())).expect("ordered");
    let mut segments =
        vec![segment(new, code, &carried, Access::ReadExecute), segment(new, rodata, &[rodata], Access::Read)];
    if rodata.start().page_floor(4096).raw() < code.end().raw().next_multiple_of(4096) {
        let both = VaRange::try_from((code.start(), rodata.end())).expect("ordered");
        let parts: Vec<_> = carried.iter().copied().chain([rodata]).collect();
        segments = vec![segment(new, both, &parts, Access::ReadExecute)];
    }
    let detours = claims.changed.iter().filter(|p| p.old.len_bytes() > 16).map(|pair| Detour {
        function: "parse".into(),
        old_entry: pair.old.start(),
        old_va: pair.old.start(),
        expected: old.array::<5>(pair.old.start()).expect("code").to_vec(),
        new_target: pair.new.start(),
    });
    let replaced = ReplacedFunction {
        name: "parse".into(),
        old_ranges: claims.changed.iter().map(|p| p.old).collect(),
        new_ranges: carried.clone(),
        may_overlap: false,
    };
    Livepatch {
        segments,
        fixups,
        detours: detours.collect(),
        replaced: vec![replaced],
        imports: Vec::new(),
        pointers: Vec::new(),
        words: Vec::new(),
        readers: Vec::new(),
        requirements: Vec::new(),
        revert: RevertPolicy::Refuse,
        unwind: salve_patch::Unwind::default(),
    }
}

/// Whole pages around `extent` that hold `parts` and filling.
fn segment(image: &Image<'_>, extent: VaRange, parts: &[VaRange], access: Access) -> Segment {
    let new_va = extent.start().page_floor(4096);
    let len = (extent.end().raw() - new_va.raw()).next_multiple_of(4096);
    let fill = if access == Access::ReadExecute { 0xcc } else { 0 };
    let mut bytes = vec![fill; usize::try_from(len).expect("small")];
    for part in parts {
        let from = usize::try_from(part.start().raw() - new_va.raw()).expect("small");
        let held = image.bytes(*part).expect("contents");
        bytes[from..from + held.len()].copy_from_slice(held);
    }
    Segment { new_va, access, bytes }
}
