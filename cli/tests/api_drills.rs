//! Drills of the chapters that go through the Kubernetes API, as users hold them: the built command, its coordinator process, its agents,
//! its API server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod held;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use self::held::{broken, drill};

/// It passes, having run these runbooks on this release.
fn passes(name: &str, seed: &str, kubernetes: &str, runbooks: &[&str]) -> Value {
    let (output, report) = drill(&[name, "--seed", seed]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(report["passed"], true, "{told}");
    assert_eq!(broken(&report), Vec::<&str>::new());
    assert_eq!(report["kubernetes"], kubernetes);
    let runs = report["runs"].as_array().unwrap();
    let run: Vec<_> = runs.iter().map(|run| run["runbook"].as_str().unwrap()).collect();
    assert_eq!(run, runbooks, "{told}");
    // Something was refused on the way, by what was missing.
    assert!(
        !report["refused"][0]["missing"][0].as_str().unwrap().is_empty(),
        "{told}"
    );
    assert!(report["makespan_ms"].as_u64().unwrap() > 0);
    // Only what is short of room is mended by others alone.
    let changes = report["changes"].as_array().unwrap().len();
    assert_eq!(changes == 0, name == "pending", "{report:#}");
    assert!(told.contains("passed (seed"), "{told}");
    report
}

/// Interrupted once it is at work, it takes everything down.
#[test]
fn ctrl_c_ends_it_at_once_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .args(["drill", "node-down", "--seed", "1"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("loses its power")));
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn steps(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

#[test]
fn a_dead_node_is_cordoned_proved_dead_emptied_by_a_taint_and_taken_back() {
    let runbooks = ["node-down", "node-down", "maintenance-end"];
    let report = passes("node-down", "1", "1.33", &runbooks);
    assert!(steps(&report).contains(&"taint-out-of-service"), "{report:#}");
    assert_eq!(report["proofs"][0]["by"], "operator");
}

#[test]
fn in_an_old_cluster_its_pods_are_deleted_by_force_once_approved() {
    let runbooks = ["node-down", "node-down", "maintenance-end"];
    let report = passes("node-down", "6", "1.13", &runbooks);
    let steps = report["steps"].as_array().unwrap();
    let force = steps.iter().find(|step| step["step"] == "force-delete").unwrap();
    assert!(force["approved_ms"].is_u64(), "{report:#}");
}

#[test]
fn a_dead_node_is_emptied_by_the_word_of_its_management_controller_alone() {
    let runbooks = ["node-down", "node-down", "maintenance-end"];
    for (seed, kubernetes, step) in [
        ("1", "1.33", "taint-out-of-service"),
        ("6", "1.13", "force-delete"),
    ] {
        let report = passes("node-off", seed, kubernetes, &runbooks);
        let proofs = report["proofs"].as_array().unwrap();
        assert_eq!(proofs.len(), 1, "{report:#}");
        assert_eq!(proofs[0]["by"], "management controller");
        // Without it, it is said that a controller that does not answer proves nothing.
        let missing = report["refused"][1]["missing"][0].as_str().unwrap();
        assert!(missing.contains("no proof"), "{missing}");
        let steps = report["steps"].as_array().unwrap();
        let moved = steps.iter().find(|one| one["step"] == step).unwrap();
        let planned = moved["planned"].as_str().unwrap();
        assert!(
            planned.contains("its BMC: PowerState Off") && planned.contains("its UUID is the node's"),
            "{planned}"
        );
    }
}

#[test]
fn a_node_goes_into_maintenance_and_comes_back() {
    let runbooks = ["maintenance-begin", "maintenance-end"];
    passes("maintenance", "3", "1.33", &runbooks);
}

#[test]
fn an_overloaded_node_is_relieved_of_what_may_be_moved() {
    let report = passes("overload", "1", "1.33", &["overload"]);
    let changes = report["changes"].as_array().unwrap();
    // What its budget holds was asked for, and refused.
    let held = changes
        .iter()
        .any(|change| change["what"].as_str().unwrap().contains("/held-") && change["status"] == 429);
    assert!(held, "{report:#}");
}

#[test]
fn a_crash_loop_is_ended_once_what_it_needs_is_back() {
    passes("crashloop", "1", "1.33", &["pods-heal"]);
}

#[test]
fn pods_that_are_killed_for_their_memory_get_more_and_the_report_says_so() {
    let report = passes("oom", "6", "1.13", &["pods-heal"]);
    let left = report["left"].as_array().unwrap();
    let memory = left.iter().find(|left| left["what"] == "memory").unwrap();
    assert_eq!(memory["after"][0][1], "150Mi");
}

#[test]
fn pods_that_find_no_node_are_explained_and_seen_to_run() {
    passes("pending", "1", "1.33", &["resource-shortage"]);
}

#[test]
fn pods_whose_image_is_there_again_do_not_wait_for_their_next_pull() {
    passes("imagepull", "6", "1.13", &["pods-heal"]);
}

#[test]
fn a_node_that_is_cut_off_gives_its_pods_up_and_tolerations_are_put_back() {
    let report = passes("network-loss", "1", "1.33", &["network-loss"]);
    assert_eq!(report["left"].as_array().unwrap().len(), 0, "{report:#}");
}

#[test]
fn a_declared_workload_that_lacks_pods_is_made_whole() {
    passes("workload", "6", "1.13", &["workload-heal"]);
}

/// What is broken on purpose, and the law that finds it. Each can be broken in every drill.
const SABOTAGES: [(&str, &str); 8] = [
    ("force-delete", "proof-of-death"),
    ("beyond-budget", "budgets"),
    ("stray-cordon", "left-as-found"),
    ("unplanned", "only-planned"),
    ("system-pod", "protected"),
    ("mute", "missing-evidence"),
    ("rogue-agent", "agents"),
    ("undone", "chapter-end"),
];

/// Drills, with a seed each: both releases are played.
const DRILLS: [(&str, &str); 10] = [
    ("node-down", "1"),
    ("node-off", "6"),
    ("maintenance", "3"),
    ("overload", "1"),
    ("crashloop", "1"),
    ("oom", "6"),
    ("pending", "5"),
    ("imagepull", "6"),
    ("network-loss", "1"),
    ("workload", "6"),
];

fn every_law_is_found_in(name: &str) {
    let (_, seed) = DRILLS.into_iter().find(|(known, _)| *known == name).unwrap();
    for (sabotage, law) in SABOTAGES {
        let (output, report) = drill(&[name, "--seed", seed, "--sabotage", sabotage]);
        assert_eq!(output.status.code(), Some(6), "{name} {sabotage}");
        assert_eq!(report["passed"], false, "{name} {sabotage}");
        assert!(
            broken(&report).contains(&law),
            "{name} {sabotage}: {:?}",
            broken(&report)
        );
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            told.contains("broken: ") && told.contains(law),
            "{name} {sabotage}: {told}"
        );
    }
}

#[test]
fn every_law_that_is_broken_is_found_in_node_down() {
    every_law_is_found_in("node-down");
}

#[test]
fn every_law_that_is_broken_is_found_in_node_off() {
    every_law_is_found_in("node-off");
}

#[test]
fn every_law_that_is_broken_is_found_in_maintenance() {
    every_law_is_found_in("maintenance");
}

#[test]
fn every_law_that_is_broken_is_found_in_overload() {
    every_law_is_found_in("overload");
}

#[test]
fn every_law_that_is_broken_is_found_in_crashloop() {
    every_law_is_found_in("crashloop");
}

#[test]
fn every_law_that_is_broken_is_found_in_oom() {
    every_law_is_found_in("oom");
}

#[test]
fn every_law_that_is_broken_is_found_in_pending() {
    every_law_is_found_in("pending");
}

#[test]
fn every_law_that_is_broken_is_found_in_imagepull() {
    every_law_is_found_in("imagepull");
}

#[test]
fn every_law_that_is_broken_is_found_in_network_loss() {
    every_law_is_found_in("network-loss");
}

#[test]
fn every_law_that_is_broken_is_found_in_workload() {
    every_law_is_found_in("workload");
}
