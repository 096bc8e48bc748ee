//! JSON lines with a limit, without I/O: bytes go in, lines come out.

use serde::{Serialize, de::DeserializeOwned};

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("message of more than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
    #[error("message that cannot be read")]
    Malformed {
        #[source]
        source: serde_json::Error,
    },
    #[error("message that cannot be written")]
    Unwritable {
        #[source]
        source: serde_json::Error,
    },
}

/// One value as one line, its newline included; JSON escapes every other newline.
pub fn encode<T: Serialize>(value: &T, limit_bytes: usize) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(value).map_err(|source| LineError::Unwritable { source })?;
    line.push(b'\n');
    if line.len() > limit_bytes { Err(LineError::TooLong { limit_bytes }) } else { Ok(line) }
}

/// The value of one line, with or without its newline.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    serde_json::from_slice(line).map_err(|source| LineError::Malformed { source })
}

/// Cuts a stream of bytes into lines; blank lines are passed over.
#[derive(Debug)]
pub struct LineBuffer {
    limit_bytes: usize,
    pending: Vec<u8>,
    /// Bytes of `pending` that are known to hold no newline.
    searched: usize,
}

impl LineBuffer {
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, pending: Vec::new(), searched: 0 }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole line without its newline, or `None` until more bytes are pushed.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            let unsearched = self.pending.get(self.searched..).unwrap_or_default();
            let Some(found) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.pending.len();
                // Without a newline in that many bytes none can come in time.
                return if self.searched >= self.limit_bytes { Err(self.too_long()) } else { Ok(None) };
            };
            let end = self.searched.saturating_add(found);
            if end >= self.limit_bytes {
                return Err(self.too_long());
            }
            let rest = self.pending.split_off(end.saturating_add(1).min(self.pending.len()));
            let mut line = core::mem::replace(&mut self.pending, rest);
            self.searched = 0;
            line.pop();
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn too_long(&self) -> LineError {
        LineError::TooLong { limit_bytes: self.limit_bytes }
    }

    /// Whether a line has begun and not ended.
    pub fn is_mid_line(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails to set up has failed")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_out_whole_however_the_bytes_arrive(
            lines in prop::collection::vec("[a-z]{1,20}", 0..8),
            cut in 1_usize..9,
        ) {
            let stream = lines.iter().flat_map(|l| format!("{l}\n\n").into_bytes()).collect::<Vec<_>>();
            let mut buffer = LineBuffer::new(32);
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.push(piece);
                while let Some(line) = buffer.next_line().unwrap() {
                    seen.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(seen, lines);
            prop_assert!(!buffer.is_mid_line());
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_the_limit() {
        let mut buffer = LineBuffer::new(8);
        buffer.push(b"1234567");
        assert!(buffer.next_line().unwrap().is_none());
        buffer.push(b"8");
        assert!(matches!(buffer.next_line(), Err(LineError::TooLong { limit_bytes: 8 })));
    }

    #[test]
    fn a_line_is_refused_beyond_the_limit_and_taken_just_below_it() {
        let mut buffer = LineBuffer::new(8);
        buffer.push(b"1234567\n");
        assert_eq!(buffer.next_line().unwrap().unwrap(), b"1234567");
        buffer.push(b"123456789\nx\n");
        assert!(matches!(buffer.next_line(), Err(LineError::TooLong { .. })));
        assert_eq!(encode(&"12345", 8).unwrap(), b"\"12345\"\n");
        assert!(matches!(encode(&"123456", 8), Err(LineError::TooLong { limit_bytes: 8 })));
    }
}
