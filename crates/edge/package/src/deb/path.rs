//! Paths inside a package, made absolute and unambiguous.

use super::DebError;
use core::fmt::Write as _;

/// `./usr/sbin/x`, `usr/sbin/x` and `/usr/sbin/x/` are `/usr/sbin/x`; the
/// package's own root is `/`. A `..` has no place in a package and is refused.
/// Bytes that are not UTF-8, and control characters, are written `\xNN`.
pub(super) fn normalise(raw: &[u8]) -> Result<String, DebError> {
    let text = printable(raw);
    if text.is_empty() {
        return Err(DebError::Path { path: text });
    }
    let mut path = String::with_capacity(text.len().saturating_add(1));
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(DebError::Path { path: text }),
            part => {
                path.push('/');
                path.push_str(part);
            }
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

/// Text as it is, all else as `\xNN`; a backslash of the name's own as `\x5c`,
/// so that no two names look alike.
pub(super) fn printable(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut bytes = [0; 4];
                escape(&mut text, c.encode_utf8(&mut bytes).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_path_is_one_path() {
        for raw in ["./usr/sbin/x", "usr/sbin/x", "/usr/sbin/x", "./usr//sbin/./x", "usr/sbin/x/", ".//usr/sbin/x/."] {
            assert_eq!(normalise(raw.as_bytes()).ok().as_deref(), Some("/usr/sbin/x"), "{raw}");
        }
        assert_eq!(normalise(b"./").ok().as_deref(), Some("/"));
        assert_eq!(normalise(b".").ok().as_deref(), Some("/"));
    }

    #[test]
    fn a_path_that_leaves_the_package_is_refused() {
        for raw in ["..", "./../etc/passwd", "usr/../../etc/passwd", "usr/lib/..", ""] {
            assert!(matches!(normalise(raw.as_bytes()), Err(DebError::Path { .. })), "{raw}");
        }
        assert_eq!(normalise(b"usr/..x/...").ok().as_deref(), Some("/usr/..x/..."));
    }

    #[test]
    fn a_name_that_is_no_text_stays_distinct_and_printable() {
        assert_eq!(normalise(b"usr/caf\xe9\x1b").ok().as_deref(), Some("/usr/caf\\xe9\\x1b"));
        assert_eq!(normalise(b"usr/a\\xe9").ok().as_deref(), Some("/usr/a\\x5cxe9"));
    }
}
