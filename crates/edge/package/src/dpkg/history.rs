//! `/var/log/dpkg.log` and its rotated predecessors: which version was there when.
//!
//! The log's times are local time without a zone. They are kept as they stand
//! and compared with a slack that covers every zone, so that a version is never
//! left out because of one: what a process *may* be running is asked here.

use super::DpkgError;
use super::database::MAX_FILE_BYTES;
use crate::{Root, Version, rotated};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One log, unpacked.
const MAX_LOG_BYTES: u64 = 256 << 20;
/// From UTC-12 to UTC+14, and an hour for clocks that were set.
const SLACK: Duration = Duration::from_secs(15 * 3600);

/// A time as the log writes it, in seconds as if it were UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogTime(i64);

impl LogTime {
    /// `2026-01-31 23:59:59`.
    pub fn parse(date: &str, time: &str) -> Option<Self> {
        let [year, month, day] = numbers::<3>(date, '-')?;
        let [hour, minute, second] = numbers::<3>(time, ':')?;
        let sane = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !sane || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
        Some(Self(days(year, month, day)?.checked_mul(86_400)?.checked_add(seconds)?))
    }

    /// Seconds since the epoch, if the log's zone were UTC.
    pub fn as_if_utc(self) -> i64 {
        self.0
    }

    /// Whether it may lie before `moment`, whatever the zone.
    pub fn may_be_before(self, moment: SystemTime) -> bool {
        self.0 < seconds(moment.checked_add(SLACK).unwrap_or(moment))
    }

    /// Whether it may lie after `moment`, whatever the zone.
    pub fn may_be_after(self, moment: SystemTime) -> bool {
        self.0 > seconds(moment.checked_sub(SLACK).unwrap_or(UNIX_EPOCH))
    }
}

fn seconds(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let parts: Option<Vec<i64>> = text
        .split(separator)
        .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect();
    parts?.try_into().ok()
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    // Years that start in March put the leap day last.
    let (year, month) =
        if month <= 2 { (year.checked_sub(1)?, month.checked_add(9)?) } else { (year, month.checked_sub(3)?) };
    let leaps = year.checked_div(4)?.checked_sub(year.checked_div(100)?)?.checked_add(year.checked_div(400)?)?;
    let before_month = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?;
    let of_years = year.checked_mul(365)?.checked_add(leaps)?;
    of_years.checked_add(before_month)?.checked_add(day)?.checked_sub(719_469)
}

/// What dpkg did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Install,
    Upgrade,
    Remove,
    Purge,
}

/// One line of the log that changes a package's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: LogTime,
    pub kind: ChangeKind,
    pub package: String,
    pub architecture: String,
    /// `None` before an install; what was known before, which may be a removed
    /// package's version, otherwise.
    pub from: Option<Version>,
    /// `None` after a removal.
    pub to: Option<Version>,
}

/// All changes in all logs, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    changes: Vec<Change>,
    /// The time of the very first line: before it nothing is known.
    begins: Option<LogTime>,
}

impl History {
    /// Reads `dpkg.log`, `dpkg.log.1`, `dpkg.log.2.gz`, … Lines that are not
    /// understood are passed over: other programs may write there too.
    pub fn read(root: &Root) -> Result<Self, DpkgError> {
        let mut logs = Vec::new();
        for name in root.list("/var/log")? {
            let Some(name) = name.to_str() else { continue };
            if let Some(age) = rotated::age("dpkg.log", name) {
                logs.push((age, name.to_owned()));
            }
        }
        // The oldest first.
        logs.sort_unstable_by(|left, right| right.cmp(left));
        let mut history = Self::default();
        for (_, name) in logs {
            let bytes = root.read(&format!("/var/log/{name}"), MAX_FILE_BYTES)?;
            let bytes = if rotated::is_packed(&name) { rotated::unpack(&bytes, MAX_LOG_BYTES) } else { bytes };
            history.add(&String::from_utf8_lossy(&bytes));
        }
        Ok(history)
    }

    fn add(&mut self, log: &str) {
        for line in log.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [date, time, action, rest @ ..] = words.as_slice() else { continue };
            let Some(at) = LogTime::parse(date, time) else { continue };
            self.begins.get_or_insert(at);
            self.changes.extend(change(at, action, rest));
        }
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes of one package, oldest first.
    pub fn of<'h, 'n>(
        &'h self,
        package: &'n str,
        architecture: &'n str,
    ) -> impl Iterator<Item = &'h Change> + use<'h, 'n> {
        self.changes.iter().filter(move |change| change.package == package && change.architecture == architecture)
    }

    /// Every version of a package that may have been on the disk at `since` or
    /// later, oldest first, each once. Code mapped by a process that started
    /// then is from one of them, if it is from this package at all.
    ///
    /// Empty when nothing changed since: it is the version that is installed now.
    /// `None` when the logs do not reach back: then any version may have been.
    pub fn versions_since(&self, package: &str, architecture: &str, since: SystemTime) -> Option<Vec<Version>> {
        let mut versions: Vec<Version> = Vec::new();
        let mut reaches_back = self.begins.is_some_and(|begins| !begins.may_be_after(since));
        for change in self.of(package, architecture) {
            if change.at.may_be_after(since) {
                // Whatever was there until this change.
                versions.extend(change.from.clone());
                // A first install shows that nothing was there before.
                reaches_back |= change.kind == ChangeKind::Install && change.from.is_none();
            } else {
                versions.clear();
                reaches_back = true;
            }
            versions.extend(change.to.clone());
        }
        let mut seen: Vec<Version> = Vec::new();
        for version in versions {
            if !seen.iter().any(|known| known.as_str() == version.as_str()) {
                seen.push(version);
            }
        }
        reaches_back.then_some(seen)
    }

    /// The version that the last upgrade or reinstallation replaced.
    pub fn previous(&self, package: &str, architecture: &str) -> Option<&Version> {
        let last = self.of(package, architecture).filter(|change| change.kind == ChangeKind::Upgrade).last()?;
        last.from.as_ref()
    }
}

/// `action package:arch old new`.
fn change(at: LogTime, action: &str, rest: &[&str]) -> Option<Change> {
    let kind = match action {
        "install" => ChangeKind::Install,
        "upgrade" => ChangeKind::Upgrade,
        "remove" => ChangeKind::Remove,
        "purge" => ChangeKind::Purge,
        _other => return None,
    };
    let &[name, from, to] = rest else { return None };
    let (package, architecture) = name.split_once(':')?;
    let version = |text: &str| if text == "<none>" { Some(None) } else { Version::parse(text).ok().map(Some) };
    Some(Change {
        at,
        kind,
        package: package.to_owned(),
        architecture: architecture.to_owned(),
        from: version(from)?,
        to: version(to)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<LogTime> {
        let (date, time) = text.split_once(' ')?;
        LogTime::parse(date, time)
    }

    #[test]
    fn times_are_seconds_as_if_in_utc() {
        assert_eq!(at("1970-01-01 00:00:00"), Some(LogTime(0)));
        assert_eq!(at("2000-02-29 12:34:56"), Some(LogTime(951_827_696)));
        assert_eq!(at("2026-11-21 04:25:34"), Some(LogTime(1_795_235_134)));
        for text in
            ["2026-13-01 00:00:00", "2026-1x-01 00:00:00", "2026-01-01 24:00:00", "2026-01 00:00:00", "-26-01-01 0:0:0"]
        {
            assert_eq!(at(text), None, "{text}");
        }
    }

    const LOG: &str = "\
2026-01-01 10:00:00 startup archives unpack
2026-01-02 10:00:00 install a:amd64 <none> 1.0-1
2026-01-02 10:00:01 status installed a:amd64 1.0-1
2026-02-02 10:00:00 upgrade a:amd64 1.0-1 1.0-2
2026-02-02 10:00:00 upgrade b:amd64 2.0 2.1
garbage
2026-03-02 10:00:00 upgrade a:amd64 1.0-2 1.0-3
2026-03-03 10:00:00 remove c:amd64 1.0 <none>
";

    fn since(package: &str, date: &str) -> Option<Vec<String>> {
        let mut history = History::default();
        history.add(LOG);
        let LogTime(seconds) = LogTime::parse(date, "00:00:00")?;
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?;
        let versions = history.versions_since(package, "amd64", since)?;
        Some(versions.iter().map(|version| version.as_str().to_owned()).collect())
    }

    fn list(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|&version| version.to_owned()).collect()
    }

    #[test]
    fn every_version_that_was_there_since_is_named() {
        assert_eq!(since("a", "2026-01-10"), Some(list(&["1.0-1", "1.0-2", "1.0-3"])));
        assert_eq!(since("a", "2026-02-10"), Some(list(&["1.0-2", "1.0-3"])));
        assert_eq!(since("a", "2026-03-10"), Some(list(&["1.0-3"])));
        assert_eq!(since("b", "2026-01-10"), Some(list(&["2.0", "2.1"])));
        assert_eq!(since("c", "2026-01-10"), Some(list(&["1.0"])));
        assert_eq!(since("d", "2026-01-10"), Some(list(&[])), "nothing changed");
    }

    #[test]
    fn within_the_slack_of_a_zone_both_versions_are_named() {
        assert_eq!(since("a", "2026-03-02"), Some(list(&["1.0-2", "1.0-3"])));
        assert_eq!(since("a", "2026-03-03"), Some(list(&["1.0-2", "1.0-3"])));
    }

    #[test]
    fn before_the_logs_begin_nothing_is_known() {
        assert_eq!(since("b", "2025-12-01"), None);
        assert_eq!(since("a", "2025-12-01"), Some(list(&["1.0-1", "1.0-2", "1.0-3"])), "its install is in the log");
    }

    #[test]
    fn the_version_before_the_last_upgrade_is_the_previous_one() {
        let mut history = History::default();
        history.add(LOG);
        assert_eq!(history.previous("a", "amd64").map(Version::as_str), Some("1.0-2"));
        assert_eq!(history.previous("a", "i386"), None);
        assert_eq!(history.previous("c", "amd64"), None);
    }
}
