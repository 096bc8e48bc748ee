//! A guest that is a kernel of the distributor and one program of ours.
//!
//! The kernel and the modules that it needs for a disk are taken out of the
//! package by name; the program ([`tools/guest.c`](../../tools/guest.c)) is
//! linked statically. Both go into an initial file system in `cpio`'s "newc"
//! format (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use crate::debian::Root;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The kernel and its initial file system, by their paths inside the root.
pub(super) struct Guest {
    pub(super) kernel: String,
    pub(super) initial: String,
}

/// What a disk takes, each after what it needs. One that is built in has no file.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];

impl Guest {
    /// From the package of a kernel that the archive has.
    pub(super) fn make(root: &Root) -> Result<Self> {
        let package = kernel_package(root)?;
        // Unpacked, not installed: the machine inside has no boot loader.
        let script = "mkdir -p /var/tmp/kernel && cd /var/tmp/kernel && \
                      apt-get download -qq -o APT::Sandbox::User=root \"$0\" && dpkg-deb -x ./*.deb . && rm ./*.deb";
        root.must_run(&["sh", "-c", script, &package])?;
        let unpacked = root.path("/var/tmp/kernel");
        let kernel = only(&unpacked.join("boot"), "vmlinuz-")?;
        let init = unpacked.join("init");
        tools::compile_as("guest.c", &init, ["-static".as_ref()].into_iter())?;
        let mut archive = Archive::default();
        archive.directory("modules");
        let files = all_below(&unpacked.join("lib/modules"))?;
        for (index, module) in MODULES.iter().enumerate() {
            let name = format!("{module}.ko");
            let Some(file) = files.iter().find(|file| file.file_name().is_some_and(|found| *found == *name)) else {
                continue;
            };
            archive.file(&format!("modules/{index}-{name}"), &read(file)?)?;
        }
        archive.file("init", &read(&init)?)?;
        std::fs::write(unpacked.join("initial"), archive.end()).context("cannot write the initial file system")?;
        let kernel = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { kernel: format!("/var/tmp/kernel/boot/{kernel}"), initial: "/var/tmp/kernel/initial".into() })
    }
}

/// The package that holds the newest kernel for virtual machines.
fn kernel_package(root: &Root) -> Result<String> {
    let depends = root.must_run(&["apt-cache", "depends", "linux-image-cloud-amd64"])?.stdout;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(format!("linux-image-{}", package.context("the archive has no kernel for virtual machines")?))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn only(directory: &Path, start: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    Ok(named.next().with_context(|| format!("no {start}* in {}", directory.display()))?.path())
}

fn all_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry.context("cannot read an entry")?;
        if entry.file_type().context("an entry without a type")?.is_dir() {
            found.extend(all_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `cpio -H newc`.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, 0, &[]);
    }

    fn file(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        let length = u32::try_from(contents.len()).context("too large a file")?;
        ensure!(!name.contains('\0'), "a name with a zero byte");
        self.entry(name, PROGRAM, length, contents);
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, length: u32, contents: &[u8]) {
        self.entries += 1;
        let mut head = String::from("070701");
        // Inode, mode, user, group, links, time, size, device and its own device (two numbers each), name, no checksum.
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        for field in [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0] {
            let _never_fails_on_a_string = write!(head, "{field:08x}");
        }
        self.bytes.extend(head.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_archive_unpacks_to_what_was_put_into_it() -> Result<()> {
        let mut archive = Archive::default();
        archive.directory("modules");
        archive.file("modules/0-odd", b"seven b")?;
        archive.file("init", &[0x7f; 4097])?;
        let directory = tempfile::tempdir()?;
        let mut cpio = match Command::new("cpio")
            .args(["-idm", "--quiet"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()
        {
            Ok(started) => started,
            Err(error) => {
                crate::not_run::record("an initial file system is read by cpio", &error.to_string());
                return Ok(());
            }
        };
        cpio.stdin.take().context("no input")?.write_all(&archive.end())?;
        ensure!(cpio.wait()?.success(), "cpio does not take it");
        assert_eq!(std::fs::read(directory.path().join("modules/0-odd"))?, b"seven b");
        assert_eq!(std::fs::read(directory.path().join("init"))?, [0x7f; 4097]);
        Ok(())
    }
}
