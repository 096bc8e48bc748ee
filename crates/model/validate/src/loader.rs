//! What other images and the loader reach without any code of this one: exported
//! symbols, constructors and destructors, thread-local storage.

use crate::correspond::Correspondence;
use crate::decode::Use;
use crate::image::{Definition, Image, Symbol};
use crate::invalid::{Invalid, Mismatch, Side};
use salve_elf::{Va, VaRange};

/// Every definition that both images export under one name and version leads to
/// the same thing. What only one of them exports binds nobody: a process that runs
/// the old image cannot have bound to a name that it does not have.
pub(crate) fn check_exports(map: &Correspondence<'_>) -> Result<(), Invalid> {
    let mut old = exports(map.old);
    old.sort_unstable_by_key(|(symbol, _)| (symbol.name, symbol.version));
    for (symbol, new) in exports(map.new) {
        let found = old.binary_search_by_key(&(symbol.name, symbol.version), |(s, _)| (s.name, s.version));
        let Some((_, old)) = found.ok().and_then(|i| old.get(i)) else { continue };
        check_export(map, old, &new).map_err(|why| Invalid::Export {
            name: String::from_utf8_lossy(symbol.name).into_owned(),
            old: old.at,
            new: new.at,
            why,
        })?;
    }
    Ok(())
}

fn exports<'s, 'a>(image: &'s Image<'a>) -> Vec<(&'s Symbol<'a>, Definition)> {
    let named = image.symbols.iter().filter(|s| !s.local && !s.name.is_empty());
    named.filter_map(|s| s.defined.map(|d| (s, d))).collect()
}

fn check_export(map: &Correspondence<'_>, old: &Definition, new: &Definition) -> Result<(), Mismatch> {
    if old.is_tls != new.is_tls || old.is_absolute != new.is_absolute {
        return Err(Mismatch::Binding);
    }
    if new.is_absolute {
        return if old.at == new.at { Ok(()) } else { Err(Mismatch::Number) };
    }
    if new.is_tls {
        let same = map.tls_same && old.at == new.at && old.len_bytes == new.len_bytes;
        return if same { Ok(()) } else { Err(Mismatch::TlsLayout) };
    }
    map.check(old.at, new.at, Use::Pointer)?;
    let is_data = map.new.section_at(new.at).is_some_and(|s| !s.is_code());
    let covered = new.len_bytes == 0 || map.index.covers(new.at, new.len_bytes);
    if is_data && (old.len_bytes != new.len_bytes || !covered) { Err(Mismatch::Extent) } else { Ok(()) }
}

/// Constructors and destructors are reached by the loader alone: their slots have
/// to be in runs, wholly, on both sides; and `DT_INIT` and `DT_FINI` have to correspond.
pub(crate) fn check_run_by_loader(map: &Correspondence<'_>) -> Result<(), Invalid> {
    for section in map.new.sections.iter().filter(|s| s.is_run_by_loader()) {
        if !map.index.covers(section.range.start(), section.range.len_bytes()) {
            return Err(Invalid::UncoveredSlot { side: Side::New, at: section.range.start() });
        }
    }
    for section in map.old.sections.iter().filter(|s| s.is_run_by_loader()) {
        let mut at = section.range.start();
        while at < section.range.end() {
            if map.index.run_at_old(at).is_none() {
                return Err(Invalid::UncoveredSlot { side: Side::Old, at });
            }
            at = at.checked_add(8).ok_or(Invalid::UncoveredSlot { side: Side::Old, at })?;
        }
    }
    for (old, new) in map.old.run_by_loader.iter().zip(map.new.run_by_loader) {
        match (*old, new) {
            (None, None) => {}
            (Some(old), Some(new)) if map.check(old, new, Use::Call).is_ok() => {}
            (_, Some(at)) => return Err(Invalid::UncoveredSlot { side: Side::New, at }),
            (Some(at), None) => return Err(Invalid::UncoveredSlot { side: Side::Old, at }),
        }
    }
    Ok(())
}

/// Whether thread-local storage has the same size, alignment and initial contents.
/// Slots in it have to be in a run, which judges them.
pub(crate) fn tls_same(old: &Image<'_>, new: &Image<'_>, covers: impl Fn(Va, Va, u64) -> bool) -> bool {
    let (a, b) = match (&old.tls, &new.tls) {
        (None, None) => return true,
        (Some(a), Some(b)) => (a, b),
        _ => return false,
    };
    let Some(range) = VaRange::new(b.start, u64::try_from(b.image.len()).unwrap_or(u64::MAX)) else { return false };
    let Some(there) = VaRange::new(a.start, range.len_bytes()) else { return false };
    let slots = !new.slots_in(range).is_empty() || !old.slots_in(there).is_empty();
    (a.len_bytes, a.align) == (b.len_bytes, b.align)
        && if slots {
            a.image.len() == b.image.len() && covers(a.start, b.start, range.len_bytes())
        } else {
            a.image == b.image
        }
}
