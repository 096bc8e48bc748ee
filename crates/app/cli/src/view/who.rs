//! Processes, told by program.

use crate::event::ProcessRef;
use crate::problem::one_line;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What is named of many without `--verbose`: so many processes of one program, so many files of one kind.
pub(crate) const SHOWN: usize = 10;

/// The numbers of the processes of each program.
pub(crate) fn by_program<'a>(processes: &[&'a ProcessRef]) -> BTreeMap<&'a str, Vec<u32>> {
    let mut by_program: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for process in processes {
        by_program.entry(&process.program).or_default().push(process.pid);
    }
    by_program
}

/// One line for each program, with the numbers of its processes.
pub(crate) fn programs(processes: &[&ProcessRef], out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    for (program, pids) in by_program(processes) {
        writeln!(out, "    {}: {}", one_line(program), numbers(&pids, verbose))?;
    }
    Ok(())
}

/// `pids 1, 2, 3 and 4 more`.
pub(crate) fn numbers(pids: &[u32], verbose: bool) -> String {
    let shown = if verbose { pids.len() } else { SHOWN };
    let named: Vec<String> = pids.iter().take(shown).map(u32::to_string).collect();
    let word = if pids.len() == 1 { "pid" } else { "pids" };
    match pids.len().checked_sub(shown).filter(|rest| *rest > 0) {
        Some(rest) => format!("{word} {} and {rest} more (-v lists them)", named.join(", ")),
        None => format!("{word} {}", named.join(", ")),
    }
}
