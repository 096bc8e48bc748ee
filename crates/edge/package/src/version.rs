//! Debian versions and their order, as `deb-version(7)` defines them.

use core::cmp::Ordering;
use core::fmt;

/// `[epoch:]upstream[-revision]`. Equal means equal in order: `1.0` and `1.00-0` are.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    epoch: u32,
    /// Where the upstream part starts and ends in `text`.
    upstream: (usize, usize),
}

/// Why text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVersion {
    #[error("version is empty or has no upstream part")]
    Empty,
    #[error("epoch is no number up to 2147483647")]
    Epoch,
    #[error("revision is empty")]
    EmptyRevision,
    #[error("character {0:?} is not allowed in a version")]
    Character(char),
}

impl Version {
    /// As strict as dpkg, but for an upstream part that does not start with a
    /// digit, which it takes from old databases too.
    pub fn parse(text: &str) -> Result<Self, NotAVersion> {
        let (epoch, start) = match text.split_once(':') {
            Some((epoch, _)) => (parse_epoch(epoch)?, epoch.len().saturating_add(1)),
            None => (0, 0),
        };
        let rest = text.get(start..).unwrap_or("");
        let (upstream, revision) = match rest.rsplit_once('-') {
            Some((_, "")) => return Err(NotAVersion::EmptyRevision),
            Some((upstream, revision)) => (upstream, revision),
            None => (rest, ""),
        };
        if upstream.is_empty() {
            return Err(NotAVersion::Empty);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~');
        let wrong = upstream.chars().find(|&c| !plain(c) && !matches!(c, '-' | ':'));
        let wrong = wrong.or_else(|| revision.chars().find(|&c| !plain(c)));
        if let Some(wrong) = wrong {
            return Err(NotAVersion::Character(wrong));
        }
        Ok(Self { upstream: (start, start.saturating_add(upstream.len())), text: text.to_owned(), epoch })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn upstream(&self) -> &str {
        self.text.get(self.upstream.0..self.upstream.1).unwrap_or("")
    }

    /// Empty where there is none, which orders like `0`.
    pub fn revision(&self) -> &str {
        self.text.get(self.upstream.1..).unwrap_or("").strip_prefix('-').unwrap_or("")
    }

    /// The version of the source without the mark of a rebuild (`+b3`), as the
    /// changelog names it (Debian Developer's Reference §5.10.2.1).
    pub fn without_rebuild(&self) -> &str {
        match self.text.rsplit_once("+b") {
            Some((source, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => source,
            _ => &self.text,
        }
    }
}

/// Orders two versions; `None` when either is none.
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    Some(Version::parse(left).ok()?.cmp(&Version::parse(right).ok()?))
}

fn parse_epoch(text: &str) -> Result<u32, NotAVersion> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAVersion::Epoch);
    }
    let epoch: u32 = text.parse().map_err(|_| NotAVersion::Epoch)?;
    if i32::try_from(epoch).is_err() { Err(NotAVersion::Epoch) } else { Ok(epoch) }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream(), other.upstream()))
            .then_with(|| compare_part(self.revision(), other.revision()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Alternates between runs of non-digits, ordered by [`weight`], and runs of
/// digits, ordered as numbers of any length.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_word, right_word) = (take(&mut left, false), take(&mut right, false));
        let words = compare_words(left_word, right_word);
        let (left_number, right_number) = (take(&mut left, true), take(&mut right, true));
        let numbers = compare_numbers(left_number, right_number);
        let both = words.then(numbers);
        if both != Ordering::Equal {
            return both;
        }
    }
    Ordering::Equal
}

/// Takes the longest run of digits, or of anything else, off the front.
fn take<'t>(text: &mut &'t str, digits: bool) -> &'t str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    let (head, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    *text = rest;
    head
}

fn compare_words(left: &str, right: &str) -> Ordering {
    let longest = left.len().max(right.len());
    let (mut left, mut right) = (left.bytes(), right.bytes());
    (0..longest)
        .map(|_| weight(left.next()).cmp(&weight(right.next())))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Tilde before the end, the end before letters, letters before all else.
fn weight(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(letter),
        Some(other) => u16::from(other).saturating_add(256),
    }
}

fn compare_numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn the_order_is_that_of_dpkg() {
        for (left, right, order) in [
            ("1.0", "1.0", Equal),
            ("1.0", "1.0-0", Equal),
            ("1.0", "1.00", Equal),
            ("0:1.0-1", "1.0-1", Equal),
            ("1.0-1", "1.0-2", Less),
            ("1.9", "1.10", Less),
            ("1:0.1", "9.9", Greater),
            ("2:0", "10:0", Less),
            ("1.0~rc1", "1.0", Less),
            ("1.0~~", "1.0~", Less),
            ("1.0~~a", "1.0~", Less),
            ("1.0", "1.0a", Less),
            ("1.0a", "1.0+", Less),
            ("1.0-1~deb12u1", "1.0-1", Less),
            ("1.0-1+deb12u1", "1.0-1", Greater),
            ("2.6.12-1+deb12u3", "2.6.12-1+deb12u4", Less),
            ("2.6.12-1+deb12u10", "2.6.12-1+deb12u9", Greater),
            ("1:7.2+dfsg-7+deb12u18+b3", "1:7.2+dfsg-7+deb12u18", Greater),
            ("1.0-1-1", "1.0-1", Greater),
            ("3.0.17-1~deb12u2", "3.0.20-1~deb12u2", Less),
            ("99999999999999999999999999", "99999999999999999999999998", Greater),
            ("1.2.3", "1.2.3.0", Less),
            ("1.0a1", "1.0a", Greater),
        ] {
            assert_eq!(compare(left, right), Some(order), "{left} ? {right}");
            assert_eq!(compare(right, left), Some(order.reverse()), "{right} ? {left}");
        }
    }

    #[test]
    fn text_that_is_no_version_is_refused() {
        for (text, error) in [
            ("", NotAVersion::Empty),
            (":1", NotAVersion::Epoch),
            ("x:1", NotAVersion::Epoch),
            ("-1:1", NotAVersion::Epoch),
            ("+1:1", NotAVersion::Epoch),
            ("2147483648:1", NotAVersion::Epoch),
            ("1:", NotAVersion::Empty),
            ("-1", NotAVersion::Empty),
            ("1.0-", NotAVersion::EmptyRevision),
            ("1.0 ", NotAVersion::Character(' ')),
            ("1.0/2", NotAVersion::Character('/')),
            ("1.0-1:2", NotAVersion::Epoch),
            ("1:1.0-1:2", NotAVersion::Character(':')),
            ("1.0\u{e9}", NotAVersion::Character('\u{e9}')),
        ] {
            assert_eq!(Version::parse(text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn the_mark_of_a_rebuild_is_no_part_of_the_source_version() {
        let source = |text| Version::parse(text).map(|version| version.without_rebuild().to_owned());
        assert_eq!(source("1:7.2+dfsg-7+deb12u18+b3").as_deref(), Ok("1:7.2+dfsg-7+deb12u18"));
        assert_eq!(source("1.0-1+deb12u1").as_deref(), Ok("1.0-1+deb12u1"));
        assert_eq!(source("1.0+beta2").as_deref(), Ok("1.0+beta2"));
    }
}
