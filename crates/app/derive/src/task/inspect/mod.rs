//! Old and new disassembly of one function, for a reader's eyes.

mod align;
mod images;
mod listing;
mod patch;

use super::Work;
use listing::Line;
use salve_protocol::{AssemblyView, Failure, InspectSides, Response};

/// Instructions shown of one side; a longer function is cut off and says so.
const MAX_LINES: usize = 20_000;

pub(crate) fn run(
    work: &Work<'_>,
    function: &str,
    image: Option<&str>,
    sides: &InspectSides,
) -> Result<Response, Failure> {
    let view = match sides {
        InspectSides::Images { old, new } => images::view(work, function, image, old, new)?,
        InspectSides::Patch { patch, old } => patch::view(work, function, image, *patch, old.as_ref())?,
    };
    Ok(Response::Assembly(view))
}

/// Lays two listings side by side.
fn view(image: &str, function: &str, old: Vec<Line>, new: Vec<Line>, mut notes: Vec<String>) -> AssemblyView {
    let mut cut = |mut lines: Vec<Line>, side: &str| {
        if lines.len() > MAX_LINES {
            notes.push(format!("the {side} side has {} instructions; the first {MAX_LINES} are shown", lines.len()));
            lines.truncate(MAX_LINES);
        }
        lines
    };
    let (old, new) = (cut(old, "old"), cut(new, "new"));
    let aligned = align::rows(old, new);
    if !aligned.in_order {
        notes.push("the two sides differ in too much to be aligned".to_owned());
    }
    AssemblyView { image: image.to_owned(), function: function.to_owned(), rows: aligned.rows, notes }
}
