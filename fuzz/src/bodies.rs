//! What each fuzz target does with its bytes. A panic, a hang or more memory than the
//! limits allow is a finding; everything else is an answer.
//!
//! The same bodies run over `fuzz/corpus/` as an ordinary test
//! (`crates/app/derive/tests/fuzz_corpora.rs`), without libFuzzer.

use salve_derive::pipeline::{PairContext, derive_image};
use salve_elf::{ContentHash, Image, ImageLimits};
use salve_package::deb;
use salve_patch::{Claims, ImageId, Livepatch, RevertPolicy, Verdict};
use std::ops::ControlFlow;

/// Runs one body by the name of its target; `false` if there is none.
pub fn run(target: &str, data: &[u8]) -> bool {
    match target {
        "elf" => elf(data),
        "deb" => package(data),
        "patch" => patch(data),
        "pair" => pair(data),
        _ => return false,
    }
    true
}

/// Both ELF readers: the matcher's, and the validator's own.
pub fn elf(data: &[u8]) {
    let limits = ImageLimits { max_functions: 20_000, max_symbols: 20_000, ..ImageLimits::default() };
    if let Ok(image) = Image::parse(data, &limits) {
        for section in image.sections() {
            let _ = image.read(section.range);
            let _ = image.relocs_in(section.range);
        }
        for function in image.functions() {
            assert!(image.function_index_at(function.range.start()).is_some(), "a function that is not found");
        }
        let _ = (image.span(), image.is_bound());
    }
    let nothing = Livepatch {
        segments: Vec::new(),
        fixups: Vec::new(),
        imports: Vec::new(),
        pointers: Vec::new(),
        words: Vec::new(),
        readers: Vec::new(),
        detours: Vec::new(),
        replaced: Vec::new(),
        requirements: Vec::new(),
        revert: RevertPolicy::Unmap,
        unwind: salve_patch::Unwind::default(),
    };
    let _ = salve_validate::validate(data, data, &nothing, &Claims::default());
}

/// The package reader, with limits that fit a small machine.
pub fn package(data: &[u8]) {
    let limits = deb::Limits {
        max_package_bytes: 1 << 20,
        max_control_bytes: 1 << 20,
        max_unpacked_bytes: 16 << 20,
        max_file_bytes: 4 << 20,
        max_changelog_bytes: 1 << 20,
        max_decoder_bytes: 32 << 20,
        ..deb::Limits::default()
    };
    let mut bytes = 0;
    let _ = deb::elves(data, &limits, &mut |_, elf| {
        bytes += elf.bytes.len();
        ControlFlow::Continue(())
    });
    assert!(bytes <= 16 << 20, "more than the limit was unpacked");
}

/// The patch reader; what it accepts has one encoding.
pub fn patch(data: &[u8]) {
    let limits = salve_patch::Limits { max_file_bytes: 4 << 20, ..salve_patch::Limits::default() };
    if let Ok(patch) = salve_patch::decode(data, &limits) {
        let again = salve_patch::encode(&patch).expect("what was read can be written");
        assert_eq!(again, data, "two encodings of one patch");
    }
}

/// Matcher, verdict, composer and validator, on two images of which the first says how
/// long it is in four bytes before it.
pub fn pair(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<4>() else { return };
    let at = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX).min(rest.len());
    let (old, new) = rest.split_at(at);
    let id = |bytes: &[u8]| ImageId {
        sha256: ContentHash::of(bytes),
        len_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        build_id: None,
        soname: None,
    };
    let versions = (Some("1.0-1".to_owned()), Some("1.0-2".to_owned()));
    let context = PairContext { old_id: id(old), new_id: id(new), old_version: versions.0, new_version: versions.1 };
    let report = derive_image("/usr/lib/fuzzed.so", old, new, &context);
    let wants = matches!(report.verdict, Verdict::Safe | Verdict::Review);
    assert_eq!(wants, report.livepatch.is_some(), "a livepatch against the verdict");
    if let Some(livepatch) = &report.livepatch {
        livepatch.check().expect("a livepatch that a patch file can hold");
    }
}
