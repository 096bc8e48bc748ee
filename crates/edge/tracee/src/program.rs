//! Tables of system calls that a borrowed thread makes by itself.
//!
//! A program is straight: each call has a result that is wanted, and a place to go on
//! at where another one comes. So it can take back what it did before it ends, and
//! does so whether or not anybody watches.

use crate::remote::Sys;
use crate::stub::ROW_WORDS;
use salve_elf::RuntimeAddr;

/// An argument that may be known only when the call before has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptor {
    Is(i32),
    /// The target keeps it there.
    At(RuntimeAddr),
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Else {
    End,
    /// As if nothing was.
    Next,
    Row(usize),
    /// In another table.
    At(RuntimeAddr),
}

/// One call. `descriptor` is its first argument if `arguments` have a zero there, and
/// its fifth if `fifth` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sys: Sys,
    pub(crate) arguments: [u64; 6],
    pub(crate) first: Option<Descriptor>,
    pub(crate) fifth: Option<Descriptor>,
    pub(crate) wants: u64,
    pub(crate) otherwise: Else,
}

impl Row {
    /// A call that wants zero, and whose other results are looked at by nobody but us.
    pub(crate) fn new(sys: Sys, arguments: [u64; 6]) -> Self {
        Self { sys, arguments, first: None, fifth: None, wants: 0, otherwise: Else::End }
    }

    /// With a first argument that may not be known yet.
    pub(crate) fn of(self, descriptor: Descriptor) -> Self {
        Self { first: Some(descriptor), ..self }
    }

    /// The arguments as a filter will see them, with a likely number for what is not known.
    pub(crate) fn likely_arguments(&self) -> [u64; 6] {
        let likely = |descriptor: Option<Descriptor>, value: u64| match descriptor {
            None => value,
            Some(Descriptor::Is(number)) => u64::from(number.cast_unsigned()),
            Some(Descriptor::At(_)) => 3,
        };
        let [first, second, third, fourth, fifth, sixth] = self.arguments;
        [likely(self.first, first), second, third, fourth, likely(self.fifth, fifth), sixth]
    }
}

/// Calls in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) rows: Vec<Row>,
}

const ROW_BYTES: u64 = 80;
const _: () = assert!(ROW_BYTES == 8 * ROW_WORDS as u64);

impl Program {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Length in bytes of the table that [`Self::table`] makes.
    pub(crate) fn len_bytes(rows: usize) -> u64 {
        // Two literals for each row at most, and the end.
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        rows.saturating_mul(ROW_BYTES.saturating_add(8)).saturating_add(16)
    }

    /// The table, to lie at `at`.
    pub(crate) fn table(&self, at: RuntimeAddr) -> Vec<u8> {
        let row_at =
            |index: usize| at.raw().wrapping_add(u64::try_from(index).unwrap_or(u64::MAX).wrapping_mul(ROW_BYTES));
        let end = row_at(self.rows.len());
        // Behind the end, which is zero and serves as one: 32-bit words.
        let mut literals: Vec<u32> = Vec::new();
        let mut literal = |value: u32| {
            literals.push(value);
            let index = u64::try_from(literals.len()).unwrap_or(0).wrapping_sub(1);
            end.wrapping_add(8).wrapping_add(index.wrapping_mul(4))
        };
        let mut words: Vec<u64> = Vec::with_capacity(self.rows.len().saturating_mul(ROW_WORDS));
        for (index, row) in self.rows.iter().enumerate() {
            let [first, second, third, fourth, fifth, sixth] = row.arguments;
            let number = row.sys.0.cast_unsigned().wrapping_add(1);
            let (first_at, first) = match row.first {
                None => (end, first),
                Some(Descriptor::Is(number)) => (end, u64::from(number.cast_unsigned())),
                Some(Descriptor::At(at)) => (at.raw(), 0),
            };
            let fifth_at = match row.fifth {
                None => literal(u32::try_from(fifth & 0xffff_ffff).unwrap_or(0)),
                Some(Descriptor::Is(number)) => literal(number.cast_unsigned()),
                Some(Descriptor::At(at)) => at.raw(),
            };
            let otherwise = match row.otherwise {
                Else::End => end,
                Else::Next => row_at(index.saturating_add(1)),
                Else::At(at) => at.raw(),
                Else::Row(index) => row_at(index.min(self.rows.len())),
            };
            let wants = row.wants.wrapping_neg();
            words.extend([number, first_at, first, second, third, fourth, fifth_at, sixth, wants, otherwise]);
        }
        words.push(0);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(literals.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    /// Which row lies at `address`, if the table lies at `at`.
    pub(crate) fn row_at(&self, at: RuntimeAddr, address: u64) -> Option<usize> {
        let index = usize::try_from(address.wrapping_sub(at.raw()).checked_div(ROW_BYTES)?).ok()?;
        (index < self.rows.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{CLOSE, MMAP};

    fn words(bytes: &[u8]) -> Vec<u64> {
        bytes.chunks(8).map(|c| c.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))).collect()
    }

    #[test]
    fn a_table_says_number_arguments_wanted_result_and_where_else_to_go() {
        let mut program = Program::default();
        let at = RuntimeAddr::new(0x1000);
        let map = Row::new(MMAP, [0x5000, 4096, 1, 2, u64::MAX, 0]);
        program.push(Row { wants: 0x5000, otherwise: Else::Row(1), ..map });
        program.push(Row::new(CLOSE, [0; 6]).of(Descriptor::At(RuntimeAddr::new(0x40))));
        let bytes = program.table(at);
        assert!(bytes.len() as u64 <= Program::len_bytes(2));
        let words = words(&bytes);
        let end = 0x1000 + 160;
        assert_eq!(words[0..3], [10, end, 0x5000]);
        assert_eq!(words[6..10], [end + 8, 0, 0x5000_u64.wrapping_neg(), 0x1000 + 80]);
        assert_eq!(words[10..13], [4, 0x40, 0]);
        assert_eq!((words[19], words[20]), (end, 0));
        assert_eq!(words[21] & 0xffff_ffff, 0xffff_ffff);
        assert_eq!(program.row_at(at, 0x1000 + 80), Some(1));
        assert_eq!(program.row_at(at, end), None);
    }
}
