//! Whether two sides are versions of one package, and where the update leads.

use crate::side::LoadedSide;
use salve_package::Version;
use salve_patch::{Cves, Origin, PackageId};
use salve_protocol::{Failure, FailureKind};
use std::cmp::Ordering;

/// The origin to name in the patch file; an error where the two do not belong
/// together or lead backwards. Where one side's package is unknown the origin
/// says "files": nothing proves the direction, and the reader decides.
pub(crate) fn origin(old: &LoadedSide, new: &LoadedSide, labels: (&str, &str)) -> Result<Origin, Failure> {
    let (Some(old_id), Some(new_id)) = (&old.package, &new.package) else {
        return Ok(Origin::Files { old: labels.0.to_owned(), new: labels.1.to_owned() });
    };
    check(old_id, new_id)?;
    let cves = new.changelog.as_deref().map_or(Cves::Unknown, |text| cves_between(text, old_id, new_id));
    Ok(Origin::Packages { old: old_id.clone(), new: new_id.clone(), cves })
}

fn check(old: &PackageId, new: &PackageId) -> Result<(), Failure> {
    if old.name != new.name || old.architecture != new.architecture {
        let kind = FailureKind::DifferentPackages { old: Box::new(old.clone()), new: Box::new(new.clone()) };
        return Err(Failure::new(kind)
            .because(format!("{} ({}) and {} ({})", old.name, old.architecture, new.name, new.architecture)));
    }
    let order = salve_package::version::compare(&old.version, &new.version);
    let order = order.ok_or_else(|| {
        let versions = format!("{} and {}", old.version, new.version);
        Failure::new(FailureKind::BadRequest).because(format!("no versions of a Debian package: {versions}"))
    })?;
    match order {
        Ordering::Less => Ok(()),
        Ordering::Equal => Err(FailureKind::SameVersion { version: new.version.clone() }.into()),
        Ordering::Greater => {
            let kind = FailureKind::Downgrade { old: old.version.clone(), new: new.version.clone() };
            Err(Failure::new(kind).hint("a downgrade is never applied forward; are the two sides swapped?"))
        }
    }
}

fn cves_between(changelog: &str, old: &PackageId, new: &PackageId) -> Cves {
    match (Version::parse(&old.version), Version::parse(&new.version)) {
        (Ok(old), Ok(new)) => salve_package::changelog::cves_between(changelog, &old, &new),
        (Err(_), _) | (_, Err(_)) => Cves::Unknown,
    }
}
