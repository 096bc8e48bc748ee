//! One pair of images through the whole analysis, in this process and in no sandbox:
//! what `cargo xtask bench derive` counts instructions of, because no instrument that
//! counts them works inside the sandbox. Not a tool for foreign files.
//!
//! `one_pair OLD NEW` prints the verdict.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it prints the verdict")]

use anyhow::{Context as _, Result};
use salve_derive::pipeline::{PairContext, derive_image};
use salve_elf::ContentHash;
use salve_patch::ImageId;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut image = |which: &str| -> Result<(Vec<u8>, ImageId)> {
        let path = arguments.next().with_context(|| format!("no {which} image given"))?;
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let id =
            ImageId { sha256: ContentHash::of(&bytes), build_id: None, soname: None, len_bytes: bytes.len() as u64 };
        Ok((bytes, id))
    };
    let ((old, old_id), (new, new_id)) = (image("old")?, image("new")?);
    let context = PairContext { old_id, new_id, old_version: None, new_version: None };
    let report = derive_image("image", &old, &new, &context);
    println!("{:?}", report.verdict);
    Ok(())
}
