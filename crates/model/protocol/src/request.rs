use crate::{MAX_DESCRIPTORS, MAX_FILES_PER_SIDE, PROTOCOL_VERSION, ResourceLimits};
use salve_patch::PackageId;
use serde::{Deserialize, Serialize};

/// Index of a descriptor among those that came with the request, in the order they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descriptor(pub u32);

/// The one thing that a `salve-derive` process is started for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub protocol_version: u32,
    /// How many descriptors came before this line.
    pub descriptors: u32,
    pub limits: ResourceLimits,
    pub task: Task,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Derive livepatches for every image of a pair; the patch file goes to `output`.
    Derive {
        old: Side,
        new: Side,
        /// A writable, empty, seekable descriptor (a memfd).
        output: Descriptor,
        /// Program and version to name in the patch file, e.g. `salve 0.1.0`.
        created_by: String,
    },
    /// Old and new disassembly of one function, side by side.
    InspectAssembly {
        /// Function name as the patch file or the images have it, or `fn_<address>`.
        function: String,
        /// Which image of several, by the path in the patch file.
        image: Option<String>,
        sides: InspectSides,
    },
    /// What the files of one side are, without deriving anything.
    Probe { side: Side },
    /// Tries one forbidden thing from inside the sandbox and reports what came of it.
    TrySandbox {
        attempt: Attempt,
        /// For the attempts on an input.
        input: Option<Descriptor>,
    },
}

/// Where the code to be shown is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InspectSides {
    /// Both images at hand.
    Images { old: Side, new: Side },
    /// The new code is in the patch file; the old one is shown where the old image is at hand.
    Patch { patch: Descriptor, old: Option<Side> },
}

/// One version of the software.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Side {
    /// A Debian binary package.
    Deb {
        deb: Descriptor,
        /// How a reader knows it: the file's name.
        label: String,
    },
    /// ELF files: a plain pair, an unpacked tree, or images out of `/proc/PID/map_files`.
    Files {
        files: Vec<InputFile>,
        /// The package that the caller knows them to be of, when it does.
        package: Option<PackageId>,
        /// The package's Debian changelog, plain or gzip, when it is at hand.
        changelog: Option<Descriptor>,
        /// All files of the package with their checksums, as `salve_package::contents` writes them.
        contents: Option<Descriptor>,
        label: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Path inside the tree or on the system it came from; a name for pairing, never opened.
    pub path: String,
    pub file: Descriptor,
}

/// Forbidden things, and ways to end badly: for the tests that the sandbox
/// holds and that its owner tells what happened. All of it is tried from
/// inside the sandbox, so asking for it does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Attempt {
    /// Nothing forbidden: reads the input descriptor, if there is one, and answers.
    Nothing,
    /// `open("/etc/passwd")`
    OpenFile,
    /// `socket`, `connect` to loopback.
    Connect,
    /// `execve("/bin/true")`
    Execute,
    /// `ptrace(PTRACE_TRACEME)`
    Trace,
    /// `kill(1, 0)`
    SignalProcess,
    /// A new thread.
    StartThread,
    /// A `write` to the input descriptor.
    WriteToInput,
    /// Use of a descriptor of the parent that was not handed over.
    CloseDescriptor { number: i32 },
    /// More memory than the limit.
    ExhaustMemory,
    /// More processor time than the limit.
    ExhaustProcessor,
    /// Neither answers nor ends.
    Hang,
    /// A panic in a worker.
    Panic,
    /// Runs off the end of a worker's stack.
    OverflowStack,
    /// Sends a line longer than is allowed.
    FloodResponse,
    /// Writes to standard error without end.
    FloodErrors,
    /// Sends a line that is no response.
    SpeakGarbage,
    /// Ends without a last word.
    EndSilently,
}

/// Why a request contradicts itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("protocol version {theirs}, this program speaks {ours}")]
    Version { theirs: u32, ours: u32 },
    #[error("{have} descriptors, the limit is {limit}")]
    TooManyDescriptors { have: usize, limit: usize },
    #[error("{announced} descriptors announced, {received} received")]
    DescriptorsMissing { announced: u32, received: usize },
    #[error("descriptor {index} of {have}")]
    NoSuchDescriptor { index: u32, have: u32 },
    #[error("descriptor {index} is named twice")]
    DescriptorTwice { index: u32 },
    #[error("{have} files on one side, the limit is {limit}")]
    TooManyFiles { have: usize, limit: usize },
}

impl Request {
    pub fn new(task: Task, descriptors: u32, limits: ResourceLimits) -> Self {
        Self { protocol_version: PROTOCOL_VERSION, descriptors, limits, task }
    }

    /// Checks what the types cannot say; `received` is the number of descriptors that came.
    pub fn check(&self, received: usize) -> Result<(), RequestError> {
        if self.protocol_version != PROTOCOL_VERSION {
            return Err(RequestError::Version { theirs: self.protocol_version, ours: PROTOCOL_VERSION });
        }
        if received > MAX_DESCRIPTORS {
            return Err(RequestError::TooManyDescriptors { have: received, limit: MAX_DESCRIPTORS });
        }
        if usize::try_from(self.descriptors) != Ok(received) {
            return Err(RequestError::DescriptorsMissing { announced: self.descriptors, received });
        }
        for side in self.task.sides() {
            if let Side::Files { files, .. } = side
                && files.len() > MAX_FILES_PER_SIDE
            {
                return Err(RequestError::TooManyFiles { have: files.len(), limit: MAX_FILES_PER_SIDE });
            }
        }
        let mut named = self.task.descriptors();
        named.sort_unstable();
        if let Some(outside) = named.iter().find(|d| d.0 >= self.descriptors) {
            return Err(RequestError::NoSuchDescriptor { index: outside.0, have: self.descriptors });
        }
        match named.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
            Some([twice, ..]) => Err(RequestError::DescriptorTwice { index: twice.0 }),
            _ => Ok(()),
        }
    }
}

impl Task {
    pub fn sides(&self) -> Vec<&Side> {
        match self {
            Self::Derive { old, new, .. } | Self::InspectAssembly { sides: InspectSides::Images { old, new }, .. } => {
                vec![old, new]
            }
            Self::InspectAssembly { sides: InspectSides::Patch { old, .. }, .. } => old.iter().collect(),
            Self::Probe { side } => vec![side],
            Self::TrySandbox { .. } => Vec::new(),
        }
    }

    /// Every descriptor that the task names.
    pub fn descriptors(&self) -> Vec<Descriptor> {
        let mut named: Vec<Descriptor> = self.sides().into_iter().flat_map(Side::descriptors).collect();
        match self {
            Self::Derive { output, .. } => named.push(*output),
            Self::InspectAssembly { sides: InspectSides::Patch { patch, .. }, .. } => named.push(*patch),
            Self::TrySandbox { input, .. } => named.extend(*input),
            Self::InspectAssembly { .. } | Self::Probe { .. } => {}
        }
        named
    }
}

impl Side {
    pub fn descriptors(&self) -> Vec<Descriptor> {
        match self {
            Self::Deb { deb, .. } => vec![*deb],
            Self::Files { files, changelog, contents, .. } => {
                files.iter().map(|f| f.file).chain(*changelog).chain(*contents).collect()
            }
        }
    }

    pub fn label(&self) -> &str {
        match self {
            Self::Deb { label, .. } | Self::Files { label, .. } => label,
        }
    }
}
