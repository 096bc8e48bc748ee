//! What Salve has left in a victim: descriptors, mappings, other text.

use super::Victim;
use crate::torture::{Act, Seen};
use anyhow::{Context as _, Result};
use std::time::Duration;

/// Looks at descriptors, a millisecond apart: a connection lasts much less.
const LOOKS: u32 = 30;

impl Victim<'_> {
    /// What the descriptors of each process lead to: the fewest in some looks, because those
    /// of connections come and go. It ends with the first look that finds `enough`.
    pub(super) fn links(&self, enough: impl Fn(&[Vec<String>]) -> bool) -> Result<Vec<Vec<String>>> {
        let mut fewest = self.pids().into_iter().map(links_of).collect::<Result<Vec<_>>>()?;
        for _ in 0..LOOKS {
            if enough(&fewest) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            for (fewest, pid) in fewest.iter_mut().zip(self.pids()) {
                let now = links_of(pid)?;
                if now.len() < fewest.len() {
                    *fewest = now;
                }
            }
        }
        Ok(fewest)
    }

    /// What is left: of descriptors always, of the rest after a revert.
    pub(super) fn compare(&mut self) -> Result<()> {
        let more_in = |links: &[Vec<String>]| -> usize {
            links.iter().zip(&self.descriptors).map(|(now, before)| now.len().saturating_sub(before.len())).sum()
        };
        let links = self.links(|links| more_in(links) == 0)?;
        let more = more_in(&links);
        self.tally.note(Seen::LeakedDescriptor, u64::try_from(more)?);
        let (mut changes, mut mappings) = (Vec::new(), Vec::new());
        if self.state == Act::Revert {
            for (now, before) in self.texts_now()?.into_iter().zip(&self.texts) {
                // It may have executed itself, and lies elsewhere then.
                let now = if self.starts > 1 { now.moved_like(before) } else { now };
                changes.extend(now.differences_from(before));
            }
            for pid in self.pids() {
                mappings.extend(left_mappings(pid)?);
            }
            self.tally.note(Seen::ChangedText, u64::from(!changes.is_empty()));
            self.tally.note(Seen::LeakedMapping, u64::try_from(mappings.len())?);
        }
        if !changes.is_empty() || more > 0 || !mappings.is_empty() {
            self.say(&format!("after the next {}: {changes:?} {mappings:?} {links:?}", self.state));
        }
        Ok(())
    }
}

/// What the descriptors of one process lead to. One that is gone by then leads nowhere.
fn links_of(pid: u32) -> Result<Vec<String>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).context("no descriptors")? {
        if let Ok(link) = std::fs::read_link(entry?.path()) {
            links.push(link.display().to_string());
        }
    }
    links.sort();
    Ok(links)
}

/// Mappings that only Salve makes.
fn left_mappings(pid: u32) -> Result<Vec<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("no maps")?;
    // Payloads and gates by name, workshops by the addresses that nothing else uses.
    let workshops = 0x2a5a_0000_0000..0x2b5a_0000_0000_u64;
    let ours = |line: &&str| {
        let start = line.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok());
        line.contains("/memfd:salve") || start.is_some_and(|start| workshops.contains(&start))
    };
    Ok(maps.lines().filter(ours).map(str::to_owned).collect())
}
