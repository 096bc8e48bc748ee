//! Salve's own Debian packages, `salve` and `salve-derive`, from the built programs.
//!
//! A plain tree and `dpkg-deb`: what is in a package stands here and in
//! `packaging/debian`, file by file. What the programs link is asked of
//! `dpkg-shlibdeps`, manual pages and completions of `salve` itself. Built twice
//! from one commit it is the same package, byte for byte.

use crate::needs::{self, Need};
use crate::{salve, tree};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The two package files.
#[derive(Clone, Debug)]
pub struct Packages {
    pub salve: PathBuf,
    pub derive: PathBuf,
}

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Documents that are shipped, by their path in the tree, which their links to each other need.
const DOCUMENTS: [&str; 9] = [
    "README.md",
    "docs/events.md",
    "docs/format.md",
    "docs/performance.md",
    "docs/reason-codes.md",
    "docs/threat-model.md",
    "docs/guide/daily-use.md",
    "docs/guide/exit-codes.md",
    "docs/guide/json.md",
];
/// What is in `packaging/debian`, and where it goes.
const CONFIGURATION: [(&str, &str); 2] =
    [("salve.needrestart.conf", "etc/needrestart/conf.d/60-salve.conf"), ("salve.logrotate", "etc/logrotate.d/salve")];
/// Shell, and where its completions go.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/salve"),
    ("zsh", "usr/share/zsh/vendor-completions/_salve"),
    ("fish", "usr/share/fish/vendor_completions.d/salve.fish"),
];

/// Builds both packages with this version into a directory.
pub fn build(version: &str, into: &Path) -> Result<Packages> {
    needs::ensure(&[Need::PackageTools])?;
    let programs = salve::directory()?;
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let staging = tree::scratch("deb")?;
    let salve = Staged::new(staging.path(), "salve", version)?;
    salve.program(&programs.join("salve"), "usr/bin/salve")?;
    salve.manual()?;
    for (shell, place) in COMPLETIONS {
        let script = output(Command::new(programs.join("salve")).args(["completions", shell]))?;
        salve.file(place, script.as_bytes())?;
    }
    for document in DOCUMENTS {
        salve.copy(&tree::root().join(document), &format!("usr/share/doc/salve/{document}"))?;
    }
    for (name, place) in CONFIGURATION {
        salve.copy(&packaging(name), place)?;
    }
    let conffiles: Vec<String> = CONFIGURATION.iter().map(|(_, place)| format!("/{place}")).collect();
    salve.file("DEBIAN/conffiles", format!("{}\n", conffiles.join("\n")).as_bytes())?;
    salve.copy(&packaging("salve.postrm"), "DEBIAN/postrm")?;
    salve.mode("DEBIAN/postrm", 0o755)?;

    let derive = Staged::new(staging.path(), "salve-derive", version)?;
    derive.program(&programs.join("salve-derive"), "usr/lib/salve/salve-derive")?;
    Ok(Packages { salve: salve.pack(into)?, derive: derive.pack(into)? })
}

fn packaging(name: &str) -> PathBuf {
    tree::root().join("packaging/debian").join(name)
}

/// The tree of one package, before it is packed.
struct Staged {
    name: &'static str,
    version: String,
    directory: PathBuf,
}

impl Staged {
    fn new(staging: &Path, name: &'static str, version: &str) -> Result<Self> {
        let staged = Self { name, version: version.to_owned(), directory: staging.join(name) };
        staged.copy(&packaging("copyright"), &format!("usr/share/doc/{name}/copyright"))?;
        staged.compressed(&format!("usr/share/doc/{name}/changelog.gz"), changelog(version).as_bytes())?;
        Ok(staged)
    }

    fn file(&self, place: &str, content: &[u8]) -> Result<()> {
        let file = self.directory.join(place);
        let directory = file.parent().context("a file without a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        self.mode(place, 0o644)
    }

    fn mode(&self, place: &str, mode: u32) -> Result<()> {
        fs::set_permissions(self.directory.join(place), fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {place}"))
    }

    fn copy(&self, from: &Path, place: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(place, &content)
    }

    /// Without debug information, which is not shipped.
    fn program(&self, from: &Path, place: &str) -> Result<()> {
        self.copy(from, place)?;
        self.mode(place, 0o755)?;
        done(
            Command::new("strip")
                .args(["--strip-unneeded", "--remove-section=.comment"])
                .arg(self.directory.join(place)),
        )
    }

    fn compressed(&self, place: &str, content: &[u8]) -> Result<()> {
        let plain = place.strip_suffix(".gz").context("a compressed file is called .gz")?;
        self.file(plain, content)?;
        // No name and no time in it: the same content is the same file.
        done(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(self.directory.join(plain)))
    }

    /// A page for the program and one for each command.
    fn manual(&self) -> Result<()> {
        let pages = tree::scratch("man")?;
        done(Command::new(salve::directory()?.join("salve")).args(["man", "--dir"]).arg(pages.path()))?;
        for entry in fs::read_dir(pages.path()).context("no manual pages")? {
            let page = entry.context("cannot read an entry")?.path();
            let name = page.file_name().context("a page without a name")?.to_string_lossy().into_owned();
            let content = fs::read(&page).with_context(|| format!("cannot read {name}"))?;
            self.compressed(&format!("usr/share/man/man1/{name}.gz"), &content)?;
        }
        Ok(())
    }

    fn pack(&self, into: &Path) -> Result<PathBuf> {
        let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
        let all = fs::read_to_string(packaging("control.in")).context("no control.in")?;
        let start = format!("Package: {}\n", self.name);
        let paragraph = all.split("\n\n").find(|paragraph| paragraph.starts_with(&start));
        let (sums, bytes) = self.sums()?;
        self.file("DEBIAN/md5sums", sums.as_bytes())?;
        let control = paragraph
            .with_context(|| format!("control.in has no {}", self.name))?
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", architecture.trim())
            .replace("@SIZE@", &bytes.div_ceil(1024).to_string())
            .replace("@LIBRARIES@", &self.libraries()?);
        ensure!(!control.contains('@') || control.matches('@').count() == 1, "control.in asks for more than is known");
        self.file("DEBIAN/control", format!("{}\n", control.trim_end()).as_bytes())?;
        self.directories()?;
        let mut command = Command::new("dpkg-deb");
        command.args(["--build", "--root-owner-group", "-Zxz"]).arg(&self.directory);
        command.arg(into).env("SOURCE_DATE_EPOCH", time_of_commit());
        done(&mut command)?;
        Ok(into.join(format!("{}_{}_{}.deb", self.name, self.version, architecture.trim())))
    }

    /// What dpkg compares the installed files with, and how many bytes they are.
    fn sums(&self) -> Result<(String, u64)> {
        let mut files = Vec::new();
        files_below(&self.directory, &mut files)?;
        let mut places: Vec<PathBuf> = Vec::new();
        let mut bytes = 0;
        for file in files {
            let place = file.strip_prefix(&self.directory).context("a file outside")?.to_path_buf();
            if !place.starts_with("DEBIAN") {
                bytes += fs::metadata(&file).with_context(|| format!("no {}", file.display()))?.len();
                places.push(place);
            }
        }
        places.sort_unstable();
        let sums = output(Command::new("md5sum").current_dir(&self.directory).args(&places))?;
        Ok((sums, bytes))
    }

    /// What the programs link, in dpkg's words.
    fn libraries(&self) -> Result<String> {
        let place = tree::scratch("shlibs")?;
        let source = place.path().join("debian");
        fs::create_dir(&source).context("cannot make a directory")?;
        let control = format!("Source: salve\n\nPackage: {}\nArchitecture: any\nDescription: x\n", self.name);
        fs::write(source.join("control"), control).context("cannot write a control file")?;
        let mut programs = Vec::new();
        files_below(&self.directory.join("usr"), &mut programs)?;
        let mut command = Command::new("dpkg-shlibdeps");
        command.current_dir(place.path()).arg("-O");
        for program in programs.iter().filter(|file| file.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0))
        {
            command.arg("-e").arg(program);
        }
        let found = output(&mut command)?;
        let line = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        line.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps says {found:?}"))
    }

    /// Directories get the mode of a system's, whatever the umask is.
    fn directories(&self) -> Result<()> {
        done(Command::new("find").arg(&self.directory).args(["-type", "d", "-exec", "chmod", "0755", "{}", "+"]))
    }
}

/// What changed, from the side of who uses it: the titles of the commits, newest first.
fn changelog(version: &str) -> String {
    let of_git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(tree::root()).args(arguments)).ok();
    let titles = of_git(&["log", "-n", "100", "--no-merges", "--format=  * %s"]);
    let titles = titles.unwrap_or_else(|| "  * Built outside of its repository, which has the history.\n".into());
    let date = Command::new("date").args(["-u", "-R", "-d", &format!("@{}", time_of_commit())]).output();
    let date = date.map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned()).unwrap_or_default();
    format!("salve ({version}) unstable; urgency=medium\n\n{titles}\n -- The Salve project <salve@localhost>  {date}\n")
}

/// Seconds since the epoch: of the commit, so that one commit makes one package.
fn time_of_commit() -> String {
    let time = output(Command::new("git").arg("-C").arg(tree::root()).args(["log", "-1", "--format=%ct"]));
    time.ok().map(|time| time.trim().to_owned()).filter(|time| !time.is_empty()).unwrap_or_else(|| "0".into())
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry.context("cannot read an entry")?.path();
        if path.is_dir() {
            files_below(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
}

fn done(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}
