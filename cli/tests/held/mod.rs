//! A drill as users hold it: the built command, with its report.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Output};

use serde_json::Value;

/// Holds a drill; nothing but its report is left behind.
pub(crate) fn drill(args: &[&str]) -> (Output, Value) {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .arg("drill")
        .args(args)
        .arg("--report")
        .arg(&report)
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("{args:?}: {error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["report.json"], "{args:?}");
    (output, serde_json::from_str(&text).unwrap())
}

/// The laws that a report says to be broken.
pub(crate) fn broken(report: &Value) -> Vec<&str> {
    let laws = report["laws"].as_array().unwrap().iter();
    laws.filter(|law| !law["violations"].as_array().unwrap().is_empty())
        .map(|law| law["law"].as_str().unwrap())
        .collect()
}
