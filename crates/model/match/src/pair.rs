//! Pairing functions: names, unique hashes, order, votes, and what is left
//! between two pairs.

use crate::side::{Place, Side};
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use iced_x86::Instruction;
use salve_code::decode;
use salve_elf::VaRange;

/// Which function became which; indices into `image.functions()`.
#[derive(Debug)]
pub(crate) struct Pairing {
    pub(crate) of_old: Vec<Option<usize>>,
    pub(crate) of_new: Vec<Option<usize>>,
    /// Pairs found only because they are what is left between two others.
    pub(crate) weak: HashSet<usize>,
}

impl Pairing {
    pub(crate) fn new(old: &Side<'_, '_>, new: &Side<'_, '_>) -> Self {
        let mut pairing =
            Self { of_old: vec![None; old.code.len()], of_new: vec![None; new.code.len()], weak: HashSet::new() };
        pairing.by_name(old, new);
        pairing.by_unique_hash(old, new);
        pairing.by_order(old, new);
        while pairing.by_votes(old, new) {}
        pairing.by_order(old, new);
        pairing.what_is_left(old, new);
        while pairing.by_votes(old, new) {}
        pairing
    }

    pub(crate) fn pair(&mut self, old: usize, new: usize) -> bool {
        let (Some(a), Some(b)) = (self.of_old.get_mut(old), self.of_new.get_mut(new)) else {
            return false;
        };
        if a.is_some() || b.is_some() {
            return false;
        }
        *a = Some(new);
        *b = Some(old);
        true
    }

    pub(crate) fn old_of(&self, new: usize) -> Option<usize> {
        self.of_new.get(new).copied().flatten()
    }

    fn by_name(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) {
        fn unique<'s>(side: &'s Side<'_, '_>) -> HashMap<&'s str, Option<usize>> {
            let mut names: HashMap<&str, Option<usize>> = HashMap::new();
            for (index, function) in side.image.functions().iter().enumerate() {
                if let Some(name) = &function.name {
                    names.entry(name).and_modify(|slot| *slot = None).or_insert(Some(index));
                }
            }
            names
        }
        let olds = unique(old);
        let mut pairs: Vec<(usize, usize)> =
            unique(new).into_iter().filter_map(|(name, n)| Some((olds.get(name).copied()??, n?))).collect();
        pairs.sort_unstable();
        for (o, n) in pairs {
            self.pair(o, n);
        }
    }

    fn by_unique_hash(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) {
        let count = |side: &Side<'_, '_>, taken: &[Option<usize>]| {
            let mut seen: HashMap<u64, Option<usize>> = HashMap::new();
            for (index, code) in side.code.iter().enumerate() {
                if taken.get(index).copied().flatten().is_none() {
                    seen.entry(code.hash).and_modify(|slot| *slot = None).or_insert(Some(index));
                }
            }
            seen
        };
        let olds = count(old, &self.of_old);
        let mut pairs: Vec<(usize, usize)> = count(new, &self.of_new)
            .into_iter()
            .filter_map(|(hash, n)| Some((olds.get(&hash).copied()??, n?)))
            .collect();
        pairs.sort_unstable();
        for (o, n) in pairs {
            self.pair(o, n);
        }
    }

    /// Pairs that are in the same order on both sides: a longest increasing subsequence.
    fn ordered(&self) -> Vec<(usize, usize)> {
        let pairs: Vec<(usize, usize)> = self.of_old.iter().enumerate().filter_map(|(o, n)| Some((o, (*n)?))).collect();
        let mut tails: Vec<usize> = Vec::new();
        let mut previous: Vec<Option<usize>> = vec![None; pairs.len()];
        for (index, (_, n)) in pairs.iter().enumerate() {
            let at = tails.partition_point(|t| pairs.get(*t).is_some_and(|(_, m)| m < n));
            if let (Some(slot), Some(before)) = (previous.get_mut(index), at.checked_sub(1)) {
                *slot = tails.get(before).copied();
            }
            if at == tails.len() {
                tails.push(index);
            } else if let Some(slot) = tails.get_mut(at) {
                *slot = index;
            }
        }
        let mut chain = Vec::new();
        let mut at = tails.last().copied();
        while let Some(index) = at {
            if let Some(pair) = pairs.get(index) {
                chain.push(*pair);
            }
            at = previous.get(index).copied().flatten();
        }
        chain.reverse();
        chain
    }

    /// The unpaired functions between consecutive ordered pairs.
    fn gaps(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut bounds = vec![(0, 0)];
        bounds.extend(self.ordered().into_iter().map(|(o, n)| (o.saturating_add(1), n.saturating_add(1))));
        bounds.push((self.of_old.len().saturating_add(1), self.of_new.len().saturating_add(1)));
        let free = |taken: &[Option<usize>], from: usize, to: usize| -> Vec<usize> {
            (from..to.min(taken.len())).filter(|i| taken.get(*i).is_some_and(Option::is_none)).collect()
        };
        bounds
            .windows(2)
            .filter_map(|w| {
                let [(o1, n1), (o2, n2)] = *w else { return None };
                let olds = free(&self.of_old, o1, o2.saturating_sub(1));
                let news = free(&self.of_new, n1, n2.saturating_sub(1));
                (!olds.is_empty() && !news.is_empty()).then_some((olds, news))
            })
            .collect()
    }

    /// Equal hashes in the same order between two pairs.
    fn by_order(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) {
        const LARGEST_TABLE: usize = 4_000_000;
        for (olds, news) in self.gaps() {
            if olds.len().saturating_mul(news.len()) > LARGEST_TABLE {
                continue;
            }
            let hash = |side: &Side<'_, '_>, i: &usize| side.code.get(*i).map(|c| c.hash);
            let a: Vec<_> = olds.iter().map(|i| hash(old, i)).collect();
            let b: Vec<_> = news.iter().map(|i| hash(new, i)).collect();
            for (i, j) in crate::align::longest_common_subsequence(&a, &b) {
                if let (Some(o), Some(n)) = (olds.get(i), news.get(j)) {
                    self.pair(*o, *n);
                }
            }
        }
    }

    /// Functions that pairs with equal code call in the same place are each
    /// other's counterparts, if all such votes agree.
    fn by_votes(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) -> bool {
        let mut votes: HashMap<(usize, usize), u32> = HashMap::new();
        for (n, o) in self.of_new.iter().enumerate() {
            let Some((a, b)) = o.and_then(|o| Some((old.code.get(o)?, new.code.get(n)?))) else { continue };
            if a.hash != b.hash {
                continue;
            }
            for (x, y) in a.references.iter().zip(&b.references) {
                let (Place::Code { function: f, offset: 0 }, Place::Code { function: g, offset: 0 }) =
                    (old.place(x.target), new.place(y.target))
                else {
                    continue;
                };
                if self.of_old.get(f).is_some_and(Option::is_none) && self.of_new.get(g).is_some_and(Option::is_none) {
                    let count = votes.entry((f, g)).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        self.take_unanimous(&votes)
    }

    pub(crate) fn take_unanimous(&mut self, votes: &HashMap<(usize, usize), u32>) -> bool {
        let mut of_old: HashMap<usize, u32> = HashMap::new();
        let mut of_new: HashMap<usize, u32> = HashMap::new();
        for (f, g) in votes.keys() {
            let count = of_old.entry(*f).or_default();
            *count = count.saturating_add(1);
            let count = of_new.entry(*g).or_default();
            *count = count.saturating_add(1);
        }
        let mut pairs: Vec<_> =
            votes.keys().filter(|(f, g)| of_old.get(f) == Some(&1) && of_new.get(g) == Some(&1)).copied().collect();
        pairs.sort_unstable();
        let mut any = false;
        for (f, g) in pairs {
            any |= self.pair(f, g);
        }
        any
    }

    /// What is left between two pairs, by likeness.
    fn what_is_left(&mut self, old: &Side<'_, '_>, new: &Side<'_, '_>) {
        const MOST: usize = 400;
        for (olds, news) in self.gaps() {
            if olds.len() > MOST || news.len() > MOST {
                continue;
            }
            let shape = |side: &Side<'_, '_>, i: &usize| {
                side.image.functions().get(*i).map(|f| shape(side, f.range)).unwrap_or_default()
            };
            let a: Vec<_> = olds.iter().map(|i| shape(old, i)).collect();
            let b: Vec<_> = news.iter().map(|i| shape(new, i)).collect();
            let mut likely: Vec<(u64, usize, usize)> = Vec::new();
            for (i, x) in a.iter().enumerate() {
                for (j, y) in b.iter().enumerate() {
                    let score = likeness(x, y);
                    if score >= 500 {
                        likely.push((score, i, j));
                    }
                }
            }
            likely.sort_by_key(|(score, i, j)| (core::cmp::Reverse(*score), i.abs_diff(*j), *i, *j));
            for (_, i, j) in likely {
                if let (Some(o), Some(n)) = (olds.get(i), news.get(j))
                    && self.pair(*o, *n)
                {
                    self.weak.insert(*n);
                }
            }
        }
    }
}

/// Hashes of every three consecutive instruction codes.
fn shape(side: &Side<'_, '_>, range: VaRange) -> HashSet<u64> {
    let mut set = HashSet::new();
    let Some(mut decoder) = decode(side.image, range) else { return set };
    let mut instruction = Instruction::default();
    let mut window = [0_u64; 3];
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let code = u64::from(u16::try_from(instruction.code() as usize).unwrap_or(u16::MAX));
        let registers = (instruction.op0_register() as u64) << 16 | (instruction.memory_base() as u64) << 32;
        let [_, second, third] = window;
        window = [second, third, code | registers];
        set.insert(window.iter().fold(0, |acc, v| acc.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ v));
    }
    set
}

/// Jaccard index in thousandths.
fn likeness(a: &HashSet<u64>, b: &HashSet<u64>) -> u64 {
    let common = a.intersection(b).count();
    let all = a.len().saturating_add(b.len()).saturating_sub(common);
    let thousandths = common.saturating_mul(1000).checked_div(all).unwrap_or(0);
    u64::try_from(thousandths).unwrap_or(0)
}
