//! `salve inspect FILE`: what a patch file would do, for a reader.

use super::{file, material};
use crate::args::Inspect;
use crate::console::{Console, Report};
use crate::exit::Exit;
use crate::machine::deriver::{Code, Deriving, Sandboxed};
use crate::problem::{Problem, one_line};
use crate::view::{PatchView, not_healed_lines};
use salve_protocol::{AssemblyView, RowKind};
use serde::Serialize;
use std::io::{self, Write};

/// What `inspect` reports.
#[derive(Serialize)]
pub(crate) struct InspectReport {
    #[serde(flatten)]
    patch: PatchView,
    /// One function's code, where it was asked for.
    assembly: Option<AssemblyView>,
}

pub(crate) fn run(args: &Inspect, console: Console) -> Result<InspectReport, Problem> {
    let (patch, sha256) = file::read_patch(&args.file)?;
    let mut view = PatchView::of(&patch, &args.file, sha256);
    if let Some(path) = &args.image {
        view.images.retain(|image| image.path == *path);
        if view.images.is_empty() {
            let known: Vec<&str> = patch.images.iter().map(|image| image.path.as_str()).collect();
            return Err(Problem::failed("no-such-image", format!("{path} is not in {}", args.file.display()))
                .hint(format!("it holds {}", known.join(", "))));
        }
    }
    let only = match patch.images.as_slice() {
        [only] => Some(only.path.as_str()),
        _several => args.image.as_deref(),
    };
    let assembly = args.asm.as_ref().map(|function| assembly(args, function, only, console)).transpose()?;
    Ok(InspectReport { patch: view, assembly })
}

fn assembly(args: &Inspect, function: &str, image: Option<&str>, console: Console) -> Result<AssemblyView, Problem> {
    let code = match (&args.old, &args.new) {
        (Some(old), Some(new)) => {
            let (old, new) = material::pair(old, new)?;
            Code::Images { old, new }
        }
        (old, _) => Code::Patch {
            patch: file::open_regular(&args.file)?,
            old: old.as_ref().map(|old| material::one(old, image)).transpose()?,
        },
    };
    Sandboxed::locate(console)?.assembly(function, args.image.as_deref(), code)
}

impl Report for InspectReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if let Some(assembly) = &self.assembly {
            return side_by_side(out, assembly);
        }
        self.patch.heading(out)?;
        writeln!(
            out,
            "made by {}, format {}, sha256 {}",
            one_line(&self.patch.created_by),
            self.patch.format_version,
            self.patch.sha256
        )?;
        for image in &self.patch.images {
            writeln!(out)?;
            image.full(out, verbose)?;
        }
        writeln!(out)?;
        not_healed_lines(&self.patch.not_healed, out, verbose)
    }
}

/// Old on the left, new on the right; `|` where they differ, `<` and `>` where
/// a side has nothing, as `diff --side-by-side` marks them.
fn side_by_side(out: &mut dyn Write, view: &AssemblyView) -> io::Result<()> {
    const WIDTH: usize = 58;
    writeln!(out, "{} in {}", one_line(&view.function), one_line(&view.image))?;
    writeln!(out, "{:<WIDTH$}   new", "old")?;
    for row in &view.rows {
        let text = |line: &Option<salve_protocol::AssemblyLine>| {
            line.as_ref().map_or_else(String::new, |line| format!("{} {}", line.va, one_line(&line.text)))
        };
        let mark = match row.kind {
            RowKind::Same => ' ',
            RowKind::Changed => '|',
            RowKind::Removed => '<',
            RowKind::Added => '>',
        };
        let (old, new) = (text(&row.old), text(&row.new));
        writeln!(out, "{}", format!("{old:<WIDTH$} {mark} {new}").trim_end())?;
    }
    view.notes.iter().try_for_each(|note| writeln!(out, "note: {}", one_line(note)))
}
