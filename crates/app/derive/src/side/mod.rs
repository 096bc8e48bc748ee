//! One version of the software, in memory: its ELF images, its package and its changelog.

mod deb;
mod facts;
mod files;

pub(crate) use facts::{Facts, Unusable};

use crate::fault;
use crate::pairing::Candidate;
use rustix::fd::OwnedFd;
use salve_elf::ContentHash;
use salve_package::contents::Contents;
use salve_patch::{ImageId, PackageId};
use salve_protocol::{Descriptor, Failure, FailureKind, LimitedResource, ResourceLimits, Side};
use std::sync::Arc;

/// Everything of one side that the work needs.
#[derive(Debug, Default)]
pub(crate) struct LoadedSide {
    pub package: Option<PackageId>,
    /// Sorted by path; no two with the same one.
    pub images: Vec<LoadedImage>,
    /// Every file of the package, where they are known.
    pub contents: Option<Contents>,
    /// Contents of the Debian changelog, unpacked, when it was at hand.
    pub changelog: Option<String>,
}

#[derive(Debug)]
pub(crate) struct LoadedImage {
    pub path: String,
    pub bytes: Vec<u8>,
    pub sha256: ContentHash,
    pub facts: Result<Facts, Unusable>,
}

impl LoadedImage {
    fn new(path: String, bytes: Vec<u8>) -> Self {
        let sha256 = ContentHash::of(&bytes);
        let facts = Facts::of(&bytes);
        Self { path, bytes, sha256, facts }
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn id(&self) -> ImageId {
        let facts = self.facts.as_ref().ok();
        ImageId {
            sha256: self.sha256,
            len_bytes: self.len_bytes(),
            build_id: facts.and_then(|f| f.build_id.clone()),
            soname: facts.and_then(|f| f.soname.clone()),
        }
    }

    pub(crate) fn candidate(&self) -> Candidate<'_> {
        let soname = self.facts.as_ref().ok().and_then(|facts| facts.soname.as_deref());
        Candidate { path: &self.path, soname }
    }

    /// The typed failure for a file that was meant to be an image.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match &self.facts {
            Ok(_) => None,
            Err(Unusable::Malformed(error)) => Some(fault::unusable_image(&self.path, &self.bytes, error)),
            Err(Unusable::Static) => Some(fault::static_program(&self.path)),
        }
    }
}

/// The descriptors that came with a request.
pub(crate) type Descriptors = Arc<Vec<OwnedFd>>;

pub(crate) fn load(side: &Side, descriptors: &Descriptors, limits: &ResourceLimits) -> Result<LoadedSide, Failure> {
    let mut loaded = match side {
        Side::Deb { deb, label } => deb::load(descriptor(descriptors, *deb)?, label, limits)?,
        Side::Files { files, package, changelog, contents, .. } => {
            let extras = files::Extras { changelog: *changelog, contents: *contents };
            files::load(files, package.clone(), extras, descriptors, limits)?
        }
    };
    loaded.images.sort_by(|a, b| a.path.cmp(&b.path));
    match loaded.images.windows(2).find(|pair| matches!(pair, [a, b] if a.path == b.path)) {
        Some([twice, ..]) => {
            Err(Failure::new(FailureKind::BadRequest).because(format!("{} is there twice", twice.path)))
        }
        _ => Ok(loaded),
    }
}

pub(crate) fn descriptor(descriptors: &Descriptors, wanted: Descriptor) -> Result<&OwnedFd, Failure> {
    usize::try_from(wanted.0)
        .ok()
        .and_then(|index| descriptors.get(index))
        .ok_or_else(|| Failure::new(FailureKind::BadRequest).because("a descriptor that did not come"))
}

/// Keeps what one side adds up to within the limits.
#[derive(Debug)]
struct Allowance {
    images_left: u32,
    bytes_left: u64,
    limits: ResourceLimits,
}

impl Allowance {
    fn new(limits: &ResourceLimits) -> Self {
        Self { images_left: limits.max_images, bytes_left: limits.max_side_bytes, limits: *limits }
    }

    /// Most bytes that the next image may have.
    fn image_bytes(&self) -> u64 {
        self.limits.max_image_bytes.min(self.bytes_left)
    }

    fn take(&mut self, len_bytes: u64) -> Result<(), Failure> {
        let over = |resource, limit| Failure::new(FailureKind::ResourceLimit { resource, limit });
        self.images_left = self
            .images_left
            .checked_sub(1)
            .ok_or_else(|| over(LimitedResource::Images, u64::from(self.limits.max_images)))?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(len_bytes)
            .ok_or_else(|| over(LimitedResource::InputBytes, self.limits.max_side_bytes))?;
        Ok(())
    }
}
