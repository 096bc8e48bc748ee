use super::{Allowance, Descriptors, LoadedImage, LoadedSide, descriptor};
use crate::{fault, input};
use rustix::fd::AsFd;
use salve_package::contents::Contents;
use salve_patch::PackageId;
use salve_protocol::{Descriptor, Failure, FailureKind, InputFile, ResourceLimits};
use std::io::Read as _;

const ELF_MAGIC: &[u8] = b"\x7fELF";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Longest list of files that is read.
const MAX_CONTENTS_BYTES: u64 = 64 << 20;
/// Longest changelog that is read, packed or unpacked.
const MAX_CHANGELOG_BYTES: u64 = 16 << 20;

/// What comes with the files of a package that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extras {
    pub(super) changelog: Option<Descriptor>,
    pub(super) contents: Option<Descriptor>,
}

/// Files of a tree that are no ELF files are passed over; a file that is the
/// only one was meant, whatever it is.
pub(super) fn load(
    files: &[InputFile],
    package: Option<PackageId>,
    extras: Extras,
    descriptors: &Descriptors,
    limits: &ResourceLimits,
) -> Result<LoadedSide, Failure> {
    let mut allowance = Allowance::new(limits);
    let mut images = Vec::new();
    for file in files {
        let open = descriptor(descriptors, file.file)?;
        let bytes = input::read_whole(open.as_fd(), allowance.image_bytes())
            .map_err(|error| fault::unreadable(&file.path, &error))?;
        if files.len() > 1 && !bytes.starts_with(ELF_MAGIC) {
            continue;
        }
        allowance.take(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        images.push(LoadedImage::new(file.path.clone(), bytes));
    }
    let changelog = match extras.changelog {
        Some(wanted) => {
            let bytes = input::read_whole(descriptor(descriptors, wanted)?.as_fd(), MAX_CHANGELOG_BYTES)
                .map_err(|error| fault::unreadable("changelog", &error))?;
            changelog_text(bytes)
        }
        None => None,
    };
    let contents = match extras.contents {
        Some(wanted) => {
            let bytes = input::read_whole(descriptor(descriptors, wanted)?.as_fd(), MAX_CONTENTS_BYTES)
                .map_err(|error| fault::unreadable("list of files", &error))?;
            // Written by whoever asks, so a mistake in it is a defect and no finding.
            let bad = |error: &dyn std::error::Error| Failure::new(FailureKind::BadRequest).caused_by(error);
            let text = String::from_utf8(bytes).map_err(|error| bad(&error))?;
            Some(Contents::parse(&text).map_err(|error| bad(&error))?)
        }
        None => None,
    };
    Ok(LoadedSide { package, images, contents, changelog })
}

/// `None` for one that is damaged, too long or no text: then nothing is known.
fn changelog_text(bytes: Vec<u8>) -> Option<String> {
    if !bytes.starts_with(GZIP_MAGIC) {
        return String::from_utf8(bytes).ok();
    }
    let mut text = Vec::new();
    let limit = MAX_CHANGELOG_BYTES.saturating_add(1);
    flate2::bufread::MultiGzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut text).ok()?;
    let whole = u64::try_from(text.len()).is_ok_and(|len| len <= MAX_CHANGELOG_BYTES);
    if whole { String::from_utf8(text).ok() } else { None }
}
