//! Where the names come from: debug packages, or a build that was not stripped.

use super::symbols::{Symbols, same_but_stripped};
use anyhow::{Context as _, Result, bail, ensure};
use object::Object as _;
use object::read::elf::ElfFile64;
use salve_testkit::corpus::{self, Pair, Side};
use salve_testkit::tree;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) enum Truth {
    /// A tree with `usr/lib/debug/.build-id/`.
    Debug(PathBuf),
    /// A tree with the files of all packages that a source builds, not stripped.
    Rebuilt(PathBuf),
}

impl Truth {
    pub(crate) fn of(pair: &Pair, side: Side, build: bool) -> Result<Self> {
        let version = if side == Side::Old { &pair.old } else { &pair.new };
        if pair.source == "glibc" {
            return debug_tree("libc6-dbg", version).map(Self::Debug);
        }
        rebuilt_tree(&pair.source, version, build).map(Self::Rebuilt)
    }

    /// Names of the image that the package has at `path`.
    pub(crate) fn symbols(&self, path: &Path, shipped: &[u8]) -> Result<Symbols> {
        match self {
            Self::Debug(tree) => {
                let file = ElfFile64::<object::LittleEndian>::parse(shipped).context("no ELF file")?;
                let id = file.build_id().ok().flatten().context("no build-id")?;
                let hex: String = id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
                let (first, rest) = hex.split_at_checked(2).context("an empty build-id")?;
                let file = tree.join("usr/lib/debug/.build-id").join(first).join(rest).with_extension("debug");
                let bytes = std::fs::read(&file).with_context(|| format!("no debug file {rest}"))?;
                Symbols::of(&bytes)
            }
            Self::Rebuilt(tree) => {
                let rebuilt = tree.join(path);
                let bytes = std::fs::read(&rebuilt).context("the rebuilt packages have no such file")?;
                same_but_stripped(shipped, &bytes)?;
                Symbols::of(&bytes)
            }
        }
    }
}

fn kept(what: &str) -> Result<PathBuf> {
    let directory = tree::target().join("accuracy").join(what.replace(':', "_"));
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn debug_tree(package: &str, version: &str) -> Result<PathBuf> {
    let directory = kept(&format!("debug/{package}_{version}"))?;
    let tree = directory.join("tree");
    if !tree.exists() {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&directory).args(["download", "-qq", "-o", "APT::Sandbox::User=root"]);
        run(apt.arg(format!("{package}={version}")))?;
        unpack(&directory, &tree)?;
    }
    Ok(tree)
}

fn rebuilt_tree(source: &str, version: &str, build: bool) -> Result<PathBuf> {
    let directory = kept(&format!("builds/{source}_{version}"))?;
    let (done, tree) = (directory.join("built"), directory.join("tree"));
    if !done.exists() {
        ensure!(build, "not built (--build {source})");
        rebuild(&directory, source, version)?;
        std::fs::write(&done, "").context("cannot mark a build as done")?;
    }
    if !tree.exists() {
        unpack(&directory, &tree)?;
    }
    Ok(tree)
}

/// The source of the new version; or of the old one, and why the new one's could not be had.
pub(crate) fn newest_unpacked(pair: &Pair) -> Result<(PathBuf, Option<String>)> {
    match unpacked(&pair.source, &pair.new) {
        Ok(source) => Ok((source, None)),
        Err(error) => {
            let why = format!("{error:#}");
            let old = unpacked(&pair.source, &pair.old).with_context(|| format!("the new version's source: {why}"))?;
            Ok((old, Some(why)))
        }
    }
}

/// The source as the distributor patched it, with all that building it needs installed.
pub(crate) fn unpacked(source: &str, version: &str) -> Result<PathBuf> {
    let directory = kept(&format!("sources/{source}_{version}"))?;
    let done = directory.join("fetched");
    if !done.exists() {
        fetch(&directory, source, version)?;
        std::fs::write(&done, "").context("cannot mark a source as fetched")?;
    }
    tree_in(&directory)
}

fn tree_in(directory: &Path) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(directory).context("no source")?.filter_map(Result::ok);
    let found = entries.find(|entry| entry.path().join("debian/rules").exists());
    found.map(|entry| entry.path()).context("the source did not unpack")
}

fn fetch(directory: &Path, source: &str, version: &str) -> Result<()> {
    let apt = private_apt()?;
    let command = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(directory).env("DEBIAN_FRONTEND", "noninteractive").args(&apt).args(words);
        command
    };
    let wanted = format!("{source}={version}");
    run(&mut command(&["-y", "-qq", "build-dep", &wanted]))?;
    run(&mut command(&["-qq", "source", "--only-source", &wanted]))
}

/// Fetches the source, installs what it needs and builds it with its symbols left in.
fn rebuild(directory: &Path, source: &str, version: &str) -> Result<()> {
    fetch(directory, source, version)?;
    let unpacked = tree_in(directory)?;
    let mut dpkg = Command::new("dpkg-buildpackage");
    dpkg.current_dir(unpacked).args(["-b", "-us", "-uc"]).env("DEB_BUILD_OPTIONS", "nostrip nocheck parallel=2");
    // Some sources (redis) write the commit of the repository around them into what they build.
    dpkg.env("GIT_CEILING_DIRECTORIES", directory);
    run(&mut dpkg)
}

/// Options for an apt of its own, with sources, that leaves the machine's alone.
fn private_apt() -> Result<Vec<String>> {
    let directory = kept("apt")?;
    for part in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(directory.join(part)).context("cannot make a directory")?;
    }
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let suites = [("debian", "bookworm"), ("debian", "bookworm-updates"), ("debian-security", "bookworm-security")];
    let lines = suites.iter().flat_map(|(archive, suite)| {
        ["deb", "deb-src"]
            .map(|kind| format!("{kind} [signed-by={key}] http://deb.debian.org/{archive} {suite} main\n"))
    });
    std::fs::write(directory.join("sources.list"), lines.collect::<String>()).context("cannot write sources")?;
    let at = |part: &str| directory.join(part).display().to_string();
    let options = [
        format!("Dir::Etc::sourcelist={}", at("sources.list")),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", at("lists")),
        format!("Dir::Cache={}", at("cache")),
        "APT::Sandbox::User=root".to_owned(),
        // Another task may be installing what it builds with.
        "DPkg::Lock::Timeout=900".to_owned(),
    ];
    let options: Vec<String> = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
    run(Command::new("apt-get").args(&options).args(["-qq", "update"]))?;
    Ok(options)
}

/// All packages of a directory, into one tree; there is none if one of them fails.
fn unpack(directory: &Path, into: &Path) -> Result<()> {
    let part = into.with_extension("part");
    std::fs::create_dir_all(&part).context("cannot make a directory")?;
    let mut any = false;
    for entry in std::fs::read_dir(directory).context("no packages")?.filter_map(Result::ok) {
        // Debug symbols are in the images themselves; the installer's packages have other builds.
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            corpus::extract(&path, &part)?;
            any = true;
        }
    }
    ensure!(any, "no package was built");
    std::fs::rename(&part, into).context("cannot put a tree in its place")
}

fn run(command: &mut Command) -> Result<()> {
    let said = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if said.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    bail!("{} failed: {last}", command.get_program().display())
}
