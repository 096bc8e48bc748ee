//! What is counted, and the table of it.

use std::fmt;

/// Something that a target, or the one who looks at it, may notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Dead,
    Hung,
    WrongAnswer,
    LastingMixture,
    WrongFloat,
    LostSignal,
    /// A call that the kernel repeats when a stop has no signal ended with `EINTR`.
    Interrupted,
    OtherError,
    /// The next command did not make it whole, or could not.
    HalfApplied,
    LeakedDescriptor,
    LeakedMapping,
    ChangedText,
    /// Salve was not killed and ended otherwise than with one of its exit codes.
    SalveCrashed,
    /// Salve said that it was done, and it was not.
    SalveWrong,
    /// Killed between two processes of a group: each is whole, and they are of two versions
    /// until the next command (decision 0017). Not an error; after that command it is one.
    Apart,
    /// `epoll_wait`, `sigtimedwait` and `semtimedop`, which the kernel itself ends at any
    /// stop: seen only where Salve dies before it could mend that. Not an error.
    InterruptedByTheKernel,
}

impl Seen {
    pub const ALL: [Self; 16] = [
        Self::Dead,
        Self::Hung,
        Self::WrongAnswer,
        Self::LastingMixture,
        Self::WrongFloat,
        Self::LostSignal,
        Self::Interrupted,
        Self::OtherError,
        Self::HalfApplied,
        Self::LeakedDescriptor,
        Self::LeakedMapping,
        Self::ChangedText,
        Self::SalveCrashed,
        Self::SalveWrong,
        Self::Apart,
        Self::InterruptedByTheKernel,
    ];

    const fn words(self) -> &'static str {
        match self {
            Self::Dead => "targets dead",
            Self::Hung => "targets hung",
            Self::WrongAnswer => "wrong answers",
            Self::LastingMixture => "lasting mixtures of old and new functions",
            Self::WrongFloat => "wrong floating point results",
            Self::LostSignal => "lost signals",
            Self::Interrupted => "spurious EINTR",
            Self::OtherError => "other errors of calls",
            Self::HalfApplied => "half applied after the next command",
            Self::LeakedDescriptor => "descriptors left after it",
            Self::LeakedMapping => "mappings left after a revert",
            Self::ChangedText => "text changed after a revert",
            Self::SalveCrashed => "Salve itself crashed",
            Self::SalveWrong => "Salve said done and it was not",
            Self::Apart => "groups of two versions until the next command (decision 0017)",
            Self::InterruptedByTheKernel => "EINTR of calls that any stop ends (not ours to prevent)",
        }
    }

    /// Whether it is what the kernel does, or what a decision names as the price of a death.
    const fn is_known(self) -> bool {
        matches!(self, Self::Apart | Self::InterruptedByTheKernel)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// How often each was seen, in so many rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rounds: u64,
    seen: [u64; Seen::ALL.len()],
}

impl Tally {
    pub fn note(&mut self, seen: Seen, times: u64) {
        self.seen[seen.index()] += times;
    }

    pub const fn count(&self, seen: Seen) -> u64 {
        self.seen[seen.index()]
    }

    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        Seen::ALL.iter().all(|seen| seen.is_known() || self.count(*seen) == 0)
    }

    pub fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        for seen in Seen::ALL {
            self.note(seen, other.count(seen));
        }
    }

    /// A Markdown table with a column for each part.
    pub fn table(parts: &[(String, Self)]) -> String {
        let row = |head: &str, cell: &dyn Fn(&Self) -> u64| {
            let cells: Vec<String> = parts.iter().map(|(_, tally)| cell(tally).to_string()).collect();
            format!("| {head} | {} |\n", cells.join(" | "))
        };
        let heads: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(parts.len()));
        text.push_str(&row("rounds", &|tally| tally.rounds));
        for seen in Seen::ALL {
            text.push_str(&row(seen.words(), &|tally| tally.count(seen)));
        }
        text
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}  rounds", self.rounds)?;
        Seen::ALL.iter().try_for_each(|seen| writeln!(f, "{:>8}  {}", self.count(*seen), seen.words()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_seen_is_no_longer_clean_but_for_what_is_known() {
        for seen in Seen::ALL {
            let mut tally = Tally::default();
            assert!(tally.is_clean());
            tally.note(seen, 1);
            let known = [Seen::Apart, Seen::InterruptedByTheKernel].contains(&seen);
            assert_eq!(tally.is_clean(), known, "{seen:?}");
            assert_eq!(tally.count(seen), 1);
        }
    }

    #[test]
    fn a_table_has_a_row_for_each_and_a_column_for_each_part() {
        let mut tally = Tally { rounds: 7, ..Tally::default() };
        tally.note(Seen::Hung, 3);
        let table = Tally::table(&[("a".to_owned(), tally), ("b".to_owned(), Tally::default())]);
        assert!(table.starts_with("| | a | b |\n|---|---:|---:|\n| rounds | 7 | 0 |\n"), "{table}");
        assert!(table.contains("| targets hung | 3 | 0 |\n"), "{table}");
        assert_eq!(table.lines().count(), 3 + Seen::ALL.len());
    }
}
