//! Exceptions that may pass through new code, for which a running process has no unwind tables.

use crate::carry::Carried;
use crate::registry;
use salve_elf::Function;
use salve_match::{ImageDiff, Side};
use salve_patch::{Evidence, Reason};

pub(crate) fn reason(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Option<Reason> {
    const RUNTIME: &[&str] =
        &["__cxa_throw", "__cxa_rethrow", "__cxa_begin_catch", "__gxx_personality_v0", "_Unwind_Resume"];
    let throws = diff.new.image.symbols().iter().find(|s| !s.defined && RUNTIME.contains(&s.name));
    let handlers: Vec<Evidence> = carried
        .new_functions()
        .into_iter()
        .filter_map(|n| diff.new.image.functions().get(n))
        .filter(|f| f.has_lsda)
        .map(|f| Evidence {
            function: Some(f.display_name()),
            old_va: None,
            new_va: Some(f.range.start()),
            seen: "its FDE has a language-specific data area".to_owned(),
        })
        .collect();
    // A runtime that is linked in has no name to be known by: what catches by type tells.
    let catches = |side: &Side<'_, '_>| side.image.functions().iter().find(|f| f.catches).map(Function::display_name);
    let catcher = catches(&diff.old).or_else(|| catches(&diff.new));
    let summary = match (throws, catcher) {
        (Some(symbol), _) => format!("the image uses exceptions (it imports {})", symbol.name),
        (None, Some(function)) => format!("the image uses exceptions ({function} catches some by their types)"),
        (None, None) if handlers.is_empty() => return None,
        (None, None) => "replaced functions have exception handlers".to_owned(),
    };
    Some(registry::EXCEPTIONS.because(summary, handlers))
}
