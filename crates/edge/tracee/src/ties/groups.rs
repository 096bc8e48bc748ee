//! Who belongs together, by what each has in common with others.

use std::collections::{BTreeMap, BTreeSet};

/// Which of these belong together: for each its group's number, the index of its first.
pub fn groups<K: Ord>(ties: &[BTreeSet<K>]) -> Vec<usize> {
    let mut group: Vec<usize> = (0..ties.len()).collect();
    let mut first: BTreeMap<&K, usize> = BTreeMap::new();
    for (index, own) in ties.iter().enumerate() {
        for tie in own {
            let other = *first.entry(tie).or_insert(index);
            let (Some(&mine), Some(&theirs)) = (group.get(index), group.get(other)) else { continue };
            let (low, high) = (mine.min(theirs), mine.max(theirs));
            for number in group.iter_mut().filter(|number| **number == high) {
                *number = low;
            }
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_join_over_others_and_strangers_stay_alone() {
        let ties =
            |list: &[&[u32]]| -> Vec<BTreeSet<u32>> { list.iter().map(|own| own.iter().copied().collect()).collect() };
        assert_eq!(groups(&ties(&[&[1], &[2], &[1], &[]])), [0, 1, 0, 3]);
        // The last one ties the first two together.
        assert_eq!(groups(&ties(&[&[1], &[2], &[3], &[2, 1]])), [0, 0, 2, 0]);
        assert_eq!(groups(&ties(&[&[5], &[6], &[6, 7], &[7], &[5, 7]])), [0, 0, 0, 0, 0]);
        assert_eq!(groups::<u32>(&[]), Vec::<usize>::new());
    }
}
