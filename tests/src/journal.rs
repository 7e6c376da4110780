//! What a node's own journal says.

use anyhow::Context;
use serde::Deserialize;

/// systemd's message id of "a unit has been started".
const UNIT_STARTED: &str = "39f53479d3a045ac8e11786248231fbf";

/// systemd's message ids of "a unit has ended well" and "a unit has failed".
const UNIT_ENDED: [&str; 2] = [
    "7ad2d189f7e94e70a38c781354912448",
    "d9b373ed55a64feb8242e02dbe79a49c",
];

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `CLOCK_MONOTONIC` of the machine, microseconds: comparable between nodes, since all share one kernel.
    pub monotonic_us: u64,
    /// Wall clock, microseconds since the Unix epoch.
    pub realtime_us: u64,
    /// Which boot, without dashes.
    pub boot_id: String,
    /// The text.
    pub message: String,
    /// Does systemd say here that a unit has been started?
    pub is_start: bool,
    /// Does systemd say here that a unit has ended, well or not?
    pub is_end: bool,
}

/// As `journalctl -o json` writes it: every value a text.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    monotonic: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: String,
    #[serde(rename = "_BOOT_ID")]
    boot_id: String,
    // A text that is not UTF-8 is an array of bytes, and one that is too long is null.
    #[serde(rename = "MESSAGE")]
    message: serde_json::Value,
    #[serde(rename = "MESSAGE_ID")]
    message_id: Option<String>,
}

/// Reads the lines of `journalctl -o json`.
///
/// # Errors
/// A line is something else.
pub fn parse(lines: &str) -> anyhow::Result<Vec<Entry>> {
    lines
        .lines()
        .map(|line| {
            let written: Written =
                serde_json::from_str(line).with_context(|| format!("read the journal's line {line}"))?;
            Ok(Entry {
                monotonic_us: written.monotonic.parse().context("read a monotonic stamp")?,
                realtime_us: written.realtime.parse().context("read a realtime stamp")?,
                boot_id: written.boot_id,
                message: written.message.as_str().unwrap_or_default().to_owned(),
                is_start: written.message_id.as_deref() == Some(UNIT_STARTED),
                is_end: written
                    .message_id
                    .is_some_and(|id| UNIT_ENDED.contains(&id.as_str())),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_from_what_a_unit_writes() {
        let lines = r#"{"__MONOTONIC_TIMESTAMP":"7","__REALTIME_TIMESTAMP":"1700000000000007","_BOOT_ID":"ab","MESSAGE":"Started x.","MESSAGE_ID":"39f53479d3a045ac8e11786248231fbf"}
{"__MONOTONIC_TIMESTAMP":"9","__REALTIME_TIMESTAMP":"1700000000000009","_BOOT_ID":"ab","MESSAGE":[255,10]}"#;
        let entries = parse(lines).unwrap();
        assert_eq!(
            entries[0],
            Entry {
                monotonic_us: 7,
                realtime_us: 1_700_000_000_000_007,
                boot_id: "ab".into(),
                message: "Started x.".into(),
                is_start: true,
                is_end: false
            }
        );
        assert!(!entries[1].is_start);
        assert!(parse("-- No entries --").is_err());
    }
}
