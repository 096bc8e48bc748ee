//! `/var/lib/dpkg/diversions` (`dpkg-divert(1)`): a file of one package put
//! aside for another's.

use super::DpkgError;
use super::database::{ADMIN_DIR, MAX_FILE_BYTES};
use crate::Root;
use std::collections::BTreeMap;

/// Three lines each: the path, where it is diverted to, and the package that
/// diverts it (`:` for the administrator).
#[derive(Debug, Default)]
pub(super) struct Diversions {
    /// By the path that packages name.
    from: BTreeMap<String, (String, String)>,
    /// By the place on the disk.
    to: BTreeMap<String, String>,
}

/// Whose file may lie at a place on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup<'d> {
    /// Whoever lists that path.
    Plain,
    /// Only the diverting package's; none when the administrator diverts.
    OnlyOf(&'d str),
    /// What packages other than the diverting one list under another path.
    Moved { listed: &'d str, not_of: &'d str },
}

impl Diversions {
    pub(super) fn read(root: &Root) -> Result<Self, DpkgError> {
        let text = root.read_text(&format!("{ADMIN_DIR}/diversions"), MAX_FILE_BYTES)?;
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, DpkgError> {
        let mut all = Self::default();
        let mut lines = text.lines();
        let mut line = 1_usize;
        while let Some(path) = lines.next() {
            let (Some(to), Some(package)) = (lines.next(), lines.next()) else {
                return Err(DpkgError::Diversions { line });
            };
            if !path.starts_with('/') || !to.starts_with('/') || package.is_empty() {
                return Err(DpkgError::Diversions { line });
            }
            all.from.insert(path.to_owned(), (to.to_owned(), package.to_owned()));
            all.to.insert(to.to_owned(), path.to_owned());
            line = line.saturating_add(3);
        }
        Ok(all)
    }

    /// `aliases` are the names of one place on the disk.
    pub(super) fn lookup<'d>(&'d self, aliases: &[String]) -> Lookup<'d> {
        for place in aliases {
            if let Some((_, package)) = self.from.get(place) {
                return Lookup::OnlyOf(package);
            }
            if let Some(listed) = self.to.get(place) {
                let package = self.from.get(listed).map_or("", |(_, package)| package.as_str());
                return Lookup::Moved { listed, not_of: package };
            }
        }
        Lookup::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diverted_path_belongs_to_the_diverting_package_only() -> Result<(), DpkgError> {
        let all = Diversions::parse("/usr/bin/a\n/usr/bin/a.real\nother\n/usr/bin/b\n/usr/bin/b.distrib\n:\n")?;
        let lookup = |path: &str| all.lookup(&[path.to_owned()]);
        assert_eq!(lookup("/usr/bin/a"), Lookup::OnlyOf("other"));
        assert_eq!(lookup("/usr/bin/a.real"), Lookup::Moved { listed: "/usr/bin/a", not_of: "other" });
        assert_eq!(lookup("/usr/bin/b"), Lookup::OnlyOf(":"));
        assert_eq!(lookup("/usr/bin/c"), Lookup::Plain);
        Ok(())
    }

    #[test]
    fn cut_off_diversions_are_an_error() {
        assert!(matches!(Diversions::parse("/a\n/b\nc\n/d\n"), Err(DpkgError::Diversions { line: 4 })));
        assert!(matches!(Diversions::parse("a\n/b\nc\n"), Err(DpkgError::Diversions { line: 1 })));
    }
}
