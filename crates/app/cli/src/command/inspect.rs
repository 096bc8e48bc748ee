//! `salve inspect FILE`: what a patch file would do, for a reader.

use crate::args::Inspect;
use crate::command::file;
use crate::console::Report;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::view::PatchView;
use serde::Serialize;
use std::io::{self, Write};

/// What `inspect` reports.
#[derive(Serialize)]
pub(crate) struct InspectReport {
    #[serde(flatten)]
    patch: PatchView,
}

pub(crate) fn run(args: &Inspect) -> Result<InspectReport, Problem> {
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
    Ok(InspectReport { patch: view })
}

impl Report for InspectReport {
    fn exit(&self) -> Exit {
        Exit::Done
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        self.patch.heading(out)?;
        for image in &self.patch.images {
            writeln!(out)?;
            image.full(out, verbose)?;
        }
        Ok(())
    }
}
