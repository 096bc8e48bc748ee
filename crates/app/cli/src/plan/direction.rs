//! *Different* is not *older*. Which of two versions came first is proven from
//! package versions and history, or it is unknown and nothing is done.

use core::cmp::Ordering;

/// What is known about the version of the code that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// Its content is that of a file of this version: by the package
    /// database's checksums, or byte for byte from a package at hand.
    Version { version: String },
    /// The package was upgraded while the process ran; the code is from one of
    /// the versions that were installed since it started.
    OneOf { versions: Vec<String> },
    /// Nothing tells.
    Unknown { why: String },
}

/// Where an update leads, seen from the code that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Everything the process can be running is older.
    Forward {
        from: String,
        to: String,
    },
    /// The same version: another build of it, or the same code.
    Same {
        version: String,
    },
    /// Something that the process may be running is newer.
    Backward {
        from: String,
        to: String,
    },
    Unknown {
        why: String,
    },
}

/// Compares by `compare`, the package manager's own order of versions;
/// `None` from it (a version that is none) makes the direction unknown.
pub(crate) fn direction(
    running: &Running,
    to: Option<&str>,
    compare: impl Fn(&str, &str) -> Option<Ordering>,
) -> Direction {
    let Some(to) = to else {
        return Direction::Unknown { why: "the new version is not known".into() };
    };
    let candidates: &[String] = match running {
        Running::Unknown { why } => return Direction::Unknown { why: why.clone() },
        Running::Version { version } => std::slice::from_ref(version),
        Running::OneOf { versions } => versions,
    };
    if candidates.is_empty() {
        return Direction::Unknown {
            why: "no version is known to have been installed since the process started".into(),
        };
    }
    let mut same = None;
    for version in candidates {
        match compare(version, to) {
            None => {
                return Direction::Unknown { why: format!("versions {version} and {to} cannot be compared") };
            }
            Some(Ordering::Greater) => return Direction::Backward { from: version.clone(), to: to.to_owned() },
            Some(Ordering::Equal) => same = Some(version.clone()),
            Some(Ordering::Less) => {}
        }
    }
    match same {
        // One of several may be the same version: then what runs may be newer code of it.
        Some(version) if candidates.len() > 1 => {
            Direction::Unknown { why: format!("{version} was installed more than once since the process started") }
        }
        Some(version) => Direction::Same { version },
        None => Direction::Forward { from: candidates.join(" or "), to: to.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Single letters, in the alphabet's order; `?` is no version.
    fn compare(a: &str, b: &str) -> Option<Ordering> {
        if a == "?" || b == "?" { None } else { Some(a.cmp(b)) }
    }

    fn one_of(versions: &[&str]) -> Running {
        Running::OneOf { versions: versions.iter().map(|v| (*v).to_owned()).collect() }
    }

    #[test]
    fn only_what_is_proven_older_is_forward() {
        let version = |v: &str| Running::Version { version: v.to_owned() };
        let cases: Vec<(Running, Option<&str>, &str)> = vec![
            (version("a"), Some("b"), "forward"),
            (version("b"), Some("b"), "same"),
            (version("c"), Some("b"), "backward"),
            (version("?"), Some("b"), "unknown"),
            (version("a"), Some("?"), "unknown"),
            (version("a"), None, "unknown"),
            (one_of(&["a"]), Some("c"), "forward"),
            (one_of(&["a", "b"]), Some("c"), "forward"),
            // upgraded, downgraded, upgraded again: what runs may be newer
            (one_of(&["a", "d"]), Some("c"), "backward"),
            (one_of(&["d", "a"]), Some("c"), "backward"),
            (one_of(&["a", "c"]), Some("c"), "unknown"),
            (one_of(&[]), Some("c"), "unknown"),
            (Running::Unknown { why: "no owner".into() }, Some("c"), "unknown"),
        ];
        for (running, to, expected) in cases {
            let got = match direction(&running, to, compare) {
                Direction::Forward { .. } => "forward",
                Direction::Same { .. } => "same",
                Direction::Backward { .. } => "backward",
                Direction::Unknown { .. } => "unknown",
            };
            assert_eq!(got, expected, "{running:?} to {to:?}");
        }
    }
}
