//! What an update changes besides code, for a reader: the grave classes by
//! name, the long ones counted, what only people read counted and no more.

use crate::problem::one_line;
use salve_patch::{ChangeKind, FileChange, FileClass, NotHealed, NotHealedGroup};
use serde::Serialize;
use std::io::{self, Write};

/// Files of one class that are named without `--verbose`.
const SHOWN: usize = 5;
/// Files of one class that an event names.
const IN_EVENTS: usize = 20;

/// The same in an event: counts in full, names up to a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct NotHealedBrief(NotHealed);

impl NotHealedBrief {
    pub(crate) fn of(list: NotHealed) -> Self {
        Self(match list {
            NotHealed::Unknown { present } => NotHealed::Unknown { present },
            NotHealed::Known { mut groups } => {
                for group in &mut groups {
                    let keep = if group.class == FileClass::Documentation { 0 } else { IN_EVENTS };
                    group.named.truncate(keep);
                }
                NotHealed::Known { groups }
            }
        })
    }
}

pub(crate) fn lines(list: &NotHealed, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    match list {
        NotHealed::Unknown { present } => {
            writeln!(out, "not healed: only code is; what else the update changes is unknown")?;
            if present.is_empty() {
                return Ok(());
            }
            let counts: Vec<String> = present.iter().map(|count| counted(count.class, count.files)).collect();
            writeln!(out, "  the new package has, and any may differ: {}", counts.join(", "))
        }
        NotHealed::Known { groups } if groups.is_empty() => writeln!(out, "besides code the update changes nothing"),
        NotHealed::Known { groups } => {
            writeln!(out, "not healed: only code is; the update also changes")?;
            groups.iter().try_for_each(|group| group_line(group, out, verbose))
        }
    }
}

fn group_line(group: &NotHealedGroup, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
    let shown = match (verbose, group.class) {
        (true, _) => group.named.len(),
        (false, FileClass::Documentation) => 0,
        (false, _) => SHOWN,
    };
    write!(out, "  {}", counted(group.class, group.files))?;
    let names: Vec<String> = group.named.iter().take(shown).map(named).collect();
    if !names.is_empty() {
        write!(out, ": {}", names.join(", "))?;
    }
    let rest = group.files.saturating_sub(u64::try_from(names.len()).unwrap_or(u64::MAX));
    if rest > 0 && !names.is_empty() {
        write!(out, ", and {rest} more")?;
    }
    writeln!(out)
}

fn named(file: &FileChange) -> String {
    let change = match file.change {
        ChangeKind::Contents => return one_line(&file.path),
        ChangeKind::Added => "new",
        ChangeKind::Removed => "gone",
        ChangeKind::Permissions => "permissions",
        ChangeKind::Unknown => "perhaps",
    };
    format!("{} ({change})", one_line(&file.path))
}

fn counted(class: FileClass, files: u64) -> String {
    let (one, many) = match class {
        FileClass::Conffile => ("configuration file", "configuration files"),
        FileClass::MaintainerScript => ("package script", "package scripts"),
        FileClass::ServiceUnit => ("unit or rule of a service", "units and rules of services"),
        FileClass::Script => ("interpreted program", "interpreted programs"),
        FileClass::Link => ("link", "links"),
        FileClass::Data => ("data file", "data files"),
        FileClass::Documentation => {
            return format!("documentation: {files} {}", if files == 1 { "file" } else { "files" });
        }
    };
    format!("{files} {}", if files == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_patch::ClassCount;

    fn group(class: FileClass, files: u64, named: &[(&str, ChangeKind)]) -> NotHealedGroup {
        let named = named.iter().map(|(path, change)| FileChange { path: (*path).to_owned(), change: *change });
        NotHealedGroup { class, files, named: named.collect() }
    }

    fn text(list: &NotHealed, verbose: bool) -> String {
        let mut out = Vec::new();
        lines(list, &mut out, verbose).expect("written");
        String::from_utf8(out).expect("text")
    }

    fn list() -> NotHealed {
        let many: Vec<(String, ChangeKind)> =
            (0..7).map(|n| (format!("/usr/share/x/{n}"), ChangeKind::Contents)).collect();
        let many: Vec<(&str, ChangeKind)> = many.iter().map(|(path, change)| (path.as_str(), *change)).collect();
        NotHealed::Known {
            groups: vec![
                group(FileClass::Conffile, 1, &[("/etc/x.conf", ChangeKind::Contents)]),
                group(
                    FileClass::MaintainerScript,
                    2,
                    &[("postinst", ChangeKind::Contents), ("prerm", ChangeKind::Added)],
                ),
                group(FileClass::Data, 1007, &many),
                group(FileClass::Documentation, 4, &[("/usr/share/doc/x/a", ChangeKind::Contents)]),
            ],
        }
    }

    #[test]
    fn what_is_grave_is_named_and_what_is_long_is_counted() {
        assert_eq!(
            text(&list(), false),
            "not healed: only code is; the update also changes\n  \
             1 configuration file: /etc/x.conf\n  \
             2 package scripts: postinst, prerm (new)\n  \
             1007 data files: /usr/share/x/0, /usr/share/x/1, /usr/share/x/2, /usr/share/x/3, /usr/share/x/4, and 1002 more\n  \
             documentation: 4 files\n"
        );
        assert!(text(&list(), true).contains("/usr/share/x/6, and 1000 more"));
    }

    #[test]
    fn nothing_is_claimed_of_what_is_not_known() {
        let nothing = NotHealed::Unknown { present: Vec::new() };
        assert_eq!(text(&nothing, false), "not healed: only code is; what else the update changes is unknown\n");
        let some = NotHealed::Unknown { present: vec![ClassCount { class: FileClass::Conffile, files: 2 }] };
        assert!(text(&some, false).ends_with("any may differ: 2 configuration files\n"), "{}", text(&some, false));
        let none = NotHealed::Known { groups: Vec::new() };
        assert_eq!(text(&none, false), "besides code the update changes nothing\n");
    }

    #[test]
    fn an_event_counts_all_and_names_few() {
        let NotHealedBrief(NotHealed::Known { groups }) = NotHealedBrief::of(list()) else { panic!("known") };
        assert_eq!(groups.iter().map(|group| group.files).collect::<Vec<_>>(), [1, 2, 1007, 4]);
        assert_eq!(groups.iter().map(|group| group.named.len()).collect::<Vec<_>>(), [1, 2, 7, 0]);
    }
}
