//! `apt-cache policy`: what is installed and what apt would install.

use super::{Apt, AptError};
use crate::deb::is_package_name;
use crate::version::{NotAVersion, Version};

/// What apt says about one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// As apt calls it: `haproxy`, or `libc6:i386` for a foreign architecture.
    pub name: String,
    pub installed: Option<Version>,
    pub candidate: Option<Version>,
    /// Every version that apt knows of.
    pub versions: Vec<Listed>,
}

/// One version in apt's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub version: Version,
    /// The suites that have it, as `bookworm-security`; none where only dpkg does.
    pub suites: Vec<String>,
}

impl Policy {
    /// Whether the candidate is newer than what is installed.
    pub fn is_upgradable(&self) -> bool {
        matches!((&self.installed, &self.candidate), (Some(installed), Some(candidate)) if candidate > installed)
    }

    /// Whether a version that is newer than the installed one, up to the candidate, came through
    /// a suite for security updates: by the suite's name, as Debian and its derivatives give it
    /// (`bookworm-security`, `buster/updates`).
    pub fn brings_security(&self) -> bool {
        let (Some(installed), Some(candidate)) = (&self.installed, &self.candidate) else { return false };
        let newer = self.versions.iter().filter(|one| one.version > *installed && one.version <= *candidate);
        newer.flat_map(|one| &one.suites).any(|suite| suite.ends_with("-security") || suite.ends_with("/updates"))
    }

    /// Whether any archive's list has the package: without lists apt knows what dpkg does.
    pub fn is_listed(&self) -> bool {
        self.versions.iter().any(|one| !one.suites.is_empty())
    }
}

/// So many names fit on a command line with room to spare.
const NAMES_AT_ONCE: usize = 2000;

impl Apt {
    /// What apt says about packages, each `name` or `name:architecture`. Names
    /// that apt does not know are left out.
    pub fn policies<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<Policy>, AptError> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut all = Vec::new();
        for some in names.chunks(NAMES_AT_ONCE) {
            let mut args = vec!["policy", "--"];
            for name in some {
                args.push(checked(name)?);
            }
            all.extend(parse(&self.cache(&args)?)?);
        }
        Ok(all)
    }

    /// What apt says about one package.
    pub fn policy(&self, name: &str) -> Result<Policy, AptError> {
        self.policies([name])?.into_iter().next().ok_or_else(|| AptError::Unknown { name: name.to_owned() })
    }
}

/// A name can be neither an option, nor a pattern, nor another package's.
pub(super) fn checked(name: &str) -> Result<&str, AptError> {
    let (package, architecture) = name.split_once(':').unwrap_or((name, "any"));
    let plain = is_package_name(package) && is_package_name(architecture);
    if plain { Ok(name) } else { Err(AptError::Name { name: name.to_owned() }) }
}

/// ```text
/// haproxy:
///   Installed: (none)
///   Candidate: 2.6.12-1+deb12u4
///   Version table:
///      2.6.12-1+deb12u4 500
///         500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
///  *** 2.6.12-1+deb12u3 100
///         100 /var/lib/dpkg/status
/// ```
fn parse(output: &str) -> Result<Vec<Policy>, AptError> {
    let mut all: Vec<Policy> = Vec::new();
    for line in output.lines() {
        let bad = || AptError::Output { what: "policy", line: line.to_owned() };
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            all.push(Policy { name: name.to_owned(), installed: None, candidate: None, versions: Vec::new() });
        } else if let Some(text) = line.strip_prefix("  Installed: ") {
            all.last_mut().ok_or_else(bad)?.installed = version(text).map_err(|_| bad())?;
        } else if let Some(text) = line.strip_prefix("  Candidate: ") {
            all.last_mut().ok_or_else(bad)?.candidate = version(text).map_err(|_| bad())?;
        } else if let Some(package) = all.last_mut().filter(|_| line.starts_with("     ") || line.starts_with(" *** "))
        {
            listed(line, &mut package.versions);
        }
    }
    Ok(all)
}

/// A line of the table: a version, or below it a source that has it. Others (pins) say nothing here.
fn listed(line: &str, versions: &mut Vec<Listed>) {
    let words: Vec<&str> = line.trim_start_matches(" ***").split_ascii_whitespace().collect();
    let of_source = line.starts_with("        ");
    match words.as_slice() {
        &[text, _priority] if !of_source => {
            versions.extend(Version::parse(text).ok().map(|version| Listed { version, suites: Vec::new() }));
        }
        // `500 http://… bookworm-security/main amd64 Packages`: the component is the last part.
        &[_priority, _site, suite, _architecture, "Packages"] if of_source => {
            let suite = suite.rsplit_once('/').map_or(suite, |(suite, _component)| suite);
            if let Some(last) = versions.last_mut() {
                last.suites.push(suite.to_owned());
            }
        }
        _another => {}
    }
}

fn version(text: &str) -> Result<Option<Version>, NotAVersion> {
    if text == "(none)" { Ok(None) } else { Version::parse(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_is_read() -> Result<(), Box<dyn std::error::Error>> {
        let output = "haproxy:\n  Installed: 1.0-1\n  Candidate: 1.0-2\n  Version table:\n     1.0-2 500\n\
                      libc6:i386:\n  Installed: (none)\n  Candidate: 2.36-9\n  Version table:\n\
                      held:\n  Installed: 2.0\n  Candidate: 1.0\n";
        let all = parse(output)?;
        let shown: Vec<(&str, bool)> =
            all.iter().map(|policy| (policy.name.as_str(), policy.is_upgradable())).collect();
        assert_eq!(shown, [("haproxy", true), ("libc6:i386", false), ("held", false)]);
        assert_eq!(all.get(1).and_then(|policy| policy.candidate.clone()), Some(Version::parse("2.36-9")?));
        assert!(matches!(parse("a:\n  Installed: 1 2\n"), Err(AptError::Output { .. })));
        assert!(matches!(parse("  Installed: 1\n"), Err(AptError::Output { .. })));
        Ok(())
    }

    #[test]
    fn a_fix_is_security_if_it_or_one_on_the_way_came_from_there() -> Result<(), Box<dyn std::error::Error>> {
        let table = |between: &str, newest: &str| {
            format!(
                "libssl3:\n  Installed: 3.0.19-1\n  Candidate: 3.0.22-2\n  Version table:\n     3.0.23-1 100\n        \
                 100 http://deb.debian.org/debian-security sid-security/main amd64 Packages\n     3.0.22-2 500\n        \
                 500 http://deb.debian.org/debian {newest}/main amd64 Packages\n     3.0.20-1 990\n        \
                 990 http://deb.debian.org/debian {between}/main amd64 Packages\n *** 3.0.19-1 100\n        \
                 100 /var/lib/dpkg/status\n     3.0.17-1 500\n        \
                 500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages\n"
            )
        };
        let brings = |between: &str, newest: &str| -> Result<bool, Box<dyn std::error::Error>> {
            Ok(parse(&table(between, newest))?.first().is_some_and(Policy::brings_security))
        };
        assert!(brings("bookworm", "bookworm-security")? && brings("bookworm-security", "bookworm")?);
        assert!(brings("buster/updates", "buster")?);
        assert!(!brings("bookworm", "bookworm-updates")?, "older than the installed one, or beyond the candidate");
        let all = parse(&table("bookworm", "bookworm"))?;
        let package = all.first().ok_or("no package")?;
        let versions: Vec<&str> = package.versions.iter().map(|one| one.version.as_str()).collect();
        assert_eq!(versions, ["3.0.23-1", "3.0.22-2", "3.0.20-1", "3.0.19-1", "3.0.17-1"]);
        assert!(package.is_listed());
        let without_lists =
            "a:\n  Installed: 1\n  Candidate: 1\n  Version table:\n *** 1 100\n        100 /var/lib/dpkg/status\n";
        assert!(parse(without_lists)?.first().is_some_and(|package| !package.is_listed()));
        Ok(())
    }

    #[test]
    fn a_name_cannot_be_an_option_or_a_pattern() {
        for name in
            ["", "-o", "--config-file=/tmp/x", "a b", "lib*", "~ix", "?any", "x", "haproxy:", "haproxy:-o", "../x"]
        {
            assert!(matches!(checked(name), Err(AptError::Name { .. })), "{name}");
        }
        for name in ["haproxy", "libstdc++6", "libc6:i386", "0ad"] {
            assert!(checked(name).is_ok(), "{name}");
        }
    }
}
