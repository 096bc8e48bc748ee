//! The machine's own apt, and the real archive.
//!
//! These tests need the archive's lists and the network. Where the archive
//! cannot be reached they fail and say so: a skipped check would look like a
//! passed one.

use salve_elf::ContentHash;
use salve_package::apt::{Apt, AptError, Candidate};
use salve_package::deb::{self, Limits};
use salve_package::dpkg::Database;
use salve_package::{Root, Version};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

type Checked = Result<(), Box<dyn std::error::Error>>;

/// Small, and in every Debian release.
const PACKAGE: &str = "memcached";

fn candidate(apt: &Apt) -> Candidate {
    Candidate::for_package(apt, PACKAGE)
        .unwrap_or_else(|error| panic!("THE ARCHIVE'S LISTS ARE MISSING, run `apt-get update` first: {error}"))
}

#[test]
fn the_candidate_is_downloaded_and_is_what_the_lists_say() -> Checked {
    let apt = Apt::default();
    let candidate = candidate(&apt);
    let (id, sha256) = (candidate.control.id.clone(), candidate.sha256);
    assert_eq!(id.name, PACKAGE);
    let dir = tempfile::Builder::new().prefix("salve-test-").permissions(PermissionsExt::from_mode(0o755)).tempdir()?;
    let downloaded = candidate.download(&apt, Some(dir.path()));
    let mut downloaded = downloaded.unwrap_or_else(|error| match error {
        AptError::Unreachable { message } => panic!("THE ARCHIVE CANNOT BE REACHED: {message}"),
        error => panic!("{error}"),
    });
    let mut bytes = Vec::new();
    downloaded.file.read_to_end(&mut bytes)?;
    assert_eq!(ContentHash::of(&bytes), sha256);
    assert_eq!(deb::control(bytes.as_slice(), &Limits::default())?.id, id);
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "nothing is left behind");
    Ok(())
}

#[test]
fn a_list_that_names_another_hash_is_not_believed() {
    let apt = Apt::default();
    let mut candidate = candidate(&apt);
    candidate.sha256 = ContentHash::of(b"something else");
    let error = candidate.download(&apt, None).err();
    assert!(matches!(error, Some(AptError::HashMismatch { .. })), "{error:?}");
}

#[test]
fn a_package_that_apt_does_not_know_is_told() {
    let apt = Apt::default();
    let error = Candidate::for_package(&apt, "no-such-package-at-all").err();
    assert!(matches!(error, Some(AptError::Unknown { .. })), "{error:?}");
    let version = Version::parse("0.0.0-0never").ok();
    let error = version.and_then(|version| Candidate::of_version(&apt, PACKAGE, &version).err());
    assert!(matches!(error, Some(AptError::Failed { .. } | AptError::NoHash { .. })), "{error:?}");
}

#[test]
fn what_can_be_upgraded_is_listed_by_source() -> Checked {
    let root = Root::host()?;
    let database = Database::read(&root)?;
    let upgradable = Apt::default().upgradable(&database)?;
    for (source, packages) in &upgradable {
        for upgradable in packages {
            let installed = &upgradable.package.control;
            assert_eq!(&installed.id.source, source);
            assert_eq!(upgradable.policy.installed.as_ref(), Some(&installed.version), "{}", installed.id.name);
            assert!(upgradable.policy.candidate.as_ref().is_some_and(|candidate| *candidate > installed.version));
        }
    }
    Ok(())
}

/// A repository without a signature, which the caller's options even allow.
#[test]
fn a_package_without_a_signature_is_refused() -> Checked {
    let repository = Repository::unsigned()?;
    let apt = repository.apt();
    let error = Candidate::for_package(&apt, PACKAGE).and_then(|candidate| candidate.download(&apt, None)).err();
    // apt has no lists from it, or has them and does not trust them.
    assert!(
        matches!(
            error,
            Some(AptError::Unauthenticated { .. } | AptError::Unknown { .. } | AptError::NoCandidate { .. })
        ),
        "{error:?}"
    );
    Ok(())
}

/// Lists that were fetched while insecure repositories were allowed are there;
/// the package itself is refused all the same.
#[test]
fn lists_fetched_insecurely_do_not_make_a_package_trusted() -> Checked {
    let repository = Repository::unsigned()?;
    repository.update_insecurely()?;
    let apt = repository.apt();
    let candidate = Candidate::for_package(&apt, PACKAGE)?;
    let error = candidate.download(&apt, None).err();
    assert!(matches!(error, Some(AptError::Unauthenticated { .. })), "{error:?}");
    Ok(())
}

#[test]
fn apt_is_ended_when_its_time_is_up() {
    let apt = Apt { query_limit: Duration::ZERO, ..Apt::default() };
    let error = apt.policy(PACKAGE).err();
    assert!(matches!(error, Some(AptError::TimedOut { .. })), "{error:?}");
}

/// A repository in a directory, with an apt configuration of its own.
struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    fn unsigned() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::Builder::new().prefix("salve-repo-").tempdir()?;
        let at = dir.path();
        // apt's sandbox user has to be able to read it.
        std::fs::set_permissions(at, PermissionsExt::from_mode(0o755))?;
        let name = "memcached_1.6.18-1_amd64.deb";
        let deb = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../corpus").join(name);
        let bytes = std::fs::read(deb)?;
        std::fs::create_dir_all(at.join("repo"))?;
        std::fs::write(at.join("repo").join(name), &bytes)?;
        let packages = format!(
            "Package: memcached\nVersion: 1.6.18-1\nArchitecture: amd64\nMaintainer: x <x@example.org>\n\
             Filename: ./{name}\nSize: {}\nSHA256: {}\nDescription: x\n",
            bytes.len(),
            ContentHash::of(&bytes)
        );
        std::fs::write(at.join("repo/Packages"), packages)?;
        for sub in ["lists/partial", "cache/archives/partial", "etc"] {
            std::fs::create_dir_all(at.join(sub))?;
        }
        std::fs::write(at.join("etc/sources.list"), format!("deb file:{}/repo ./\n", at.display()))?;
        std::fs::write(at.join("status"), "")?;
        Ok(Self { dir })
    }

    fn options(&self) -> Vec<String> {
        let at = self.dir.path().display();
        vec![
            format!("Dir::Etc::SourceList={at}/etc/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={at}/lists"),
            format!("Dir::State::Status={at}/status"),
            format!("Dir::Cache={at}/cache"),
            // What a careless configuration would say.
            "APT::Get::AllowUnauthenticated=true".to_owned(),
            "Acquire::AllowInsecureRepositories=true".to_owned(),
        ]
    }

    fn apt(&self) -> Apt {
        Apt { options: self.options(), ..Apt::default() }
    }

    fn update_insecurely(&self) -> Checked {
        let mut command = std::process::Command::new("apt-get");
        for option in self.options() {
            command.args(["-o", &option]);
        }
        let output = command.arg("update").output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
