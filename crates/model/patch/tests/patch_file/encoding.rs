//! The patch file's encoding: what is written is read back, what is damaged is refused.

use crate::common::{patch, range, va};
use salve_elf::{ContentHash, RuntimeAddr};
use salve_patch::{
    Access, DataWord, DecodeError, Distance, EncodeError, FORMAT_VERSION, Fault, FixupKind, ImportSlot, Invalid,
    Limits, Livepatch, NotHealed, NotHealedGroup, OwnAddress, PatchFile, Reader, Segment, Unwind, Verdict, WordValue,
    decode, encode,
};

type Checked = Result<(), Box<dyn std::error::Error>>;

/// Written on the first day of format version 1 and never since.
const FIXTURE: &[u8] = include_bytes!("../fixtures/format-1.salve");

/// The same for version 2.
const FIXTURE_2: &[u8] = include_bytes!("../fixtures/format-2.salve");

/// The same for version 3.
const FIXTURE_3: &[u8] = include_bytes!("../fixtures/format-3.salve");

/// The same for version 4.
const FIXTURE_4: &[u8] = include_bytes!("../fixtures/format-4.salve");

/// The same for version 5.
const FIXTURE_5: &[u8] = include_bytes!("../fixtures/format-5.salve");

/// The same for version 6.
const FIXTURE_6: &[u8] = include_bytes!("../fixtures/format-6.salve");

/// The example as versions before 4 could say it.
fn without_unwind(format_version: u32) -> PatchFile {
    let mut patch = PatchFile { format_version, ..patch() };
    for livepatch in patch.images.iter_mut().filter_map(|image| image.livepatch.as_mut()) {
        livepatch.unwind = Unwind::default();
    }
    patch
}

fn first(patch: &mut PatchFile) -> &mut Livepatch {
    patch.images.iter_mut().find_map(|image| image.livepatch.as_mut()).expect("the example has a livepatch")
}

fn fault_of(change: impl FnOnce(&mut Livepatch)) -> Option<Fault> {
    let mut patch = patch();
    change(first(&mut patch));
    match encode(&patch) {
        Err(EncodeError::Invalid(Invalid::Livepatch { livepatch: 0, fault })) => Some(fault),
        _ => None,
    }
}

fn invalid_of(change: impl FnOnce(&mut PatchFile)) -> Option<Invalid> {
    let mut patch = patch();
    change(&mut patch);
    match encode(&patch) {
        Err(EncodeError::Invalid(invalid)) => Some(invalid),
        _ => None,
    }
}

#[test]
fn what_is_written_is_read_back() -> Checked {
    let patch = patch();
    let bytes = encode(&patch)?;
    assert_eq!(decode(&bytes, &Limits::default())?, patch);
    assert_eq!(encode(&patch)?, bytes, "the same contents give the same bytes");
    Ok(())
}

#[test]
fn a_patch_without_any_livepatch_is_a_file_too() -> Checked {
    let mut patch = patch();
    patch.images.retain(|image| image.livepatch.is_none());
    assert_eq!(decode(&encode(&patch)?, &Limits::default())?, patch);
    patch.images.clear();
    assert_eq!(decode(&encode(&patch)?, &Limits::default())?, patch);
    Ok(())
}

#[test]
fn every_flipped_byte_is_noticed() -> Checked {
    let mut bytes = encode(&patch())?;
    for at in 0..bytes.len() {
        bytes[at] ^= 0x20;
        assert!(decode(&bytes, &Limits::default()).is_err(), "byte {at:#x} flipped and not noticed");
        bytes[at] ^= 0x20;
    }
    decode(&bytes, &Limits::default())?;
    Ok(())
}

#[test]
fn every_truncation_is_noticed() -> Checked {
    let bytes = encode(&patch())?;
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len], &Limits::default()).is_err(), "cut at {len:#x} and not noticed");
    }
    Ok(())
}

/// A forger can make the digest right; then the other checks have to hold alone.
#[test]
fn every_flipped_byte_is_noticed_even_with_a_digest_made_right() -> Checked {
    let good = encode(&patch())?;
    let digest_at = digest_at(&good);
    for at in (0..good.len()).filter(|at| !(digest_at..digest_at + 32).contains(at)) {
        for mask in [0x01, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            redigest(&mut bytes, digest_at);
            match decode(&bytes, &Limits::default()) {
                // Payload or manifest that says something else, and says it consistently.
                Ok(other) => assert_eq!(encode(&other)?, bytes, "byte {at:#x} is not accounted for"),
                Err(error) => assert!(!matches!(error, DecodeError::Unwritable(_)), "{error} at {at:#x}"),
            }
        }
    }
    Ok(())
}

fn digest_at(bytes: &[u8]) -> usize {
    let position = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let headers = usize::try_from(position(40)).expect("an offset");
    let count = usize::from(u16::from_le_bytes([bytes[60], bytes[61]]));
    let found =
        (0..count).map(|index| headers + index * 64).find(|at| position(at + 32) == 32 && position(at + 48) == 8);
    usize::try_from(position(found.expect("a digest section") + 24)).expect("an offset")
}

fn redigest(bytes: &mut [u8], at: usize) {
    bytes[at..at + 32].fill(0);
    let hash = ContentHash::of(bytes);
    bytes[at..at + 32].copy_from_slice(hash.as_bytes());
}

/// Replaces the manifest's text by another of the same length, with a right digest.
fn with_manifest(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = encode(&patch()).expect("a valid patch");
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("is in the manifest");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let digest_at = digest_at(&bytes);
    redigest(&mut bytes, digest_at);
    bytes
}

#[test]
fn an_unknown_version_is_refused_by_its_number() {
    let bytes = with_manifest(&format!("\"format_version\":{FORMAT_VERSION}"), "\"format_version\":9");
    let error = decode(&bytes, &Limits::default());
    assert!(matches!(error, Err(DecodeError::UnknownVersion { found: 9 })), "{error:?}");
}

#[test]
fn a_manifest_field_that_this_version_does_not_know_is_refused() {
    let bytes = with_manifest("\"soname\":\"libsmall.so.1\"", "\"sonane\":\"libsmall.so.1\"");
    let error = decode(&bytes, &Limits::default());
    assert!(matches!(error, Err(DecodeError::NotCanonical { .. })), "{error:?}");
}

#[test]
fn a_digest_that_does_not_match_is_named() -> Checked {
    let mut bytes = encode(&patch())?;
    let at = digest_at(&bytes);
    bytes[at] ^= 1;
    assert!(matches!(decode(&bytes, &Limits::default()), Err(DecodeError::DigestMismatch)));
    Ok(())
}

#[test]
fn other_files_are_told_what_they_are_not() -> Checked {
    let limits = Limits::default();
    assert!(matches!(decode(b"", &limits), Err(DecodeError::NotElf)));
    assert!(matches!(decode(b"!<arch>\n", &limits), Err(DecodeError::NotElf)));
    assert!(matches!(decode(b"\x7fELF", &limits), Err(DecodeError::Truncated { .. })));
    let program = std::fs::read(std::env::current_exe()?)?;
    assert!(matches!(decode(&program, &limits), Err(DecodeError::NotAPatch { .. })));
    let mut narrow = encode(&patch())?;
    narrow[4] = 1;
    assert!(matches!(decode(&narrow, &limits), Err(DecodeError::WrongElf)));
    Ok(())
}

#[test]
fn limits_are_kept() -> Checked {
    let bytes = encode(&patch())?;
    let limits = Limits { max_file_bytes: bytes.len() as u64 - 1, ..Limits::default() };
    assert!(matches!(decode(&bytes, &limits), Err(DecodeError::FileTooLarge { .. })));
    let limits = Limits { max_manifest_bytes: 100, ..Limits::default() };
    assert!(matches!(decode(&bytes, &limits), Err(DecodeError::ManifestTooLarge { .. })));
    let limits = Limits { max_images: 3, ..Limits::default() };
    assert!(matches!(decode(&bytes, &limits), Err(DecodeError::TooManyImages { count: 4, limit: 3 })));
    Ok(())
}

#[test]
fn a_file_may_lie_at_any_alignment_in_memory() -> Checked {
    let mut shifted = vec![0];
    shifted.extend_from_slice(&encode(&patch())?);
    assert_eq!(decode(&shifted[1..], &Limits::default())?, patch());
    Ok(())
}

#[test]
fn the_first_file_of_format_version_1_can_be_read_forever() -> Checked {
    let patch = decode(FIXTURE, &Limits::default())?;
    let then = PatchFile { not_healed: None, ..without_unwind(1) };
    assert_eq!(patch, then, "an old file's meaning may never change");
    assert_eq!(patch.not_healed(), NotHealed::Unknown { present: Vec::new() }, "what it does not say is not known");
    let ids: Vec<String> = patch.images.iter().filter_map(|image| Some(image.livepatch_id()?.to_string())).collect();
    assert_eq!(ids, FIXTURE_IDS, "nor may the names of its livepatches");
    Ok(())
}

#[test]
fn the_first_file_of_format_version_2_can_be_read_forever() -> Checked {
    let patch = decode(FIXTURE_2, &Limits::default())?;
    assert_eq!(patch, without_unwind(2));
    let ids: Vec<String> = patch.images.iter().filter_map(|image| Some(image.livepatch_id()?.to_string())).collect();
    assert_eq!(ids, FIXTURE_IDS, "the same livepatches as ever");
    Ok(())
}

#[test]
fn the_first_file_of_format_version_3_can_be_read_forever() -> Checked {
    let patch = decode(FIXTURE_3, &Limits::default())?;
    assert_eq!(patch, without_unwind(3));
    let ids: Vec<String> = patch.images.iter().filter_map(|image| Some(image.livepatch_id()?.to_string())).collect();
    assert_eq!(ids, FIXTURE_IDS, "the same livepatches as ever");
    Ok(())
}

#[test]
fn the_first_file_of_format_version_4_can_be_read_forever() -> Checked {
    assert_eq!(decode(FIXTURE_4, &Limits::default())?, PatchFile { format_version: 4, ..patch() });
    Ok(())
}

#[test]
fn the_first_file_of_format_version_5_can_be_read_forever() -> Checked {
    let mut then = PatchFile { format_version: 5, ..patch() };
    with_own_imports(first(&mut then));
    assert_eq!(decode(FIXTURE_5, &Limits::default())?, then);
    Ok(())
}

#[test]
fn the_first_file_of_format_version_6_can_be_read_forever() -> Checked {
    let mut then = patch();
    with_words(first(&mut then));
    assert_eq!(decode(FIXTURE_6, &Limits::default())?, then);
    Ok(())
}

/// Words of each kind, and nothing else.
fn with_words(livepatch: &mut Livepatch) {
    let word = |old_va: u64, expected, new| DataWord { old_va: va(old_va), expected, new };
    livepatch.words = vec![
        word(0x9000, WordValue::Number(u64::MAX), WordValue::Number(7)),
        word(0x9008, WordValue::Old(va(0x7100)), WordValue::Payload(livepatch.segments[0].new_va)),
        word(0x9010, WordValue::Number(0), WordValue::Old(va(0x5100))),
    ];
    livepatch.readers = vec![Reader { name: "shows".to_owned(), old_range: range(0x5800, 0x40) }];
}

#[test]
fn words_are_aligned_in_order_and_change_and_belong_to_their_version() {
    let fault = |change: &dyn Fn(&mut Livepatch)| {
        fault_of(|livepatch| {
            with_words(livepatch);
            change(livepatch);
        })
    };
    assert_eq!(fault(&|_| {}), None);
    assert_eq!(fault(&|l| l.detours.clear()), None, "words alone are a livepatch");
    assert_eq!(fault(&|l| l.words[0].old_va = va(0x9004)), Some(Fault::WordPlace { old_va: va(0x9004) }));
    assert_eq!(fault(&|l| l.words.swap(0, 1)), Some(Fault::WordPlace { old_va: va(0x9000) }));
    assert_eq!(fault(&|l| l.words[1].old_va = va(0x9000)), Some(Fault::WordPlace { old_va: va(0x9000) }));
    let value = Some(Fault::WordValue { old_va: va(0x9008) });
    assert_eq!(fault(&|l| l.words[1].new = l.words[1].expected), value, "nothing changes");
    assert_eq!(fault(&|l| l.words[1].new = WordValue::Payload(va(0x99_0000))), value, "leads nowhere");
    assert_eq!(fault(&|l| l.words[1].expected = WordValue::Payload(l.segments[0].new_va)), value, "the loader's");
    let many = |l: &mut Livepatch| {
        let one = l.words[0];
        l.words = (0..1025).map(|n| DataWord { old_va: va(0x9000 + 8 * n), ..one }).collect();
    };
    assert_eq!(fault(&many), Some(Fault::TooManyWords { count: 1025 }));
    let at_detour = |l: &mut Livepatch| l.words[0].old_va = va(l.detours[0].old_va.raw() & !7);
    assert!(matches!(fault(&at_detour), Some(Fault::WordValue { .. } | Fault::WordPlace { .. })));
    let reader = |change: &dyn Fn(&mut Reader)| fault(&|l| change(&mut l.readers[0]));
    assert!(matches!(reader(&|r| r.old_range = range(0x5800, 0)), Some(Fault::ReaderPlace { .. })));
    assert!(matches!(reader(&|r| r.name.push('\n')), Some(Fault::Name { .. })));
    assert!(matches!(fault(&|l| l.words.clear()), Some(Fault::ReaderPlace { .. })), "readers of nothing");
    let against = invalid_of(|patch| {
        with_words(first(patch));
        patch.format_version = 5;
    });
    assert_eq!(against, Some(Invalid::WordsAgainstVersion { image: 0 }));
}

#[test]
fn call_frame_information_is_of_code_of_the_payload_and_belongs_to_its_version() {
    let place = |change: fn(&mut Unwind)| fault_of(|l| change(&mut l.unwind));
    let wrong: [fn(&mut Unwind); 6] = [
        |u| u.fdes[0].new_range = range(0x8000, 8),
        |u| u.fdes[0].new_range = range(0x5fff, 2),
        |u| u.fdes[0].new_range = range(0x5120, 0),
        |u| u.fdes[1].new_range = range(0x5127, 2),
        |u| u.fdes.swap(0, 1),
        |u| u.fdes[0].cie = 1,
    ];
    for change in wrong {
        let fault = place(change);
        assert!(matches!(fault, Some(Fault::UnwindPlace { .. })), "{fault:?}");
    }
    assert_eq!(place(|u| u.cies.push(u.cies[0].clone())), Some(Fault::UnwindEntry), "an entry of no use");
    assert_eq!(place(|u| u.fdes[0].instructions = vec![0; 70_000]), Some(Fault::UnwindEntry));
    assert_eq!(place(|u| *u = Unwind::default()), None, "there need not be any");
    let against = invalid_of(|patch| patch.format_version = 3);
    assert_eq!(against, Some(Invalid::UnwindAgainstVersion { image: 0 }));
}

#[test]
fn what_is_not_healed_belongs_to_its_version_and_is_in_order() {
    let against = Some(Invalid::NotHealedAgainstVersion);
    assert_eq!(invalid_of(|patch| *patch = without_unwind(1)), against);
    assert_eq!(invalid_of(|patch| patch.not_healed = None), against);
    let groups = |change: fn(&mut Vec<NotHealedGroup>)| {
        invalid_of(|patch| {
            let Some(NotHealed::Known { groups }) = &mut patch.not_healed else { panic!("the example has a list") };
            change(groups);
        })
    };
    assert_eq!(groups(|groups| groups.reverse()), Some(Invalid::NotHealed));
    assert_eq!(groups(|groups| groups.push(groups[1].clone())), Some(Invalid::NotHealed), "a class twice");
    assert_eq!(groups(|groups| groups[0].files = 0), Some(Invalid::NotHealed), "more named than counted");
    let named = Some(Invalid::Name { what: "path of what is not healed" });
    assert_eq!(groups(|groups| groups[0].named[0].path = "/etc/\x1b[2J".to_owned()), named);
}

const FIXTURE_IDS: [&str; 2] = [
    "055fdd681f066742b35e9d61d31c61fef34dd8e224bfe0125ce699046c5937f5",
    "fc309814543428a9cd27dd86a915576165fcd4763ecd492e025434706e0ebe7d",
];

#[test]
fn the_id_names_what_is_done_to_what_and_nothing_else() {
    let report = patch().images.remove(0);
    let id = report.livepatch_id();
    assert!(id.is_some());

    let mut same = report.clone();
    same.path = "/elsewhere".to_owned();
    same.verdict = Verdict::Review;
    same.reasons.clear();
    same.noise.clear();
    assert_eq!(same.livepatch_id(), id);

    let mut other = report.clone();
    if let Some(livepatch) = &mut other.livepatch {
        livepatch.segments[1].bytes[4095] = 1;
    }
    assert_ne!(other.livepatch_id(), id, "a byte of the payload");
    let mut other = report.clone();
    other.new = Some(crate::common::image("another"));
    assert_ne!(other.livepatch_id(), id, "the new image");
    let mut other = report.clone();
    if let Some(livepatch) = &mut other.livepatch {
        livepatch.detours[0].new_target = va(0x5121);
    }
    assert_ne!(other.livepatch_id(), id, "a detour");
    let mut other = report;
    other.livepatch = None;
    assert_eq!(other.livepatch_id(), None);
}

#[test]
fn segments_have_to_be_whole_pages_in_order() {
    let fault = fault_of(|l| l.segments[0].new_va = va(0x5001));
    assert!(matches!(fault, Some(Fault::SegmentUnaligned { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments[1].bytes.truncate(4095));
    assert!(matches!(fault, Some(Fault::SegmentUnaligned { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments[1].bytes.clear());
    assert!(matches!(fault, Some(Fault::SegmentUnaligned { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments[1].new_va = va(0x5000));
    assert!(matches!(fault, Some(Fault::SegmentOrder { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments.swap(0, 1));
    assert!(matches!(fault, Some(Fault::SegmentOrder { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments[1].new_va = va(1 << 36));
    assert!(matches!(fault, Some(Fault::SegmentOutOfReach { .. })), "{fault:?}");
    let fault = fault_of(|l| l.segments[1].new_va = va(0x8000_5000));
    assert!(matches!(fault, Some(Fault::SegmentOutOfReach { .. })), "{fault:?}");
    assert_eq!(fault_of(|l| l.segments.clear()), Some(Fault::Nothing));
}

#[test]
fn fixups_have_to_lie_in_the_payload_apart_from_each_other() {
    let fault = fault_of(|l| l.fixups[0].new_va = va(0x5ffd));
    assert!(matches!(fault, Some(Fault::FixupOutside { .. })), "{fault:?}");
    let fault = fault_of(|l| l.fixups[0].new_va = va(0x100));
    assert!(matches!(fault, Some(Fault::FixupOutside { .. })), "{fault:?}");
    let fault = fault_of(|l| l.fixups[0].new_va = va(u64::MAX));
    assert!(matches!(fault, Some(Fault::FixupOutside { .. })), "{fault:?}");
    let fault = fault_of(|l| l.fixups.push(l.fixups[0]));
    assert!(matches!(fault, Some(Fault::FixupOrder { .. })), "{fault:?}");
    for next in [0x5126, 0x512c] {
        let FixupKind::PcRel32 { old_target, .. } = crate::common::livepatch().fixups[0].kind;
        let fault = fault_of(|l| l.fixups[0].kind = FixupKind::PcRel32 { new_next: va(next), old_target });
        assert!(matches!(fault, Some(Fault::FixupInstruction { .. })), "{fault:?}");
    }
}

#[test]
fn detours_have_to_overwrite_replaced_code_and_lead_to_new_code() {
    let fault = fault_of(|l| l.detours[0].expected.truncate(4));
    assert!(matches!(fault, Some(Fault::DetourLength { len: 4, .. })), "{fault:?}");
    let fault = fault_of(|l| l.detours.push(l.detours[0].clone()));
    assert!(matches!(fault, Some(Fault::DetourOrder { .. })), "{fault:?}");
    let fault = fault_of(|l| l.detours[0].old_va = va(0x5105));
    assert!(matches!(fault, Some(Fault::DetourEntry { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].old_ranges[0] = range(0x5110, 8));
    assert!(matches!(fault, Some(Fault::DetourOutsideFunction { .. })), "{fault:?}");
    // Shorter than the jump it may be, but what lies behind is nobody else's.
    assert_eq!(fault_of(|l| l.replaced[0].old_ranges[0] = range(0x5100, 8)), None);
    let fault = fault_of(|l| {
        l.replaced[0].old_ranges[0] = range(0x5100, 8);
        l.replaced[0].old_ranges.push(range(0x5108, 8));
    });
    assert!(matches!(fault, Some(Fault::DetourOutsideFunction { .. })), "{fault:?}");
    let fault = fault_of(|l| l.detours[0].new_target = va(0x5128));
    assert!(matches!(fault, Some(Fault::DetourTarget { .. })), "{fault:?}");
    assert_eq!(fault_of(|l| l.detours.clear()), Some(Fault::Nothing));
}

#[test]
fn replaced_functions_have_to_lie_in_executable_payload_without_overlap() {
    let fault = fault_of(|l| l.replaced[0].new_ranges[1] = range(0x8000, 2));
    assert!(matches!(fault, Some(Fault::FunctionOutside { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].new_ranges[1] = range(0x5fff, 2));
    assert!(matches!(fault, Some(Fault::FunctionOutside { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].new_ranges[1] = range(0x5127, 2));
    assert!(matches!(fault, Some(Fault::FunctionOverlap { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].old_ranges[1] = range(0x515f, 2));
    assert!(matches!(fault, Some(Fault::FunctionOverlap { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].old_ranges[1] = range(0x4000, 0));
    assert!(matches!(fault, Some(Fault::FunctionEmpty { .. })), "{fault:?}");
    let fault = fault_of(|l| {
        l.replaced[0].new_ranges.clear();
        l.replaced[0].old_ranges.clear();
    });
    assert!(matches!(fault, Some(Fault::FunctionNowhere { .. })), "{fault:?}");
    let fault = fault_of(|l| l.replaced[0].name = "clear\x1b[2Jscreen".to_owned());
    assert!(matches!(fault, Some(Fault::Name { .. })), "{fault:?}");
}

#[test]
fn a_requirement_has_to_test_something() {
    let fault = fault_of(|l| {
        let salve_patch::Requirement::DependencyConstant { mask, .. } = &mut l.requirements[0];
        *mask = 0;
    });
    assert!(matches!(fault, Some(Fault::RequirementEmpty { .. })), "{fault:?}");
}

#[test]
fn there_is_a_livepatch_exactly_where_the_verdict_allows_one() {
    for (image, verdict) in [(0, Verdict::Unchanged), (0, Verdict::Refused), (2, Verdict::Safe), (3, Verdict::Review)] {
        let invalid = invalid_of(|patch| patch.images[image].verdict = verdict);
        assert_eq!(invalid, Some(Invalid::LivepatchAgainstVerdict { image, verdict }));
    }
    let invalid = invalid_of(|patch| patch.images[0].new = None);
    assert_eq!(invalid, Some(Invalid::LivepatchWithoutPair { image: 0 }));
    let invalid = invalid_of(|patch| patch.images[0].new = patch.images[0].old.clone());
    assert_eq!(invalid, Some(Invalid::LivepatchWithoutPair { image: 0 }));
    let invalid = invalid_of(|patch| {
        patch.images[2].new = None;
        patch.images[2].old = None;
    });
    assert_eq!(invalid, Some(Invalid::NoImage { image: 2 }));
}

#[test]
fn a_verdict_is_never_milder_than_its_reasons() {
    let invalid = invalid_of(|patch| patch.images[0].reasons = patch.images[1].reasons.clone());
    assert!(matches!(invalid, Some(Invalid::VerdictTooMild { image: 0, .. })), "{invalid:?}");
    let invalid = invalid_of(|patch| patch.images[1].reasons[0].verdict = Verdict::Refused);
    assert!(matches!(invalid, Some(Invalid::VerdictTooMild { image: 1, .. })), "{invalid:?}");
    let invalid = invalid_of(|patch| patch.images[3].reasons.clear());
    assert_eq!(invalid, Some(Invalid::NoReason { image: 3, verdict: Verdict::Refused }));
}

#[test]
fn two_livepatches_for_one_content_are_ambiguous_unless_they_are_one() -> Checked {
    let invalid = invalid_of(|patch| patch.images[1].old = patch.images[0].old.clone());
    assert_eq!(invalid, Some(Invalid::AmbiguousImage { image: 1, earlier: 0 }));
    let mut patch = patch();
    let mut copy = patch.images[0].clone();
    copy.path = "/usr/sbin/small-copy".to_owned();
    patch.images.push(copy);
    assert_eq!(decode(&encode(&patch)?, &Limits::default())?, patch);
    Ok(())
}

#[test]
fn names_that_could_fool_a_terminal_are_refused() {
    for name in ["", "/usr/sbin/\x1b]0;x\x07", "a\nb", "a\0b"] {
        let invalid = invalid_of(|patch| patch.images[0].path = name.to_owned());
        assert_eq!(invalid, Some(Invalid::Name { what: "image path" }));
    }
}

/// Sections that all claim the same bytes may not make a reader hold them many times.
#[test]
fn sections_that_share_bytes_are_refused() -> Checked {
    let mut patch = patch();
    let pages =
        (0..9).map(|page| Segment { new_va: va(0x1_0000 + page * 0x1000), access: Access::Read, bytes: vec![0; 4096] });
    first(&mut patch).segments.extend(pages);
    let mut bytes = encode(&patch)?;
    let headers = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into()?))?;
    let whole = (bytes.len() / 4096 * 4096) as u64;
    for section in 1..12 {
        let header = headers + section * 64;
        bytes[header + 24..header + 32].fill(0);
        bytes[header + 32..header + 40].copy_from_slice(&whole.to_le_bytes());
    }
    let at = digest_at(&bytes);
    redigest(&mut bytes, at);
    let error = decode(&bytes, &Limits::default());
    assert!(matches!(error, Err(DecodeError::OverlappingSections)), "{error:?}");
    Ok(())
}

/// The example with a page of slots behind its segments.
fn with_imports(livepatch: &mut Livepatch) {
    let end = livepatch.segments.last().and_then(Segment::range).map_or(va(0), salve_elf::VaRange::end);
    livepatch.segments.push(Segment { new_va: end, access: Access::Read, bytes: vec![0; 4096] });
    let slot = |offset: i64, symbol: &str, version: Option<&str>| ImportSlot {
        new_va: end.wrapping_offset(offset),
        symbol: symbol.to_owned(),
        version: version.map(str::to_owned),
        own: None,
    };
    livepatch.imports = vec![slot(0x18, "strtoul", Some("GLIBC_2.2.5")), slot(0x20, "host_call", None)];
}

#[test]
fn slots_for_imports_are_read_back_and_filled_with_an_address_each() -> Checked {
    let mut patch = crate::common::patch();
    with_imports(first(&mut patch));
    assert_eq!(decode(&encode(&patch)?, &Limits::default())?, patch);
    let livepatch = first(&mut patch).clone();
    let distance = Distance::new(-0x10_0000);
    let addresses = [RuntimeAddr::new(0x7fff_1234_5678), RuntimeAddr::new(0x5555_0000_0010)];
    let bound = livepatch.place_bound(distance, &addresses)?;
    let page = bound.last().ok_or("no segment")?;
    assert_eq!(page.bytes[0x18..0x20], 0x7fff_1234_5678_u64.to_le_bytes());
    assert_eq!(page.bytes[0x20..0x28], 0x5555_0000_0010_u64.to_le_bytes());
    let mut unbound = bound.clone();
    unbound.last_mut().ok_or("no segment")?.bytes.fill(0);
    assert_eq!(unbound, livepatch.place(distance)?, "nothing else depends on them");
    assert!(livepatch.place_bound(distance, &addresses[..1]).is_err(), "an address is missing");
    Ok(())
}

/// The same, and both are the image's own: one of the old image, one of the payload.
fn with_own_imports(livepatch: &mut Livepatch) {
    with_imports(livepatch);
    let code = livepatch.segments.iter().find(|segment| segment.access == Access::ReadExecute);
    let at = code.map_or(va(0), |segment| segment.new_va);
    livepatch.imports[0].own = Some(OwnAddress::Old(va(0x1120)));
    livepatch.imports[1].own = Some(OwnAddress::Payload(at));
}

#[test]
fn an_images_own_symbols_are_where_the_old_image_is_or_the_payload() -> Checked {
    let mut patch = crate::common::patch();
    with_own_imports(first(&mut patch));
    let livepatch = first(&mut patch);
    let addresses = [RuntimeAddr::new(0x5555_0000_1120), RuntimeAddr::new(0x5555_0000_6000)];
    let bound = livepatch.place_bound(Distance::new(-0x10_0000), &addresses)?;
    let page = bound.last().ok_or("no segment")?;
    assert_eq!(page.bytes[0x18..0x20], 0x5555_0000_1120_u64.to_le_bytes());
    assert_eq!(page.bytes[0x20..0x28], 0x5554_fff0_6000_u64.to_le_bytes(), "as far off as the payload");
    let fault = fault_of(|livepatch| {
        with_own_imports(livepatch);
        livepatch.imports[1].own = Some(OwnAddress::Payload(livepatch.imports[1].new_va));
    });
    assert!(matches!(fault, Some(Fault::ImportPlace { .. })), "no code is there: {fault:?}");
    let older = invalid_of(|patch| {
        patch.format_version = 4;
        with_own_imports(first(patch));
    });
    assert_eq!(older, Some(Invalid::OwnAgainstVersion { image: 0 }));
    Ok(())
}

#[test]
fn slots_for_imports_lie_apart_in_read_only_payload_of_a_file_that_may_have_them() {
    let fault = |change: &dyn Fn(&mut Livepatch)| {
        fault_of(|livepatch| {
            with_imports(livepatch);
            change(livepatch);
        })
    };
    assert_eq!(fault(&|_| ()), None);
    let place = |fault| matches!(fault, Some(Fault::ImportPlace { .. }));
    assert!(place(fault(&|l| l.imports[0].new_va = l.segments[0].new_va)), "in code");
    assert!(place(fault(&|l| l.imports[0].new_va = va(8))), "outside");
    assert!(place(fault(&|l| l.imports[0].new_va = l.imports[0].new_va.wrapping_offset(4))), "not aligned");
    assert!(matches!(fault(&|l| l.imports.swap(0, 1)), Some(Fault::ImportOrder { .. })));
    let named = fault(&|l| l.imports[0].symbol = "a\x1b".to_owned());
    assert!(matches!(named, Some(Fault::Name { .. })), "{named:?}");
    let older = invalid_of(|patch| {
        patch.format_version = 2;
        with_imports(first(patch));
    });
    assert!(matches!(older, Some(Invalid::ImportsAgainstVersion { .. })), "{older:?}");
}
