//! Constants that changed under code which did not.

use crate::carry::Carried;
use crate::registry;
use salve_elf::Function;
use salve_match::{ContentDifference, ImageDiff};
use salve_patch::{Evidence, Reason};

/// Equal code that refers to changed contents which are no text.
pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let new = carried.new_functions();
    let evidence: Vec<Evidence> = diff
        .changed
        .iter()
        .filter(|p| new.contains(&p.new))
        .flat_map(|p| p.sites.iter().map(move |s| (p, s)))
        .filter_map(|(pair, site)| match site.difference {
            ContentDifference::Bytes { old, new, offset } => Some(Evidence {
                function: diff.new.image.functions().get(pair.new).map(Function::display_name),
                old_va: Some(site.old_at),
                new_va: Some(site.new_at),
                seen: format!("refers to {new} (before {old}), which differs from byte {offset:#x} on"),
            }),
            ContentDifference::Text { .. } => None,
        })
        .collect();
    (!evidence.is_empty()).then(|| registry::READ_ONLY_DATA_CHANGED.because("constants or tables changed", evidence))
}
