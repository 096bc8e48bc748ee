use salve_elf::{BuildId, Image, ImageError, ImageLimits};

/// What pairing and reports need to know of an image.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub build_id: Option<BuildId>,
    pub soname: Option<String>,
    pub dynamic: bool,
}

/// Why an ELF file is no image to work on.
#[derive(Clone, Debug)]
pub(crate) enum Unusable {
    Malformed(ImageError),
    Static,
}

impl Facts {
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, Unusable> {
        let image = Image::parse(bytes, &ImageLimits::default()).map_err(Unusable::Malformed)?;
        if !image.is_bound() {
            return Err(Unusable::Static);
        }
        Ok(Self {
            build_id: image.build_id().cloned(),
            soname: image.soname().map(str::to_owned),
            dynamic: image.is_dynamic(),
        })
    }
}
