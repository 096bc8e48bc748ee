//! Resolving against package databases that never were and files of our own.
//! The processes do not exist, so an update whose direction is proven ends
//! where its old image would be read from them: as `gone`.

use super::disk;
use super::pending::{Mapped, old_sides};
use crate::event::ProcessRef;
use crate::machine::packages::{Candidate, Offered, Owned, Owner, PackageFacts};
use crate::machine::processes::{Processes, Seen};
use crate::plan::{Leave, Privilege};
use crate::problem::Problem;
use salve_elf::ContentHash;
use salve_patch::{Cves, PackageId};
use salve_tracee::{MappedImage, ProcessId};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A database that knows one package, which owns every path.
#[derive(Clone)]
struct Fake {
    owner: Owner,
    installed_content: Option<bool>,
    others: Result<Vec<String>, String>,
    unsettled: Option<String>,
    renamed: Vec<String>,
}

fn package(version: &str) -> PackageId {
    PackageId {
        name: "small".into(),
        source: "small-src".into(),
        version: version.into(),
        architecture: "amd64".into(),
    }
}

impl Fake {
    /// Version 2 is installed, and version 1 was since the process started.
    fn upgraded() -> Self {
        Self {
            owner: Owner::One(Owned { package: package("2"), listed: "/usr/sbin/small".into() }),
            installed_content: Some(true),
            others: Ok(vec!["1".into()]),
            unsettled: None,
            renamed: Vec::new(),
        }
    }
}

impl PackageFacts for Fake {
    fn owners(&self, paths: &[String]) -> Result<BTreeMap<String, Owner>, Problem> {
        Ok(paths.iter().map(|path| (path.clone(), self.owner.clone())).collect())
    }

    fn installed(&self, _name: &str) -> Option<PackageId> {
        Some(package("2"))
    }

    fn is_installed_content(&self, _owned: &Owned, _bytes: &[u8]) -> Option<bool> {
        self.installed_content
    }

    fn others_since(&self, _package: &PackageId, _since: i64) -> Result<Vec<String>, String> {
        self.others.clone()
    }

    fn renamed(&self, _path: &str) -> Vec<String> {
        self.renamed.clone()
    }

    fn unsettled(&self, _source: &str) -> Option<String> {
        self.unsettled.clone()
    }

    fn candidates(&self, _names: &[String]) -> Result<Vec<Candidate>, Problem> {
        Ok(Vec::new())
    }

    fn offered(&self) -> Result<Vec<Offered>, Problem> {
        Ok(Vec::new())
    }

    fn download(&self, _candidate: &Candidate) -> Result<File, Problem> {
        Err(Problem::failed("apt", "there is no archive"))
    }

    fn contents(&self, _package: &PackageId) -> Option<File> {
        None
    }

    fn fixes(&self, _package: &PackageId, _old: &str) -> Cves {
        Cves::Unknown
    }

    fn installed_at(&self, _package: &PackageId) -> Option<i64> {
        None
    }

    fn changelog(&self, _package: &PackageId) -> Option<File> {
        None
    }

    fn of_source(&self, _source: &str) -> Vec<PackageId> {
        Vec::new()
    }

    fn unpacked_at(&self, _package: &PackageId, _version: &str) -> Option<i64> {
        None
    }
}

/// A file on disk, and a process that maps something at its path.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("small");
        std::fs::write(&path, b"new code").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("mode");
        Self { _dir: dir, path }
    }
}

fn runs(path: &Path, code: &[u8], deleted: bool, leave: Option<Leave>) -> Seen {
    let image = MappedImage {
        path: path.as_os_str().to_owned(),
        deleted,
        sha256: ContentHash::of(code),
        len_bytes: u64::try_from(code.len()).expect("small"),
        soname: None,
        mappings: Vec::new(),
    };
    // No process has this number: it is above what the kernel hands out.
    let id = ProcessId { pid: 0x3f_ffff, start_time: 4711 };
    let owner = rustix::process::geteuid().as_raw();
    Seen {
        id,
        name: ProcessRef { pid: 0x3f_ffff, start_ticks: 4711, program: "/usr/sbin/small".into() },
        leave,
        privilege: Privilege { uids: vec![owner; 4], capable: owner == 0 },
        images: vec![image],
        started_at: Some(1_700_000_000),
        ties: std::collections::BTreeSet::new(),
        relative: false,
    }
}

/// The codes of what was left, in order.
fn left(process: Seen, packages: &Fake) -> Vec<String> {
    let resolved = disk::resolve(&[process], &Processes::new(), packages).expect("resolved");
    assert!(resolved.pending.is_empty(), "the old image cannot have been read");
    resolved.left.into_iter().map(|left| left.code).collect()
}

#[test]
fn code_that_is_on_disk_still_is_current_even_from_another_file() {
    let place = Place::new();
    assert_eq!(left(runs(&place.path, b"new code", true, None), &Fake::upgraded()), Vec::<String>::new());
}

#[test]
fn memory_files_and_devices_are_nobodys_code() {
    for path in ["/memfd:jit", "/dev/zero", "/SYSV00000000", "[vdso]"] {
        assert_eq!(left(runs(Path::new(path), b"x", true, None), &Fake::upgraded()), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn old_code_goes_on_only_when_everything_about_its_direction_is_proven() {
    let good = Fake::upgraded();
    let owner = |owner| Fake { owner, ..good.clone() };
    let others = |others: Result<Vec<&str>, &str>| Fake {
        others: others.map(|all| all.into_iter().map(str::to_owned).collect()).map_err(str::to_owned),
        ..good.clone()
    };
    let cases = [
        ("proven", good.clone(), "gone"),
        ("older and older still", others(Ok(vec!["0", "1"])), "gone"),
        ("no package", owner(Owner::Nobody), "unknown-direction"),
        ("two packages", owner(Owner::Several(vec!["a".into(), "b".into()])), "ambiguous"),
        ("being installed", Fake { unsettled: Some("small".into()), ..good.clone() }, "half-configured"),
        ("another file on disk", Fake { installed_content: Some(false), ..good.clone() }, "unknown-direction"),
        ("no checksum", Fake { installed_content: None, ..good.clone() }, "unknown-direction"),
        ("no history", others(Err("the log does not reach back")), "unknown-direction"),
        ("nothing was replaced", others(Ok(vec![])), "unknown-direction"),
        ("newer ran before", others(Ok(vec!["3"])), "downgrade"),
        ("newer may run", others(Ok(vec!["1", "3"])), "downgrade"),
    ];
    let place = Place::new();
    for (what, packages, code) in cases {
        assert_eq!(left(runs(&place.path, b"old code", true, None), &packages), [code], "{what}");
    }
}

#[test]
fn a_file_that_others_can_write_replaces_nothing() {
    let place = Place::new();
    std::fs::set_permissions(&place.path, Permissions::from_mode(0o757)).expect("mode");
    let codes = left(runs(&place.path, b"old code", true, None), &Fake::upgraded());
    assert!(codes.contains(&"ownership".to_owned()), "{codes:?}");
}

#[test]
fn what_is_gone_from_the_disk_has_nothing_to_become() {
    let place = Place::new();
    let path = place.path.with_file_name("removed");
    assert_eq!(left(runs(&path, b"old code", true, None), &Fake::upgraded()), ["nothing-on-disk"]);
}

#[test]
fn a_library_that_carries_its_version_in_its_name_is_found_under_the_new_one() {
    let place = Place::new();
    let path = place.path.with_file_name("libdns-9.18.1-1.so");
    let names = |names: &[&Path]| Fake {
        renamed: names.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        ..Fake::upgraded()
    };
    let other = place.path.with_file_name("libdns-9.18.3-1.so");
    assert_eq!(left(runs(&path, b"old code", true, None), &names(&[&place.path, &other])), ["gone"]);
    std::fs::write(&other, b"other code").expect("written");
    assert_eq!(left(runs(&path, b"old code", true, None), &names(&[&place.path, &other])), ["ambiguous"]);
}

#[test]
fn processes_that_are_left_alone_are_named_only_when_their_code_is_old() {
    let place = Place::new();
    let old = |leave| left(runs(&place.path, b"old code", true, Some(leave)), &Fake::upgraded());
    assert_eq!(old(Leave::Init), ["init"]);
    assert_eq!(old(Leave::OwnLine), ["own-ancestor"]);
    assert_eq!(old(Leave::RootStorage), ["root-storage"]);
    assert_eq!(old(Leave::Elsewhere { what: "a mount namespace" }), ["elsewhere"]);
    let current = left(runs(&place.path, b"new code", false, Some(Leave::Init)), &Fake::upgraded());
    assert_eq!(current, Vec::<String>::new());
}

#[test]
fn an_image_is_read_through_another_process_when_the_first_that_maps_it_has_exited() {
    let (own, _) = Processes::new().survey(&[std::process::id()]).expect("this process");
    let own = own.iter().find(|seen| seen.name.pid == std::process::id()).expect("this process");
    let image = own.images.first().expect("a program");
    let path = image.path.to_string_lossy().into_owned();
    // It mapped the same, and is no more.
    let exited = Seen { images: vec![image.clone()], ..runs(Path::new(&path), b"", false, None) };
    let by = |by| Mapped { path: path.clone(), sha256: image.sha256, by };

    let sides = old_sides(vec![by(&exited), by(own)]).expect("opened");
    let opened: Vec<_> = sides.iter().flatten().map(|opened| (opened.path.clone(), opened.sha256)).collect();
    assert_eq!(opened, [(path.clone(), image.sha256)]);

    assert!(old_sides(vec![by(&exited)]).expect("nothing to open").is_empty());
}
