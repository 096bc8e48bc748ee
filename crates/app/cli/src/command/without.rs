//! Processes that run code which a livepatch replaces in others, and have none of it: because
//! they were started since or loaded the library since, or were left as they were.

use crate::event::ProcessRef;
use crate::problem::one_line;
use crate::view::{counted, programs};
use salve_elf::ContentHash;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// One content of which a livepatch is in force somewhere.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Without {
    path: String,
    old_sha256: ContentHash,
    processes: Vec<ProcessRef>,
}

/// One process: the contents that it maps, and those of them that a livepatch replaces in it.
pub(crate) struct Runs {
    pub(crate) process: ProcessRef,
    pub(crate) maps: Vec<(String, ContentHash)>,
    pub(crate) replaced: Vec<ContentHash>,
}

pub(crate) fn find(all: &[Runs]) -> Vec<Without> {
    let somewhere: BTreeSet<ContentHash> = all.iter().flat_map(|one| one.replaced.iter().copied()).collect();
    let mut found: BTreeMap<(&str, ContentHash), Vec<ProcessRef>> = BTreeMap::new();
    for one in all {
        let left = |content: &ContentHash| somewhere.contains(content) && !one.replaced.contains(content);
        let mut named = BTreeSet::new();
        for (path, content) in one.maps.iter().filter(|(_, content)| left(content)) {
            if named.insert(content) {
                found.entry((path, *content)).or_default().push(one.process.clone());
            }
        }
    }
    let one = |((path, old_sha256), processes): ((&str, ContentHash), Vec<ProcessRef>)| Without {
        path: path.to_owned(),
        old_sha256,
        processes,
    };
    found.into_iter().map(one).collect()
}

impl Without {
    pub(crate) fn lines(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let count = counted(self.processes.len(), "process that runs", "processes that run");
        let path = one_line(&self.path);
        writeln!(out, "without it: {count} the same {path}; the same command reaches them, or says why not")?;
        programs(&self.processes.iter().collect::<Vec<_>>(), out, verbose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> ProcessRef {
        ProcessRef { pid, start_ticks: 1, program: "/bin/p".to_owned() }
    }

    #[test]
    fn who_maps_what_is_replaced_elsewhere_is_named_once_and_nobody_else() {
        let (a, b) = (ContentHash::of(b"a"), ContentHash::of(b"b"));
        let runs = |pid, maps: &[ContentHash], replaced: &[ContentHash]| Runs {
            process: process(pid),
            maps: maps.iter().map(|content| ("/lib/x".to_owned(), *content)).collect(),
            replaced: replaced.to_vec(),
        };
        let all = [runs(1, &[a, b], &[a]), runs(2, &[a, a], &[]), runs(3, &[b], &[]), runs(4, &[], &[])];
        let found = find(&all);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].processes, [process(2)]);
        assert_eq!(find(&all[1..]), []);
    }
}
