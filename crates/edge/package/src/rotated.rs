//! Logs as `logrotate(8)` leaves them: `LOG`, then `LOG.1`, `LOG.2.gz`, … or,
//! with `dateext`, `LOG-20260131` and `LOG-20260131.gz`.

use std::io::Read as _;

/// How old a log is beside the others of its name: the greatest is the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// The one that is written to.
    Current,
    /// How often it was rotated.
    Times(u32),
    /// The day on which it was, `20260131`: the later, the younger.
    Day(core::cmp::Reverse<u64>),
}

/// Which of the logs called `log` a name is; `None` for any other file.
pub fn age(log: &str, name: &str) -> Option<Age> {
    let rest = name.strip_prefix(log)?;
    if rest.is_empty() {
        return Some(Age::Current);
    }
    let plain = rest.strip_suffix(".gz").unwrap_or(rest);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match plain.split_at_checked(1)? {
        (".", number) if digits(number) => number.parse().ok().map(Age::Times),
        ("-", day) if digits(day) && day.len() >= 8 => day.parse().ok().map(|day| Age::Day(core::cmp::Reverse(day))),
        _another => None,
    }
}

/// Whether a log of this name is packed.
pub fn is_packed(name: &str) -> bool {
    name.strip_suffix(".gz").is_some()
}

/// What can be unpacked of it, up to `limit` bytes: a log that is damaged at its end still tells what it tells.
pub fn unpack(packed: &[u8], limit: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let _what_came_before_the_damage = flate2::bufread::MultiGzDecoder::new(packed).take(limit).read_to_end(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cmp::Reverse;

    #[test]
    fn logs_are_told_by_their_names_and_the_oldest_is_the_greatest() {
        let age = |name| age("dpkg.log", name);
        assert_eq!(age("dpkg.log"), Some(Age::Current));
        assert_eq!((age("dpkg.log.1"), age("dpkg.log.12.gz")), (Some(Age::Times(1)), Some(Age::Times(12))));
        assert_eq!(age("dpkg.log-20260131.gz"), Some(Age::Day(Reverse(20_260_131))));
        for no in ["dpkg.log.old", "xdpkg.log", "dpkg.log.", "dpkg.log-", "dpkg.log-2", "dpkg.log.gz", "dpkg.logs.1"] {
            assert_eq!(age(no), None, "{no}");
        }
        let mut all: Vec<_> = ["dpkg.log-20251201", "dpkg.log.2.gz", "dpkg.log", "dpkg.log-20260101", "dpkg.log.10"]
            .map(|name| (age(name), name))
            .to_vec();
        all.sort();
        let names: Vec<&str> = all.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["dpkg.log", "dpkg.log.2.gz", "dpkg.log.10", "dpkg.log-20260101", "dpkg.log-20251201"]);
    }

    #[test]
    fn a_damaged_log_tells_what_came_before_and_a_bomb_ends_at_the_limit() -> std::io::Result<()> {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let line = b"2026-01-01 10:00:00 startup archives unpack\n".repeat(5_000);
        encoder.write_all(&line)?;
        let packed = encoder.finish()?;
        assert_eq!(unpack(&packed, u64::MAX), line);
        assert_eq!(unpack(&packed, 1000).len(), 1000);
        let torn = unpack(packed.get(..packed.len() / 2).unwrap_or_default(), u64::MAX);
        assert!(!torn.is_empty() && line.starts_with(&torn));
        assert!(unpack(b"no gzip", u64::MAX).is_empty());
        Ok(())
    }
}
