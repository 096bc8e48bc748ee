//! Functions of the dynamic linker that ask which image they are called from.
//!
//! `dlsym(3)` and `dlopen(3)` look up the return address among the images that the linker
//! loaded: what `RTLD_NEXT` comes after, in whose scope `RTLD_DEFAULT` looks, whose run path
//! says where libraries are. A payload is none of them. Then the linker takes the main program
//! for the caller, except that nothing comes after an unknown one. `dladdr(3)`, which looks up
//! an address, and `backtrace(3)`, which goes through its callers' frames, find nothing there.

use crate::carry::Carried;
use crate::layout::import_at;
use crate::registry;
use salve_code::affine::{Form, Origin, forms};
use salve_code::{decode, decode_at};
use salve_elf::{Function, SectionRole, Va};
use salve_match::{ImageDiff, Side, text_at};
use salve_patch::{Evidence, Reason};

const SEARCHES: [&str; 2] = ["dlsym", "dlvsym"];
const OPENS: [&str; 2] = ["dlopen", "dlmopen"];
/// They look for an address among the images that the linker loaded, or for what it knows of the
/// frames of its caller.
const LOOKS: [&str; 7] = [
    "_Unwind_Backtrace",
    "_Unwind_FindEnclosingFunction",
    "_Unwind_Find_FDE",
    "_dl_find_object",
    "backtrace",
    "dladdr",
    "dladdr1",
];
/// `RTLD_DEFAULT` and `RTLD_NEXT` (`dlfcn.h`).
const DEFAULT: i64 = 0;
const NEXT: i64 = -1;

pub(crate) fn reasons(diff: &ImageDiff<'_, '_>, carried: &Carried) -> Vec<Reason> {
    let side = &diff.new;
    let (mut unknown, mut other) = (Vec::new(), Vec::new());
    for function in carried.new_functions().iter().filter_map(|index| side.image.functions().get(*index)) {
        let asking = |name: &&str| [&SEARCHES[..], &OPENS, &LOOKS].iter().any(|names| names.contains(name));
        let code = decode(side.image, function.range).into_iter().flatten();
        let calls: Vec<(Va, &str)> =
            code.filter_map(|i| Some((Va::new(i.ip()), import_at(side, &i).filter(asking)?))).collect();
        if calls.is_empty() {
            continue;
        }
        let forms = forms(side.image, function.range);
        for (at, name) in calls {
            let first = forms.calls.iter().find(|call| call.at == at).and_then(|call| match name {
                // Its first argument is a namespace.
                "dlmopen" => call.arguments.get(1),
                _ => call.arguments.first(),
            });
            match answers(side, name, first) {
                Answers::Alike => {}
                Answers::Nothing => unknown.push(seen(function, at, name, "RTLD_NEXT")),
                Answers::Otherwise(of) => other.push(seen(function, at, name, of)),
            }
        }
    }
    let summary = "replaced code asks for what comes after the image that it is in";
    let unknown = (!unknown.is_empty()).then(|| registry::CALLER_UNKNOWN.because(summary, unknown));
    let summary = "replaced code calls the dynamic linker, which would take the main program for the caller";
    let other = (!other.is_empty()).then(|| registry::CALLER_MISTAKEN.because(summary, other));
    unknown.into_iter().chain(other).collect()
}

/// What the linker makes of a call from no image.
enum Answers {
    /// The same as of one from the image itself.
    Alike,
    Nothing,
    Otherwise(&'static str),
}

fn answers(side: &Side<'_, '_>, name: &str, first: Option<&Form>) -> Answers {
    let is_program = side.image.section_named(".interp").is_some() && side.image.soname().is_none();
    if LOOKS.contains(&name) {
        let is_elsewhere = |form: &Form| match form.terms.as_slice() {
            [(Origin::Static(va), 1)] => {
                let at = Va::new(*va).wrapping_offset(form.constant);
                side.image.section_at(at).is_some_and(|s| s.role != SectionRole::ReadOnlyData)
            }
            _ => false,
        };
        let asks_for_another = name.starts_with("dladdr") && first.is_some_and(is_elsewhere);
        return if asks_for_another { Answers::Alike } else { Answers::Otherwise("what may be in no image") };
    }
    let number = first.filter(|form| form.terms.is_empty()).map(|form| form.constant);
    if OPENS.contains(&name) {
        // No path says where it is: the run path of the caller may.
        let is_path = first.and_then(|form| constant_text(side, form)).is_some_and(|text| text.starts_with(b"/"));
        let is_own = number == Some(0);
        return if is_program || is_path || is_own { Answers::Alike } else { Answers::Otherwise("a name") };
    }
    match number {
        Some(NEXT) => Answers::Nothing,
        Some(DEFAULT) if is_program => Answers::Alike,
        Some(DEFAULT) => Answers::Otherwise("RTLD_DEFAULT"),
        None if first.is_some_and(|form| is_opened(side, form)) => Answers::Alike,
        _ => Answers::Otherwise("a handle that may be RTLD_NEXT"),
    }
}

/// Whether it is what was opened just before.
fn is_opened(side: &Side<'_, '_>, form: &Form) -> bool {
    let [(Origin::Returned(call), 1)] = form.terms.as_slice() else { return false };
    let call = decode_at(side.image, Va::new(*call));
    call.is_some_and(|call| import_at(side, &call).is_some_and(|name| OPENS.contains(&name)))
}

fn constant_text<'a>(side: &Side<'_, 'a>, form: &Form) -> Option<&'a [u8]> {
    let [(Origin::Static(va), 1)] = form.terms.as_slice() else { return None };
    let va = Va::new(*va).wrapping_offset(form.constant);
    let constant = side.image.section_at(va).is_some_and(|section| section.role == SectionRole::ReadOnlyData);
    if constant { text_at(side, va, 1) } else { None }
}

fn seen(function: &Function, at: Va, name: &str, of: &str) -> Evidence {
    Evidence {
        function: Some(function.display_name()),
        old_va: None,
        new_va: Some(at),
        seen: format!("calls {name} with {of}"),
    }
}
