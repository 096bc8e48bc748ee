//! `cargo xtask deb`: Salve's own Debian packages.

use crate::cargo;
use anyhow::Result;
use salve_testkit::{deb, tree};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to put them [default: target/debian]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Another version than the workspace's, as dpkg writes versions
    #[arg(long, default_value = deb::VERSION)]
    version: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    let out = arguments.out.clone().unwrap_or_else(|| tree::target().join("debian"));
    let deb::Packages { salve, derive } = deb::build(&arguments.version, &out)?;
    println!("{}\n{}", salve.display(), derive.display());
    Ok(())
}
