//! A runaway log of 100 MB/s on a disk of 512 MiB, for a minute: the disk never fills, the writer never sees an error, and
//! the last 16 MiB are always whole.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::node::DISK;
use blackstart_tests::records::{MIB, RECORD};

const DISK_BYTES: u64 = 512 * MIB;

async fn survives(name: &str, how: &[&str]) {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        disk_bytes: DISK_BYTES,
        programs: vec!["log-writer"],
        ..Wish::single(Runs::Agents)
    };
    let bed = Bed::raise(&docker, name, &wish).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    let log = format!("{DISK}/app/app.log");
    let mut command = vec!["log-writer", log.as_str(), "--seconds=60", "--tail=16"];
    command.extend(how);
    let answer = node.exec_within(Duration::from_mins(3), &command).await.unwrap();
    say(&format!("{how:?}: {answer}"));
    let report: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        report["error"],
        serde_json::Value::Null,
        "the writer never sees an error"
    );
    assert_eq!(report["tail"], "whole");
    let records = report["records"].as_u64().unwrap();
    assert_eq!(
        report["last_record"].as_u64().unwrap() + 1,
        records,
        "the last record is there"
    );
    assert!(
        report["looks"].as_u64().unwrap() > 30,
        "its tail was looked at all along"
    );
    assert!(report["least_available"].as_u64().unwrap() > 0);
    // Else there was nothing to survive.
    assert!(
        records * RECORD as u64 > 2 * DISK_BYTES,
        "slower than the disk is large: {answer}"
    );
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_appended_to() {
    survives("logs-append", &["--append"]).await;
}

#[tokio::test]
async fn a_log_that_is_written_at_offsets() {
    survives("logs-offsets", &[]).await;
}

#[tokio::test]
async fn a_log_that_was_deleted_and_is_held_open() {
    survives("logs-deleted", &["--append", "--delete"]).await;
}
