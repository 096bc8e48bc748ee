//! Which image of the old side became which of the new side.
//!
//! Names are tried from the surest to the weakest: the path; the path with
//! `/usr` merged; the path with the package's own version taken out; the soname
//! and the file name with the version taken out (bind9's libraries carry the
//! version in both). A name pairs two images only where it is unique on both
//! sides; where it is not, every image it names is ambiguous, and an ambiguous
//! image is never paired by a weaker name.

use std::collections::BTreeMap;

/// What is known of one image when it has to be paired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub path: &'a str,
    pub soname: Option<&'a str>,
}

/// Indices into the two sides; each image of each side is in exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    Pair {
        old: usize,
        new: usize,
    },
    OldOnly(usize),
    NewOnly(usize),
    /// The same name stands for several images.
    Ambiguous {
        name: String,
        old: Vec<usize>,
        new: Vec<usize>,
    },
    /// The same place, but another library lies there now.
    SonameChanged {
        old: usize,
        new: usize,
    },
}

/// Version strings that may be part of names, most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    texts: Vec<String>,
}

impl Versions {
    /// From `[epoch:]upstream[-revision]` (Debian Policy §5.6.12): names carry
    /// the version without its epoch, or the upstream part alone.
    pub(crate) fn of(version: Option<&str>) -> Self {
        let Some(version) = version else { return Self::default() };
        let plain = version.split_once(':').map_or(version, |(_, rest)| rest);
        let upstream = plain.rsplit_once('-').map_or(plain, |(upstream, _)| upstream);
        let mut texts: Vec<String> = vec![plain.to_owned(), upstream.to_owned()];
        // Short ones ("3", "10") stand in names for other reasons.
        texts.retain(|text| text.contains('.'));
        texts.dedup();
        Self { texts }
    }

    fn taken_out(&self, name: &str) -> String {
        self.texts.iter().fold(name.to_owned(), |name, text| name.replace(text.as_str(), "{version}"))
    }
}

type NameOf = fn(&Candidate<'_>, &Versions) -> Option<String>;

const NAMES: &[NameOf] = &[
    |c, _| Some(c.path.to_owned()),
    |c, _| Some(merged(c.path).to_owned()),
    |c, v| Some(v.taken_out(merged(c.path))),
    |c, v| c.soname.map(|soname| bare(&v.taken_out(soname))),
    |c, v| c.soname.is_none().then(|| bare(&v.taken_out(file_name(c.path)))),
];

pub(crate) fn pair(old: &[Candidate<'_>], new: &[Candidate<'_>], versions: (&Versions, &Versions)) -> Vec<Pairing> {
    let mut pairings = Vec::new();
    let mut old_left: Vec<usize> = (0..old.len()).collect();
    let mut new_left: Vec<usize> = (0..new.len()).collect();
    for name_of in NAMES {
        let mut named: BTreeMap<String, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (index, name) in names(old, &old_left, *name_of, versions.0) {
            named.entry(name).or_default().0.push(index);
        }
        for (index, name) in names(new, &new_left, *name_of, versions.1) {
            named.entry(name).or_default().1.push(index);
        }
        for (name, (olds, news)) in named {
            let pairing = match (olds.as_slice(), news.as_slice()) {
                ([], _) | (_, []) => continue,
                ([old_index], [new_index]) => judged(old, new, *old_index, *new_index, versions),
                _ => Pairing::Ambiguous { name, old: olds.clone(), new: news.clone() },
            };
            old_left.retain(|index| !olds.contains(index));
            new_left.retain(|index| !news.contains(index));
            pairings.push(pairing);
        }
    }
    pairings.extend(old_left.into_iter().map(Pairing::OldOnly));
    pairings.extend(new_left.into_iter().map(Pairing::NewOnly));
    pairings
}

fn names(
    side: &[Candidate<'_>],
    left: &[usize],
    name_of: NameOf,
    versions: &Versions,
) -> impl Iterator<Item = (usize, String)> {
    left.iter().filter_map(move |index| Some((*index, name_of(side.get(*index)?, versions)?)))
}

fn judged(
    old: &[Candidate<'_>],
    new: &[Candidate<'_>],
    old_index: usize,
    new_index: usize,
    versions: (&Versions, &Versions),
) -> Pairing {
    let soname = |side: &[Candidate<'_>], index: usize, versions: &Versions| {
        side.get(index).and_then(|c| c.soname).map(|soname| bare(&versions.taken_out(soname)))
    };
    match (soname(old, old_index, versions.0), soname(new, new_index, versions.1)) {
        (Some(was), Some(is)) if was != is => Pairing::SonameChanged { old: old_index, new: new_index },
        _ => Pairing::Pair { old: old_index, new: new_index },
    }
}

/// `/usr/lib/x` and `/lib/x` are one file on a system whose `/usr` is merged.
fn merged(path: &str) -> &str {
    let moved = ["/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libx32/"];
    if moved.iter().any(|directory| path.starts_with(directory)) { path.get(4..).unwrap_or(path) } else { path }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A library's name without a dotted version between its stem and `.so`:
/// `libisc-9.18.49-1~deb12u1-Debian.so` → `libisc.so`. What follows `.so` is
/// the ABI and stays.
fn bare(name: &str) -> String {
    let Some((stem, abi)) = name.split_once(".so") else { return name.to_owned() };
    let dashes = stem.match_indices('-').map(|(at, _)| at);
    let versioned = dashes.filter_map(|at| Some((at, stem.get(at.checked_add(1)?..)?))).find(|(_, rest)| {
        let numbers = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        numbers.len() < rest.len() && numbers.starts_with('.') || rest.starts_with("{version}")
    });
    match versioned.and_then(|(at, _)| stem.get(..at)) {
        Some(stem) => format!("{stem}.so{abi}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &'static str) -> Candidate<'static> {
        Candidate { path, soname: None }
    }

    fn library(path: &'static str, soname: &'static str) -> Candidate<'static> {
        Candidate { path, soname: Some(soname) }
    }

    fn unversioned(old: &[Candidate<'_>], new: &[Candidate<'_>]) -> Vec<Pairing> {
        pair(old, new, (&Versions::default(), &Versions::default()))
    }

    #[test]
    fn a_path_pairs_before_any_other_name() {
        let old = [library("/usr/lib/liba.so.1", "liba.so.1"), library("/opt/liba.so.1", "liba.so.1")];
        let new = [library("/opt/liba.so.1", "liba.so.1"), library("/usr/lib/liba.so.1", "liba.so.1")];
        let expected = vec![Pairing::Pair { old: 1, new: 0 }, Pairing::Pair { old: 0, new: 1 }];
        assert_eq!(unversioned(&old, &new), expected);
    }

    #[test]
    fn a_merged_usr_is_the_same_place() {
        let old = [file("/usr/lib/x86_64-linux-gnu/libexpat.so.1.8.10")];
        let new = [file("/lib/x86_64-linux-gnu/libexpat.so.1.8.10")];
        assert_eq!(unversioned(&old, &new), vec![Pairing::Pair { old: 0, new: 0 }]);
        // But a system that has both has two files.
        let new = [file("/lib/a.so"), file("/usr/lib/a.so")];
        assert_eq!(
            unversioned(&new, &[file("/lib/a.so")]),
            vec![Pairing::Pair { old: 0, new: 0 }, Pairing::OldOnly(1)]
        );
    }

    #[test]
    fn libraries_that_carry_the_version_in_their_names_are_paired() {
        let old = [
            library("/usr/lib/libisc-9.18.49-1~deb12u1-Debian.so", "libisc-9.18.49-1~deb12u1-Debian.so"),
            library("/usr/lib/libdns-9.18.49-1~deb12u1-Debian.so", "libdns-9.18.49-1~deb12u1-Debian.so"),
        ];
        let new = [
            library("/usr/lib/libdns-9.18.49-1~deb12u3-Debian.so", "libdns-9.18.49-1~deb12u3-Debian.so"),
            library("/usr/lib/libisc-9.18.49-1~deb12u3-Debian.so", "libisc-9.18.49-1~deb12u3-Debian.so"),
        ];
        let mut expected = vec![Pairing::Pair { old: 0, new: 1 }, Pairing::Pair { old: 1, new: 0 }];
        let versions = (Versions::of(Some("1:9.18.49-1~deb12u1")), Versions::of(Some("1:9.18.49-1~deb12u3")));
        let mut seen = pair(&old, &new, (&versions.0, &versions.1));
        seen.sort_by_key(|p| format!("{p:?}"));
        expected.sort_by_key(|p| format!("{p:?}"));
        assert_eq!(seen, expected);
        let mut seen = unversioned(&old, &new);
        seen.sort_by_key(|p| format!("{p:?}"));
        assert_eq!(seen, expected, "the sonames alone say it too");
    }

    #[test]
    fn a_name_that_stands_for_several_images_pairs_none_of_them() {
        let old = [library("/a/libx-1.2.so", "libx-1.2.so"), library("/b/libx-1.3.so", "libx-1.3.so")];
        let new = [library("/a/libx-1.4.so", "libx-1.4.so")];
        let name = "libx.so".to_owned();
        assert_eq!(unversioned(&old, &new), vec![Pairing::Ambiguous { name, old: vec![0, 1], new: vec![0] }]);
    }

    #[test]
    fn another_abi_is_another_library() {
        let old = [library("/usr/lib/libfoo.so.1", "libfoo.so.1")];
        let new = [library("/usr/lib/libfoo.so.2", "libfoo.so.2")];
        assert_eq!(unversioned(&old, &new), vec![Pairing::OldOnly(0), Pairing::NewOnly(0)]);
        let new = [library("/usr/lib/libfoo.so.1", "libfoo.so.2")];
        assert_eq!(unversioned(&old, &new), vec![Pairing::SonameChanged { old: 0, new: 0 }]);
    }

    #[test]
    fn a_package_whose_version_is_a_directory_keeps_its_files_apart() {
        let old = [file("/usr/lib/thing/1.2.3/a.so"), file("/usr/lib/thing/1.2.3/b.so")];
        let new = [file("/usr/lib/thing/1.2.4/b.so"), file("/usr/lib/thing/1.2.4/a.so")];
        let versions = (Versions::of(Some("1.2.3-1")), Versions::of(Some("1.2.4-1")));
        let seen = pair(&old, &new, (&versions.0, &versions.1));
        assert!(seen.contains(&Pairing::Pair { old: 0, new: 1 }) && seen.contains(&Pairing::Pair { old: 1, new: 0 }));
    }

    #[test]
    fn every_image_is_accounted_for_once() {
        let old = [file("/a"), file("/b"), library("/x/liby-1.0.so", "liby-1.0.so")];
        let new = [
            file("/b"),
            file("/c"),
            library("/x/liby-1.1.so", "liby-1.1.so"),
            library("/z/liby-1.1.so", "liby-1.1.so"),
        ];
        let (mut olds, mut news) = (Vec::new(), Vec::new());
        for pairing in unversioned(&old, &new) {
            match pairing {
                Pairing::Pair { old, new } | Pairing::SonameChanged { old, new } => {
                    olds.push(old);
                    news.push(new);
                }
                Pairing::OldOnly(index) => olds.push(index),
                Pairing::NewOnly(index) => news.push(index),
                Pairing::Ambiguous { old, new, .. } => {
                    olds.extend(old);
                    news.extend(new);
                }
            }
        }
        olds.sort_unstable();
        news.sort_unstable();
        assert_eq!((olds, news), (vec![0, 1, 2], vec![0, 1, 2, 3]));
    }
}
