//! The host's own list of processes that are left alone: by program, user and group.
//!
//! One rule a line: `path /usr/sbin/postgres`, `path /opt/db/` (all programs below),
//! `user postgres`, `group 110`; what follows `#` is a remark. A line that is not
//! understood makes the whole list not understood: somebody meant to protect something.

/// Whom a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Program(String),
    /// Every program in this directory and below; the path ends in `/`.
    Below(String),
    User(u32),
    Group(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaveList {
    rules: Vec<(usize, Subject)>,
}

/// Which rule names a process, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) by: By,
    pub(crate) line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Path,
    User,
    Group,
}

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not understood: {why}")]
pub(crate) struct BadRule {
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// Numbers for names that are not numbers.
pub(crate) struct Names<'a> {
    pub(crate) user: &'a dyn Fn(&str) -> Option<u32>,
    pub(crate) group: &'a dyn Fn(&str) -> Option<u32>,
}

impl LeaveList {
    pub(crate) fn parse(text: &str, names: &Names<'_>) -> Result<Self, BadRule> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index.saturating_add(1);
            let rule = line.split('#').next().unwrap_or_default().trim();
            if !rule.is_empty() {
                let subject = subject(rule, names).map_err(|why| BadRule { line: line_number, why })?;
                rules.push((line_number, subject));
            }
        }
        Ok(Self { rules })
    }

    /// The first rule that means a process.
    pub(crate) fn names(&self, program: &str, users: &[u32], groups: &[u32]) -> Option<Named> {
        self.rules.iter().find_map(|(line, subject)| {
            let by = match subject {
                Subject::Program(path) if path == program => By::Path,
                Subject::Below(directory) if program.starts_with(directory.as_str()) => By::Path,
                Subject::User(user) if users.contains(user) => By::User,
                Subject::Group(group) if groups.contains(group) => By::Group,
                Subject::Program(_) | Subject::Below(_) | Subject::User(_) | Subject::Group(_) => return None,
            };
            Some(Named { by, line: *line })
        })
    }
}

fn subject(rule: &str, names: &Names<'_>) -> Result<Subject, String> {
    let (kind, value) = rule.split_once(char::is_whitespace).ok_or("a word and a value are expected")?;
    let value = value.trim();
    let number = |look: &dyn Fn(&str) -> Option<u32>| value.parse().ok().or_else(|| look(value));
    match kind {
        "path" if !value.starts_with('/') => Err(format!("{value} is not an absolute path")),
        "path" if value.ends_with('/') => Ok(Subject::Below(value.to_owned())),
        "path" => Ok(Subject::Program(value.to_owned())),
        "user" => number(names.user).map(Subject::User).ok_or_else(|| format!("there is no user {value}")),
        "group" => number(names.group).map(Subject::Group).ok_or_else(|| format!("there is no group {value}")),
        other => Err(format!("{other} is none of path, user, group")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LeaveList, BadRule> {
        let user = |name: &str| (name == "postgres").then_some(110);
        let group = |name: &str| (name == "db").then_some(111);
        LeaveList::parse(text, &Names { user: &user, group: &group })
    }

    #[test]
    fn a_process_is_named_by_its_program_its_users_or_its_groups() {
        let list =
            parse("# ours\npath /usr/sbin/named\npath /opt/db/ # all\n\nuser postgres\ngroup db\nuser 7\n").unwrap();
        let named = |program: &str, users: &[u32], groups: &[u32]| list.names(program, users, groups);
        assert_eq!(named("/usr/sbin/named", &[0], &[0]), Some(Named { by: By::Path, line: 2 }));
        assert_eq!(named("/opt/db/bin/server", &[0], &[0]), Some(Named { by: By::Path, line: 3 }));
        assert_eq!(named("/opt/dbx", &[0], &[0]), None);
        assert_eq!(named("/bin/x", &[0, 110], &[0]), Some(Named { by: By::User, line: 5 }));
        assert_eq!(named("/bin/x", &[1], &[0, 111]), Some(Named { by: By::Group, line: 6 }));
        assert_eq!(named("/bin/x", &[7], &[0]), Some(Named { by: By::User, line: 7 }));
        assert_eq!(named("/usr/sbin/named2", &[1], &[1]), None);
    }

    #[test]
    fn one_line_that_is_not_understood_spoils_the_list() {
        for (text, line) in [("user nobody-here\n", 1), ("\npath relative\n", 2), ("path\n", 1), ("exe /bin/x", 1)] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
        assert_eq!(parse("  # nothing\n").unwrap(), LeaveList::default());
    }
}
