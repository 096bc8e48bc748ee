//! What can be done with a field or a variable, in words that both versions share.

use iced_x86::Mnemonic;
use std::fmt;

/// Who is called, told alike in both images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Callee {
    Import(String),
    /// By its index in the old image.
    Own(usize),
    Unknown,
}

/// What is done with a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// A number is stored.
    Number(i64),
    /// Something times the one and plus the other number is stored.
    Value(i64, i64),
    /// What this call returned is stored: of the first arguments the number that each is, or
    /// that is added to something.
    Result(Callee, Vec<(bool, i64)>),
    /// It becomes itself and so much more.
    Adds(i64),
    /// It is changed, or what is stored was made, by this instruction and number.
    Made(Mnemonic, Option<u64>),
    /// It is written in another way.
    Written,
    /// What is stored has so many bytes.
    Stored(usize),
    /// So many bytes of it are read.
    Read(usize),
    /// It is compared with a number.
    Tested(u64),
    /// It is compared with something, which may be what this call returned.
    Compared(Callee),
    /// Its bits are taken or moved by this instruction and number.
    Worked(Mnemonic, Option<u64>),
    /// It is an address that is followed.
    Followed,
    /// It counts elements of so many bytes.
    Counts(i64),
    /// It, times the one and plus the other number, is this argument of that call.
    Handed(Callee, usize, i64, i64),
    /// What is stored is what this call returned, or calculated from it.
    From(Callee),
    /// Its address is this argument of that call, and numbers are others: which, and the number.
    Lent(Callee, usize, Vec<(usize, i64)>),
}

impl Use {
    /// Whether somebody else may find something else there than before.
    pub(crate) fn leaves_something(&self) -> bool {
        match self {
            Self::Number(_)
            | Self::Value(..)
            | Self::Result(..)
            | Self::Adds(_)
            | Self::Made(..)
            | Self::Written
            | Self::Stored(_)
            | Self::From(_)
            | Self::Lent(..) => true,
            Self::Read(_)
            | Self::Tested(_)
            | Self::Compared(_)
            | Self::Worked(..)
            | Self::Followed
            | Self::Counts(_)
            | Self::Handed(..) => false,
        }
    }

    /// Whether it depends on what somebody else left there.
    pub(crate) fn finds_something(&self) -> bool {
        match self {
            Self::Lent(Callee::Import(name), argument, _) => !ONLY_WRITTEN.contains(&(name.as_str(), *argument)),
            Self::Adds(_) | Self::Made(..) | Self::Lent(..) => true,
            _ => !self.leaves_something(),
        }
    }

    /// Whether it tells which of several states the value is, or makes one of another.
    pub(crate) fn tells_a_state(&self) -> bool {
        matches!(self, Self::Tested(_) | Self::Made(..) | Self::Worked(..))
    }

    /// Whether it says by itself in which form the value is.
    pub(crate) fn tells_the_form(&self) -> bool {
        match self {
            Self::Made(..) | Self::Worked(..) | Self::Adds(_) | Self::Counts(_) => true,
            Self::Value(factor, more) => (*factor, *more) != (1, 0),
            _ => false,
        }
    }
}

/// Imports that write where an argument points, and do not read what was there.
const ONLY_WRITTEN: [(&str, usize); 30] = [
    ("__fgets_chk", 0),
    ("__memcpy_chk", 0),
    ("__memmove_chk", 0),
    ("__memset_chk", 0),
    ("__pread_chk", 1),
    ("__read_chk", 1),
    ("__recv_chk", 1),
    ("__snprintf_chk", 0),
    ("__sprintf_chk", 0),
    ("__stpcpy_chk", 0),
    ("__strcpy_chk", 0),
    ("__strncpy_chk", 0),
    ("__vsnprintf_chk", 0),
    ("__vsprintf_chk", 0),
    ("clock_gettime", 1),
    ("fgets", 0),
    ("memcpy", 0),
    ("memmove", 0),
    ("memset", 0),
    ("pread", 1),
    ("read", 1),
    ("recv", 1),
    ("snprintf", 0),
    ("sprintf", 0),
    ("stpcpy", 0),
    ("strcpy", 0),
    ("strlcpy", 0),
    ("strncpy", 0),
    ("vsnprintf", 0),
    ("vsprintf", 0),
];

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Import(name) => f.write_str(name),
            Self::Own(_) => f.write_str("a function"),
            Self::Unknown => f.write_str("somebody"),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |number: &Option<u64>| number.map(|n| format!(" by {n:#x}")).unwrap_or_default();
        match self {
            Self::Number(number) => write!(f, "stores {number:#x}"),
            Self::Value(1, 0) | Self::Written => f.write_str("stores something"),
            Self::Value(factor, 0) => write!(f, "stores something × {factor}"),
            Self::Value(factor, more) => write!(f, "stores something × {factor} + {more}"),
            Self::Result(callee, given) => {
                let given: Vec<String> =
                    given.iter().map(|(whole, n)| format!("{}{n:#x}", if *whole { "" } else { "…+" })).collect();
                write!(f, "stores what {callee}({}) returns", given.join(", "))
            }
            Self::Adds(number) => write!(f, "adds {number}"),
            Self::Made(mnemonic, number) => write!(f, "stores what {mnemonic:?}{} makes", by(number)),
            Self::Stored(bytes) => write!(f, "stores {bytes} bytes"),
            Self::Read(bytes) => write!(f, "reads {bytes} bytes"),
            Self::Tested(number) => write!(f, "compares it with {number:#x}"),
            Self::Compared(Callee::Unknown) => f.write_str("compares it"),
            Self::Compared(callee) => write!(f, "compares it with what {callee} returns"),
            Self::From(callee) => write!(f, "stores what is made of what {callee} returns"),
            Self::Worked(mnemonic, number) => write!(f, "uses its bits ({mnemonic:?}{})", by(number)),
            Self::Followed => f.write_str("follows it as an address"),
            Self::Counts(bytes) => write!(f, "counts {bytes} bytes by it"),
            Self::Handed(callee, argument, ..) => {
                write!(f, "hands it to {callee} (argument {})", argument.saturating_add(1))
            }
            Self::Lent(callee, argument, numbers) => {
                write!(f, "hands its address to {callee} (argument {})", argument.saturating_add(1))?;
                numbers
                    .iter()
                    .try_for_each(|(at, number)| write!(f, ", argument {} is {number:#x}", at.saturating_add(1)))
            }
        }
    }
}
