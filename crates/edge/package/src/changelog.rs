//! Debian changelogs (`deb-changelog(5)`): which CVEs an update names.

use crate::Version;
use salve_patch::Cves;
use std::collections::BTreeSet;
use std::io::Read;

/// The longest of the archive has three.
const MAX_BYTES: usize = 32 << 20;

/// The CVE ids in the entries from `new` down to, not including, `old`.
///
/// [`Cves::Unknown`] when the changelog does not have an entry for both, or has
/// them the other way round. The order is the changelog's own: a stable
/// branch's history need not be sorted by version. What an entry means by an id
/// (fixed, not affected, reverted) is not judged: it *names* it.
pub fn cves_between(changelog: &str, old: &Version, new: &Version) -> Cves {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in changelog.lines() {
        if let Some(version) = entry_version(line) {
            if inside && is(version, old) {
                return Cves::Known { ids: found.into_iter().map(Id::into_text).collect() };
            }
            inside |= is(version, new);
        }
        if inside {
            found.extend(ids(line));
        }
    }
    Cves::Unknown
}

/// A changelog as packages ship it, gzipped; `None` for what is not one or is too large.
pub fn unpack(packed: impl Read) -> Option<String> {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_BYTES).ok()?.checked_add(1)?;
    let packed = std::io::BufReader::new(packed.take(limit));
    flate2::bufread::MultiGzDecoder::new(packed).take(limit).read_to_end(&mut text).ok()?;
    (text.len() <= MAX_BYTES).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// A rebuild has no entry of its own in the source's changelog.
fn is(entry: &str, version: &Version) -> bool {
    let Ok(entry) = Version::parse(entry) else { return false };
    entry == *version || Version::parse(version.without_rebuild()).is_ok_and(|source| entry == source)
}

/// The version in an entry's first line, `package (version) suites; urgency=…`.
fn entry_version(line: &str) -> Option<&str> {
    let (package, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let named = !package.is_empty() && package.bytes().all(plain);
    (named && rest.starts_with(' ') && rest.contains(';')).then_some(version)
}

/// Sorted by year and number, not as text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    year: u32,
    number: u64,
    digits: String,
}

impl Id {
    fn into_text(self) -> String {
        format!("CVE-{:04}-{}", self.year, self.digits)
    }
}

/// `CVE-` and four digits, `-` and at least four (the CVE record format).
fn ids(line: &str) -> impl Iterator<Item = Id> + '_ {
    let upper = line.to_ascii_uppercase();
    let starts: Vec<usize> = upper.match_indices("CVE-").map(|(at, _)| at).collect();
    starts.into_iter().filter_map(move |at| {
        let rest = upper.get(at.checked_add(4)?..)?;
        let (year, rest) = rest.split_once('-')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest.get(..end)?;
        let plain = year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()) && (4..=19).contains(&digits.len());
        let id = Id { year: year.parse().ok()?, number: digits.parse().ok()?, digits: digits.to_owned() };
        plain.then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "\
small (1.0-1+deb12u3) bookworm-security; urgency=high

  * CVE-2026-10000: overflow (Closes: #1), cve-2026-9999.
  * Not CVE-26-1234, CVE-2026-12, nor CVE-2026-.

 -- A <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000

small (1.0-1+deb12u2) bookworm; urgency=medium

  * Fix (CVE-2025-0001), again CVE-2026-9999.

 -- A <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000

small (1.0-1) unstable; urgency=medium

  * Old CVE-2001-0001.
";

    fn between(old: &str, new: &str) -> Cves {
        match (Version::parse(old), Version::parse(new)) {
            (Ok(old), Ok(new)) => cves_between(CHANGELOG, &old, &new),
            other => unreachable!("{other:?}"),
        }
    }

    fn known(ids: &[&str]) -> Cves {
        Cves::Known { ids: ids.iter().map(|&id| id.to_owned()).collect() }
    }

    #[test]
    fn ids_of_the_entries_between_are_named_once_and_in_order() {
        let all = known(&["CVE-2025-0001", "CVE-2026-9999", "CVE-2026-10000"]);
        assert_eq!(between("1.0-1", "1.0-1+deb12u3"), all);
        assert_eq!(between("1.0-1", "1.0-1+deb12u2"), known(&["CVE-2025-0001", "CVE-2026-9999"]));
        assert_eq!(between("1.0-1+deb12u2", "1.0-1+deb12u3+b1"), known(&["CVE-2026-9999", "CVE-2026-10000"]));
    }

    #[test]
    fn a_packed_changelog_is_unpacked_and_what_is_none_is_not() -> std::io::Result<()> {
        use std::io::Write as _;
        let pack = |bytes: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(bytes)?;
            packed.finish()
        };
        let packed = pack(CHANGELOG.as_bytes())?;
        assert_eq!(unpack(packed.as_slice()).as_deref(), Some(CHANGELOG));
        assert_eq!(unpack(packed.get(..packed.len() / 2).unwrap_or_default()), None, "the half of it");
        assert_eq!(unpack(CHANGELOG.as_bytes()), None);
        assert_eq!(unpack(pack(&vec![b'x'; 40 << 20])?.as_slice()), None, "one that unpacks to too much");
        Ok(())
    }

    #[test]
    fn a_version_that_the_changelog_does_not_have_is_never_guessed_around() {
        assert_eq!(between("0.9-1", "1.0-1+deb12u3"), Cves::Unknown);
        assert_eq!(between("1.0-1+deb12u1", "1.0-1+deb12u3"), Cves::Unknown);
        assert_eq!(between("1.0-1", "1.0-1+deb12u4"), Cves::Unknown);
        assert_eq!(between("1.0-1+deb12u3", "1.0-1"), Cves::Unknown, "a downgrade");
    }
}
