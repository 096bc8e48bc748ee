//! What a revert may take away again.

use crate::callers::Callers;
use crate::carry::Carried;
use salve_code::ReferenceKind;
use salve_match::{ImageDiff, Place};
use salve_patch::RevertPolicy;

/// What of the payload could be remembered by the process.
pub(crate) fn policy(
    diff: &ImageDiff<'_, '_>,
    carried: &Carried,
    copies_tables: bool,
    callers: &Callers,
) -> RevertPolicy {
    if carried.added.iter().any(|n| callers.taken.contains(n)) {
        return RevertPolicy::Refuse;
    }
    let takes_data_address = carried.new_functions().into_iter().filter_map(|n| diff.new.code.get(n)).any(|code| {
        code.references
            .iter()
            .any(|r| r.kind == ReferenceKind::Address && matches!(diff.new.place(r.target), Place::Data { .. }))
    });
    if copies_tables || takes_data_address { RevertPolicy::KeepMapped } else { RevertPolicy::Unmap }
}
