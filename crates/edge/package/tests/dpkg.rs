//! The package database, beneath a root made for the test and the machine's own.

use salve_package::dpkg::{Database, DpkgError, History, Owner, State, md5};
use salve_package::{Root, RootError};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

type Checked = Result<(), Box<dyn std::error::Error>>;

const STATUS: &str = "\
Package: small
Status: hold ok installed
Architecture: amd64
Version: 1.0-1
Conffiles:
 /etc/small.conf d41d8cd98f00b204e9800998ecf8427e
 /etc/old.conf d41d8cd98f00b204e9800998ecf8427e obsolete

Package: libsmall1
Status: install ok unpacked
Source: small (1.0-1)
Architecture: amd64
Multi-Arch: same
Version: 1.0-1+b2

Package: libsmall1
Status: install ok installed
Source: small (1.0-1)
Architecture: i386
Multi-Arch: same
Version: 1.0-1+b2

Package: diverter
Status: install ok installed
Architecture: all
Version: 3

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: never
Status: purge ok not-installed
";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn root() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path();
    write(at, "var/lib/dpkg/status", STATUS);
    let info = |name: &str, text: &str| write(at, &format!("var/lib/dpkg/info/{name}"), text);
    info("small.list", "/.\n/usr\n/usr/sbin\n/usr/sbin/small\n/usr/bin/tool\n/etc/small.conf\n");
    info("small.md5sums", "0123456789abcdef0123456789abcdef  usr/sbin/small\n");
    info("libsmall1:amd64.list", "/lib/x86_64-linux-gnu/libsmall.so.1\n/usr/share/doc/libsmall1/changelog.gz\n");
    info("libsmall1:i386.list", "/lib/i386-linux-gnu/libsmall.so.1\n/usr/share/doc/libsmall1/changelog.gz\n");
    info("diverter.list", "/usr/bin/tool\n");
    write(at, "var/lib/dpkg/diversions", "/usr/bin/tool\n/usr/bin/tool.real\ndiverter\n");
    fs::create_dir_all(at.join("usr/lib")).expect("a directory");
    symlink("usr/lib", at.join("lib")).expect("a link");
    dir
}

fn names(owner: &Owner<'_>) -> Vec<String> {
    let named = |owned: &salve_package::dpkg::Owned<'_>| {
        let id = owned.package.id();
        format!("{}:{}", id.name, id.architecture)
    };
    match owner {
        Owner::Nobody => Vec::new(),
        Owner::Package(one) => vec![named(one)],
        Owner::Several(all) => all.iter().map(named).collect(),
    }
}

#[test]
fn packages_are_known_with_their_state() -> Checked {
    let dir = root();
    let root = Root::open(dir.path())?;
    let database = Database::read(&root)?;
    let installed: Vec<&str> = database.installed().map(|package| package.id().name.as_str()).collect();
    assert_eq!(installed, ["diverter", "libsmall1", "libsmall1", "small"]);
    let small = database.package("small", "amd64").ok_or("small is installed")?;
    assert!(small.status.is_held());
    assert_eq!(small.conffiles.len(), 2);
    assert_eq!(small.control.id.source, "small");
    let library = database.package("libsmall1", "amd64").ok_or("libsmall1 is there")?;
    assert_eq!((library.control.id.source.as_str(), library.control.source_version.as_str()), ("small", "1.0-1"));
    assert!(database.package("gone", "amd64").is_none());
    assert_eq!(database.of_source("small").count(), 3);
    let unsettled: Vec<State> = database.unsettled("small").map(|package| package.status.state).collect();
    assert_eq!(unsettled, [State::Unpacked]);
    assert_eq!(database.unsettled("diverter").count(), 0);
    Ok(())
}

#[test]
fn what_a_running_dpkg_has_written_down_counts() -> Checked {
    let dir = root();
    let record =
        |state: &str| format!("Package: small\nStatus: install ok {state}\nArchitecture: amd64\nVersion: 1.0-2\n");
    write(dir.path(), "var/lib/dpkg/updates/0000", &record("half-installed"));
    write(dir.path(), "var/lib/dpkg/updates/0001", &record("half-configured"));
    write(dir.path(), "var/lib/dpkg/updates/tmp.i", "nonsense");
    let root = Root::open(dir.path())?;
    let database = Database::read(&root)?;
    let small = database.package("small", "amd64").ok_or("small is there")?;
    assert_eq!((small.status.state, small.id().version.as_str()), (State::HalfConfigured, "1.0-2"));
    Ok(())
}

#[test]
fn a_path_has_the_owner_that_put_the_content_there() -> Checked {
    let dir = root();
    let root = Root::open(dir.path())?;
    let database = Database::read(&root)?;
    for (path, expected) in [
        ("/usr/sbin/small", &["small:amd64"][..]),
        // merged /usr: either name
        ("/usr/lib/x86_64-linux-gnu/libsmall.so.1", &["libsmall1:amd64"]),
        ("/lib/x86_64-linux-gnu/libsmall.so.1", &["libsmall1:amd64"]),
        ("/lib/i386-linux-gnu/libsmall.so.1", &["libsmall1:i386"]),
        // not merged here
        ("/sbin/small", &[]),
        // diverted
        ("/usr/bin/tool", &["diverter:all"]),
        ("/usr/bin/tool.real", &["small:amd64"]),
        ("/usr/share/doc/libsmall1/changelog.gz", &["libsmall1:amd64", "libsmall1:i386"]),
        ("/usr/sbin/smal", &[]),
        ("", &[]),
    ] {
        assert_eq!(names(&database.owner(path)?), expected, "{path}");
    }
    let both = database.owners(["/usr/sbin/small", "/usr/bin/tool.real"])?;
    assert_eq!(both.values().flat_map(names).collect::<Vec<_>>(), ["small:amd64", "small:amd64"]);
    Ok(())
}

#[test]
fn the_checksum_of_a_shipped_file_is_known() -> Checked {
    let dir = root();
    let root = Root::open(dir.path())?;
    let database = Database::read(&root)?;
    let sum = |path: &str| -> Result<Option<[u8; 16]>, Box<dyn std::error::Error>> {
        let Owner::Package(owned) = database.owner(path)? else { return Err(format!("{path} has no owner").into()) };
        Ok(database.md5_of(&owned)?)
    };
    let expected = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    assert_eq!(sum("/usr/sbin/small")?, Some(expected));
    assert_eq!(sum("/etc/small.conf")?, Some(md5(b"")));
    assert_eq!(sum("/usr/lib/x86_64-linux-gnu/libsmall.so.1")?, None);
    Ok(())
}

#[test]
fn a_damaged_database_is_an_error_and_no_database_is_another() -> Checked {
    let dir = root();
    let root = Root::open(dir.path())?;
    for (text, package) in [
        ("Package: x\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1 2\n", "x"),
        ("Package: x\nStatus: install ok sleeping\nArchitecture: amd64\nVersion: 1\n", "x"),
        ("Package: x\nArchitecture: amd64\nVersion: 1\n", "x"),
        ("Package: x\nStatus: install ok installed\nVersion: 1\n", "x"),
        ("Status: install ok installed\nVersion: 1\n", ""),
    ] {
        write(dir.path(), "var/lib/dpkg/status", text);
        match Database::read(&root) {
            Err(DpkgError::Field { package: named, .. }) => assert_eq!(named, package),
            other => panic!("{text}: {other:?}"),
        }
    }
    write(dir.path(), "var/lib/dpkg/status", "nonsense\n");
    assert!(matches!(Database::read(&root), Err(DpkgError::Stanza { .. })));
    fs::remove_file(dir.path().join("var/lib/dpkg/status"))?;
    assert!(matches!(Database::read(&root), Err(DpkgError::NoDatabase)));
    Ok(())
}

#[test]
fn links_in_a_root_lead_nowhere_outside_it() -> Checked {
    let dir = tempfile::tempdir()?;
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("secret"), "secret")?;
    fs::write(dir.path().join("inside"), "inside")?;
    let root = Root::open(dir.path())?;
    symlink(outside.path().join("secret"), dir.path().join("absolute"))?;
    symlink("../../../../../../etc/passwd", dir.path().join("climbing"))?;
    symlink("/inside", dir.path().join("rooted"))?;
    symlink("/proc/self/root/etc/passwd", dir.path().join("magic"))?;
    assert!(matches!(root.read("/absolute", 100), Err(RootError::Missing { .. })));
    assert!(matches!(root.read("/climbing", 1 << 20), Err(RootError::Missing { .. })));
    assert!(matches!(root.read("../etc/passwd", 1 << 20), Err(RootError::Missing { .. })));
    assert!(root.read("/magic", 1 << 20).is_err());
    assert_eq!(root.read("/rooted", 100)?, b"inside");
    assert!(matches!(root.read("/inside", 5), Err(RootError::TooLarge { limit: 5, .. })));
    Ok(())
}

#[test]
fn a_pipe_a_directory_and_a_device_are_no_files() -> Checked {
    let dir = tempfile::tempdir()?;
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status()?;
    assert!(made.success());
    fs::create_dir(dir.path().join("dir"))?;
    let root = Root::open(dir.path())?;
    assert!(matches!(root.read("/pipe", 100), Err(RootError::NotAFile { .. })));
    assert!(matches!(root.read("/dir", 100), Err(RootError::NotAFile { .. })));
    assert!(matches!(Root::host()?.read("/dev/zero", 100), Err(RootError::NotAFile { .. })));
    assert!(Root::host()?.read("/proc/self/exe", 100).is_err(), "a magic link");
    Ok(())
}

#[test]
fn rotated_logs_are_read_oldest_first() -> Checked {
    let dir = tempfile::tempdir()?;
    let line = |month: u32, from: &str, to: &str| format!("2026-0{month}-01 00:00:00 upgrade a:amd64 {from} {to}\n");
    write(dir.path(), "var/log/dpkg.log", &line(4, "1.3", "1.4"));
    write(dir.path(), "var/log/dpkg.log.1", &line(3, "1.2", "1.3"));
    let packed = fs::File::create(dir.path().join("var/log/dpkg.log.2.gz"))?;
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
    packed.write_all(line(2, "1.1", "1.2").as_bytes())?;
    packed.finish()?;
    write(dir.path(), "var/log/dpkg.log.save", "no log");
    let history = History::read(&Root::open(dir.path())?)?;
    let versions: Vec<String> =
        history.of("a", "amd64").filter_map(|change| Some(change.to.as_ref()?.to_string())).collect();
    assert_eq!(versions, ["1.2", "1.3", "1.4"]);
    assert_eq!(history.previous("a", "amd64").map(ToString::to_string).as_deref(), Some("1.3"));
    Ok(())
}

/// The machine that runs this is a Debian one; dpkg's own answers are compared.
#[test]
fn the_machines_own_database_says_what_dpkg_says() -> Checked {
    let root = Root::host()?;
    let database = Database::read(&root)?;
    let output = std::process::Command::new("dpkg-query")
        .args([
            "-W",
            "-f",
            "${db:Status-Status} ${Package} ${Architecture} ${Version} ${source:Package} ${source:Version}\n",
        ])
        .output()?;
    let mut expected: Vec<String> = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect();
    let mut found: Vec<String> = database
        .installed()
        .filter(|package| package.status.state == State::Installed)
        .map(|package| {
            let id = package.id();
            let source_version = package.control.source_version.as_str();
            format!("{} {} {} {} {source_version}", id.name, id.architecture, id.version, id.source)
        })
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn the_c_library_of_the_machine_belongs_to_its_package_and_is_intact() -> Checked {
    let root = Root::host()?;
    let database = Database::read(&root)?;
    for path in ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/dpkg"] {
        let Owner::Package(owned) = database.owner(path)? else { panic!("{path} has no owner") };
        let expected = if path.ends_with("dpkg") { "dpkg" } else { "libc6" };
        assert_eq!(owned.package.id().name, expected);
        assert_eq!(database.md5_of(&owned)?, Some(md5(&root.read(path, 1 << 30)?)), "{path}");
    }
    Ok(())
}

#[test]
fn the_order_of_versions_is_dpkgs_own() -> Checked {
    let root = Root::host()?;
    let database = Database::read(&root)?;
    let versions: Vec<_> = database.installed().map(|package| package.control.version.clone()).take(40).collect();
    for (left, right) in versions.iter().zip(versions.iter().skip(1)) {
        let earlier = std::process::Command::new("dpkg")
            .args(["--compare-versions", left.as_str(), "lt", right.as_str()])
            .status()?
            .success();
        assert_eq!(left < right, earlier, "{left} ? {right}");
    }
    Ok(())
}

/// What the database remembers of an installed package compares with the
/// package file that would replace it.
#[test]
fn the_contents_of_an_installed_package_are_what_it_shipped() -> Checked {
    use salve_package::contents::{Contents, Listed, What, not_healed};
    use salve_patch::{ChangeKind, FileClass, NotHealed};
    let dir = root();
    let at = dir.path();
    write(at, "usr/sbin/small", "\u{7f}ELF and so on");
    write(at, "etc/small.conf", "as the administrator likes it");
    write(at, "var/lib/dpkg/info/small.postinst", "#!/bin/sh\n");
    fs::create_dir_all(at.join("usr/bin"))?;
    symlink("../sbin/small", at.join("usr/bin/tool"))?;
    let root = Root::open(at)?;
    let database = Database::read(&root)?;
    let contents = database.contents(database.package("small", "amd64").ok_or("no package")?)?;
    // Directories are no files; the conffile has the checksum of what was shipped.
    assert_eq!(
        contents.text(),
        "c d41d8cd98f00b204e9800998ecf8427e /etc/small.conf\n\
         l 5f5a365e6bd4be38ef93f9b71fde7e31 /usr/bin/tool\n\
         e 0123456789abcdef0123456789abcdef /usr/sbin/small\n\
         m 3e2b31c72181b87149ff995e7202c0e3 postinst\n"
    );
    let mut new = Contents::default();
    new.add("/etc/small.conf", Listed::of_md5(What::Conffile, Some(md5(b"")), false));
    new.add("/usr/sbin/small", Listed::of_md5(What::Elf, None, false));
    new.add("/usr/bin/tool", Listed::link("../sbin/small"));
    new.add("postinst", Listed::of_md5(What::MaintainerScript, Some(md5(b"#!/bin/sh\nset -e\n")), true));
    let NotHealed::Known { groups } = not_healed(Some(&contents), Some(&new)) else { return Err("not known".into()) };
    let [group] = groups.as_slice() else { return Err(format!("{groups:?}").into()) };
    assert_eq!(
        (group.class, group.files, group.named[0].change),
        (FileClass::MaintainerScript, 1, ChangeKind::Contents)
    );
    Ok(())
}
