//! The verdict on two ELF files, outside the sandbox, for development:
//! `cargo run -p salve-derive --example image OLD NEW [OLD_VERSION NEW_VERSION]`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example for people")]

use anyhow::{Context as _, Result};
use salve_derive::pipeline::{PairContext, derive_image};
use salve_elf::ContentHash;
use salve_patch::ImageId;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = |n: usize| args.get(n).context("usage: image OLD NEW [OLD_VERSION NEW_VERSION]");
    let (old, new) = (std::fs::read(path(0)?)?, std::fs::read(path(1)?)?);
    let id = |bytes: &[u8]| ImageId {
        sha256: ContentHash::of(bytes),
        len_bytes: bytes.len() as u64,
        build_id: None,
        soname: None,
    };
    let context = PairContext {
        old_id: id(&old),
        new_id: id(&new),
        old_version: args.get(2).cloned(),
        new_version: args.get(3).cloned(),
    };
    let start = std::time::Instant::now();
    let report = derive_image(path(0)?, &old, &new, &context);
    println!("{:?} in {:?}: {:?}", report.verdict, start.elapsed(), report.functions);
    println!("{:?}", report.references);
    for reason in &report.reasons {
        println!("{} ({:?}): {}", reason.code, reason.verdict, reason.summary);
        for e in reason.evidence.iter().take(8) {
            println!("    {:?} {:?} {:?} {}", e.function, e.old_va, e.new_va, e.seen);
        }
    }
    if let Some(livepatch) = &report.livepatch {
        println!(
            "detours {} fixups {} requirements {:?} revert {:?}",
            livepatch.detours.len(),
            livepatch.fixups.len(),
            livepatch.requirements,
            livepatch.revert
        );
    }
    Ok(())
}
