//! Real packages go through, and what is wrong with an input is a typed error.

use salve_deriver::protocol::{FailureKind, LimitedResource, ProbedKind, ResourceLimits};
use salve_deriver::{Derived, Deriver, DeriverError, FileInput, SideInput};
use salve_package::deb;
use salve_patch::{Cves, Origin, PackageId, ReplacedFunction};
use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

const HAPROXY_OLD: &str = "haproxy_2.6.12-1+deb12u3_amd64.deb";
const HAPROXY_NEW: &str = "haproxy_2.6.12-1+deb12u4_amd64.deb";
const MEMCACHED_OLD: &str = "memcached_1.6.18-1_amd64.deb";
const MEMCACHED_NEW: &str = "memcached_1.6.18-1+deb12u1_amd64.deb";
const LZMA_OLD: &str = "liblzma5_5.4.1-1+deb12u1_amd64.deb";
const LZMA_NEW: &str = "liblzma5_5.4.1-1+deb12u2_amd64.deb";

fn deriver() -> Deriver {
    Deriver::at(PathBuf::from(env!("CARGO_BIN_EXE_salve-derive"))).with_time_limit(Duration::from_secs(300))
}

fn corpus(name: &str) -> File {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../corpus").join(name);
    File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn derive(deriver: &Deriver, old: &SideInput<'_>, new: &SideInput<'_>) -> Result<Derived, DeriverError> {
    deriver.derive(old, new, "salve test", &mut |_| ())
}

fn derive_debs(old: &str, new: &str) -> Result<Derived, DeriverError> {
    let (old_file, new_file) = (corpus(old), corpus(new));
    let old = SideInput::Deb { file: old_file.as_fd(), label: old.to_owned() };
    let new = SideInput::Deb { file: new_file.as_fd(), label: new.to_owned() };
    derive(&deriver(), &old, &new)
}

/// The ELF files of a package of the corpus, in memory.
fn images(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    deb::elves(corpus(name), &deb::Limits::default(), &mut |_, elf| {
        found.push((elf.path, elf.bytes));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn image(name: &str) -> Vec<u8> {
    images(name).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().1
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn one_file<'fd>(path: &str, file: &'fd File, package: Option<PackageId>) -> SideInput<'fd> {
    let files = vec![FileInput { path: path.to_owned(), file: file.as_fd() }];
    SideInput::Files { files, package, changelog: None, contents: None, label: path.to_owned() }
}

fn failure(result: Result<Derived, DeriverError>) -> FailureKind {
    match result {
        Err(DeriverError::Failed(failure)) => failure.kind,
        other => panic!("no typed failure: {other:?}"),
    }
}

/// What comes of a pair of plain files.
fn derive_bytes(old: &[u8], new: &[u8]) -> Result<Derived, DeriverError> {
    let (old, new) = (file_of(old), file_of(new));
    derive(&deriver(), &one_file("old", &old, None), &one_file("new", &new, None))
}

#[test]
fn a_package_pair_is_derived_with_every_image_and_the_cves_its_changelog_names() {
    let mut seen = Vec::new();
    let (old_file, new_file) = (corpus(HAPROXY_OLD), corpus(HAPROXY_NEW));
    let old = SideInput::Deb { file: old_file.as_fd(), label: HAPROXY_OLD.to_owned() };
    let new = SideInput::Deb { file: new_file.as_fd(), label: HAPROXY_NEW.to_owned() };
    let derived = deriver().derive(&old, &new, "salve test", &mut |step| seen.push(step.clone())).unwrap();
    let paths: Vec<&str> = derived.patch.images.iter().map(|image| image.path.as_str()).collect();
    let expected: Vec<String> = images(HAPROXY_NEW).into_iter().map(|(path, _)| path).collect();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(paths, expected);
    let Origin::Packages { old, new, cves } = &derived.patch.origin else { panic!("{:?}", derived.patch.origin) };
    assert_eq!((old.version.as_str(), new.version.as_str()), ("2.6.12-1+deb12u3", "2.6.12-1+deb12u4"));
    assert_eq!(*cves, Cves::Known { ids: vec!["CVE-2026-33555".to_owned()] });
    let defects = derived.summary.images.iter().filter(|i| i.reasons.iter().any(|code| code == "analysis-failed"));
    assert_eq!(defects.count(), 0, "{:?}", derived.summary);
    let analysed = seen.iter().filter(|step| step.image.is_some()).count();
    assert!(analysed > 0 && seen.iter().all(|step| step.done <= step.total), "{seen:?}");
}

#[test]
fn the_same_pair_gives_the_same_bytes_again_as_package_and_as_file() {
    let (first, again) = (derive_debs(LZMA_OLD, LZMA_NEW).unwrap(), derive_debs(LZMA_OLD, LZMA_NEW).unwrap());
    assert_eq!(first.patch_bytes, again.patch_bytes);
    let plain = derive_bytes(&image(LZMA_OLD), &image(LZMA_NEW)).unwrap();
    let (ours, theirs) = (&plain.patch.images[0], &first.patch.images[0]);
    assert_eq!((&ours.old, &ours.new), (&theirs.old, &theirs.new));
    assert_eq!(plain.patch.origin, Origin::Files { old: "old".to_owned(), new: "new".to_owned() });
}

#[test]
fn a_running_image_pairs_with_its_package_by_path_or_merged_usr() {
    let old_package = deb::control(corpus(LZMA_OLD), &deb::Limits::default()).unwrap().id;
    let (old_file, new_file) = (file_of(&image(LZMA_OLD)), corpus(LZMA_NEW));
    let path = "/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1";
    let old = one_file(path, &old_file, Some(old_package));
    let new = SideInput::Deb { file: new_file.as_fd(), label: LZMA_NEW.to_owned() };
    let derived = derive(&deriver(), &old, &new).unwrap();
    let [report] = derived.patch.images.as_slice() else { panic!("{:?}", derived.summary) };
    assert!(report.old.is_some() && report.new.is_some(), "{report:?}");
    assert!(matches!(derived.patch.origin, Origin::Packages { .. }));
}

#[test]
fn the_same_file_on_both_sides_is_unchanged() {
    let bytes = image(LZMA_OLD);
    let derived = derive_bytes(&bytes, &bytes).unwrap();
    assert_eq!(derived.patch.verdict(), salve_patch::Verdict::Unchanged);
}

#[test]
fn a_downgrade_the_same_version_and_another_package_are_errors() {
    assert!(matches!(failure(derive_debs(LZMA_NEW, LZMA_OLD)), FailureKind::Downgrade { .. }));
    assert!(matches!(failure(derive_debs(LZMA_NEW, LZMA_NEW)), FailureKind::SameVersion { .. }));
    let kind = failure(derive_debs(LZMA_OLD, MEMCACHED_NEW));
    let FailureKind::DifferentPackages { old, new } = kind else { panic!("{kind:?}") };
    assert_eq!((old.name.as_str(), new.name.as_str()), ("liblzma5", "memcached"));
}

#[test]
fn what_is_no_package_is_a_typed_error() {
    let good = corpus(LZMA_NEW);
    let new = SideInput::Deb { file: good.as_fd(), label: "new.deb".to_owned() };
    let whole = std::io::read_to_string(File::open("/proc/version").unwrap()).unwrap();
    for bytes in [&b""[..], b"PK\x03\x04 a zip", b"\x7fELF", whole.as_bytes(), &[0; 4096]] {
        let file = file_of(bytes);
        let old = SideInput::Deb { file: file.as_fd(), label: "old.deb".to_owned() };
        let kind = failure(derive(&deriver(), &old, &new));
        assert!(matches!(kind, FailureKind::NotADeb { .. } | FailureKind::MalformedDeb { .. }), "{kind:?}");
    }
}

#[test]
fn a_package_that_was_cut_off_anywhere_is_a_typed_error() {
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut corpus(LZMA_OLD), &mut whole).unwrap();
    let good = corpus(LZMA_NEW);
    let new = SideInput::Deb { file: good.as_fd(), label: "new.deb".to_owned() };
    let lengths = (0..24).map(|n| whole.len() * n / 24).chain([1, 7, 8, 67, 68, 72, 131, 132, whole.len() - 1]);
    for len in lengths {
        let file = file_of(&whole[..len]);
        let old = SideInput::Deb { file: file.as_fd(), label: "old.deb".to_owned() };
        let kind = failure(derive(&deriver(), &old, &new));
        let typed = matches!(kind, FailureKind::NotADeb { .. } | FailureKind::MalformedDeb { .. });
        assert!(typed, "{len} of {} bytes: {kind:?}", whole.len());
    }
}

#[test]
fn an_elf_file_that_was_cut_off_is_a_typed_error() {
    let (old, new) = (image(LZMA_OLD), image(LZMA_NEW));
    for len in (0..16).map(|n| old.len() * n / 16).chain([1, 4, 5, 63, 64, old.len() - 1]) {
        let kind = failure(derive_bytes(&old[..len], &new));
        let typed = matches!(kind, FailureKind::TruncatedElf { .. })
            || (len < 64 && matches!(kind, FailureKind::NotElf { .. }));
        assert!(typed, "{len} of {} bytes: {kind:?}", old.len());
    }
}

#[test]
fn other_architectures_word_sizes_and_file_types_are_typed_errors() {
    let (good, mut bytes) = (image(LZMA_NEW), image(LZMA_OLD));
    let mut with = |at: usize, value: u8| {
        let kept = std::mem::replace(&mut bytes[at], value);
        let kind = failure(derive_bytes(&bytes, &good));
        bytes[at] = kept;
        kind
    };
    assert!(matches!(with(4, 1), FailureKind::NotElf64 { .. }), "ELFCLASS32");
    assert!(matches!(with(5, 2), FailureKind::NotElf64 { .. }), "big endian");
    assert!(matches!(with(18, 183), FailureKind::OtherArchitecture { .. }), "AArch64");
    assert!(matches!(with(16, 1), FailureKind::NotLoadable { .. }), "a relocatable object");
    assert!(matches!(with(0, b'M'), FailureKind::NotElf { .. }), "no magic");
}

#[test]
fn a_static_program_is_a_typed_error() {
    // Of libc-bin, which every Debian system has; it must not depend on what it repairs.
    let program = std::fs::read("/sbin/ldconfig").unwrap();
    let kind = failure(derive_bytes(&program, &image(LZMA_NEW)));
    assert!(matches!(kind, FailureKind::StaticProgram { .. }), "{kind:?}");
}

#[test]
fn sizes_and_offsets_that_lie_end_in_a_finding_or_a_typed_error() {
    let (old, new) = (image(MEMCACHED_OLD), image(MEMCACHED_NEW));
    // Deterministic, spread over the headers, the tables and the code.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..40 {
        let mut hostile = new.clone();
        let below = match round % 4 {
            0 => 64,
            1 => 1024,
            2 => 16 << 10,
            _ => hostile.len(),
        };
        for _ in 0..4 {
            let at = next(below);
            hostile[at] = [0x00, 0xff, 0x7f, 0x80][next(4)];
        }
        // The section header table lies at the end of the file.
        let (at, value) = (hostile.len() - 1 - next(1800), [0xff, 0x00, 0x41][next(3)]);
        hostile[at] = value;
        match derive_bytes(&old, &hostile) {
            Ok(derived) => {
                let codes = &derived.summary.images[0].reasons;
                assert!(!codes.iter().any(|code| code == "analysis-failed"), "round {round}: {codes:?}");
            }
            Err(DeriverError::Failed(failure)) => {
                assert!(!matches!(failure.kind, FailureKind::Internal), "round {round}: {failure:?}");
            }
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
}

#[test]
fn a_broken_image_of_a_tree_is_refused_and_the_rest_goes_on() {
    let (old_good, new_good) = (file_of(&image(LZMA_OLD)), file_of(&image(LZMA_NEW)));
    let broken = file_of(&image(MEMCACHED_OLD)[..5000]);
    let (text, whole) = (file_of(b"#!/bin/sh\n"), file_of(&image(MEMCACHED_NEW)));
    let old = tree(&[("/lib/liblzma.so.5", &old_good), ("/bin/memcached", &broken), ("/bin/script", &text)]);
    let new = tree(&[("/lib/liblzma.so.5", &new_good), ("/bin/memcached", &whole), ("/bin/added", &whole)]);
    let derived = derive(&deriver(), &old, &new).unwrap();
    let codes: Vec<(&str, Vec<String>)> =
        derived.summary.images.iter().map(|image| (image.path.as_str(), image.reasons.clone())).collect();
    assert_eq!(codes.len(), 3, "{codes:?}");
    assert_eq!(codes[0], ("/bin/added", vec!["image-added".to_owned()]));
    assert_eq!(codes[1], ("/bin/memcached", vec!["malformed-image".to_owned()]));
    assert!(codes[2].0 == "/lib/liblzma.so.5" && !codes[2].1.contains(&"malformed-image".to_owned()));
}

fn tree<'fd>(files: &[(&str, &'fd File)]) -> SideInput<'fd> {
    let input = |(path, file): &(&str, &'fd File)| FileInput { path: (*path).to_owned(), file: (*file).as_fd() };
    let files = files.iter().map(input).collect();
    SideInput::Files { files, package: None, changelog: None, contents: None, label: "tree".to_owned() }
}

#[test]
fn a_patch_file_is_the_same_however_many_threads_made_it() {
    let (old, new) = (corpus(HAPROXY_OLD), corpus(HAPROXY_NEW));
    let old = SideInput::Deb { file: old.as_fd(), label: HAPROXY_OLD.to_owned() };
    let new = SideInput::Deb { file: new.as_fd(), label: HAPROXY_NEW.to_owned() };
    let by = |max_threads| {
        let limits = ResourceLimits { max_threads, ..ResourceLimits::default() };
        derive(&deriver().with_limits(limits), &old, &new).unwrap()
    };
    let (alone, together) = (by(1), by(ResourceLimits::default().max_threads));
    assert_eq!(alone.sandbox.threads, 1);
    if together.sandbox.threads == 1 {
        salve_testkit::not_run::record("one image compared by several threads", "there is one processor");
    }
    assert!(alone.patch_bytes == together.patch_bytes, "the patch files differ");
}

#[test]
fn limits_on_memory_output_and_input_are_typed_errors() {
    let (old, new) = (corpus(HAPROXY_OLD), corpus(HAPROXY_NEW));
    let old = SideInput::Deb { file: old.as_fd(), label: "old".to_owned() };
    let new = SideInput::Deb { file: new.as_fd(), label: "new".to_owned() };
    let with = |limits| match derive(&deriver().with_limits(limits), &old, &new) {
        Err(DeriverError::ResourceLimit { resource, .. }) => resource,
        Err(DeriverError::Failed(failure)) => match failure.kind {
            FailureKind::ResourceLimit { resource, .. } => resource,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let all = ResourceLimits::default();
    assert_eq!(with(ResourceLimits { memory_bytes: 24 << 20, ..all }), LimitedResource::Memory);
    assert_eq!(with(ResourceLimits { max_output_bytes: 512, ..all }), LimitedResource::Output);
    assert_eq!(with(ResourceLimits { max_side_bytes: 1 << 20, ..all }), LimitedResource::InputBytes);
    assert_eq!(with(ResourceLimits { max_package_bytes: 1 << 20, ..all }), LimitedResource::InputBytes);
    assert_eq!(with(ResourceLimits { max_images: 1, ..all }), LimitedResource::Images);
}

#[test]
fn what_is_no_regular_file_is_a_typed_error() {
    let directory = File::open("/").unwrap();
    let good = corpus(LZMA_NEW);
    let new = SideInput::Deb { file: good.as_fd(), label: "new.deb".to_owned() };
    let old = SideInput::Deb { file: directory.as_fd(), label: "old.deb".to_owned() };
    assert!(matches!(failure(derive(&deriver(), &old, &new)), FailureKind::NotAFile { .. }));
}

#[test]
fn a_probe_names_the_package_and_every_image() {
    let file = corpus(HAPROXY_NEW);
    let side = SideInput::Deb { file: file.as_fd(), label: HAPROXY_NEW.to_owned() };
    let report = deriver().probe(&side, &mut |_| ()).unwrap().value;
    assert_eq!(report.package.unwrap().name, "haproxy");
    let mut expected = images(HAPROXY_NEW);
    expected.sort();
    assert_eq!(report.files.len(), expected.len());
    for (probed, (path, bytes)) in report.files.iter().zip(&expected) {
        assert_eq!((&probed.path, probed.sha256), (path, salve_elf::ContentHash::of(bytes)));
        let ProbedKind::Image(facts) = &probed.what else { panic!("{probed:?}") };
        assert!(facts.build_id.is_some() && facts.dynamic);
    }
}

#[test]
fn many_files_go_through_and_leave_no_descriptor_open() {
    let file = file_of(&image(LZMA_OLD)[..3000]);
    let files: Vec<FileInput<'_>> =
        (0..700).map(|n| FileInput { path: format!("/f{n:04}"), file: file.as_fd() }).collect();
    let side = SideInput::Files { files, package: None, changelog: None, contents: None, label: "many".to_owned() };
    // The file is open for writing, so each is opened anew: more than the usual limit of descriptors is in flight.
    let report = deriver().probe(&side, &mut |_| ()).unwrap().value;
    assert_eq!(report.files.len(), 700);
    assert!(report.files.iter().all(|f| matches!(f.what, ProbedKind::Unusable(_))));
}

#[test]
fn a_function_is_shown_old_beside_new_from_both_images_and_from_the_patch_file() {
    use salve_deriver::InspectInput;
    use salve_deriver::protocol::RowKind;
    let (old_file, new_file) = (corpus(LZMA_OLD), corpus(LZMA_NEW));
    let old = SideInput::Deb { file: old_file.as_fd(), label: LZMA_OLD.to_owned() };
    let new = SideInput::Deb { file: new_file.as_fd(), label: LZMA_NEW.to_owned() };
    let derived = derive(&deriver(), &old, &new).unwrap();
    let (_, livepatch) = derived.patch.livepatches().next().expect("the update changes code");
    // The longest: a part that only moved has nothing to show.
    let len = |f: &&ReplacedFunction| f.old_ranges.iter().map(|range| range.len_bytes()).sum::<u64>();
    let replaced = livepatch.replaced.iter().max_by_key(len).expect("a function is replaced");
    let patch = file_of(&derived.patch_bytes);

    let both = InspectInput::Images { old: old.clone(), new };
    let by_images = deriver().inspect_assembly(&replaced.name, None, &both).unwrap().value;
    let with_old = InspectInput::Patch { patch: patch.as_fd(), old: Some(old) };
    let by_patch = deriver().inspect_assembly(&replaced.name, None, &with_old).unwrap().value;
    for view in [&by_images, &by_patch] {
        let first = view.rows.first().unwrap();
        assert_eq!(first.old.as_ref().unwrap().va, replaced.old_ranges[0].start(), "{}", replaced.name);
        assert_eq!(first.new.as_ref().unwrap().va, replaced.new_ranges[0].start());
        let of = |kind| view.rows.iter().filter(|row| row.kind == kind).count();
        assert!(of(RowKind::Same) > 0, "{view:?}");
        assert!(of(RowKind::Changed) + of(RowKind::Added) + of(RowKind::Removed) > 0, "{view:?}");
    }
    let alone = InspectInput::Patch { patch: patch.as_fd(), old: None };
    let view = deriver().inspect_assembly(&replaced.name, None, &alone).unwrap().value;
    assert!(view.rows.iter().all(|row| row.old.is_none()) && !view.notes.is_empty());

    match deriver().inspect_assembly("no_such_function", None, &alone) {
        Err(DeriverError::Failed(failure)) => {
            assert!(matches!(failure.kind, FailureKind::NoSuchFunction { .. }));
            assert!(failure.hint.unwrap().contains(&replaced.name));
        }
        other => panic!("{other:?}"),
    }
    let garbage = file_of(b"no patch");
    let input = InspectInput::Patch { patch: garbage.as_fd(), old: None };
    match deriver().inspect_assembly("main", None, &input) {
        Err(DeriverError::Failed(failure)) => assert_eq!(failure.kind, FailureKind::BadPatch),
        other => panic!("{other:?}"),
    }
}

/// A package made for the test: one real library, a conffile, a script, a unit, a manual.
fn made(version: &str, library: &[u8], conffile: &str, script: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8], mode: u32| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let control =
        format!("Package: made\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@t>\nDescription: x\n");
    put("DEBIAN/control", control.as_bytes(), 0o644);
    put("DEBIAN/conffiles", b"/etc/made.conf\n", 0o644);
    put("DEBIAN/postinst", script.as_bytes(), 0o755);
    put("etc/made.conf", conffile.as_bytes(), 0o644);
    put("usr/lib/libmade.so.1", library, 0o644);
    put("usr/share/made/same", b"same", 0o644);
    put("usr/share/doc/made/NEWS", version.as_bytes(), 0o644);
    let deb = tempfile::NamedTempFile::new().unwrap();
    let mut build = std::process::Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(dir.path()).arg(deb.path()).stdout(std::process::Stdio::null());
    assert!(build.status().unwrap().success());
    deb.into_file()
}

#[test]
fn what_an_update_changes_besides_code_is_named_by_class() {
    use salve_patch::{FileClass, NotHealed};
    let (old, new) = (image(LZMA_OLD), image(LZMA_NEW));
    let old_deb = made("1", &old, "a = 1\n", "#!/bin/sh\nexit 0\n");
    let new_deb = made("2", &new, "a = 2\n", "#!/bin/sh\nset -e\n");
    let deb = |file| SideInput::Deb { file, label: "made.deb".to_owned() };
    let derived = derive(&deriver(), &deb(old_deb.as_fd()), &deb(new_deb.as_fd())).unwrap();
    let classes = |list: &Option<NotHealed>| match list {
        Some(NotHealed::Known { groups }) => {
            groups.iter().map(|group| (group.class, group.named[0].path.clone())).collect::<Vec<_>>()
        }
        other => panic!("not known: {other:?}"),
    };
    let expected = [
        (FileClass::Conffile, "/etc/made.conf"),
        (FileClass::MaintainerScript, "postinst"),
        (FileClass::Documentation, "/usr/share/doc/made/NEWS"),
    ]
    .map(|(class, path)| (class, path.to_owned()));
    assert_eq!(classes(&derived.patch.not_healed), expected);

    // The same where the old side runs, and the package database remembers its files.
    let mut list = tempfile::tempfile().unwrap();
    let md5 = |bytes: &[u8]| format!("{:032x}", u128::from_be_bytes(salve_package::dpkg::md5(bytes)));
    let text = format!(
        "c {} /etc/made.conf\ne - /usr/lib/libmade.so.1\nf {} /usr/share/made/same\nf {} /usr/share/doc/made/NEWS\nm {} postinst\n",
        md5(b"a = 1\n"),
        md5(b"same"),
        md5(b"1"),
        md5(b"#!/bin/sh\nexit 0\n"),
    );
    list.write_all(text.as_bytes()).unwrap();
    let package = deb::control(made("1", &old, "a = 1\n", ""), &deb::Limits::default()).unwrap().id;
    let library = file_of(&old);
    let running = SideInput::Files {
        files: vec![FileInput { path: "/usr/lib/libmade.so.1".to_owned(), file: library.as_fd() }],
        package: Some(package),
        changelog: None,
        contents: Some(list.as_fd()),
        label: "as it runs".to_owned(),
    };
    let again = derive(&deriver(), &running, &deb(new_deb.as_fd())).unwrap();
    assert_eq!(again.patch.not_healed, derived.patch.not_healed);
}

#[test]
fn a_list_of_files_that_is_none_is_a_typed_error() {
    let mut list = tempfile::tempfile().unwrap();
    list.write_all(b"not a list\n").unwrap();
    let (old, new) = (file_of(&image(LZMA_OLD)), file_of(&image(LZMA_NEW)));
    let mut side = one_file("old", &old, None);
    if let SideInput::Files { contents, .. } = &mut side {
        *contents = Some(list.as_fd());
    }
    assert!(matches!(failure(derive(&deriver(), &side, &one_file("new", &new, None))), FailureKind::BadRequest));
}
