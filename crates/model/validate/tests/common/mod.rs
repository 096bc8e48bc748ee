//! Claims that an image is itself, made from its unwind information.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::disallowed_types, clippy::cast_possible_truncation, reason = "tests read real files, on x86-64")]

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use object::{Object as _, ObjectSection as _, SectionFlags, SectionKind};
use salve_elf::{Va, VaRange};
use salve_patch::{Claims, DataRun, FunctionPair, Livepatch, RevertPolicy};
use std::path::{Path, PathBuf};

pub(crate) fn empty_livepatch() -> Livepatch {
    Livepatch {
        segments: Vec::new(),
        fixups: Vec::new(),
        detours: Vec::new(),
        replaced: Vec::new(),
        imports: Vec::new(),
        pointers: Vec::new(),
        words: Vec::new(),
        readers: Vec::new(),
        requirements: Vec::new(),
        revert: RevertPolicy::Unmap,
        unwind: salve_patch::Unwind::default(),
    }
}

/// Ranges of all frame descriptions.
pub(crate) fn frames(file: &object::File<'_>) -> Vec<VaRange> {
    let Some(section) = file.section_by_name(".eh_frame") else { return Vec::new() };
    let data = section.data().expect("section data");
    let eh_frame = EhFrame::new(data, LittleEndian);
    let text = file.section_by_name(".text").map_or(0, |s| s.address());
    let bases = BaseAddresses::default().set_eh_frame(section.address()).set_text(text);
    let mut ranges = Vec::new();
    let mut entries = eh_frame.entries(&bases);
    while let Some(entry) = entries.next().expect("well-formed frames") {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).expect("well-formed frame");
        // A signal trampoline's frame starts one byte early, for the unwinder's sake.
        let early = u64::from(fde.is_signal_trampoline());
        ranges.push(VaRange::new(Va::new(fde.initial_address() + early), fde.len() - early).expect("range"));
    }
    ranges.sort_unstable();
    ranges
}

fn flags(section: &object::Section<'_, '_>) -> u64 {
    match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0,
        _ => 0,
    }
}

/// Claims that an image is the same as itself: functions by unwind information,
/// the code between them as one function a gap, whole sections of data as runs.
pub(crate) fn identity(bytes: &[u8]) -> Claims {
    let file = object::File::parse(bytes).expect("an object file");
    let frames = frames(&file);
    let mut claims = Claims::default();
    for section in file.sections() {
        let flags = flags(&section);
        let range = VaRange::new(Va::new(section.address()), section.size()).expect("range");
        let tbss = flags & 0x400 != 0 && section.kind() == SectionKind::UninitializedTls;
        if flags & 2 == 0 || tbss || range.is_empty() {
            continue;
        }
        let name = section.name().expect("name");
        if flags & 4 == 0 {
            if !name.starts_with(".got") {
                claims.data.push(DataRun { new: range.start(), old: range.start(), len_bytes: range.len_bytes() });
            }
            continue;
        }
        if name.starts_with(".plt") || name == ".iplt" {
            continue;
        }
        let data = section.data().expect("code");
        let mut at = range.start();
        for frame in frames.iter().filter(|f| range.contains(f.start())) {
            gap(&mut claims, data, range.start(), at, frame.start());
            claims.same.push(FunctionPair { old: *frame, new: *frame });
            at = at.max(frame.end());
        }
        gap(&mut claims, data, range.start(), at, range.end());
    }
    claims
}

/// Code that no frame description covers, less the padding around it.
fn gap(claims: &mut Claims, data: &[u8], base: Va, from: Va, to: Va) {
    if from >= to {
        return;
    }
    let offset = |at: Va| usize::try_from(at.raw() - base.raw()).expect("fits");
    let bytes = &data[offset(from)..offset(to)];
    let lead = padding(bytes);
    let mut rest = &bytes[lead..];
    while let [head @ .., 0 | 0x90 | 0xcc] = rest {
        rest = head;
    }
    if rest.is_empty() {
        return;
    }
    // Hand-written code and its tables alternate; each begins at a multiple of 16.
    let end = bytes.len();
    let mut at = lead;
    while at < end {
        let splits = (at + 1..end).filter(|split| (from.raw() as usize + split).is_multiple_of(16));
        let whole = decodes(&bytes[at..end], false).then_some(end);
        let first = || splits.clone().find(|split| decodes(&bytes[at..*split], true));
        let code = whole.or_else(first).unwrap_or(end);
        let next = if decodes(&bytes[at..code], code != end) { code } else { splits.clone().next().unwrap_or(end) };
        let range = VaRange::try_from((Va::new(from.raw() + at as u64), Va::new(from.raw() + next as u64)));
        let range = range.expect("ordered");
        if decodes(&bytes[at..next], next != end) {
            claims.same.push(FunctionPair { old: range, new: range });
        } else {
            claims.data.push(DataRun { new: range.start(), old: range.start(), len_bytes: range.len_bytes() });
        }
        at = next;
    }
}

fn padding(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [0 | 0x90 | 0xcc, ..] => at += 1,
            [0x66, 0x90, ..] => at += 2,
            rest => match decode(rest) {
                Some((len, true)) => at += len,
                Some(_) | None => return at,
            },
        }
    }
    at
}

/// Whether all of it decodes, and (if asked) nothing follows its last instruction.
fn decodes(bytes: &[u8], stops: bool) -> bool {
    let mut at = 0;
    let mut stopped = false;
    while at < bytes.len() {
        let Some((len, is_nop)) = decode(&bytes[at..]) else { return false };
        if !is_nop {
            let skip = usize::from(bytes[at] == 0xf3);
            stopped = matches!(bytes.get(at + skip), Some(0xc3 | 0xe9 | 0xeb));
        }
        at += len;
    }
    stopped || !stops
}

fn decode(bytes: &[u8]) -> Option<(usize, bool)> {
    use yaxpeax_arch::LengthedInstruction as _;
    use yaxpeax_x86::long_mode::{InstDecoder, Opcode};
    let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
    Some((instruction.len().to_const() as usize, instruction.opcode() == Opcode::NOP))
}

/// All ELF files of the packages of the corpus, unpacked beneath `into`.
pub(crate) fn corpus(into: &Path) -> Vec<PathBuf> {
    let packages = std::env::var_os("SALVE_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus"), PathBuf::from);
    for entry in std::fs::read_dir(&packages).expect("corpus") {
        let package = entry.expect("entry").path();
        if package.extension().is_none_or(|e| e != "deb") {
            continue;
        }
        let to = into.join(package.file_name().expect("name"));
        let status = std::process::Command::new("dpkg-deb").arg("-x").arg(&package).arg(&to).status();
        assert!(status.expect("dpkg-deb").success(), "{}", package.display());
    }
    let mut found = Vec::new();
    walk(into, &mut found);
    found.sort();
    found
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("directory") {
        let entry = entry.expect("entry");
        let kind = entry.file_type().expect("type");
        if kind.is_dir() {
            walk(&entry.path(), found);
        } else if kind.is_file() && is_image(&entry.path()) {
            found.push(entry.path());
        }
    }
}

fn is_image(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0_u8; 18];
    let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_ok() && head.starts_with(b"\x7fELF\x02\x01") && matches!(head[16], 2 | 3)
}
