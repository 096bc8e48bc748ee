//! The difference of two lists of files.

use super::class::class;
use super::{Contents, Listed, What};
use salve_patch::{ChangeKind, ClassCount, FileChange, FileClass, MAX_NAMED, NotHealed, NotHealedGroup};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Top-level directories that lie in `/usr` on a merged system; a package may name either.
const MERGED: &[&str] = &["/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/"];

/// What the update from `old` to `new` changes besides ELF images. Where the old
/// list is missing nothing can be compared, and the new one is counted.
pub fn not_healed(old: Option<&Contents>, new: Option<&Contents>) -> NotHealed {
    match (old, new) {
        (Some(old), Some(new)) => NotHealed::Known { groups: groups(old, new) },
        (_, new) => NotHealed::Unknown { present: new.map(present).unwrap_or_default() },
    }
}

pub(super) fn merged(path: &str) -> Cow<'_, str> {
    if MERGED.iter().any(|top| path.starts_with(top)) { Cow::Owned(format!("/usr{path}")) } else { Cow::Borrowed(path) }
}

fn present(contents: &Contents) -> Vec<ClassCount> {
    let mut counts: BTreeMap<FileClass, u64> = BTreeMap::new();
    for (path, file) in contents.files.iter().filter(|(_, file)| file.what != What::Elf) {
        let count = counts.entry(class(&merged(path), file)).or_default();
        *count = count.saturating_add(1);
    }
    counts.into_iter().map(|(class, files)| ClassCount { class, files }).collect()
}

fn groups(old: &Contents, new: &Contents) -> Vec<NotHealedGroup> {
    let by_place = |contents: &'_ Contents| -> BTreeMap<String, Listed> {
        contents.files.iter().map(|(path, file)| (merged(path).into_owned(), file.clone())).collect()
    };
    let (old, new) = (by_place(old), by_place(new));
    let places: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut groups: BTreeMap<FileClass, NotHealedGroup> = BTreeMap::new();
    for path in places {
        let (before, after) = (old.get(path), new.get(path));
        let Some(change) = change(before, after) else { continue };
        // What it has become counts; a conffile that was given up is one still.
        let Some(file) = after.or(before) else { continue };
        let class = if before.is_some_and(|file| file.what == What::Conffile) {
            FileClass::Conffile
        } else {
            class(path, file)
        };
        let empty = || NotHealedGroup { class, files: 0, named: Vec::new() };
        let group = groups.entry(class).or_insert_with(empty);
        group.files = group.files.saturating_add(1);
        // A name that could fool a terminal is counted and not named.
        if group.named.len() < MAX_NAMED && path.len() <= 4096 && !path.chars().any(char::is_control) {
            group.named.push(FileChange { path: path.clone(), change });
        }
    }
    groups.into_values().collect()
}

fn change(before: Option<&Listed>, after: Option<&Listed>) -> Option<ChangeKind> {
    let is_elf = |file: Option<&Listed>| file.is_some_and(|file| file.what == What::Elf);
    // An image on either side is named with the images. A database does not tell
    // them from other files, and the package on the other side does.
    if is_elf(before) || is_elf(after) {
        return None;
    }
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), None) => Some(ChangeKind::Removed),
        (Some(before), Some(after)) => contents(before, after).or_else(|| permissions(before, after)),
    }
}

/// By the strongest checksum that both sides have.
fn contents(before: &Listed, after: &Listed) -> Option<ChangeKind> {
    let is_link = |file: &Listed| file.what == What::Link;
    if is_link(before) != is_link(after) {
        return Some(ChangeKind::Contents);
    }
    let same = match (before.sha256, after.sha256, before.md5, after.md5) {
        (Some(old), Some(new), ..) => old == new,
        (.., Some(old), Some(new)) => old == new,
        _nothing_to_compare => return Some(ChangeKind::Unknown),
    };
    (!same).then_some(ChangeKind::Contents)
}

fn permissions(before: &Listed, after: &Listed) -> Option<ChangeKind> {
    match (before.permissions, after.permissions) {
        (Some(old), Some(new)) if old != new => Some(ChangeKind::Permissions),
        _same_or_not_known => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::Sums;

    fn file(bytes: &[u8], mode: u32) -> Listed {
        let mut sums = Sums::default();
        sums.update(bytes);
        sums.listed(What::File, Some((mode, 0, 0)))
    }

    fn contents_of(files: &[(&str, Listed)]) -> Contents {
        let mut contents = Contents::default();
        for (path, listed) in files {
            contents.add(*path, listed.clone());
        }
        contents
    }

    fn named(list: &NotHealed) -> Vec<(FileClass, String, ChangeKind)> {
        let NotHealed::Known { groups } = list else { return Vec::new() };
        let all = groups.iter().flat_map(|group| group.named.iter().map(|file| (group.class, file)));
        all.map(|(class, file)| (class, file.path.clone(), file.change)).collect()
    }

    #[test]
    fn what_differs_is_named_and_what_does_not_is_not() {
        let mut old = contents_of(&[
            ("/etc/x.conf", file(b"a", 0o644)),
            ("/etc/gone.conf", file(b"a", 0o644)),
            ("/lib/systemd/system/x.service", file(b"a", 0o644)),
            ("/usr/share/x/same", file(b"a", 0o644)),
            ("/usr/share/x/mode", file(b"a", 0o4755)),
            ("/usr/lib/libx.so.1", Listed::link("libx.so.1.1")),
            ("/usr/sbin/x", file(b"\x7fELF old", 0o755)),
        ]);
        old.mark_conffiles(["/etc/x.conf", "/etc/gone.conf"]);
        let mut new = contents_of(&[
            ("/etc/x.conf", file(b"b", 0o644)),
            // moved to its place in the merged /usr, and changed
            ("/usr/lib/systemd/system/x.service", file(b"b", 0o644)),
            ("/usr/share/x/same", file(b"a", 0o644)),
            ("/usr/share/x/mode", file(b"a", 0o755)),
            ("/usr/lib/libx.so.1", Listed::link("libx.so.1.2")),
            ("/usr/sbin/x", Listed { what: What::Elf, ..file(b"\x7fELF new", 0o755) }),
            ("/usr/share/x/more", file(b"a", 0o644)),
            ("postinst", Listed::of_md5(What::MaintainerScript, Some([1; 16]), true)),
        ]);
        new.mark_conffiles(["/etc/x.conf"]);
        let expected = [
            (FileClass::Conffile, "/etc/gone.conf", ChangeKind::Removed),
            (FileClass::Conffile, "/etc/x.conf", ChangeKind::Contents),
            (FileClass::MaintainerScript, "postinst", ChangeKind::Added),
            (FileClass::ServiceUnit, "/usr/lib/systemd/system/x.service", ChangeKind::Contents),
            (FileClass::Link, "/usr/lib/libx.so.1", ChangeKind::Contents),
            (FileClass::Data, "/usr/share/x/mode", ChangeKind::Permissions),
            (FileClass::Data, "/usr/share/x/more", ChangeKind::Added),
        ]
        .map(|(class, path, change)| (class, path.to_owned(), change));
        assert_eq!(named(&not_healed(Some(&old), Some(&new))), expected);
    }

    #[test]
    fn a_database_without_a_checksum_is_no_proof_of_equality() {
        let old = contents_of(&[("/usr/share/x", Listed::of_md5(What::File, None, false))]);
        let new = contents_of(&[("/usr/share/x", file(b"a", 0o644))]);
        let expected = [(FileClass::Data, "/usr/share/x".to_owned(), ChangeKind::Unknown)];
        assert_eq!(named(&not_healed(Some(&old), Some(&new))), expected);
    }

    #[test]
    fn without_the_old_list_nothing_is_claimed() {
        let new =
            contents_of(&[("/usr/share/doc/x/copyright", file(b"a", 0o644)), ("/usr/share/x", file(b"a", 0o644))]);
        let count = |class| ClassCount { class, files: 1 };
        let present = vec![count(FileClass::Data), count(FileClass::Documentation)];
        assert_eq!(not_healed(None, Some(&new)), NotHealed::Unknown { present });
        assert_eq!(not_healed(Some(&new), None), NotHealed::Unknown { present: Vec::new() });
    }

    #[test]
    fn long_lists_are_counted_to_the_end_and_named_to_a_limit() {
        let mut new = Contents::default();
        for index in 0..MAX_NAMED.saturating_add(5) {
            new.add(format!("/usr/share/x/{index:06}"), file(b"a", 0o644));
        }
        new.add("/usr/share/x/\u{1b}[2J", file(b"a", 0o644));
        let found = not_healed(Some(&Contents::default()), Some(&new));
        let counts = match found {
            NotHealed::Known { groups } => groups.iter().map(|group| (group.files, group.named.len())).collect(),
            NotHealed::Unknown { .. } => Vec::new(),
        };
        assert_eq!(counts, [(1006, MAX_NAMED)]);
    }
}
