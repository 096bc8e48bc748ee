//! Acquire and release calls that moved between functions.

use crate::carry::Carried;
use crate::layout::import_at;
use crate::registry;
use salve_elf::VaRange;
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};
use std::collections::BTreeMap;

pub(crate) const PAIRS: &[(&str, &str)] = &[
    ("pthread_mutex_lock", "pthread_mutex_unlock"),
    ("pthread_rwlock_rdlock", "pthread_rwlock_unlock"),
    ("pthread_rwlock_wrlock", "pthread_rwlock_unlock"),
    ("pthread_spin_lock", "pthread_spin_unlock"),
    ("sem_wait", "sem_post"),
    ("mtx_lock", "mtx_unlock"),
    ("flockfile", "funlockfile"),
    ("CRYPTO_THREAD_write_lock", "CRYPTO_THREAD_unlock"),
    ("CRYPTO_THREAD_read_lock", "CRYPTO_THREAD_unlock"),
    ("g_mutex_lock", "g_mutex_unlock"),
];

/// A function that acquires more than it did and one that releases more (or
/// the other way round) share a contract that state made by old code breaks.
pub(crate) fn reasons(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let functions = carried.pairs.iter().filter_map(|pair| {
        Some((diff.old.image.functions().get(pair.old)?, diff.new.image.functions().get(pair.new)?))
    });
    let all: Vec<_> = functions.map(|(f, g)| (f, g, calls(&diff.old, f.range), calls(&diff.new, g.range))).collect();
    let mut evidence = Vec::new();
    for (acquire, release) in PAIRS {
        let mut unbalanced = Vec::new();
        for (f, g, a, b) in &all {
            let balance = |calls: &BTreeMap<&str, i64>| {
                let count = |name| calls.get(name).copied().unwrap_or(0);
                count(*acquire).wrapping_sub(count(*release))
            };
            let moved = balance(b).wrapping_sub(balance(a));
            if moved != 0 {
                unbalanced.push((moved, g.display_name(), f.range.start(), g.range.start()));
            }
        }
        let opposite = unbalanced.iter().any(|(m, ..)| *m > 0) && unbalanced.iter().any(|(m, ..)| *m < 0);
        if opposite {
            evidence.extend(unbalanced.into_iter().map(|(moved, function, old, new)| Evidence {
                function: Some(function),
                old_va: Some(old),
                new_va: Some(new),
                seen: format!("calls {acquire} less {release}: {moved:+}"),
            }));
        }
    }
    (!evidence.is_empty())
        .then(|| registry::RESOURCE_PAIR_MOVED.because("acquire and release moved between functions", evidence))
}

/// How often each import is called directly.
pub(crate) fn calls<'a>(side: &Side<'_, 'a>, range: VaRange) -> BTreeMap<&'a str, i64> {
    let mut counts = BTreeMap::new();
    for instruction in salve_code::decode(side.image, range).into_iter().flatten() {
        if let Some(name) = import_at(side, &instruction) {
            let count: &mut i64 = counts.entry(name).or_default();
            *count = count.saturating_add(1);
        }
    }
    counts
}
