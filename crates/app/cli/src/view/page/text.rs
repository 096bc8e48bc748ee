//! What comes from elsewhere, as text that is nothing but text; and counts, as bars.

use crate::event::ProcessRef;
use crate::problem::one_line;
use crate::view::{by_program, numbers};
use core::fmt::{self, Write as _};

/// Longest bar, in characters.
const BAR: u64 = 40;

/// Escaped, wherever it stands in the page.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in one_line(self.0).chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Programs and numbers, escaped.
pub(super) fn who(processes: &[&ProcessRef]) -> String {
    let one = |(program, pids): (&str, Vec<u32>)| format!("{}: {}", Text(program), Text(&numbers(&pids, true)));
    by_program(processes).into_iter().map(one).collect::<Vec<_>>().join("<br>")
}

/// At least one mark for what is not nothing.
pub(super) fn bar(mark: char, count: u64, most: u64) -> String {
    let length = count.saturating_mul(BAR).div_ceil(most.max(1)).min(BAR);
    core::iter::repeat_n(mark, usize::try_from(length).unwrap_or(0)).collect()
}
