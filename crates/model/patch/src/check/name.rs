//! Every text of a patch file that is shown or filed under.

use super::Invalid;

/// Names are for people, symbol tables and log lines.
const MAX_NAME_BYTES: usize = 4096;

pub(super) fn name(what: &'static str, text: &str) -> Result<(), Invalid> {
    if is_name(text) { Ok(()) } else { Err(Invalid::Name { what }) }
}

/// No control characters: names reach terminals, logs and symbol tables.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}
