//! `salve derive OLD NEW`: one patch file, with a verdict on every image.

use super::{Context, file, material, updates};
use crate::args::Derive;
use crate::console::Report;
use crate::event::Event;
use crate::exit::Exit;
use crate::machine::deriver::{Deriving, Sandboxed};
use crate::problem::Problem;
use crate::view::{NotHealedBrief, PatchView, bytes_for_people, duration_for_people, not_healed_lines};
use salve_patch::{Origin, PatchFile, Verdict};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Serialize)]
pub(crate) struct DeriveReport {
    took_ms: u64,
    len_bytes: u64,
    #[serde(flatten)]
    patch: PatchView,
}

pub(crate) fn run(args: &Derive, context: &mut Context) -> Result<DeriveReport, Problem> {
    let (old, new) = material::pair(&args.old, &args.new)?;
    let deriver = Sandboxed::locate(context.console)?;
    let progress = context.console.progress(1, "deriving");
    progress.step(&args.new.display().to_string());
    let derived = deriver.derive(old, new)?;
    drop(progress);
    let output = args.output.clone().unwrap_or_else(|| default_name(&derived.patch, &args.new));
    file::write_whole(&output, &derived.bytes)?;
    let update = updates::update_of(&derived.patch);
    context.log.record(&Event::Derived {
        update: update.clone(),
        images: derived.patch.images.iter().map(updates::image_ref).collect(),
        verdict: derived.patch.verdict(),
        patch_sha256: derived.sha256,
        took_ms: milliseconds(derived.took),
        not_healed: NotHealedBrief::of(derived.patch.not_healed()),
        cves: updates::cves_of(&derived.patch),
    });
    for image in &derived.patch.images {
        updates::record_judged(&mut context.log, &update, image, &[]);
    }
    Ok(DeriveReport {
        took_ms: milliseconds(derived.took),
        len_bytes: u64::try_from(derived.bytes.len()).unwrap_or(u64::MAX),
        patch: PatchView::of(&derived.patch, &output, derived.sha256),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `haproxy_2.6.12-1+deb12u3_2.6.12-1+deb12u4.salve`; `libz.so.1.3.salve`.
/// Names from a package could hold anything: only what is harmless in a file
/// name is kept.
fn default_name(patch: &PatchFile, new: &Path) -> PathBuf {
    let name = match &patch.origin {
        Origin::Packages { old, new, .. } => format!("{}_{}_{}", new.name, old.version, new.version),
        Origin::Files { .. } => new.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "._+-~".contains(c) { c } else { '_' };
    let name: String = name.chars().map(harmless).take(200).collect();
    let name = name.trim_start_matches(['.', '-']);
    PathBuf::from(format!("{}.salve", if name.is_empty() { "patch" } else { name }))
}

impl Report for DeriveReport {
    fn exit(&self) -> Exit {
        match self.patch.verdict {
            Verdict::Unchanged | Verdict::Safe | Verdict::Review => Exit::Done,
            Verdict::Refused => Exit::Refused,
        }
    }

    fn human(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        self.patch.heading(out)?;
        for image in &self.patch.images {
            writeln!(out)?;
            image.summary(out, verbose)?;
        }
        writeln!(out)?;
        not_healed_lines(&self.patch.not_healed, out, verbose)?;
        writeln!(
            out,
            "\nwrote {} ({}, derived in {})",
            self.patch.file.display(),
            bytes_for_people(self.len_bytes),
            duration_for_people(Duration::from_millis(self.took_ms))
        )
    }
}
