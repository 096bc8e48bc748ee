//! Finding an address among sorted ones in a few steps.
//!
//! Every reference of every function is looked up several times, among hundreds of
//! thousands of functions and relocations: a binary search reads memory that is in no
//! cache at nearly every step. Buckets of equal width say between which two indices the
//! answer lies; where addresses are spread unevenly, a search of what one bucket holds
//! is left, never more than a search of all.

use crate::Va;
use core::ops::Range;

#[derive(Clone, Debug)]
pub struct AddressIndex {
    base: u64,
    shift: u32,
    /// For each bucket, how many addresses lie before it; one more at the end.
    before: Vec<u32>,
    len: usize,
}

impl AddressIndex {
    /// Of addresses that are sorted.
    pub fn new(addresses: impl DoubleEndedIterator<Item = Va> + ExactSizeIterator + Clone) -> Self {
        let len = addresses.len();
        let base = addresses.clone().next().map_or(0, Va::raw);
        let span = addresses.clone().next_back().map_or(0, Va::raw).saturating_sub(base);
        let most = u64::try_from(len).unwrap_or(u64::MAX).saturating_mul(2);
        let shift = (0..u64::BITS).find(|shift| span.checked_shr(*shift).unwrap_or(0) <= most).unwrap_or(u64::BITS);
        let mut index = Self { base, shift, before: Vec::new(), len };
        for (n, address) in addresses.enumerate() {
            let bucket = index.bucket(address).unwrap_or(usize::MAX);
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            while index.before.len() <= bucket {
                index.before.push(n);
            }
        }
        index.before.push(u32::try_from(len).unwrap_or(u32::MAX));
        index
    }

    /// What to search for `address`: what lies before is smaller, what lies behind greater.
    pub fn around(&self, address: Va) -> Range<usize> {
        let Some(bucket) = self.bucket(address) else { return 0..0 };
        let bound = |bucket: usize| self.before.get(bucket).and_then(|n| usize::try_from(*n).ok()).unwrap_or(self.len);
        bound(bucket)..bound(bucket.saturating_add(1))
    }

    fn bucket(&self, address: Va) -> Option<usize> {
        usize::try_from(address.raw().checked_sub(self.base)?.checked_shr(self.shift).unwrap_or(0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::AddressIndex;
    use crate::Va;

    /// The answers of a search of all, from a search of what the index names.
    fn check(addresses: &[u64]) {
        assert!(addresses.is_sorted(), "the index is of sorted addresses");
        let sorted: Vec<Va> = addresses.iter().copied().map(Va::new).collect();
        let index = AddressIndex::new(sorted.iter().copied());
        let near = addresses.iter().flat_map(|a| [a.saturating_sub(1), *a, a.saturating_add(1)]);
        for address in near.chain([0, 1, 63, 64, 4096, u64::MAX]).map(Va::new) {
            let around = index.around(address);
            let part = sorted.get(around.clone()).unwrap_or_default();
            let found = around.start.saturating_add(part.partition_point(|a| *a <= address));
            assert_eq!(found, sorted.partition_point(|a| *a <= address), "{address} of {} addresses", addresses.len());
            assert_eq!(
                part.contains(&address),
                sorted.contains(&address),
                "{address} of {} addresses",
                addresses.len()
            );
        }
    }

    #[test]
    fn the_search_of_a_part_gives_what_the_search_of_all_gives() {
        check(&[]);
        check(&[0]);
        check(&[u64::MAX]);
        check(&[0, u64::MAX]);
        check(&[5, 5, 5, 6]);
        check(&[0x1000, 0x1010, 0x1011, 0x2000, 0xffff_0000_0000]);
        check(&(0..5000).map(|n| n * n / 3).collect::<Vec<_>>());
        check(&(0..5000).map(|n| 0x40_0000 + n * 24 + n % 7).collect::<Vec<_>>());
        // One bucket holds nearly all of them.
        check(&(0..3000).chain([1 << 60]).collect::<Vec<_>>());
    }
}
