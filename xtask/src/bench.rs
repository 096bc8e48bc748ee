//! `cargo xtask bench`: what Salve costs, beside what the machine costs anyway.
//!
//! Every figure stands beside a floor that was measured in the same run: the
//! same bytes read and hashed, the same threads stopped by the smallest tracer
//! there can be, the longest gap that a thread sees when nobody touches it.
//! Ratios between lines of one run mean something, single figures do not.
//! Nothing is asserted.

mod crowd;
mod derive;
mod instructions;
mod peers;
mod stop;
mod table;
mod waits;

use crate::cargo;
use anyhow::Result;
use salve_testkit::needs::{self, Need};
use std::path::PathBuf;
use table::Table;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Two libssl3 packages, old and new [default: 3.0.20 and 3.0.22 from the archive, when it has them]
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    libssl: Vec<PathBuf>,
    /// How often each thing is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// A directory with packages and a manifest.json: instructions are counted of its largest images as well
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only the time and memory of deriving
    #[arg(long, conflicts_with = "stop")]
    derive: bool,
    /// Only the stops of running processes
    #[arg(long)]
    stop: bool,
    /// With `peers`: another live patcher, as a directory with its `prepare`, `apply` and `revert` (may be repeated)
    #[arg(long = "peer", value_name = "DIR")]
    peers: Vec<PathBuf>,
    /// `derive` or `stop`, for `--derive` or `--stop`; or `peers`: other live patchers beside Salve; or `waits`: calls
    /// that sleep longer because their timeout begins anew
    #[arg(value_enum, conflicts_with_all = ["derive", "stop"])]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Derive,
    Stop,
    Peers,
    Waits,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&[Need::Compiler])?;
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    println!("{} runs of each; the machine: {}", arguments.runs, salve_testkit::services::machine());
    let mut table = Table::default();
    if arguments.part == Some(Part::Peers) {
        stop::on_stage(&mut table, arguments.runs, |table, stage| peers::measure(table, stage, &arguments.peers))?;
        println!("\n{table}");
        return Ok(());
    }
    if arguments.part == Some(Part::Waits) {
        waits::measure(&mut table, arguments.runs)?;
        println!("\n{table}");
        return Ok(());
    }
    if !arguments.stop && arguments.part != Some(Part::Stop) {
        derive::measure(&mut table, arguments.runs, &arguments.libssl, arguments.dir.as_deref())?;
    }
    if !arguments.derive && arguments.part != Some(Part::Derive) {
        stop::measure(&mut table, arguments.runs)?;
    }
    println!("\n{table}");
    Ok(())
}
