//! A small patch file that uses every part of the format.

use salve_elf::{BuildId, ContentHash, Va, VaRange};
use salve_patch::{
    Access, ChangeKind, Cie, Cves, Detour, Evidence, FORMAT_VERSION, Fde, FileChange, FileClass, Fixup, FixupKind,
    FunctionCounts, ImageId, ImageReport, Livepatch, NoiseReport, NotHealed, NotHealedGroup, Origin, PackageId,
    PatchFile, Reason, ReferenceCounts, ReplacedFunction, Requirement, RevertPolicy, Segment, Unwind, Verdict,
};

pub(crate) fn va(raw: u64) -> Va {
    Va::new(raw)
}

pub(crate) fn range(start: u64, len: u64) -> VaRange {
    VaRange::new(va(start), len).expect("in the address space")
}

pub(crate) fn image(seed: &str) -> ImageId {
    ImageId {
        sha256: ContentHash::of(seed.as_bytes()),
        len_bytes: 123_456,
        build_id: BuildId::parse(&[0xab; 20]).ok(),
        soname: Some("libsmall.so.1".to_owned()),
    }
}

/// As gcc begins: the frame's address is rsp + 8, the return address lies 8 below it. The
/// first part pushes nothing; the second is said to have pushed one register.
pub(crate) fn unwind() -> Unwind {
    let cie =
        Cie { code_alignment: 1, data_alignment: -8, return_register: 16, instructions: vec![0x0c, 7, 8, 0x90, 1] };
    Unwind {
        cies: vec![cie],
        fdes: vec![
            Fde { cie: 0, new_range: range(0x5120, 8), instructions: Vec::new() },
            Fde { cie: 0, new_range: range(0x5400, 2), instructions: vec![0x0e, 16] },
        ],
    }
}

/// `lea rax, [rip+0]` in the first part, `jmp` in the second; the lea leads to old data.
pub(crate) fn livepatch() -> Livepatch {
    let mut text = vec![0xcc; 4096];
    text[0x120..0x128].copy_from_slice(&[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3]);
    text[0x400..0x402].copy_from_slice(&[0xeb, 0xfe]);
    let mut rodata = vec![0; 4096];
    rodata[..6].copy_from_slice(b"hello\0");
    Livepatch {
        segments: vec![
            Segment { new_va: va(0x5000), access: Access::ReadExecute, bytes: text },
            Segment { new_va: va(0x8000), access: Access::Read, bytes: rodata },
        ],
        fixups: vec![Fixup {
            new_va: va(0x5123),
            kind: FixupKind::PcRel32 { new_next: va(0x5127), old_target: va(0x9040) },
        }],
        detours: vec![Detour {
            function: "parse_chunk".to_owned(),
            old_entry: va(0x5100),
            old_va: va(0x5104),
            expected: vec![0x41, 0x57, 0x41, 0x56, 0x55],
            new_target: va(0x5120),
        }],
        replaced: vec![ReplacedFunction {
            name: "parse_chunk".to_owned(),
            old_ranges: vec![range(0x5100, 0x60), range(0x4000, 0x10)],
            new_ranges: vec![range(0x5120, 8), range(0x5400, 2)],
            may_overlap: false,
        }],
        imports: Vec::new(),
        pointers: Vec::new(),
        words: Vec::new(),
        readers: Vec::new(),
        requirements: vec![Requirement::DependencyConstant {
            soname: "libother.so.3".to_owned(),
            symbol: "other_version_num".to_owned(),
            value: 0x3000_0160,
            mask: 0xffff_f000,
            why: "a constant of its headers is baked in".to_owned(),
        }],
        revert: RevertPolicy::KeepMapped,
        unwind: unwind(),
    }
}

pub(crate) fn report(path: &str, verdict: Verdict) -> ImageReport {
    let evidence = Evidence {
        function: Some("parse_chunk".to_owned()),
        old_va: Some(va(0x5100)),
        new_va: None,
        seen: "displacement 0x218 became 0x278".to_owned(),
    };
    let reason = |verdict| Reason {
        code: "example".to_owned(),
        verdict,
        summary: "why".to_owned(),
        evidence: vec![evidence.clone()],
    };
    ImageReport {
        path: path.to_owned(),
        old: Some(image(&format!("old {path}"))),
        new: Some(image(&format!("new {path}"))),
        verdict,
        reasons: if verdict >= Verdict::Review { vec![reason(verdict)] } else { Vec::new() },
        functions: FunctionCounts { old: 3, new: 3, identical: 1, noise: 1, changed: 1, added: 0, gone: 0 },
        references: ReferenceCounts { payload: 1, old_code: 0, old_data: 1, imports: 0 },
        noise: vec![NoiseReport {
            function: "banner".to_owned(),
            old_va: va(0x6000),
            new_va: va(0x6010),
            proof: vec![evidence.clone()],
        }],
        livepatch: matches!(verdict, Verdict::Safe | Verdict::Review).then(livepatch),
    }
}

pub(crate) fn patch() -> PatchFile {
    let package = |version: &str| PackageId {
        name: "small".to_owned(),
        source: "small-src".to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
    };
    PatchFile {
        format_version: FORMAT_VERSION,
        created_by: "salve 0.1.0".to_owned(),
        origin: Origin::Packages {
            old: package("1.0-1"),
            new: package("1.0-1+deb12u1"),
            cves: Cves::Known { ids: vec!["CVE-2026-0001".to_owned()] },
        },
        not_healed: Some(not_healed()),
        images: vec![
            report("/usr/sbin/small", Verdict::Safe),
            report("/usr/lib/libsmall.so.1", Verdict::Review),
            report("/usr/bin/same", Verdict::Unchanged),
            report("/usr/bin/shifted", Verdict::Refused),
        ],
    }
}

pub(crate) fn not_healed() -> NotHealed {
    let changed = |path: &str| FileChange { path: path.to_owned(), change: ChangeKind::Contents };
    NotHealed::Known {
        groups: vec![
            NotHealedGroup { class: FileClass::Conffile, files: 1, named: vec![changed("/etc/small.conf")] },
            NotHealedGroup { class: FileClass::Documentation, files: 7, named: Vec::new() },
        ],
    }
}
