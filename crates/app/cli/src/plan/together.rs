//! Which of the processes at hand have to change together (transition groups, DESIGN §6).

use salve_tracee::{Tie, groups};
use std::collections::{BTreeMap, BTreeSet};

/// One process and one update.
pub(crate) struct Bound<'a> {
    pub(crate) source: &'a str,
    pub(crate) ties: &'a BTreeSet<Tie>,
}

/// The groups, each as indices in their order; most have one member. Ties join only what
/// gets the same update: a process that gets none of it ties nobody together.
pub(crate) fn together(all: &[Bound<'_>]) -> Vec<Vec<usize>> {
    let keys: Vec<BTreeSet<(&str, &Tie)>> =
        all.iter().map(|one| one.ties.iter().map(|tie| (one.source, tie)).collect()).collect();
    let mut by_number: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, number) in groups(&keys).into_iter().enumerate() {
        by_number.entry(number).or_default().push(index);
    }
    by_number.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tie(inode: u64) -> Tie {
        Tie::Memory { device: (0, 1), inode }
    }

    #[test]
    fn only_what_gets_the_same_update_changes_together() {
        let (one, both, other) = (BTreeSet::from([tie(1)]), BTreeSet::from([tie(1), tie(2)]), BTreeSet::from([tie(2)]));
        let bound = |source, ties| Bound { source, ties };
        let all = [bound("nginx", &one), bound("nginx", &other), bound("nginx", &both), bound("glibc", &one)];
        assert_eq!(together(&all), [vec![0, 1, 2], vec![3]]);
        assert_eq!(together(&all[..2]), [vec![0], vec![1]]);
        assert_eq!(together(&[]), Vec::<Vec<usize>>::new());
    }
}
