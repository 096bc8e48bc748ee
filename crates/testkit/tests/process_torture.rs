//! Salve killed at every so manieth moment; `cargo xtask torture` does it at every one.

use anyhow::Result;
use salve_testkit::not_run;
use salve_testkit::torture::{Act, Bench, Life};
use std::time::Duration;

/// So that a process with one thread and one with many see each part of an act.
const STRIDE: u64 = 29;
const RANDOM: u64 = 15;

fn torture(life: Life, act: Act) -> Result<()> {
    if not_run::unless_root("Salve killed at many moments") {
        return Ok(());
    }
    let bench = Bench::new()?;
    let mut victim = bench.start(life)?;
    let mut at = 1;
    while victim.kill_at(act, at)? {
        at += STRIDE;
    }
    let whole = victim.duration_of(act)?;
    for round in 0..RANDOM {
        let part = u32::try_from(round)?;
        victim.kill_after(act, whole * part / u32::try_from(RANDOM)?)?;
    }
    // It makes hundreds of calls: fewer kills would mean that nothing was killed.
    assert!(victim.tally.kills > 20, "only {} kills", victim.tally.kills);
    assert!(victim.tally.is_clean(), "\n{}", victim.tally);
    Ok(())
}

#[test]
fn one_thread_notices_nothing_of_an_apply_that_is_killed() -> Result<()> {
    torture(Life::OneThread, Act::Apply)
}

#[test]
fn one_thread_notices_nothing_of_a_revert_that_is_killed() -> Result<()> {
    torture(Life::OneThread, Act::Revert)
}

#[test]
fn many_threads_notice_nothing_of_an_apply_that_is_killed() -> Result<()> {
    torture(Life::ManyThreads, Act::Apply)
}

#[test]
fn many_threads_notice_nothing_of_a_revert_that_is_killed() -> Result<()> {
    torture(Life::ManyThreads, Act::Revert)
}

#[test]
fn a_process_that_is_stopped_and_continued_all_the_while_changes_and_goes_back() -> Result<()> {
    if not_run::unless_root("a process stopped and continued meanwhile") {
        return Ok(());
    }
    let bench = Bench::new()?;
    for life in Life::ALL {
        let mut victim = bench.start(life)?;
        for _ in 0..10 {
            victim.while_stopped_and_continued(Duration::from_micros(700))?;
        }
        assert!(victim.tally.is_clean(), "\n{}", victim.tally);
    }
    Ok(())
}

#[test]
fn a_process_that_is_killed_meanwhile_is_reported_as_gone() -> Result<()> {
    if not_run::unless_root("a process killed meanwhile") {
        return Ok(());
    }
    let bench = Bench::new()?;
    for life in Life::ALL {
        let whole = bench.start(life)?.duration_of(Act::Apply)?;
        for round in 0..12 {
            bench.start(life)?.killed_during(Act::Apply, whole * round / 12)?;
        }
    }
    Ok(())
}
