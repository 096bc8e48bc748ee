//! Addresses that cannot be mixed up.
//!
//! A [`Va`] is what a file states, a [`FileOffset`] is where its bytes are, a
//! [`RuntimeAddr`] is where they are in one process, and a [`LoadBias`] is the
//! evidence that leads from the first to the third. There is no `From<u64>`:
//! making an address from a number is spelled out, and converting one kind
//! into another needs the value that justifies it.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            pub const fn raw(self) -> u64 {
                self.0
            }

            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Moves by a signed number of bytes, modulo 2^64 as the processor does.
            #[must_use]
            pub const fn wrapping_offset(self, bytes: i64) -> Self {
                Self(self.0.wrapping_add_signed(bytes))
            }

            /// Signed distance in bytes from `origin` to `self`, modulo 2^64.
            pub const fn wrapping_distance_from(self, origin: Self) -> i64 {
                self.0.wrapping_sub(origin.0).cast_signed()
            }

            /// The start of the page of `page_bytes` (a power of two) that holds this address.
            #[must_use]
            pub const fn page_floor(self, page_bytes: u64) -> Self {
                Self(self.0 & !page_bytes.wrapping_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A virtual address as an ELF file states it (`p_vaddr`, `sh_addr`, `st_value`).
    Va
}
address! {
    /// An offset in bytes from the start of a file.
    FileOffset
}
address! {
    /// An address in one running process.
    RuntimeAddr
}

/// What the loader added to every [`Va`] of an image in one process
/// (gABI, "Base Address"); zero for `ET_EXEC`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadBias(u64);

impl LoadBias {
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The bias that makes `at` the place of `va`.
    pub const fn between(va: Va, at: RuntimeAddr) -> Self {
        Self(at.raw().wrapping_sub(va.raw()))
    }

    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl Va {
    /// Where this address of the file is in the process whose bias is given.
    pub const fn in_process(self, bias: LoadBias) -> RuntimeAddr {
        RuntimeAddr::new(self.raw().wrapping_add(bias.raw()))
    }
}

impl RuntimeAddr {
    /// Which address of the file is mapped here.
    pub const fn in_file(self, bias: LoadBias) -> Va {
        Va::new(self.raw().wrapping_sub(bias.raw()))
    }
}

/// A half-open range of file addresses, `start..end`, never inverted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(Va, Va)", into = "(Va, Va)")]
pub struct VaRange {
    start: Va,
    end: Va,
}

/// `end` lies before `start`.
#[derive(Debug, thiserror::Error)]
#[error("inverted address range {start}..{end}")]
pub struct InvertedRange {
    pub start: Va,
    pub end: Va,
}

impl TryFrom<(Va, Va)> for VaRange {
    type Error = InvertedRange;

    fn try_from((start, end): (Va, Va)) -> Result<Self, InvertedRange> {
        if end < start { Err(InvertedRange { start, end }) } else { Ok(Self { start, end }) }
    }
}

impl From<VaRange> for (Va, Va) {
    fn from(range: VaRange) -> Self {
        (range.start, range.end)
    }
}

impl VaRange {
    /// `None` when `start + len_bytes` leaves the address space.
    pub const fn new(start: Va, len_bytes: u64) -> Option<Self> {
        match start.checked_add(len_bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    pub const fn start(self) -> Va {
        self.start
    }

    pub const fn end(self) -> Va {
        self.end
    }

    pub const fn len_bytes(self) -> u64 {
        self.end.raw().wrapping_sub(self.start.raw())
    }

    pub const fn is_empty(self) -> bool {
        self.end.raw() == self.start.raw()
    }

    pub const fn contains(self, va: Va) -> bool {
        self.start.raw() <= va.raw() && va.raw() < self.end.raw()
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.start.raw() < other.end.raw() && other.start.raw() < self.end.raw()
    }
}

impl fmt::Display for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
