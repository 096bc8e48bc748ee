//! What the tests and the demo need from the distributor, and getting it.
//!
//! Asked for by package, so that a fresh Debian 12 machine with a Rust
//! toolchain is enough. Installing is quiet and says so in one line. HAProxy,
//! memcached and the libraries under test are never installed: they are
//! unpacked from `corpus/`; only the libraries that they in turn link are.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::process::{Command, Stdio};

/// Something that must be there for a group of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Compilers for C and C++ and the C library's headers, for the victims.
    Compiler,
    /// `kill` as a program, which a minimal system lacks.
    ProcessTools,
    /// `readelf` and `objdump`, with which a patch file has to open.
    Binutils,
    /// A debugger, with which a patch file has to open as well.
    Debugger,
    /// A profiler.
    Profiler,
    /// A container runtime.
    Containers,
    /// What HAProxy links beyond the base system.
    HaproxyLibraries,
    /// What nginx links beyond the base system.
    NginxLibraries,
    /// What memcached links beyond the base system.
    MemcachedLibraries,
    /// What libpng and the decoding victims link.
    DecoderLibraries,
    /// A maker of throw-away Debian roots, and `mount`, which a minimal system lacks.
    RootMaker,
    /// Makers of Salve's own packages.
    PackageTools,
    /// A Debian root that boots, with systemd as process 1.
    Booter,
    /// A reader of the initial file system that a guest gets.
    ArchiveReader,
    /// A browser without a screen, which looks at the page of `salve status --html`.
    Browser,
    /// `man`, which shows a manual page as a reader sees it.
    ManualReader,
}

impl Need {
    pub const ALL: [Self; 16] = [
        Self::Compiler,
        Self::ProcessTools,
        Self::Binutils,
        Self::Debugger,
        Self::Profiler,
        Self::Containers,
        Self::HaproxyLibraries,
        Self::NginxLibraries,
        Self::MemcachedLibraries,
        Self::DecoderLibraries,
        Self::RootMaker,
        Self::PackageTools,
        Self::Booter,
        Self::ArchiveReader,
        Self::Browser,
        Self::ManualReader,
    ];

    /// A command that is the need itself, whichever package it came from.
    const fn command(self) -> Option<&'static str> {
        match self {
            Self::Compiler => Some("gcc"),
            Self::ProcessTools => Some("kill"),
            Self::Binutils => Some("objdump"),
            Self::Debugger => Some("gdb"),
            Self::Profiler => Some("perf"),
            Self::Containers => Some("crun"),
            Self::HaproxyLibraries
            | Self::NginxLibraries
            | Self::MemcachedLibraries
            | Self::DecoderLibraries
            | Self::RootMaker
            | Self::PackageTools => None,
            Self::Booter => Some("systemd-nspawn"),
            Self::ArchiveReader => Some("cpio"),
            Self::Browser => Some("chromium"),
            Self::ManualReader => Some("man"),
        }
    }

    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Compiler => &["gcc", "g++", "libc6-dev"],
            Self::ProcessTools => &["procps"],
            Self::Binutils => &["binutils"],
            Self::Debugger => &["gdb-minimal"],
            Self::Profiler => &["linux-perf"],
            Self::Containers => &["crun"],
            Self::HaproxyLibraries => &[
                "libcrypt1",
                "liblua5.3-0",
                "libopentracing-c-wrapper0",
                "libopentracing1",
                "libpcre2-8-0",
                "libssl3",
                "libsystemd0",
            ],
            Self::NginxLibraries => &["libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"],
            Self::MemcachedLibraries => &["libevent-2.1-7", "libsasl2-2", "libssl3"],
            Self::DecoderLibraries => &["zlib1g"],
            Self::RootMaker => &["mmdebstrap", "mount"],
            Self::PackageTools => &["dpkg-dev", "gzip"],
            Self::Booter => &["systemd-container"],
            Self::ArchiveReader => &["cpio"],
            Self::Browser => &["chromium"],
            Self::ManualReader => &["man-db"],
        }
    }

    fn missing(self) -> Vec<&'static str> {
        if self.command().is_some_and(on_path) && self != Self::Compiler {
            return Vec::new();
        }
        self.packages().iter().copied().filter(|package| !installed(package)).collect()
    }
}

/// Installs what of `needs` is missing. Says in one line what it installed.
///
/// Only root can; for others the error names the packages.
pub fn ensure(needs: &[Need]) -> Result<()> {
    if packages_missing(needs).is_empty() {
        return Ok(());
    }
    // Tests run side by side; apt does not.
    let lock_path = std::env::temp_dir().join("salve-apt.lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).context("cannot wait for another apt")?;
    let missing = packages_missing(needs);
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn packages_missing(needs: &[Need]) -> Vec<&'static str> {
    let mut missing: Vec<&'static str> = needs.iter().flat_map(|need| need.missing()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

#[expect(clippy::print_stderr, reason = "whoever runs it is told what is installed on their machine")]
fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !on_path("apt-get") {
        bail!("missing: {list}; this is no machine with apt-get, install them yourself");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing: {list}; run `apt-get install {list}` as root");
    }
    eprintln!("installing with apt-get, once: {list}");
    if apt_install(packages).is_ok() {
        return Ok(());
    }
    // The lists may be absent or too old. One source that does not answer
    // makes `update` end non-zero though all others did: the install decides.
    let update = apt_get().args(["update", "-qq"]).output().context("cannot run apt-get update")?;
    apt_install(packages).with_context(|| {
        format!("before that apt-get update ended with {}: {}", update.status, last_line(&update.stderr))
    })
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let done = apt_get()
        .args(["install", "-qq", "-y", "--no-install-recommends"])
        .args(packages)
        .output()
        .context("cannot run apt-get install")?;
    if !done.status.success() {
        bail!("apt-get install {} ended with {}: {}", packages.join(" "), done.status, last_line(&done.stderr));
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).stdin(Stdio::null());
    command
}

fn last_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned()
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]).output();
    query.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).lines().any(|line| line == "installed"))
}

/// Whether a program of this name can be started.
pub fn on_path(command: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(command).is_file()))
}
