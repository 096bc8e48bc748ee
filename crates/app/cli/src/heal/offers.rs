//! Deriving what was resolved, and looking again immediately before it is used.

use super::pending::Pending;
use crate::args::Heal;
use crate::carry::Task;
use crate::command::{Context, updates};
use crate::event::{Event, ImageRef, UpdateRef};
use crate::exit::Exit;
use crate::machine::deriver::{Derived, Deriving};
use crate::machine::disk::HeldFile;
use crate::machine::packages::PackageFacts;
use crate::plan::{Offer, Privilege, may_replace};
use crate::problem::{Problem, ProblemReport};
use crate::view::NotHealedBrief;
use salve_elf::ContentHash;
use salve_patch::{ImageReport, PatchFile};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An update that was derived, or could not be.
pub(crate) struct Offered {
    pub(crate) update: UpdateRef,
    pub(crate) package: String,
    pub(crate) result: Result<Derived, (ProblemReport, Exit)>,
    /// Old contents that some process maps.
    pub(crate) mapped: BTreeSet<ContentHash>,
    held: Vec<Arc<HeldFile>>,
    watched: bool,
    pub(crate) disk_is_old: bool,
    pub(crate) installed_version: Option<String>,
}

impl Offered {
    pub(crate) fn patch(&self) -> Option<&PatchFile> {
        self.result.as_ref().ok().map(|derived| &derived.patch)
    }

    /// For planning; an update that could not be derived offers nothing.
    pub(crate) fn offer(&self) -> Offer<'_> {
        match self.patch() {
            Some(patch) => updates::offer(&self.update, patch),
            None => Offer { source: &self.update.source, new_version: None, images: Vec::new() },
        }
    }

    /// The old contents that the patch file says something about.
    pub(crate) fn images_of_old(&self) -> impl Iterator<Item = ContentHash> {
        let images = self.patch().map_or(&[][..], |patch| patch.images.as_slice());
        images.iter().filter_map(|image| image.old.as_ref().map(|old| old.sha256))
    }

    /// Whether the files on disk that were derived from may replace code in a process.
    pub(crate) fn may_command(&self, privilege: &Privilege) -> bool {
        self.held.iter().all(|held| may_replace(held.owner, privilege).is_ok())
    }

    /// Of the images in the patch those that some process maps.
    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageReport> {
        let images = self.patch().map_or(&[][..], |patch| patch.images.as_slice());
        images.iter().filter(|image| image.old.as_ref().is_some_and(|old| self.mapped.contains(&old.sha256)))
    }
}

pub(crate) fn derive_all(
    pending: Vec<Pending>,
    deriver: &dyn Deriving,
    args: &Heal,
    context: &mut Context,
) -> Vec<Offered> {
    let progress = context.console.progress(pending.len(), "deriving");
    let mut offered = Vec::new();
    for pending in pending {
        progress.step(&pending.package);
        let expected = pending.expected;
        let interrupted = || Problem::incomplete("interrupted", "the run was interrupted before this was derived");
        let result = if context.interrupt.came() {
            Err(interrupted())
        } else {
            deriver.derive(pending.old, pending.new).and_then(|derived| {
                check_contents(&derived.patch, &expected)?;
                Ok(derived)
            })
        };
        // A signal from the terminal reaches the deriving process as well.
        let result = result.map_err(|problem| if context.interrupt.came() { interrupted() } else { problem });
        let one = Offered {
            update: pending.update,
            package: pending.package,
            result: result.map_err(|problem| (problem.report(), problem.exit)),
            mapped: expected.iter().map(|(_, old, _)| *old).collect(),
            held: pending.held,
            watched: pending.watched,
            disk_is_old: pending.disk_is_old,
            installed_version: pending.installed_version,
        };
        if !args.dry_run {
            record(context, &one, &args.consent.accept);
        }
        offered.push(one);
    }
    offered
}

/// What comes back is about what was seen running and on disk, and about nothing
/// else: the process that parsed the files is not trusted with that.
fn check_contents(patch: &PatchFile, expected: &[(String, ContentHash, Option<ContentHash>)]) -> Result<(), Problem> {
    for (path, old, new) in expected {
        let found = patch.images.iter().find(|image| image.old.as_ref().is_some_and(|id| id.sha256 == *old));
        let Some(found) = found else {
            return Err(Problem::failed("not-derived", format!("nothing was derived for {path}")));
        };
        if let Some(new) = new
            && found.new.as_ref().is_none_or(|id| id.sha256 != *new)
        {
            return Err(Problem::refused(
                "not-paired",
                format!("{path} was not paired with the file that is at its path now"),
            ));
        }
    }
    Ok(())
}

fn record(context: &mut Context, offered: &Offered, accepted: &[String]) {
    let Ok(derived) = &offered.result else { return };
    let images: Vec<ImageRef> = offered.images().map(updates::image_ref).collect();
    context.log.record(&Event::Derived {
        update: offered.update.clone(),
        images,
        verdict: offered.images().map(|image| image.verdict).max().unwrap_or(derived.patch.verdict()),
        patch_sha256: derived.sha256,
        took_ms: u64::try_from(derived.took.as_millis()).unwrap_or(u64::MAX),
        not_healed: NotHealedBrief::of(derived.patch.not_healed()),
        cves: updates::cves_of(&derived.patch),
    });
    for image in offered.images() {
        updates::record_judged(&mut context.log, &offered.update, image, accepted);
    }
}

/// Immediately before a process is changed: the files are the ones that were
/// derived from, and no package of the source is half installed.
pub(crate) fn check_again(
    task: &Task<'_>,
    offered: &[Offered],
    packages: &dyn PackageFacts,
) -> Result<(), (String, String)> {
    for offer in offered.iter().filter(|offer| offer.update == task.update) {
        if let Some(moved) = offer.held.iter().find(|held| !held.is_current()) {
            let why = format!("{} was replaced or written to meanwhile", moved.path.display());
            return Err(("changed-meanwhile".into(), why));
        }
        if offer.watched
            && let Some(name) = packages.unsettled(&offer.update.source)
        {
            return Err(("half-configured".into(), format!("package {name} is being installed")));
        }
    }
    Ok(())
}
