//! The project's own tasks: `cargo xtask demo`, `test`, `bench`, `accuracy`, `corpus`, `oracle`, `e2e`, `deb`, `setup`, `tidy`.
//!
//! Each one gets what it needs by itself (`setup`), so that on a fresh Debian 12
//! machine with a Rust toolchain nothing has to be done before.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to the person who started it")]

mod accuracy;
mod bench;
mod cargo;
mod corpus;
mod deb;
mod e2e;
mod interrupt;
mod oracle;
mod test;
mod torture;

use anyhow::Result;
use clap::{Parser, Subcommand};
use salve_testkit::needs::{self, Need};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Demo {
    Haproxy,
    Nginx,
}

#[derive(Subcommand)]
enum Task {
    /// Heal a running server under traffic from its two packages
    Demo {
        /// haproxy (and revert), or nginx (master and workers, reload, upgrade)
        #[arg(value_enum, default_value = "haproxy")]
        which: Demo,
    },
    /// Run the tests: unprivileged ones first, those that change processes last
    Test(test::Arguments),
    /// Measure; nothing is asserted
    Bench(bench::Arguments),
    /// Compare what is found in stripped images with the symbols that were stripped
    Accuracy(accuracy::Arguments),
    /// Derive every pair of a corpus and report each image's verdict, cause, time and memory
    Corpus(corpus::Arguments),
    /// Kill Salve at every moment, and count what its targets notice
    Torture(torture::Arguments),
    /// Heal and revert real services under their load, many times over
    E2e(e2e::Arguments),
    /// Build Salve's Debian packages: salve and salve-derive
    Deb(deb::Arguments),
    /// Run the maintainers' own tests on the old, the patched and the new version
    Oracle(oracle::Arguments),
    /// Install what the other tasks need from apt (they do it themselves as well)
    Setup,
    /// Check the workspace's own rules: layers, unsafe code, decision records
    Tidy,
}

fn main() -> ExitCode {
    let result = run(&Arguments::parse().task);
    interrupt::leave_the_end_to_the_cleaner();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match task {
        Task::Demo { which } => demo(*which),
        Task::Test(arguments) => test::run(arguments),
        Task::Bench(arguments) => bench::run(arguments),
        Task::Accuracy(arguments) => accuracy::run(arguments),
        Task::Corpus(arguments) => corpus::run(arguments),
        Task::Torture(arguments) => torture::run(arguments),
        Task::E2e(arguments) => e2e::run(arguments),
        Task::Deb(arguments) => deb::run(arguments),
        Task::Oracle(arguments) => oracle::run(arguments),
        Task::Setup => needs::ensure(&Need::ALL),
        Task::Tidy => {
            cargo::run("test", &["--quiet", "--package", "salve-testkit", "--test", "tidy", "--", "--nocapture"])
        }
    }
}

fn demo(which: Demo) -> Result<()> {
    let need = match which {
        Demo::Haproxy => Need::HaproxyLibraries,
        Demo::Nginx => Need::NginxLibraries,
    };
    needs::ensure(&[need])?;
    cargo::build_programs()?;
    match which {
        Demo::Haproxy => salve_testkit::demo::run(&mut std::io::stdout()),
        Demo::Nginx => salve_testkit::demo::run_nginx(&mut std::io::stdout()),
    }
}
