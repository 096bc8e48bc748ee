//! The page as it stands: what it says of services of which no result is kept here stays.

/// `docs/services.md` before it is written anew.
pub(super) struct Page(String);

const LONG: &str = "\n## Long runs\n";
const CAUSES: &str = "\n## Why it could not be healed\n";

impl Page {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// From this line to before the next head of its level or a higher one, without blank lines at its end.
    fn section(&self, head: &str) -> Option<&str> {
        self.section_at(self.0.find(head)?)
    }

    fn section_at(&self, at: usize) -> Option<&str> {
        let from = self.0.get(at..)?.trim_start_matches('\n');
        let level = from.chars().take_while(|one| *one == '#').count();
        let (first, rest) = from.split_once('\n')?;
        let mut end = first.len() + 1;
        for line in rest.split_inclusive('\n') {
            let marks = line.chars().take_while(|one| *one == '#').count();
            if (1..=level).contains(&marks) && line.chars().nth(marks) == Some(' ') {
                break;
            }
            end += line.len();
        }
        from.get(..end).map(str::trim_end)
    }

    /// Rows of a table that begin with a service's name.
    fn rows<'a>(text: &'a str, service: &str) -> Vec<&'a str> {
        let start = format!("| {service} |");
        text.lines().filter(|line| line.starts_with(&start)).collect()
    }

    /// Its rows in the first table.
    pub(super) fn results(&self, service: &str) -> Vec<&str> {
        let end = [LONG, CAUSES].iter().filter_map(|head| self.0.find(head)).min().unwrap_or(self.0.len());
        Self::rows(self.0.get(..end).unwrap_or_default(), service)
    }

    /// All that is said of it alone.
    pub(super) fn service(&self, service: &str) -> Option<&str> {
        self.section(&format!("\n## {service}\n"))
    }

    /// Its row among the long runs, and what is said of its own.
    pub(super) fn long_run(&self, service: &str) -> Option<(&str, &str)> {
        let row = Self::rows(self.section(LONG)?, service).first().copied()?;
        let section = self.0.match_indices(&format!("\n### {service}, ")).find_map(|(at, head)| {
            let after = self.0.get(at + head.len()..)?;
            // Its minutes follow, not another word.
            after.starts_with(|first: char| first.is_ascii_digit()).then(|| self.section_at(at))?
        });
        Some((row, section?))
    }

    pub(super) fn causes(&self) -> Option<&str> {
        self.section(CAUSES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Head\n\n| service | a |\n|---|---|\n| one | 1 |\n| one | 2 |\n| two | 3 |\n\n## Long runs\n\nWords.\n\n\
                        | service | b |\n|---|---|\n| one | 4 |\n| one, gentle | 5 |\n\n### one, gentle, 61 min\n\nGentle.\n\n### one, 61 min\n\nLong words.\n\n## Why it could not be healed\n\n\
                        - a cause\n\n## one\n\nLoad: #1.\n\n### one: it\n\n- a line\n\n## two\n\nOf two.\n";

    #[test]
    fn what_is_said_of_one_service_is_found_and_nothing_of_another() {
        let page = Page::new(TEXT.to_owned());
        assert_eq!(page.results("one"), ["| one | 1 |", "| one | 2 |"]);
        assert_eq!(page.service("one"), Some("## one\n\nLoad: #1.\n\n### one: it\n\n- a line"));
        assert_eq!(page.service("two"), Some("## two\n\nOf two."));
        assert_eq!(page.long_run("one"), Some(("| one | 4 |", "### one, 61 min\n\nLong words.")));
        assert_eq!(page.long_run("one, gentle"), Some(("| one, gentle | 5 |", "### one, gentle, 61 min\n\nGentle.")));
        assert_eq!((page.long_run("two"), page.service("three"), page.results("three")), (None, None, Vec::new()));
        assert_eq!(page.causes(), Some("## Why it could not be healed\n\n- a cause"));
    }
}
