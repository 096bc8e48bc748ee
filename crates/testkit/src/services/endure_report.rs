//! What came of a long run, as text.

use super::endure::{Endured, Window};
use super::holding::Holding;
use super::meter::Seen;
use super::report::ms;
use std::fmt;

/// Percentiles that are told: the middle, nine of ten, ninety-nine of a hundred, and the longest.
pub fn latencies(seen: &Seen) -> String {
    let [median, most, nearly_all] = [50, 90, 99].map(|percent| ms(seen.quantile_us(percent)));
    format!("{median}, {most}, {nearly_all}, {}", ms(seen.longest_us))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, floor, cycles, stop_us, held, .. } = self;
        let pids: Vec<u32> = held.keys().copied().collect();
        let sum = super::holding::sum(held, &pids);
        write!(
            f,
            "{} requests, {} errors; {}; an echo beside it {}; {cycles} cycles, stop {}; reverted: {} processes, {}",
            seen.requests,
            seen.errors,
            latencies(seen),
            ms(floor.within_us(50)),
            ms(*stop_us),
            pids.len(),
            holding(&sum)
        )
    }
}

fn holding(held: &Holding) -> String {
    format!(
        "{} mappings ({} executable, {} of memory files), {} descriptors ({} of memory files), {} KiB copied, {} KiB payload, \
         {} KiB private, {} KiB in all",
        held.mappings,
        held.executable_mappings,
        held.memory_file_mappings,
        held.descriptors,
        held.memory_file_descriptors,
        held.copied_bytes / 1024,
        held.payload_bytes / 1024,
        held.private_bytes / 1024,
        held.virtual_bytes / 1024
    )
}

impl fmt::Display for Endured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: ", self.service, self.title)?;
        if self.control {
            write!(f, "not changed for {} s", self.lasted_s())?;
        } else {
            let (cycles, seconds, changes) = (self.cycles(), self.lasted_s(), self.applied());
            write!(f, "applied and reverted {cycles} times in {seconds} s ({changes} changes of a process)")?;
        }
        writeln!(f, ", {} on {}", self.when, self.machine)?;
        writeln!(f, "load average at the beginning, in the middle, at the end: {}", self.load_averages.join("; "))?;
        let (first, last) = self.ends();
        for (name, seen) in [("idle", &self.idle), ("first sixth", &first), ("last sixth", &last)] {
            let seconds = seen.lasted_ms / 1000;
            writeln!(
                f,
                "{name}: {} requests in {seconds} s, {} errors; {}",
                seen.requests,
                seen.errors,
                latencies(seen)
            )?;
            seen.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        }
        writeln!(f, "first and last quarter: {}", self.drift())?;
        let (processes, held) = self.held();
        writeln!(f, "longest stop of a process: {}", ms(self.longest_stop_us()))?;
        writeln!(f, "the {processes} processes that lived all the time hold together:")?;
        for (name, held) in
            ["before the first apply", "after the first revert", "in the middle", "at the end"].iter().zip(&held)
        {
            writeln!(f, "  {name}: {}", holding(held))?;
        }
        for (why, times) in &self.left_behind {
            writeln!(f, "APPLIED IN PART {times} times: {why}")?;
        }
        self.left.iter().try_for_each(|(why, times)| writeln!(f, "left as it was {times} times: {why}"))?;
        if processes == 0 {
            writeln!(f, "NOT COMPARED: no process lived all the time, so whether anything leaks is not known")?;
        } else if self.leaks.is_empty() && !self.control {
            writeln!(f, "no leak: nothing that a livepatch brings grew after the first revert")?;
        }
        self.leaks.iter().try_for_each(|leak| writeln!(f, "LEAK: {leak}"))?;
        self.afterwards.iter().try_for_each(|fact| writeln!(f, "afterwards: {fact}"))?;
        writeln!(f, "requests in all: {}, errors: {}", self.requests, self.errors)
    }
}
