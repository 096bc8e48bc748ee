//! The outer archive: `ar(5)` as `deb(5)` uses it. Common format only; long
//! names and symbol tables have no place in a package.

use super::unpack::Compression;
use super::{DebError, Limits};
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// What went wrong below the decompressor, which only knows that reading failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Truncated,
    TooLarge { what: &'static str, limit: u64 },
}

/// Bytes that went by, and the first fault, seen from above and below the decompressor.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) packed_bytes: Cell<u64>,
    pub(super) fault: Cell<Option<Fault>>,
    pub(super) source_failed: Cell<bool>,
}

impl Meter {
    /// The typed error behind an I/O error from somewhere in the stack of readers.
    pub(super) fn explain(&self, member: &str, source: io::Error) -> DebError {
        match self.fault.get() {
            Some(Fault::Truncated) => DebError::Truncated { what: member.to_owned() },
            Some(Fault::TooLarge { what, limit }) => DebError::TooLarge { what, limit },
            None if self.source_failed.get() => DebError::Read { source },
            None => DebError::Damaged { member: member.to_owned(), source },
        }
    }
}

/// The members of an archive, one after the other.
pub(super) struct Archive<R> {
    source: Source<R>,
    index: usize,
    /// Bytes of the current member, and of its padding, that nobody read yet.
    unread: u64,
    padding: u64,
}

/// The package's bytes, counted and limited.
struct Source<R> {
    inner: R,
    limit: u64,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let so_far = self.meter.packed_bytes.get();
        let read = loop {
            match self.inner.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.inspect_err(|_| self.meter.source_failed.set(true))?,
            }
        };
        let now = so_far.saturating_add(read as u64);
        self.meter.packed_bytes.set(now);
        if now > self.limit {
            self.meter.fault.set(Some(Fault::TooLarge { what: "package", limit: self.limit }));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(read)
    }
}

impl<R: Read> Archive<R> {
    /// Checks the magic and `debian-binary`, which has to come first.
    pub(super) fn open(inner: R, limits: &Limits) -> Result<Self, DebError> {
        let source = Source { inner, limit: limits.max_package_bytes, meter: Rc::default() };
        let mut archive = Self { source, index: 0, unread: 0, padding: 0 };
        let mut magic = [0; MAGIC.len()];
        let have = archive.fill(&mut magic, "magic")?;
        if have < MAGIC.len() && !magic.is_empty() && MAGIC.starts_with(magic.get(..have).unwrap_or(&[])) && have > 0 {
            return Err(DebError::Truncated { what: "magic".to_owned() });
        }
        if &magic != MAGIC {
            return Err(DebError::NotADeb);
        }
        let mut first = archive.next()?.ok_or(DebError::Truncated { what: "first header".to_owned() })?;
        if first.name != "debian-binary" {
            return Err(DebError::NotADeb);
        }
        let mut version = String::new();
        let read = (&mut first).take(64).read_to_string(&mut version);
        read.map_err(|error| first.explain(error))?;
        // Minor versions are compatible, and more lines may follow (deb(5)).
        let line = version.lines().next().unwrap_or_default();
        let minor = line.strip_prefix("2.").is_some_and(|minor| !minor.is_empty());
        if minor { Ok(archive) } else { Err(DebError::UnknownFormat { found: line.to_owned() }) }
    }

    /// The next member whose name starts like `stem`. Only members whose names
    /// start with an underscore may stand before it (`deb(5)`).
    pub(super) fn find(&mut self, stem: &'static str) -> Result<Packed<'_, R>, DebError> {
        loop {
            let name = self.header()?.ok_or(DebError::Missing { what: stem })?;
            if name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                return Ok(Packed { archive: self, name });
            }
            if !name.starts_with('_') {
                return Err(DebError::Missing { what: stem });
            }
        }
    }

    fn next(&mut self) -> Result<Option<Packed<'_, R>>, DebError> {
        let name = self.header()?;
        Ok(name.map(|name| Packed { archive: self, name }))
    }

    /// Skips what is left of the current member and reads the next header.
    fn header(&mut self) -> Result<Option<String>, DebError> {
        self.skip()?;
        let mut header = [0; HEADER_BYTES];
        let have = self.fill(&mut header, "archive header")?;
        if have == 0 {
            return Ok(None);
        }
        if have < HEADER_BYTES {
            return Err(DebError::Truncated { what: "archive header".to_owned() });
        }
        let malformed = DebError::ArHeader { index: self.index };
        let (Some(name), Some(size), Some(end)) = (header.get(..16), header.get(48..58), header.get(58..60)) else {
            return Err(malformed);
        };
        let name = core::str::from_utf8(name).ok().map(|name| name.trim_end_matches(' '));
        let name = name.map(|name| name.strip_suffix('/').unwrap_or(name)).filter(|name| !name.is_empty());
        let (Some(name), Some(size), b"`\n") = (name, decimal(size), end) else { return Err(malformed) };
        self.index = self.index.saturating_add(1);
        self.unread = size;
        self.padding = size & 1;
        Ok(Some(name.to_owned()))
    }

    fn skip(&mut self) -> Result<(), DebError> {
        let left = self.unread.saturating_add(self.padding);
        // The last member's padding may be missing.
        let (needed, padding) = (self.unread, self.padding);
        let skipped = io::copy(&mut (&mut self.source).take(left), &mut io::sink());
        let skipped = skipped.map_err(|error| self.source.meter.explain("member", error))?;
        (self.unread, self.padding) = (0, 0);
        if skipped < needed || (skipped < left && padding == 0) {
            return Err(DebError::Truncated { what: "member".to_owned() });
        }
        Ok(())
    }

    fn fill(&mut self, into: &mut [u8], what: &'static str) -> Result<usize, DebError> {
        let mut have = 0_usize;
        while let Some(rest) = into.get_mut(have..).filter(|rest| !rest.is_empty()) {
            let read = self.source.read(rest);
            match read.map_err(|error| self.source.meter.explain(what, error))? {
                0 => break,
                read => have = have.saturating_add(read),
            }
        }
        Ok(have)
    }
}

/// Digits, then spaces.
fn decimal(field: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(field).ok()?.trim_end_matches(' ');
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The bytes of one member.
pub(super) struct Packed<'a, R> {
    archive: &'a mut Archive<R>,
    pub(super) name: String,
}

impl<R: Read> Packed<'_, R> {
    pub(super) fn meter(&self) -> Rc<Meter> {
        Rc::clone(&self.archive.source.meter)
    }

    pub(super) fn compression(&self) -> Result<Compression, DebError> {
        let suffix = self.name.split_once(".tar").map_or("", |(_, suffix)| suffix);
        Compression::by_suffix(suffix).ok_or_else(|| DebError::Compression { member: self.name.clone() })
    }

    fn explain(&self, error: io::Error) -> DebError {
        self.archive.source.meter.explain(&self.name, error)
    }
}

impl<R: Read> Read for Packed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.archive.unread).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..want).filter(|into| !into.is_empty()) else { return Ok(0) };
        let read = self.archive.source.read(into)?;
        if read == 0 {
            self.archive.source.meter.fault.set(Some(Fault::Truncated));
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.archive.unread = self.archive.unread.saturating_sub(read as u64);
        Ok(read)
    }
}
