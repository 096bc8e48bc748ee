//! `salve revert (--pid N … | --all) [PATCH]`: takes livepatches out again.

mod carrier;
mod ending;
mod groups;
mod report;
mod reversion;
mod wanted;

use super::Context;
use crate::args::Revert;
use crate::machine::processes::{self, Processes};
use crate::problem::{Problem, chain};
use carrier::{Carrier, look, look_at_any};
use groups::Reverting;
use report::RevertReport;
use reversion::Reversion;
use salve_tracee::{ReadError, list_pids};
use wanted::Wanted;

const LOOKING: &str = "looking at processes";

pub(crate) fn run(args: &Revert, context: &mut Context) -> Result<RevertReport, Problem> {
    if !args.while_off && !args.dry_run {
        context
            .switch
            .check()
            .map_err(|problem| problem.hint("a revert changes processes too: --while-off does it all the same"))?;
    }
    let wanted = Wanted::of(args.patch.as_deref())?;
    let processes = Processes::that_may_be_cut(args.cut_transfers);
    let (found, unread, not_looked_at) = if args.targets.all {
        carriers(&processes, &wanted, context)?
    } else {
        (named_carriers(&args.targets.pids, &processes, &wanted, context)?, Vec::new(), 0)
    };
    wanted.check_distinct(found.iter().flat_map(|one| one.carried.iter().copied()))?;
    let reverting = Reverting { processes: &processes, while_off: args.while_off };
    let mut ends = if args.dry_run { groups::foreseen(&found) } else { reverting.all(&found, args.wait, context) };
    ends.extend(unread);
    if ends.is_empty()
        && let Some(text) = &args.patch
    {
        return Err(Problem::failed("no-such-livepatch", format!("no process carries livepatch {text}"))
            .hint("`salve status` lists what is applied"));
    }
    Ok(RevertReport { dry_run: args.dry_run, processes: ends, not_looked_at })
}

/// Everybody who has something of what is wanted, whoever could not be read, and how many are somebody else's.
fn carriers(
    processes: &Processes,
    wanted: &Wanted,
    context: &Context,
) -> Result<(Vec<Carrier>, Vec<Reversion>, u64), Problem> {
    let mut pids =
        list_pids().map_err(|error| Problem::failed("no-proc", "cannot list the processes").because(error))?;
    pids.sort_unstable();
    pids.dedup();
    let progress = context.console.progress(pids.len(), LOOKING);
    let (mut found, mut unread, mut barred) = (Vec::new(), Vec::new(), Vec::new());
    let mut looked_at_some = false;
    for pid in pids {
        progress.step(&format!("pid {pid}"));
        match look_at_any(processes, pid, wanted)? {
            Ok(one) => {
                looked_at_some = true;
                found.extend(one.has_something().then_some(one));
            }
            Err(ReadError::Exited) => {}
            Err(error @ ReadError::NoPermission { .. }) => {
                context.console.note(&format!("pid {pid} was not looked at: {}", chain(&error)));
                barred.push(error);
            }
            Err(error) => unread.push(Reversion::unread(pid, &error)),
        }
    }
    match barred.first() {
        Some(first) if !looked_at_some => Err(processes::blind(&chain(first))),
        _somebody_was => Ok((found, unread, u64::try_from(barred.len()).unwrap_or(u64::MAX))),
    }
}

/// Those that were named, each of which can be looked at, and whoever of their groups has something.
fn named_carriers(
    named: &[u32],
    processes: &Processes,
    wanted: &Wanted,
    context: &Context,
) -> Result<Vec<Carrier>, Problem> {
    let mut pids: Vec<i32> = named.iter().map(|pid| i32::try_from(*pid).unwrap_or(i32::MAX)).collect();
    pids.sort_unstable();
    pids.dedup();
    let progress = context.console.progress(pids.len(), LOOKING);
    let mut found = Vec::new();
    for pid in pids {
        progress.step(&format!("pid {pid}"));
        let process = processes::open_named(u32::try_from(pid).unwrap_or(u32::MAX))?;
        found.push(look(processes, &process, wanted)?.map_err(|error| processes::cannot_look(pid, error))?);
    }
    // What one of a group gets, all get.
    for id in processes.tied_to(found.iter().map(|one| (one.id, &one.ties)))? {
        let one = processes::those_there(look_at_any(processes, id.pid, wanted)?);
        found.extend(one.map_err(|error| processes::cannot_look(id.pid, error))?.filter(Carrier::has_something));
    }
    Ok(found)
}
