//! Victims, and livepatches made by hand for them.
//!
//! A victim is compiled twice, old and new, with its relocations kept in the
//! linked file; a changed function's bytes are taken from the new one, and each
//! of its relocations against a symbol becomes a fix-up to the old one's symbol.
#![allow(dead_code, reason = "every test binary uses another part of it")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of files that were just compiled")]

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use salve_elf::{BuildId, ContentHash, Va, VaRange};
use salve_patch::{
    Access, Detour, FORMAT_VERSION, Fixup, FixupKind, FunctionCounts, ImageId, ImageReport, Livepatch, Origin,
    PatchFile, ReferenceCounts, ReplacedFunction, RevertPolicy, Segment, Verdict,
};
use salve_tracee::{ApplyOptions, Limits, Patcher, Process, RevertOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub(crate) struct Pair {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/victims").join(name)
}

pub(crate) fn gcc(arguments: &[&str]) {
    let status = Command::new("gcc").args(arguments).status().expect("gcc runs");
    assert!(status.success(), "gcc {arguments:?}");
}

/// Compiles a program old and new; `more` goes to both.
pub(crate) fn program(directory: &Path, name: &str, more: &[&str]) -> Pair {
    let build = |suffix: &str, define: &str| {
        let out = directory.join(format!("{name}-{suffix}"));
        let source = source(&format!("{name}.c"));
        let mut arguments = vec!["-O2", "-fPIE", "-pie", "-pthread", "-Wl,-q", define];
        let tail = ["-o", out.to_str().unwrap(), source.to_str().unwrap()];
        arguments.extend(tail);
        arguments.extend(more);
        gcc(&arguments);
        out
    };
    Pair { old: build("old", "-DOLD"), new: build("new", "-DNEW") }
}

/// Compiles a library old and new; the old one is what programs link against.
pub(crate) fn library(directory: &Path, name: &str) -> Pair {
    let build = |folder: &str, define: &str| {
        let folder = directory.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let out = folder.join(format!("lib{name}.so"));
        let source = source(&format!("{name}.c"));
        let soname = format!("-Wl,-soname,lib{name}.so");
        gcc(&[
            "-O2",
            "-fPIC",
            "-shared",
            "-Wl,-q",
            &soname,
            define,
            "-o",
            out.to_str().unwrap(),
            source.to_str().unwrap(),
        ]);
        out
    };
    Pair { old: build("old", "-DOLD"), new: build("new", "-DNEW") }
}

fn id(bytes: &[u8]) -> ImageId {
    let file = object::File::parse(bytes).unwrap();
    ImageId {
        sha256: ContentHash::of(bytes),
        len_bytes: bytes.len() as u64,
        build_id: file.build_id().ok().flatten().and_then(|id| BuildId::parse(id).ok()),
        soname: None,
    }
}

fn symbol(file: &object::File<'_>, name: &str) -> (u64, u64) {
    let found = file.symbols().find(|symbol| symbol.name() == Ok(name) && symbol.is_definition());
    let found = found.unwrap_or_else(|| panic!("no symbol {name}"));
    (found.address(), found.size())
}

/// A livepatch that leads `functions` of the old image to those of the new one.
pub(crate) fn livepatch(pair: &Pair, functions: &[&str], revert: RevertPolicy) -> PatchFile {
    PatchFile {
        format_version: FORMAT_VERSION,
        created_by: "salve-tracee tests".into(),
        origin: Origin::Files { old: "old".into(), new: "new".into() },
        not_healed: Some(salve_patch::NotHealed::Unknown { present: Vec::new() }),
        images: vec![report(pair, functions, revert)],
    }
}

pub(crate) fn report(pair: &Pair, functions: &[&str], revert: RevertPolicy) -> ImageReport {
    let (old_bytes, new_bytes) = (std::fs::read(&pair.old).unwrap(), std::fs::read(&pair.new).unwrap());
    let (old, new) = (object::File::parse(&*old_bytes).unwrap(), object::File::parse(&*new_bytes).unwrap());
    let text = new.section_by_name(".text").unwrap();
    let (text_va, text_bytes) = (text.address(), text.data().unwrap());
    let ranges: Vec<(u64, u64)> = functions.iter().map(|name| symbol(&new, name)).collect();
    let start = ranges.iter().map(|(va, _)| va & !4095).min().unwrap();
    let end = ranges.iter().map(|(va, size)| (va + size + 4095) & !4095).max().unwrap();
    let mut bytes = vec![0xcc; (end - start) as usize];
    let mut fixups = Vec::new();
    for &(va, size) in &ranges {
        let from = (va - text_va) as usize;
        bytes[(va - start) as usize..][..size as usize].copy_from_slice(&text_bytes[from..from + size as usize]);
        for (at, relocation) in text.relocations().filter(|(at, _)| (va..va + size).contains(at)) {
            let RelocationTarget::Symbol(index) = relocation.target() else { panic!("a relocation without symbol") };
            let name = new.symbol_by_index(index).unwrap().name().unwrap().to_owned();
            assert_eq!(relocation.addend(), -4, "{name}");
            fixups.push(Fixup {
                new_va: Va::new(at),
                kind: FixupKind::PcRel32 { new_next: Va::new(at + 4), old_target: Va::new(symbol(&old, &name).0) },
            });
        }
    }
    fixups.sort_by_key(|fixup| fixup.new_va);
    let old_text = old.section_by_name(".text").unwrap();
    let (mut detours, mut replaced) = (Vec::new(), Vec::new());
    for (name, &(new_va, new_size)) in functions.iter().zip(&ranges) {
        let (old_va, old_size) = symbol(&old, name);
        let body = &old_text.data().unwrap()[(old_va - old_text.address()) as usize..];
        let skip = if body.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
        detours.push(Detour {
            function: (*name).into(),
            old_entry: Va::new(old_va),
            old_va: Va::new(old_va + skip),
            expected: body[skip as usize..][..5].to_vec(),
            new_target: Va::new(new_va),
        });
        replaced.push(ReplacedFunction {
            name: (*name).into(),
            old_ranges: vec![VaRange::new(Va::new(old_va), old_size).unwrap()],
            new_ranges: vec![VaRange::new(Va::new(new_va), new_size).unwrap()],
            may_overlap: false,
        });
    }
    detours.sort_by_key(|detour| detour.old_va);
    let segment = Segment { new_va: Va::new(start), access: Access::ReadExecute, bytes };
    ImageReport {
        path: pair.old.to_str().unwrap().into(),
        old: Some(id(&old_bytes)),
        new: Some(id(&new_bytes)),
        verdict: Verdict::Safe,
        reasons: vec![],
        functions: FunctionCounts::default(),
        references: ReferenceCounts::default(),
        noise: vec![],
        livepatch: Some(Livepatch {
            segments: vec![segment],
            fixups,
            detours,
            replaced,
            imports: vec![],
            pointers: vec![],
            words: vec![],
            readers: vec![],
            requirements: vec![],
            revert,
            unwind: salve_patch::Unwind::default(),
        }),
    }
}

/// A running victim that answers a line with a line.
pub(crate) struct Victim {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Victim {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(&mut command)
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("victim starts");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut victim = Self { child, input, output: BufReader::new(output) };
        assert_eq!(victim.line(), "ready");
        victim
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn process(&self) -> Process {
        Process::open(self.pid()).expect("victim can be opened")
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("victim writes");
        line.trim_end().to_owned()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("victim reads");
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.line()
    }

    pub(crate) fn kill(&mut self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Whether it runs, and how it ended if not.
    pub(crate) fn fate(&mut self) -> String {
        match self.child.try_wait().expect("victim can be waited for") {
            Some(status) => format!("ended with {status}"),
            None => format!("is in state {}", self.state()),
        }
    }

    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
    }

    /// Every byte of the program's own executable mappings.
    pub(crate) fn text(&self, name: &Path) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut all = Vec::new();
        for mapping in self.process().mappings(&Limits::default()).unwrap() {
            if mapping.perms.execute && mapping.path == *name.as_os_str() {
                let mut bytes = vec![0; usize::try_from(mapping.len_bytes()).unwrap()];
                memory.read_exact_at(&mut bytes, mapping.start.raw()).unwrap();
                all.extend(bytes);
            }
        }
        assert!(!all.is_empty());
        all
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn patcher() -> Patcher {
    // The machine that runs the tests may be busy with much else.
    Patcher::new(Limits { max_stop: Duration::from_secs(1), ..Limits::default() })
}

pub(crate) fn within(seconds: f64) -> ApplyOptions {
    ApplyOptions { wait: Duration::from_secs_f64(seconds) }
}

pub(crate) fn revert_within(seconds: f64) -> RevertOptions {
    RevertOptions { wait: Duration::from_secs_f64(seconds), force: false }
}

/// Where a function of the old image is.
pub(crate) fn old_range(pair: &Pair, name: &str) -> VaRange {
    let bytes = std::fs::read(&pair.old).unwrap();
    let (va, size) = symbol(&object::File::parse(&*bytes).unwrap(), name);
    VaRange::new(Va::new(va), size).unwrap()
}

impl Victim {
    /// How many words of its writable memory are addresses inside `range` of the image.
    pub(crate) fn words_on_stacks(&self, range: VaRange, image: &Path) -> usize {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mappings = self.process().mappings(&Limits::default()).unwrap();
        let bias = mappings.iter().find(|mapping| mapping.path == *image.as_os_str()).unwrap().start.raw();
        let inside = bias + range.start().raw() + 1..=bias + range.end().raw();
        let stacks = mappings.iter().filter(|m| m.perms.write && m.inode == 0 && m.len_bytes() < 64 << 20);
        stacks
            .map(|mapping| {
                let mut bytes = vec![0; usize::try_from(mapping.len_bytes()).unwrap()];
                memory.read_exact_at(&mut bytes, mapping.start.raw()).unwrap();
                bytes.as_chunks::<8>().0.iter().filter(|word| inside.contains(&u64::from_le_bytes(**word))).count()
            })
            .sum()
    }
}
