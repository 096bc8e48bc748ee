//! `salve debug PID`: what gdb and perf need to see through the livepatches of a process.

use crate::args::Debug;
use crate::console::Report;
use crate::event::ProcessRef;
use crate::exit::Exit;
use crate::machine::processes::{self, Processes};
use crate::problem::{Problem, one_line};
use salve_tracee::{DebugFile, ReadError};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
pub(crate) struct DebugReport {
    process: ProcessRef,
    files: Vec<Payload>,
    /// The file with the commands, if one was asked for.
    script: Option<PathBuf>,
    /// The directory for `perf report --symfs`, with it.
    symfs: Option<PathBuf>,
}

/// An ELF file with the names and frames of new functions.
#[derive(Serialize)]
struct Payload {
    livepatch: String,
    /// The image that it changes.
    path: String,
    file: PathBuf,
    /// What to add to an address of the file, in hexadecimal.
    bias: String,
}

pub(crate) fn run(args: &Debug) -> Result<DebugReport, Problem> {
    let processes = Processes::new();
    let process = processes::open_named(args.pid())?;
    let cannot_look = |error: ReadError| processes::cannot_look(process.pid(), error);
    let found = processes.patcher.debug_files(&process).map_err(cannot_look)?;
    let facts = processes.facts(&process).map_err(cannot_look)?;
    let mut report = DebugReport { process: processes::name(&facts), files: Vec::new(), script: None, symfs: None };
    // gdb takes a relative path from where it was started, wherever the script lies.
    let dir = match &args.dir {
        Some(dir) => Some(std::path::absolute(dir).map_err(|error| cannot_write(dir, error))?),
        None => None,
    };
    for one in &found {
        let file = match &dir {
            Some(dir) => keep(one, dir)?,
            None => one.live.clone(),
        };
        report.files.push(Payload {
            livepatch: one.livepatch.to_string(),
            path: one.mapped_path.to_string_lossy().into_owned(),
            file,
            bias: format!("{:#x}", one.bias.raw()),
        });
    }
    if let Some(dir) = &dir {
        let script = dir.join(format!("salve-{}.gdb", args.pid()));
        let mut text = Vec::new();
        report.commands(&mut text).map_err(|error| cannot_write(&script, error))?;
        std::fs::write(&script, text).map_err(|error| cannot_write(&script, error))?;
        report.script = Some(script);
        let symfs = dir.join("symfs");
        for_perf(&found, &symfs).map_err(|error| cannot_write(&symfs, error))?;
        report.symfs = Some(symfs);
    }
    Ok(report)
}

/// Two payloads of one livepatch in one process lie at different places.
fn keep(one: &DebugFile, dir: &Path) -> Result<PathBuf, Problem> {
    let file = dir.join(format!("salve-{}-{:x}.elf", one.livepatch.0.short(), one.bias.raw()));
    std::fs::write(&file, &one.bytes).map_err(|error| cannot_write(&file, error))?;
    Ok(file)
}

/// A view of the root directory in which the payloads are files by the names that they are
/// mapped by; perf looks for everything in there.
fn for_perf(found: &[DebugFile], symfs: &Path) -> io::Result<()> {
    std::fs::create_dir_all(symfs)?;
    for one in found {
        std::fs::write(symfs.join(format!("memfd:salve:{} (deleted)", one.livepatch.0.short())), &one.bytes)?;
    }
    for entry in std::fs::read_dir("/")? {
        let entry = entry?;
        match std::os::unix::fs::symlink(entry.path(), symfs.join(entry.file_name())) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn cannot_write(path: &Path, error: io::Error) -> Problem {
    Problem::failed("cannot-write", format!("cannot write {}", path.display())).because(error)
}

impl DebugReport {
    fn commands(&self, out: &mut dyn Write) -> io::Result<()> {
        for file in &self.files {
            writeln!(out, "# livepatch {} of {}", file.livepatch, one_line(&file.path))?;
            writeln!(out, "add-symbol-file \"{}\" -o {}", one_line(&file.file.display().to_string()), file.bias)?;
        }
        Ok(())
    }
}

impl Report for DebugReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, _verbose: bool) -> io::Result<()> {
        if self.files.is_empty() {
            return writeln!(out, "# process {} carries no livepatch", self.process.pid);
        }
        match &self.script {
            Some(script) => {
                writeln!(out, "# gdb -p {} -x {}", self.process.pid, one_line(&script.display().to_string()))?;
                if let Some(symfs) = &self.symfs {
                    writeln!(out, "# perf report --symfs {}", one_line(&symfs.display().to_string()))?;
                }
            }
            None => writeln!(out, "# for gdb, while the process lives; --dir keeps the files for a core dump")?,
        }
        self.commands(out)
    }
}
