//! Build stamps: parts of a text that change because it was built again.

use core::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// A line number behind the name of a source file.
    Line,
    /// The package's own version, or a date beside it.
    Version,
    /// The version text of a library's headers.
    LibraryVersion,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "source line",
            Self::Version => "version of the package",
            Self::LibraryVersion => "version of a library's headers",
        })
    }
}

/// What may differ between the texts of two builds.
pub(crate) struct Stamps {
    /// Spellings of the old and the new version, longest first.
    versions: Vec<(String, String)>,
}

impl Stamps {
    pub(crate) fn new(versions: Option<&(String, String)>) -> Self {
        let mut spellings = Vec::new();
        if let Some((old, new)) = versions {
            let bare = |v: &str| v.split_once(':').map_or(v, |(_, rest)| rest).to_owned();
            let upstream = |v: &str| v.rsplit_once('-').map_or(v, |(up, _)| up).to_owned();
            let revision = |v: &str| v.rsplit_once('-').map_or("", |(_, r)| r).to_owned();
            let (old, new) = (bare(old), bare(new));
            for (a, b) in
                [(old.clone(), new.clone()), (upstream(&old), upstream(&new)), (revision(&old), revision(&new))]
            {
                if a != b && a.len() >= 3 && b.len() >= 3 {
                    spellings.push((a, b));
                }
            }
        }
        Self { versions: spellings }
    }

    /// Whether a text has the new version in it and not the old one.
    pub(crate) fn names_the_new(&self, text: &str) -> bool {
        self.versions.iter().any(|(old, new)| text.contains(new.as_str()) && !text.contains(old.as_str()))
    }

    /// What kind of stamp the two texts differ in, if in nothing else.
    pub(crate) fn difference(&self, old: &str, new: &str) -> Option<Stamp> {
        if old == new {
            return None;
        }
        if names_a_source_line(old) && names_a_source_line(new) && without_lines(old) == without_lines(new) {
            return Some(Stamp::Line);
        }
        for (a, b) in &self.versions {
            if old.contains(a.as_str()) && without_dates(&old.replace(a.as_str(), b)) == without_dates(new) {
                return Some(Stamp::Version);
            }
        }
        if !self.versions.is_empty() && is_date(old) && is_date(new) {
            return Some(Stamp::Version);
        }
        (old.contains("OpenSSL ") && without_openssl(old) == without_openssl(new)).then_some(Stamp::LibraryVersion)
    }
}

const SUFFIXES: &[&str] = &["c", "h", "cc", "cpp", "cxx", "hpp", "hh", "y", "l", "S", "rs", "inc", "ipp"];

/// `…name.c:123…`
pub(crate) fn names_a_source_line(text: &str) -> bool {
    without_lines(text).contains('\u{1}')
}

/// The text with every number behind `name.c:` replaced by a mark.
pub fn without_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find(':') {
        let (head, tail) = rest.split_at(colon);
        out.push_str(head);
        out.push(':');
        let after = tail.strip_prefix(':').unwrap_or(tail);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let file = head.rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | '[')).next().unwrap_or("");
        let source = file.rsplit_once('.').is_some_and(|(stem, suffix)| !stem.is_empty() && SUFFIXES.contains(&suffix));
        rest = if source && digits > 0 {
            out.push('\u{1}');
            after.get(digits..).unwrap_or("")
        } else {
            after
        };
    }
    out.push_str(rest);
    out
}

fn is_date(text: &str) -> bool {
    without_dates(text) == "\u{2}"
}

/// The text with `YYYY/MM/DD` and `YYYY-MM-DD` replaced by a mark.
fn without_dates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let candidate = rest.as_bytes().get(..10).filter(|d| {
            d.iter().enumerate().all(|(i, b)| match i {
                4 | 7 => matches!(b, b'/' | b'-'),
                _ => b.is_ascii_digit(),
            })
        });
        if candidate.is_some() {
            out.push('\u{2}');
            rest = rest.get(10..).unwrap_or("");
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        }
    }
    out
}

/// The text with `OpenSSL 3.0.17 1 Jul 2025` (`OPENSSL_VERSION_TEXT`) replaced by a mark.
fn without_openssl(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("OpenSSL ") {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        let words: Vec<&str> = tail.split(' ').take(5).collect();
        let version = words.get(1).is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.'));
        let day = words.get(2).is_some_and(|w| (1..=2).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_digit()));
        let month = words.get(3).is_some_and(|w| {
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].contains(w)
        });
        let year = words.get(4).is_some_and(|w| w.bytes().take(4).filter(u8::is_ascii_digit).count() == 4);
        let taken = if version && day && month && year {
            let before_year: usize = words.iter().take(4).map(|w| w.len().saturating_add(1)).sum();
            out.push('\u{3}');
            before_year.saturating_add(4)
        } else {
            out.push_str("OpenSSL ");
            8
        };
        rest = tail.get(taken..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{Stamp, Stamps};

    fn haproxy() -> Stamps {
        Stamps::new(Some(&("2.6.12-1+deb12u3".to_owned(), "2.6.12-1+deb12u4".to_owned())))
    }

    #[test]
    fn a_line_number_behind_a_source_file_is_a_stamp() {
        assert_eq!(haproxy().difference("src/mux_h2.c:6587", "src/mux_h2.c:6593"), Some(Stamp::Line));
        let (a, b) = ("\nbug \"!sl\" matched at src/a.c:1\n", "\nbug \"!sl\" matched at src/a.c:22\n");
        assert_eq!(haproxy().difference(a, b), Some(Stamp::Line));
    }

    #[test]
    fn a_number_behind_anything_else_is_not() {
        assert_eq!(haproxy().difference("127.0.0.1:80", "127.0.0.1:81"), None);
        assert_eq!(haproxy().difference("src/a.c:1", "src/b.c:1"), None);
        assert_eq!(haproxy().difference("retries 3", "retries 4"), None);
        assert_eq!(haproxy().difference("src/a.c:1 x", "src/a.c:2 y"), None);
    }

    #[test]
    fn only_the_packages_own_version_is_a_stamp() {
        assert_eq!(haproxy().difference("2.6.12-1+deb12u3", "2.6.12-1+deb12u4"), Some(Stamp::Version));
        assert_eq!(
            haproxy().difference(
                " version 2.6.12-1+deb12u3, released 2025/10/03",
                " version 2.6.12-1+deb12u4, released 2026/10/17"
            ),
            Some(Stamp::Version)
        );
        assert_eq!(haproxy().difference("TLSv1.1", "TLSv1.2"), None);
        assert_eq!(Stamps::new(None).difference("2.6.12-1+deb12u3", "2.6.12-1+deb12u4"), None);
    }

    #[test]
    fn the_headers_of_openssl_name_their_version_and_date() {
        let (a, b) = ("Built with OpenSSL 3.0.17 1 Jul 2025\nx", "Built with OpenSSL 3.0.22 25 Aug 2026\nx");
        assert_eq!(haproxy().difference(a, b), Some(Stamp::LibraryVersion));
        assert_eq!(haproxy().difference("OpenSSL support on", "OpenSSL support off"), None);
    }
}
