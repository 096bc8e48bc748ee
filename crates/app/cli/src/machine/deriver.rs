//! What is asked of `salve-derive`.

use crate::console::Console;
use crate::problem::Problem;
use salve_deriver::{Deriver, DeriverError, FileInput, InspectInput, Priority, SideInput};
use salve_elf::ContentHash;
use salve_package::contents::Contents;
use salve_patch::{PackageId, PatchFile};
use salve_protocol::{AssemblyView, Failure, FailureKind, ProbeReport, SandboxReport};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// One side, with the descriptors that hold it.
#[derive(Debug)]
pub(crate) enum Material {
    Deb {
        file: File,
        label: String,
    },
    Files {
        /// Path on the system or in the tree, and the file.
        files: Vec<(String, File)>,
        package: Option<PackageId>,
        changelog: Option<File>,
        /// All files of the package with their checksums ([`listed`]).
        contents: Option<File>,
        label: String,
    },
}

/// A list of files as something that can be handed over. `None` where there is
/// no room for it: then what else an update changes is unknown.
pub(crate) fn listed(contents: &Contents) -> Option<File> {
    use std::io::Write as _;
    let mut file = File::from(rustix::fs::memfd_create("salve-list", rustix::fs::MemfdFlags::CLOEXEC).ok()?);
    file.write_all(contents.text().as_bytes()).ok()?;
    Some(file)
}

/// A patch file that was derived, checked and decoded.
#[derive(Debug)]
pub(crate) struct Derived {
    pub(crate) patch: PatchFile,
    pub(crate) sha256: ContentHash,
    pub(crate) bytes: Vec<u8>,
    pub(crate) took: Duration,
}

/// Where code to be shown is found.
#[derive(Debug)]
pub(crate) enum Code {
    Images {
        old: Material,
        new: Material,
    },
    /// The new code is in the patch file; the old one where the old side is at hand.
    Patch {
        patch: File,
        old: Option<Material>,
    },
}

pub(crate) trait Deriving {
    fn derive(&self, old: Material, new: Material) -> Result<Derived, Problem>;
    fn probe(&self, side: Material) -> Result<ProbeReport, Problem>;
    fn assembly(&self, function: &str, image: Option<&str>, code: Code) -> Result<AssemblyView, Problem>;
}

/// The real one: `salve-derive`, in its sandbox.
pub(crate) struct Sandboxed {
    deriver: Deriver,
    console: Console,
}

impl Sandboxed {
    pub(crate) fn locate(console: Console) -> Result<Self, Problem> {
        let deriver = Deriver::locate().map_err(|error| problem(DeriverError::Locate(error)))?;
        Ok(Self { deriver, console })
    }

    /// The same for work beside services that are not to be slowed.
    pub(crate) fn in_background(mut self) -> Self {
        self.deriver = self.deriver.with_priority(Priority::Background).with_time_limit(TIME_LIMIT_BEHIND_OTHERS);
        self
    }

    /// What the sandbox lacked on this machine is said; it is no reason to stop.
    fn tell(&self, sandbox: &SandboxReport) {
        for missing in &sandbox.degraded {
            self.console.note(&format!("salve-derive ran with less protection: {missing}"));
        }
    }
}

/// On a machine that is busy for good, what yields to others takes many times
/// as long; how much it may compute is limited all the same.
const TIME_LIMIT_BEHIND_OTHERS: Duration = Duration::from_secs(30 * 60);

/// Named in every patch file.
pub(crate) const CREATED_BY: &str = concat!("salve ", env!("CARGO_PKG_VERSION"));

impl Deriving for Sandboxed {
    fn derive(&self, old: Material, new: Material) -> Result<Derived, Problem> {
        let started = Instant::now();
        let (old_side, new_side) = (old.side(), new.side());
        let derived = self.deriver.derive(&old_side, &new_side, CREATED_BY, &mut |_| ()).map_err(problem)?;
        self.tell(&derived.sandbox);
        Ok(Derived {
            patch: derived.patch,
            sha256: derived.patch_sha256,
            bytes: derived.patch_bytes,
            took: started.elapsed(),
        })
    }

    fn probe(&self, side: Material) -> Result<ProbeReport, Problem> {
        let answer = self.deriver.probe(&side.side(), &mut |_| ()).map_err(problem)?;
        self.tell(&answer.sandbox);
        Ok(answer.value)
    }

    fn assembly(&self, function: &str, image: Option<&str>, code: Code) -> Result<AssemblyView, Problem> {
        let input = match &code {
            Code::Images { old, new } => InspectInput::Images { old: old.side(), new: new.side() },
            Code::Patch { patch, old } => {
                InspectInput::Patch { patch: patch.as_fd(), old: old.as_ref().map(Material::side) }
            }
        };
        let answer = self.deriver.inspect_assembly(function, image, &input).map_err(problem)?;
        self.tell(&answer.sandbox);
        Ok(answer.value)
    }
}

impl Material {
    fn side(&self) -> SideInput<'_> {
        match self {
            Self::Deb { file, label } => SideInput::Deb { file: file.as_fd(), label: label.clone() },
            Self::Files { files, package, changelog, contents, label } => SideInput::Files {
                files: files.iter().map(|(path, file)| FileInput { path: path.clone(), file: file.as_fd() }).collect(),
                package: package.clone(),
                changelog: changelog.as_ref().map(|file| file.as_fd()),
                contents: contents.as_ref().map(|file| file.as_fd()),
                label: label.clone(),
            },
        }
    }
}

/// A typed failure of the deriving process, as the person sees it.
fn problem(error: DeriverError) -> Problem {
    let hint = error.hint();
    let problem = match error {
        DeriverError::Failed(failure) => failed(failure),
        error @ DeriverError::ResourceLimit { .. } => {
            Problem::refused("too-large", "the input needs more than Salve grants its analysis").because(error)
        }
        error @ (DeriverError::SandboxViolation { .. } | DeriverError::NotWhatWasAsked(_)) => {
            Problem::failed("hostile-input", "the analysis of the input was stopped").because(error)
        }
        error => Problem::failed("deriver", "salve-derive could not be asked").because(error),
    };
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// Input that is understood and not taken is refused; input that cannot be
/// understood has failed.
fn failed(failure: Failure) -> Problem {
    let name = |input: &str| if input.is_empty() { "the input".to_owned() } else { input.to_owned() };
    let problem = match &failure.kind {
        FailureKind::NotElf { input } => Problem::failed("not-elf", format!("{} is not an ELF file", name(input))),
        FailureKind::NotElf64 { input } => {
            Problem::refused("other-architecture", format!("{} is a 32-bit or big-endian ELF file", name(input)))
        }
        FailureKind::OtherArchitecture { input } => {
            Problem::refused("other-architecture", format!("{} is for another architecture", name(input)))
        }
        FailureKind::NotLoadable { input } => {
            Problem::refused("not-loadable", format!("{} is neither a program nor a shared object", name(input)))
        }
        FailureKind::StaticProgram { input } => {
            Problem::refused("static-program", format!("{} is a statically linked program", name(input)))
        }
        FailureKind::TruncatedElf { input } => Problem::failed("truncated", format!("{} is truncated", name(input))),
        FailureKind::MalformedElf { input } => {
            Problem::failed("malformed-elf", format!("{} is a malformed ELF file", name(input)))
        }
        FailureKind::NotADeb { input } => {
            Problem::failed("not-a-deb", format!("{} is not a Debian package", name(input)))
        }
        FailureKind::MalformedDeb { input } => {
            Problem::failed("malformed-deb", format!("{} is a malformed Debian package", name(input)))
        }
        FailureKind::DifferentPackages { old, new } => Problem::refused(
            "different-packages",
            format!(
                "{} ({}) and {} ({}) are two different packages",
                old.name, old.architecture, new.name, new.architecture
            ),
        ),
        FailureKind::Downgrade { old, new } => {
            Problem::refused("downgrade", format!("{new} is older than {old}: a downgrade is never derived"))
        }
        FailureKind::SameVersion { version } => {
            Problem::refused("same-version", format!("both sides are version {version}"))
        }
        FailureKind::NoImages { side } => {
            Problem::refused("no-images", format!("there is no program or shared object on the {side} side"))
        }
        FailureKind::ResourceLimit { .. } => {
            Problem::refused("too-large", "the input needs more than Salve grants its analysis")
        }
        FailureKind::NotAFile { input } => {
            Problem::failed("not-a-file", format!("{} is not a regular file", name(input)))
        }
        FailureKind::Unreadable { input } => Problem::failed("cannot-read", format!("cannot read {}", name(input))),
        FailureKind::Unwritable => Problem::failed("deriver", "the patch file could not be written"),
        FailureKind::BadPatch => Problem::failed("not-a-patch", "this is not a patch file that can be used"),
        FailureKind::NoSuchFunction { function } => {
            Problem::failed("no-such-function", format!("there is no function {function}"))
        }
        FailureKind::AmbiguousFunction { function, images } => {
            Problem::failed("ambiguous-function", format!("several images have a function {function}"))
                .hint(format!("name one of them with --image: {}", images.join(", ")))
        }
        FailureKind::BadRequest | FailureKind::Sandbox | FailureKind::Internal => {
            Problem::failed("deriver", "salve-derive could not do it")
        }
    };
    let hint = failure.hint.clone();
    let problem = match words(failure) {
        Some(chain) => problem.because(chain),
        None => problem,
    };
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// The words that came with a failure, as an error chain.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Words {
    text: String,
    source: Option<Box<Words>>,
}

fn words(failure: Failure) -> Option<Words> {
    failure.chain.into_iter().rev().fold(None, |source, text| Some(Words { text, source: source.map(Box::new) }))
}
