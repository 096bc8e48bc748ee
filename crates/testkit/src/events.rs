//! Reading the events that a run of `salve` recorded (`docs/events.md`).

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::Path;

/// All events of a log, in order. A log that does not exist holds none.
pub fn read(log: &Path) -> Result<Vec<Value>> {
    if !log.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no event: {line}"))).collect()
}

/// The events of one name.
pub fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| text(event, &["event"]) == Some(name)).collect()
}

/// What stands at a path of field names.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |inner, key| inner.get(key))
}

pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str()
}

pub fn number(value: &Value, path: &[&str]) -> Option<u64> {
    at(value, path)?.as_u64()
}
