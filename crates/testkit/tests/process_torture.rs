//! Salve killed at every so manieth moment, and what else may happen meanwhile;
//! `cargo xtask torture` does it at every one.

use anyhow::Result;
use salve_testkit::not_run;
use salve_testkit::torture::{Act, Adversity, Bench, Busy, Hardship, Life, rounds};
use std::time::Duration;

/// So that each sees every part of an act, of whose calls a group makes more.
const fn stride(life: Life) -> u64 {
    match life {
        Life::OneThread | Life::ManyThreads => 37,
        Life::Group => 127,
        Life::Sequences => 61,
    }
}

const RANDOM: u32 = 8;

fn torture(life: Life) -> Result<()> {
    if not_run::unless_root("Salve killed at many moments") {
        return Ok(());
    }
    let bench = Bench::new()?;
    let mut victim = bench.start(life)?;
    let (mut at, mut killed) = (1, true);
    while killed {
        killed = false;
        for round in rounds(at, at + stride(life)) {
            killed |= victim.kill_at(round)?;
        }
        at += 2 * stride(life);
    }
    let wholes = (victim.duration_of(Act::Apply)?, victim.duration_of(Act::Revert)?);
    for part in 0..RANDOM {
        for round in rounds(0, 0) {
            let whole = if round.act == Act::Apply { wholes.0 } else { wholes.1 };
            victim.kill_after(round.act, whole * part / RANDOM, round.next)?;
        }
    }
    let tally = victim.take_tally();
    // It makes hundreds of calls: fewer kills would mean that nothing was killed.
    assert!(tally.rounds > 40, "only {} kills", tally.rounds);
    assert!(tally.is_clean(), "\n{tally}");
    Ok(())
}

#[test]
fn one_thread_notices_nothing_of_an_apply_or_a_revert_that_is_killed() -> Result<()> {
    torture(Life::OneThread)
}

#[test]
fn many_threads_notice_nothing_of_an_apply_or_a_revert_that_is_killed() -> Result<()> {
    torture(Life::ManyThreads)
}

/// Where each of its threads waits for its turn while Salve waits for it (decision 0109).
#[test]
fn many_threads_notice_nothing_on_a_machine_that_is_far_too_busy() -> Result<()> {
    if not_run::unless_root("Salve killed at many moments on a busy machine") {
        return Ok(());
    }
    let bench = Bench::new()?;
    let mut victim = bench.start(Life::ManyThreads)?;
    let _others = Busy::start(12)?;
    let (mut at, mut killed) = (1, true);
    while killed {
        killed = false;
        for round in rounds(at, at + 401) {
            killed |= victim.kill_at(round)?;
        }
        at += 802;
    }
    let tally = victim.take_tally();
    assert!(tally.rounds > 8, "only {} kills", tally.rounds);
    assert!(tally.is_clean(), "\n{tally}");
    Ok(())
}

#[test]
fn a_group_is_wholly_old_or_new_by_the_next_command_and_no_process_is_harmed() -> Result<()> {
    torture(Life::Group)
}

/// Killed while a thread is inside one, which a stopped thread has to begin anew.
#[test]
fn nothing_that_is_counted_in_a_restartable_sequence_is_lost() -> Result<()> {
    torture(Life::Sequences)
}

#[test]
fn a_process_that_is_stopped_and_continued_all_the_while_changes_and_goes_back() -> Result<()> {
    if not_run::unless_root("a process stopped and continued meanwhile") {
        return Ok(());
    }
    let bench = Bench::new()?;
    for life in Life::ALONE {
        let mut victim = bench.start(life)?;
        for _ in 0..10 {
            victim.while_stopped_and_continued(Duration::from_micros(700))?;
        }
        let tally = victim.take_tally();
        assert!(tally.is_clean(), "\n{tally}");
    }
    Ok(())
}

#[test]
fn a_process_that_is_killed_meanwhile_is_reported_as_gone() -> Result<()> {
    if not_run::unless_root("a process killed meanwhile") {
        return Ok(());
    }
    let bench = Bench::new()?;
    for life in Life::ALONE {
        let whole = bench.start(life)?.duration_of(Act::Apply)?;
        for round in 0..12 {
            let tally = bench.start(life)?.killed_during(Act::Apply, whole * round / 12)?;
            assert!(tally.is_clean(), "\n{tally}");
        }
    }
    Ok(())
}

#[test]
fn a_process_that_executes_itself_meanwhile_begins_anew_unharmed() -> Result<()> {
    if not_run::unless_root("a process that executes itself meanwhile") {
        return Ok(());
    }
    let bench = Bench::new()?;
    for life in Life::ALONE {
        let mut victim = bench.start(life)?;
        let whole = victim.duration_of(Act::Apply)?;
        for act in Act::ALL {
            for round in 0..6 {
                victim.executes_itself_during(act, whole * round / 6)?;
            }
        }
        let tally = victim.take_tally();
        assert!(tally.is_clean(), "\n{tally}");
    }
    Ok(())
}

#[test]
fn a_full_disk_few_descriptors_short_files_and_no_threads_leave_nothing_half_done() -> Result<()> {
    if not_run::unless_root("Salve with too little of everything") {
        return Ok(());
    }
    let adversity = match Adversity::new() {
        Ok(adversity) => adversity,
        Err(error) => {
            not_run::record("Salve with too little of everything", &format!("{error:#}"));
            return Ok(());
        }
    };
    let bench = Bench::new()?;
    let mut victim = bench.start(Life::OneThread)?;
    for hardship in Hardship::all() {
        for act in Act::ALL {
            victim.under(&adversity, hardship, act)?;
        }
    }
    let tally = victim.take_tally();
    assert!(tally.is_clean(), "\n{tally}");
    Ok(())
}
