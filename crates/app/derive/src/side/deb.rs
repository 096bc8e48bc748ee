use super::{Allowance, LoadedImage, LoadedSide};
use crate::{fault, input};
use core::ops::ControlFlow;
use rustix::fd::{AsFd as _, OwnedFd};
use salve_package::deb::{self, Limits};
use salve_protocol::{Failure, ResourceLimits};

/// One pass over a package: its ELF files, its changelog, its names.
pub(super) fn load(file: &OwnedFd, label: &str, limits: &ResourceLimits) -> Result<LoadedSide, Failure> {
    input::checked_len(file.as_fd(), limits.max_package_bytes).map_err(|error| fault::unreadable(label, &error))?;
    let deb_limits = Limits {
        max_package_bytes: limits.max_package_bytes,
        max_file_bytes: limits.max_image_bytes,
        ..Limits::default()
    };
    let mut allowance = Allowance::new(limits);
    let mut images = Vec::new();
    let mut exceeded = None;
    let summary = deb::elves(input::Reader::new(file.as_fd()), &deb_limits, &mut |_, elf| {
        if let Err(failure) = allowance.take(u64::try_from(elf.bytes.len()).unwrap_or(u64::MAX)) {
            exceeded = Some(failure);
            return ControlFlow::Break(());
        }
        images.push(LoadedImage::new(elf.path, elf.bytes));
        ControlFlow::Continue(())
    })
    .map_err(|error| fault::unusable_package(label, &error, limits.memory_bytes))?;
    match exceeded {
        Some(failure) => Err(failure),
        None => Ok(LoadedSide {
            package: Some(summary.control.id),
            images,
            contents: Some(summary.contents),
            changelog: summary.changelog,
        }),
    }
}
