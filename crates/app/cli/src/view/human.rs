//! The same as text.

use super::image::{ImageView, LivepatchView, PatchView};
use crate::problem::one_line;
use anstyle::{AnsiColor, Style};
use core::time::Duration;
use salve_elf::VaRange;
use salve_patch::{Cves, Evidence, ImageId, Origin, Reason, Requirement, RevertPolicy, Verdict, WordValue};
use std::io::{self, Write};

/// Evidence that is shown without `--verbose`; the rest is counted.
const SHOWN: usize = 5;

impl PatchView {
    /// What was updated to what, and what the whole is.
    pub(crate) fn heading(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.origin {
            Origin::Packages { old, new, cves } => {
                writeln!(
                    out,
                    "{} {} -> {} ({}, source {})",
                    one_line(&new.name),
                    one_line(&old.version),
                    one_line(&new.version),
                    one_line(&new.architecture),
                    one_line(&new.source)
                )?;
                writeln!(out, "CVEs: {}", cve_list(cves))?;
            }
            Origin::Files { old, new } => {
                writeln!(out, "{} -> {}", one_line(old), one_line(new))?;
                writeln!(out, "direction unknown: nothing but the order they were named in says which is newer")?;
                writeln!(out, "CVEs: unknown")?;
            }
        }
        writeln!(out, "verdict: {}", verdict_word(self.verdict))
    }
}

pub(crate) fn cve_list(cves: &Cves) -> String {
    match cves {
        Cves::Unknown => "unknown (no changelog at hand)".into(),
        Cves::Known { ids } if ids.is_empty() => "none named in the changelog".into(),
        Cves::Known { ids } => one_line(&ids.join(", ")),
    }
}

/// A verdict in its colour.
pub(crate) fn verdict_word(verdict: Verdict) -> String {
    let (word, colour) = match verdict {
        Verdict::Unchanged => ("unchanged", AnsiColor::Blue),
        Verdict::Safe => ("safe", AnsiColor::Green),
        Verdict::Review => ("review", AnsiColor::Yellow),
        Verdict::Refused => ("refused", AnsiColor::Red),
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{word}{style:#}")
}

impl ImageView {
    /// Verdict, reasons and counts: a few lines.
    pub(crate) fn summary(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        writeln!(out, "{}: {}", one_line(&self.path), verdict_word(self.verdict))?;
        let f = &self.functions;
        if f.old != 0 || f.new != 0 {
            writeln!(
                out,
                "  functions: {} changed, {} added, {} gone, {} differ in noise only, {} identical (of {} old, {} new)",
                f.changed, f.added, f.gone, f.noise, f.identical, f.old, f.new
            )?;
        }
        if self.verdict == Verdict::Unchanged {
            writeln!(out, "  this update changes no code here (which does not say \"not affected\")")?;
        }
        for reason in &self.reasons {
            reason_lines(out, reason, verbose)?;
        }
        Ok(())
    }

    /// Verdict and codes in a line, where it has all been said before.
    pub(crate) fn brief(&self, out: &mut dyn Write) -> io::Result<()> {
        let codes: Vec<String> = self.reasons.iter().map(|reason| one_line(&reason.code)).collect();
        let because = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
        writeln!(out, "{}: {}{because}", one_line(&self.path), verdict_word(self.verdict))
    }

    /// All there is to say.
    pub(crate) fn full(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        self.summary(out, verbose)?;
        image_id(out, "old", self.old.as_ref())?;
        image_id(out, "new", self.new.as_ref())?;
        if let Some(livepatch) = &self.livepatch {
            let r = &self.references;
            writeln!(
                out,
                "  references of the new code: {} to itself, {} to old functions, {} to old data, {} to imports; 0 unresolved",
                r.payload, r.old_code, r.old_data, r.imports
            )?;
            livepatch.lines(out, verbose)?;
        }
        self.noise_lines(out, verbose)
    }

    fn noise_lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        if self.noise.is_empty() {
            return Ok(());
        }
        writeln!(out, "  dropped as noise, each on proof:")?;
        let shown = if verbose { self.noise.len() } else { SHOWN };
        for noise in self.noise.iter().take(shown) {
            writeln!(out, "    {} (old {}, new {})", one_line(&noise.function), noise.old_va, noise.new_va)?;
            evidence_lines(out, "      ", &noise.proof, verbose)?;
        }
        more(out, "    ", self.noise.len(), shown, "functions")
    }
}

fn held(value: WordValue) -> String {
    match value {
        WordValue::Number(number) => format!("{number:#x}"),
        WordValue::Old(va) => format!("the address {va} of the old image"),
        WordValue::Payload(va) => format!("the address {va} of the payload"),
    }
}

impl LivepatchView {
    fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        writeln!(out, "  livepatch {}", self.id)?;
        let segments = counted(self.segments.len(), "segment", "segments");
        writeln!(out, "    payload: {} in {segments}", bytes_for_people(self.payload_bytes))?;
        for function in &self.replaced {
            let old = ranges(&function.old_ranges);
            let new = ranges(&function.new_ranges);
            match function.detour_at {
                Some(at) => {
                    writeln!(out, "    replaces {}: old {old}, new {new}, jump at {at}", one_line(&function.name))?;
                }
                None => writeln!(out, "    adds {}: new {new}", one_line(&function.name))?,
            }
        }
        for import in &self.imports {
            let version = import.version.as_ref().map_or_else(String::new, |version| format!("@{}", one_line(version)));
            writeln!(
                out,
                "    binds {}{version} in each process: the old image does not import it",
                one_line(&import.symbol)
            )?;
        }
        for word in &self.words {
            writeln!(
                out,
                "    changes the word at {}: {}, before {}",
                word.old_va,
                held(word.new),
                held(word.expected)
            )?;
        }
        for reader in &self.readers {
            writeln!(out, "    waits for {}, which reads such words: {}", one_line(&reader.name), reader.old_range)?;
        }
        for requirement in &self.requirements {
            let Requirement::DependencyConstant { soname, symbol, value, mask, why } = requirement;
            writeln!(
                out,
                "    requires that {} of {} agrees with {value:#x} in {mask:#x}: {}",
                one_line(symbol),
                one_line(soname),
                one_line(why)
            )?;
        }
        writeln!(out, "    revert: {}", revert_words(self.revert))?;
        let named = self.bound.iter().filter(|b| b.to.is_some()).count();
        writeln!(
            out,
            "    fields bound to the old image: {} (to functions that are replaced: {named})",
            self.bound.len()
        )?;
        let shown = if verbose { self.bound.len() } else { 0 };
        for field in self.bound.iter().take(shown) {
            writeln!(
                out,
                "      {} in {} -> old {}{}",
                field.new_va,
                one_line(field.from.as_deref().unwrap_or("data")),
                field.old_target,
                field.to.as_deref().map(|to| format!(" ({})", one_line(to))).unwrap_or_default()
            )?;
        }
        if !verbose && !self.bound.is_empty() {
            writeln!(out, "      (-v lists them)")?;
        }
        Ok(())
    }
}

pub(crate) fn reason_lines(out: &mut dyn Write, reason: &Reason, verbose: bool) -> io::Result<()> {
    writeln!(out, "  {} [{}] {}", verdict_word(reason.verdict), one_line(&reason.code), one_line(&reason.summary))?;
    evidence_lines(out, "    ", &reason.evidence, verbose)
}

fn evidence_lines(out: &mut dyn Write, indent: &str, evidence: &[Evidence], verbose: bool) -> io::Result<()> {
    let shown = if verbose { evidence.len() } else { SHOWN };
    for seen in evidence.iter().take(shown) {
        let place = match (seen.old_va, seen.new_va) {
            (Some(old), Some(new)) => Some(format!("old {old}, new {new}")),
            (Some(old), None) => Some(format!("old {old}")),
            (None, Some(new)) => Some(format!("new {new}")),
            (None, None) => None,
        };
        let place = match (&seen.function, place) {
            (Some(function), Some(place)) => format!("{} ({place}): ", one_line(function)),
            (Some(function), None) => format!("{}: ", one_line(function)),
            (None, Some(place)) => format!("{place}: "),
            (None, None) => String::new(),
        };
        writeln!(out, "{indent}{place}{}", one_line(&seen.seen))?;
    }
    more(out, indent, evidence.len(), shown, "such places")
}

fn more(out: &mut dyn Write, indent: &str, have: usize, shown: usize, what: &str) -> io::Result<()> {
    match have.checked_sub(shown) {
        Some(rest) if rest > 0 => writeln!(out, "{indent}and {rest} more {what} (-v lists them)"),
        _all_shown => Ok(()),
    }
}

fn image_id(out: &mut dyn Write, side: &str, image: Option<&ImageId>) -> io::Result<()> {
    let Some(image) = image else {
        return writeln!(out, "  {side}: there is no such image");
    };
    let build_id = image.build_id.as_ref().map_or_else(|| "none".into(), ToString::to_string);
    writeln!(out, "  {side}: sha256 {}, {} bytes, build-id {build_id}", image.sha256, image.len_bytes)
}

fn ranges(ranges: &[VaRange]) -> String {
    if ranges.is_empty() {
        return "none".into();
    }
    ranges
        .iter()
        .map(|range| format!("{} ({} bytes)", range.start(), range.len_bytes()))
        .collect::<Vec<_>>()
        .join(" + ")
}

fn revert_words(policy: RevertPolicy) -> &'static str {
    match policy {
        RevertPolicy::Unmap => "takes everything out again",
        RevertPolicy::KeepMapped => {
            "restores the code; the payload stays mapped, because an address of its data may have escaped"
        }
        RevertPolicy::Refuse => "refused: an address of the new code may have escaped into the process's state",
    }
}

/// `1 process`, `2 processes`.
pub(crate) fn counted<N: Copy + core::fmt::Display + PartialEq + From<u8>>(count: N, one: &str, more: &str) -> String {
    let what = if count == N::from(1) { one } else { more };
    format!("{count} {what}")
}

/// What a report that speaks of all processes could not speak of.
pub(crate) fn not_looked_at_line(count: u64, out: &mut dyn Write) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "{} could not be looked at (-v says which, and why)", counted(count, "process", "processes"))
}

/// `12 KiB`, `3.4 MiB`; exact below one KiB.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if bytes < KIB {
        format!("{bytes} bytes")
    } else if bytes < MIB {
        format!("{} KiB", bytes.div_ceil(KIB))
    } else {
        let tenths = bytes.saturating_mul(10) / MIB;
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    }
}

/// `146 µs`, `4.6 ms`, `12.0 s`.
pub(crate) fn duration_for_people(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros < 1_000 {
        format!("{micros} µs")
    } else if micros < 1_000_000 {
        format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
    } else {
        format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000)
    }
}

/// `2026-01-31 23:59 UTC` of an RFC 3339 time in UTC.
pub(crate) fn minute(at: &str) -> String {
    match (at.get(..10), at.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _other_shape => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_say_them() {
        assert_eq!(bytes_for_people(812), "812 bytes");
        assert_eq!(bytes_for_people(4097), "5 KiB");
        assert_eq!(bytes_for_people(3_565_159), "3.4 MiB");
        assert_eq!(duration_for_people(Duration::from_micros(146)), "146 µs");
        assert_eq!(duration_for_people(Duration::from_micros(4_650)), "4.6 ms");
        assert_eq!(duration_for_people(Duration::from_millis(12_050)), "12.0 s");
    }
}
