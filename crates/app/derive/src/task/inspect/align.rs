//! Aligns two listings: the longest common subsequence, within a bound.

use super::listing::Line;
use salve_protocol::{AssemblyRow, RowKind};

/// Cells of the table that aligning may take (two bytes each); past it the
/// differing middle is shown side by side as it stands.
const MAX_CELLS: usize = 16 << 20;

pub(super) struct Aligned {
    pub(super) rows: Vec<AssemblyRow>,
    /// Whether equal instructions were looked for everywhere.
    pub(super) in_order: bool,
}

pub(super) fn rows(old: Vec<Line>, new: Vec<Line>) -> Aligned {
    let common = |(a, b): &(&Line, &Line)| a.key == b.key;
    let head = old.iter().zip(&new).take_while(common).count();
    let shorter = old.len().min(new.len()).saturating_sub(head);
    let tail = old.iter().rev().zip(new.iter().rev()).take(shorter).take_while(common).count();
    let keys = |lines: &[Line]| -> Vec<String> {
        let end = lines.len().saturating_sub(tail);
        lines.get(head..end).unwrap_or_default().iter().map(|line| line.key.clone()).collect()
    };
    let (old_keys, new_keys) = (keys(&old), keys(&new));
    let matches = common_subsequence(&old_keys, &new_keys);
    let in_order = matches.is_some();
    let matches = matches.unwrap_or_default();

    let mut rows = Rows { old: old.into_iter(), new: new.into_iter(), laid: Vec::new() };
    rows.same(head);
    let (mut old_at, mut new_at) = (0_usize, 0_usize);
    for (old_match, new_match) in matches.into_iter().chain([(old_keys.len(), new_keys.len())]) {
        rows.differ(old_match.saturating_sub(old_at), new_match.saturating_sub(new_at));
        if old_match < old_keys.len() {
            rows.same(1);
        }
        (old_at, new_at) = (old_match.saturating_add(1), new_match.saturating_add(1));
    }
    rows.same(tail);
    Aligned { rows: rows.laid, in_order }
}

/// Takes both listings apart, front to back.
struct Rows {
    old: std::vec::IntoIter<Line>,
    new: std::vec::IntoIter<Line>,
    laid: Vec<AssemblyRow>,
}

impl Rows {
    fn same(&mut self, count: usize) {
        for _ in 0..count {
            self.push(RowKind::Same, true, true);
        }
    }

    /// A stretch without anything in common: side by side as far as both go.
    fn differ(&mut self, old: usize, new: usize) {
        for index in 0..old.max(new) {
            let kind = match (index < old, index < new) {
                (true, true) => RowKind::Changed,
                (true, false) => RowKind::Removed,
                (false, _) => RowKind::Added,
            };
            self.push(kind, index < old, index < new);
        }
    }

    fn push(&mut self, kind: RowKind, from_old: bool, from_new: bool) {
        let old = if from_old { self.old.next() } else { None };
        let new = if from_new { self.new.next() } else { None };
        self.laid.push(AssemblyRow { kind, old: old.map(|line| line.shown), new: new.map(|line| line.shown) });
    }
}

/// Index pairs of a longest common subsequence, ascending; `None` past the bound.
fn common_subsequence(old: &[String], new: &[String]) -> Option<Vec<(usize, usize)>> {
    let width = new.len().checked_add(1)?;
    let cells = old.len().checked_add(1)?.checked_mul(width)?;
    if cells > MAX_CELLS || old.len().min(new.len()) > usize::from(u16::MAX) {
        return None;
    }
    // lengths[i * width + j]: of the common subsequence of old[i..] and new[j..].
    let mut lengths = vec![0_u16; cells];
    let at = |lengths: &[u16], i: usize, j: usize| -> u16 {
        i.checked_mul(width).and_then(|row| lengths.get(row.checked_add(j)?)).copied().unwrap_or(0)
    };
    for (i, old_key) in old.iter().enumerate().rev() {
        for (j, new_key) in new.iter().enumerate().rev() {
            let (below, right) = (i.saturating_add(1), j.saturating_add(1));
            let length = if old_key == new_key {
                at(&lengths, below, right).saturating_add(1)
            } else {
                at(&lengths, below, j).max(at(&lengths, i, right))
            };
            *lengths.get_mut(i.checked_mul(width)?.checked_add(j)?)? = length;
        }
    }
    let (mut i, mut j, mut pairs) = (0_usize, 0_usize, Vec::new());
    while let (Some(old_key), Some(new_key)) = (old.get(i), new.get(j)) {
        let (below, right) = (i.saturating_add(1), j.saturating_add(1));
        if old_key == new_key {
            pairs.push((i, j));
            (i, j) = (below, right);
        } else if at(&lengths, below, j) >= at(&lengths, i, right) {
            i = below;
        } else {
            j = right;
        }
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_elf::Va;
    use salve_protocol::AssemblyLine;

    fn lines(keys: &str) -> Vec<Line> {
        let line = |key: char| Line {
            shown: AssemblyLine { va: Va::new(0), bytes: String::new(), text: key.to_string() },
            key: key.to_string(),
        };
        keys.chars().map(line).collect()
    }

    /// One character a row: `=` same, `|` changed, `<` removed, `>` added.
    fn marks(old: &str, new: &str) -> String {
        let aligned = rows(lines(old), lines(new));
        let text = |side: fn(&AssemblyRow) -> &Option<AssemblyLine>| -> String {
            aligned.rows.iter().filter_map(|row| side(row).as_ref()).map(|line| line.text.as_str()).collect()
        };
        assert_eq!((text(|r| &r.old), text(|r| &r.new)), (old.to_owned(), new.to_owned()), "every line, in order");
        aligned
            .rows
            .iter()
            .map(|row| match row.kind {
                RowKind::Same => '=',
                RowKind::Changed => '|',
                RowKind::Removed => '<',
                RowKind::Added => '>',
            })
            .collect()
    }

    #[test]
    fn equal_lines_meet_and_every_line_is_shown_once() {
        assert_eq!(marks("abcd", "abcd"), "====");
        assert_eq!(marks("abcd", "abXcd"), "==>==");
        assert_eq!(marks("abcd", "acd"), "=<==");
        assert_eq!(marks("abcd", "aXcd"), "=|==");
        assert_eq!(marks("", "ab"), ">>");
        assert_eq!(marks("ab", ""), "<<");
        assert_eq!(marks("xaybz", "paqb"), "|=|=<");
        assert_eq!(marks("aaa", "aa"), "==<");
    }

    #[test]
    fn what_is_too_long_to_align_is_shown_all_the_same() {
        let (old, new) = ("ab".repeat(4000), "ba".repeat(4000));
        let aligned = rows(lines(&format!("h{old}")), lines(&format!("h{new}t")));
        assert!(!aligned.in_order);
        assert_eq!(aligned.rows.len(), 8002);
        assert_eq!(aligned.rows[0].kind, RowKind::Same);
    }
}
