//! Stanzas of `Field: value` lines, as control files, dpkg's database and apt
//! write them (`deb822(5)`).

/// One stanza; fields in their order, looked up without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stanza<'t> {
    fields: Vec<(&'t str, &'t str)>,
}

/// A line that is neither a field, nor its continuation; or a field said twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StanzaError {
    #[error("line {line} is neither a field nor the continuation of one")]
    NotAField { line: usize },
    #[error("field {name} stands twice in one stanza")]
    Twice { name: String },
}

impl<'t> Stanza<'t> {
    /// The value, its continuation lines and the newlines between them included.
    pub(crate) fn get(&self, name: &str) -> Option<&'t str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn parse(text: &'t str, first_line: usize) -> Result<Self, StanzaError> {
        let mut fields: Vec<(&'t str, &'t str)> = Vec::new();
        let mut rest = text;
        let mut line = first_line;
        while !rest.is_empty() {
            let (name, after) = rest.split_once(':').ok_or(StanzaError::NotAField { line })?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(StanzaError::NotAField { line });
            }
            let end = value_end(after);
            let (value, next) = after.split_at_checked(end).unwrap_or((after, ""));
            if fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name)) {
                return Err(StanzaError::Twice { name: name.to_owned() });
            }
            fields.push((name, value.trim_matches([' ', '\t', '\n', '\r'])));
            line = line.saturating_add(value.matches('\n').count());
            rest = next;
        }
        Ok(Self { fields })
    }
}

/// Past the newline after which no continuation (a line that starts with a
/// space or a tab) follows.
fn value_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find('\n')) {
        from = from.saturating_add(at).saturating_add(1);
        if !text.get(from..).is_some_and(|rest| rest.starts_with([' ', '\t'])) {
            return from;
        }
    }
    text.len()
}

/// All stanzas of a text, which empty lines separate.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Result<Stanza<'_>, StanzaError>> {
    let mut rest = text;
    let mut line = 1_usize;
    core::iter::from_fn(move || {
        let blank = rest.len().saturating_sub(rest.trim_start_matches('\n').len());
        let (_, body) = rest.split_at_checked(blank)?;
        line = line.saturating_add(blank);
        if body.is_empty() {
            return None;
        }
        let (stanza, after) = match body.find("\n\n") {
            Some(at) => body.split_at_checked(at.saturating_add(1))?,
            None => (body, ""),
        };
        let parsed = Stanza::parse(stanza, line);
        line = line.saturating_add(stanza.matches('\n').count());
        rest = after;
        Some(parsed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continue_on_lines_that_start_with_a_space() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n\tthree\nVersion:1\n\n\nPackage: b\n";
        let all: Vec<_> = stanzas(text).collect::<Result<_, _>>().unwrap_or_default();
        assert_eq!(all.len(), 2);
        assert_eq!(all.first().and_then(|s| s.get("description")), Some("one\n two\n .\n\tthree"));
        assert_eq!(all.first().and_then(|s| s.get("Version")), Some("1"));
        assert_eq!(all.get(1).and_then(|s| s.get("Package")), Some("b"));
    }

    #[test]
    fn what_is_no_field_is_said_with_its_line() {
        let error = |text| stanzas(text).find_map(Result::err);
        assert_eq!(error("A: 1\n\nB: 2\nnonsense\n"), Some(StanzaError::NotAField { line: 4 }));
        assert_eq!(error(" starts: 1\n"), Some(StanzaError::NotAField { line: 1 }));
        assert_eq!(error("A: 1\na: 2\n"), Some(StanzaError::Twice { name: "a".to_owned() }));
    }
}
