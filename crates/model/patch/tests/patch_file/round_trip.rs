//! `decode(encode(p)) == p` for patch files of every shape, and no bytes panic.

use crate::common::{image, range, va};
use proptest::collection::vec;
use proptest::prelude::*;
use salve_patch::{
    Access, Cie, Cves, Detour, Evidence, FORMAT_VERSION, Fde, Fixup, FixupKind, FunctionCounts, ImageReport, Limits,
    Livepatch, NoiseReport, Origin, PackageId, PatchFile, Reason, ReferenceCounts, ReplacedFunction, Requirement,
    RevertPolicy, Segment, Unwind, Verdict, decode, encode,
};

const PAGE: u64 = 4096;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_/.~<>:é\"\\\\ ]{1,40}"
}

/// Any text at all: evidence is prose, and quotes what was found in files.
fn prose() -> impl Strategy<Value = String> {
    any::<String>()
}

fn evidence() -> impl Strategy<Value = Evidence> {
    (proptest::option::of(name()), any::<Option<u64>>(), any::<Option<u64>>(), prose())
        .prop_map(|(function, old, new, seen)| Evidence { function, old_va: old.map(va), new_va: new.map(va), seen })
}

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let one = (0_u64..4, 1_u64..3, any::<bool>(), any::<u8>());
    (1_u64..1000, vec(one, 1..5)).prop_map(|(first, pages)| {
        let mut next = first;
        let mut all: Vec<Segment> = Vec::new();
        for (gap, len, code, fill) in pages {
            let access = if code || all.is_empty() { Access::ReadExecute } else { Access::Read };
            let start = next + gap;
            next = start + len;
            let bytes = (0..len * PAGE).map(|at| fill.wrapping_add(at.to_le_bytes()[0])).collect();
            all.push(Segment { new_va: va(start * PAGE), access, bytes });
        }
        all
    })
}

/// Functions one after the other in the first segment, which is code.
fn livepatch() -> impl Strategy<Value = Livepatch> {
    let function = (name(), 16_u64..64, any::<bool>(), any::<bool>(), any::<u32>());
    let revert = prop_oneof![Just(RevertPolicy::Unmap), Just(RevertPolicy::KeepMapped), Just(RevertPolicy::Refuse)];
    let requirement = (name(), name(), any::<u64>(), 1..=u64::MAX, prose());
    (segments(), vec(function, 1..12), vec(requirement, 0..3), revert).prop_map(
        |(segments, functions, requirements, revert)| {
            let (mut new, mut old) = (segments[0].new_va.raw(), 0x10_0000);
            let mut all = Livepatch {
                segments,
                fixups: Vec::new(),
                detours: Vec::new(),
                replaced: Vec::new(),
                imports: Vec::new(),
                pointers: Vec::new(),
                words: Vec::new(),
                readers: Vec::new(),
                requirements: requirements
                    .into_iter()
                    .map(|(soname, symbol, value, mask, why)| Requirement::DependencyConstant {
                        soname,
                        symbol,
                        value,
                        mask,
                        why,
                    })
                    .collect(),
                revert,
                unwind: Unwind::default(),
            };
            for (name, len, endbr, may_overlap, target) in functions {
                let entry = va(old);
                all.detours.push(Detour {
                    function: name.clone(),
                    old_entry: entry,
                    old_va: if endbr { va(old + 4) } else { entry },
                    expected: target.to_le_bytes().into_iter().chain([0x90]).collect(),
                    new_target: va(new),
                });
                all.fixups.push(Fixup {
                    new_va: va(new + 3),
                    kind: FixupKind::PcRel32 { new_next: va(new + 7), old_target: va(u64::from(target)) },
                });
                let (old_ranges, new_ranges) =
                    (vec![range(old, len)], vec![range(new, len / 2), range(new + len / 2, 1)]);
                all.replaced.push(ReplacedFunction { name, old_ranges, new_ranges, may_overlap });
                all.unwind.fdes.push(Fde {
                    cie: 0,
                    new_range: range(new, len),
                    instructions: target.to_le_bytes().to_vec(),
                });
                old += len;
                new += len;
            }
            let instructions = Vec::new();
            all.unwind.cies.push(Cie { code_alignment: 1, data_alignment: -8, return_register: 16, instructions });
            all
        },
    )
}

fn report() -> impl Strategy<Value = ImageReport> {
    let verdict =
        prop_oneof![Just(Verdict::Unchanged), Just(Verdict::Safe), Just(Verdict::Review), Just(Verdict::Refused)];
    let noise = (name(), any::<u64>(), any::<u64>(), vec(evidence(), 0..3));
    (name(), verdict, livepatch(), vec(evidence(), 0..4), vec(noise, 0..3), any::<[u64; 4]>(), any::<u64>()).prop_map(
        |(path, verdict, livepatch, evidence, noise, counts, seed)| ImageReport {
            path,
            old: Some(image(&format!("old {seed}"))),
            new: Some(image(&format!("new {seed}"))),
            verdict,
            reasons: vec![Reason { code: "some-code".to_owned(), verdict, summary: String::new(), evidence }],
            functions: FunctionCounts { old: counts[0], new: counts[1], ..FunctionCounts::default() },
            references: ReferenceCounts { payload: counts[2], imports: counts[3], ..ReferenceCounts::default() },
            noise: noise
                .into_iter()
                .map(|(function, old, new, proof)| NoiseReport { function, old_va: va(old), new_va: va(new), proof })
                .collect(),
            livepatch: matches!(verdict, Verdict::Safe | Verdict::Review).then_some(livepatch),
        },
    )
}

fn origin() -> impl Strategy<Value = Origin> {
    let package = || {
        (name(), name(), name(), name()).prop_map(|(name, source, version, architecture)| PackageId {
            name,
            source,
            version,
            architecture,
        })
    };
    let cves = prop_oneof![Just(Cves::Unknown), vec("CVE-[0-9]{4}-[0-9]{4}", 0..4).prop_map(|ids| Cves::Known { ids })];
    prop_oneof![
        (package(), package(), cves).prop_map(|(old, new, cves)| Origin::Packages { old, new, cves }),
        (name(), name()).prop_map(|(old, new)| Origin::Files { old, new }),
    ]
}

fn patch() -> impl Strategy<Value = PatchFile> {
    (name(), origin(), vec(report(), 0..5)).prop_map(|(created_by, origin, images)| PatchFile {
        format_version: FORMAT_VERSION,
        created_by,
        origin,
        not_healed: Some(crate::common::not_healed()),
        images,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(patch in patch()) {
        let bytes = encode(&patch).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let read = decode(&bytes, &Limits::default()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        prop_assert_eq!(&read, &patch);
        prop_assert_eq!(encode(&read).ok(), Some(bytes));
    }

    #[test]
    fn the_id_depends_on_nothing_that_a_file_adds(patch in patch()) {
        let bytes = encode(&patch).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let read = decode(&bytes, &Limits::default()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        for (before, after) in patch.images.iter().zip(&read.images) {
            prop_assert_eq!(before.livepatch_id(), after.livepatch_id());
            prop_assert_eq!(before.livepatch_id().is_some(), before.livepatch.is_some());
        }
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        patch in patch(), at in any::<prop::sample::Index>(), with in vec(any::<u8>(), 1..64),
    ) {
        let mut bytes = encode(&patch).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let at = at.index(bytes.len());
        for (byte, other) in bytes[at..].iter_mut().zip(&with) {
            *byte ^= other;
        }
        let _ = decode(&bytes, &Limits::default());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..400), elf in any::<bool>()) {
        let mut all = if elf { b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec() } else { Vec::new() };
        all.extend(bytes);
        let _ = decode(&all, &Limits::default());
    }
}
