//! `cargo xtask torture`: Salve killed at every moment.
//!
//! First at every system call of an apply and of a revert, one after the other, then at
//! random moments, over a process with one thread and one with many. Everything that
//! the victims notice is counted; all has to be zero.

use crate::cargo;
use anyhow::{Result, bail};
use salve_testkit::needs::{self, Need};
use salve_testkit::tools;
use salve_testkit::torture::{Act, Bench, Life, Tally};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Random moments, in all
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
    /// Kill at every n-th system call only; 0 for none
    #[arg(long, default_value_t = 1)]
    stride: u32,
    /// Where the random moments begin, to have the same ones again
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !tools::is_root() {
        bail!("the torture needs root, to trace the processes of others");
    }
    needs::ensure(&[Need::Compiler])?;
    if std::env::var_os("SALVE_BIN_DIR").is_none() {
        cargo::build_programs()?;
    }
    let bench = Bench::new()?;
    let mut all = Tally::default();
    for life in Life::ALL {
        for act in Act::ALL {
            let start = Instant::now();
            let mut victim = bench.start(life)?;
            let mut calls = 0;
            if arguments.stride > 0 {
                let step = u64::from(arguments.stride);
                let mut at = 1;
                while victim.kill_at(act, at)? {
                    calls = at;
                    at += step;
                }
            }
            println!("{act}, {life}: killed at each of {calls} system calls, {} s", start.elapsed().as_secs());
            print!("{}", victim.tally);
            all.add(&victim.tally);
        }
    }
    all.add(&random(&bench, arguments)?);
    println!("all:\n{all}");
    if all.is_clean() { Ok(()) } else { bail!("the targets noticed something") }
}

fn random(bench: &Bench, arguments: &Arguments) -> Result<Tally> {
    let mut all = Tally::default();
    let mut state = arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut in_time = 0;
    let parts: Vec<(Life, Act)> = Life::ALL.iter().flat_map(|life| Act::ALL.map(|act| (*life, act))).collect();
    let each = u64::from(arguments.rounds).div_ceil(4);
    for (life, act) in parts {
        let mut victim = bench.start(life)?;
        let whole = victim.duration_of(act)?.max(Duration::from_millis(2));
        let (mut in_this, mut tries) = (0, 0);
        // A kill that comes too late counts for nothing.
        while in_this < each && tries < each * 5 {
            tries += 1;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
            in_this += u64::from(victim.kill_after(act, Duration::from_micros(state % micros))?);
        }
        in_time += in_this;
        all.add(&victim.tally);
    }
    println!("random moments: {in_time} of {} kills came before the end", all.kills);
    print!("{all}");
    Ok(all)
}
