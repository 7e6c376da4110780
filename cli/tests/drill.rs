//! Drills as users hold them: the built command, its coordinator process, its agents.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn drill(dir: &Path, args: &[&str]) -> (Output, Value) {
    let report = dir.join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .args(["drill", "power-loss", "--report"])
        .arg(&report)
        .args(args)
        // What it writes is looked at afterwards.
        .env("TMPDIR", dir)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output, serde_json::from_str(&text).unwrap())
}

#[test]
fn a_power_loss_of_the_whole_plan_passes_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (output, report) = drill(dir.path(), &["--seed", "2"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert_eq!(report["passed"], true, "{told}");
    assert_eq!(report["nodes"].as_array().unwrap().len(), 18);
    let nodes = report["nodes"].as_array().unwrap();
    let residue = nodes.iter().filter(|node| node["residue"] == true).count();
    assert!((1..=2).contains(&residue), "{told}");
    // No order of releases is faster than what the machines alone take.
    let ms = |key: &str| report[key].as_u64().unwrap();
    assert!(
        ms("critical_path_ms") <= ms("makespan_ms"),
        "{} {}",
        ms("critical_path_ms"),
        ms("makespan_ms")
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["report.json"]);
}

#[test]
fn a_worker_that_was_let_go_early_is_found_and_the_law_named() {
    let dir = tempfile::tempdir().unwrap();
    let (output, report) = drill(
        dir.path(),
        &["--seed", "3", "--clusters", "paas", "--sabotage", "early-worker"],
    );
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(report["passed"], false);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("broken: order-workers"), "{told}");
    let laws = report["laws"].as_array().unwrap();
    let broken: Vec<_> = laws
        .iter()
        .filter(|law| !law["violations"].as_array().unwrap().is_empty())
        .map(|law| law["law"].as_str().unwrap())
        .collect();
    assert_eq!(broken, ["order-workers"]);
}
