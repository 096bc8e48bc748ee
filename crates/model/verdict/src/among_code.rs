//! Tables among code that are the same only because nobody executes them.

use crate::carry::Carried;
use crate::registry;
use salve_elf::Function;
use salve_match::ImageDiff;
use salve_patch::{Evidence, Reason};

/// A person looks at it; and nothing is called unchanged for that reason alone.
pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    let evidence = diff.read_only.iter().filter_map(|(o, n)| {
        let (f, g) = (diff.old.image.functions().get(*o)?, diff.new.image.functions().get(*n)?);
        Some(Evidence {
            function: Some(Function::display_name(g)),
            old_va: Some(f.range.start()),
            new_va: Some(g.range.start()),
            seen: format!(
                "{} equal bytes that nothing describes and nothing branches into: wherever their address is taken, it was followed to reads",
                g.range.len_bytes()
            ),
        })
    });
    let evidence: Vec<Evidence> = evidence.collect();
    let code = if carried.is_empty() { registry::UNPROVEN_REFERENCE } else { registry::DATA_AMONG_CODE };
    (!evidence.is_empty()).then(|| code.because("tables among the code are taken for data", evidence))
}
