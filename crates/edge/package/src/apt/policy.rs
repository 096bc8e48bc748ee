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
}

impl Policy {
    /// Whether the candidate is newer than what is installed.
    pub fn is_upgradable(&self) -> bool {
        matches!((&self.installed, &self.candidate), (Some(installed), Some(candidate)) if candidate > installed)
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
/// ```
fn parse(output: &str) -> Result<Vec<Policy>, AptError> {
    let mut all: Vec<Policy> = Vec::new();
    for line in output.lines() {
        let bad = || AptError::Output { what: "policy", line: line.to_owned() };
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            all.push(Policy { name: name.to_owned(), installed: None, candidate: None });
        } else if let Some(text) = line.strip_prefix("  Installed: ") {
            all.last_mut().ok_or_else(bad)?.installed = version(text).map_err(|_| bad())?;
        } else if let Some(text) = line.strip_prefix("  Candidate: ") {
            all.last_mut().ok_or_else(bad)?.candidate = version(text).map_err(|_| bad())?;
        }
    }
    Ok(all)
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
