//! Drills on masters, as users hold them: the built command, its coordinator process, its agents, and static pods that are processes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod held;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use blackstart_tests::wait;
use serde_json::Value;

use self::held::{broken, drill};

#[test]
fn a_hung_api_server_is_bounced_and_what_a_bounce_does_not_mend_is_named() {
    let (output, report) = drill(&["control-plane", "--seed", "1"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(broken(&report), Vec::<&str>::new(), "{report:#}");
    let states: Vec<_> = report["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        ["succeeded", "succeeded", "halted", "succeeded"],
        "{told}"
    );
    let said = report["refused"].to_string();
    for part in [
        "has expired, at 2021-01-01",
        "the bounce did not help",
        "- --etcd-servers=",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // One API server, three schedulers, one controller manager, three API servers.
    assert_eq!(
        report["outs"].as_array().unwrap().len(),
        8,
        "{:#}",
        report["outs"]
    );
    assert!(told.contains("passed (seed 1"), "{told}");
}

/// A real etcd is on this machine. Without one a test says SKIPPED; in CI it has to run.
fn has_etcd(test: &str) -> bool {
    let is_there = ["/usr/bin/etcd", "/usr/bin/etcdctl"]
        .iter()
        .all(|path| std::path::Path::new(path).exists());
    if !is_there {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{test}: there is no /usr/bin/etcd; make needs-testbed installs it"
        );
        println!("SKIPPED {test}: there is no /usr/bin/etcd; make needs-testbed installs it");
    }
    is_there
}

/// It passes; how long what took, milliseconds.
fn passes_with_timings(name: &str, etcd: &str) -> Value {
    let (output, report) = drill(&[name, "--seed", "1", "--etcd", etcd]);
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(broken(&report), Vec::<&str>::new(), "{report:#}");
    assert!(report["acknowledged"].as_u64().unwrap() > 10, "{report:#}");
    assert!(!report["timings"].as_array().unwrap().is_empty(), "{report:#}");
    let again = format!("again: blackstart drill {name} --seed 1 --etcd {etcd})");
    assert!(told.contains(&again), "{told}");
    report
}

const REAL: &str = "/usr/bin/etcd";

#[test]
fn a_member_of_etcd_that_loses_its_data_is_replaced() {
    if has_etcd("the drill of an etcd member") {
        let report = passes_with_timings("etcd-member", REAL);
        assert_eq!(report["etcd"]["program"], REAL);
        assert!(report["etcd"]["double_of"].is_null(), "{report:#}");
    }
}

#[test]
fn a_member_of_the_double_that_loses_its_data_is_replaced() {
    let (output, report) = drill(&["etcd-member", "--seed", "3", "--etcd", "double"]);
    let told = String::from_utf8_lossy(&output.stdout);
    let noted = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{noted}");
    assert_eq!(broken(&report), Vec::<&str>::new(), "{report:#}");
    assert!(report["acknowledged"].as_u64().unwrap() > 10, "{report:#}");
    // Nobody takes it for a real one.
    assert_eq!(report["etcd"]["double_of"], "3.5.16", "{report:#}");
    let note = report["etcd"]["note"].as_str().unwrap();
    assert!(note.contains("apt-get install etcd-server"), "{note}");
    assert!(told.contains(note) && noted.contains(note), "{told}{noted}");
}

fn was_restored_by_two(report: &Value) {
    let said = report["refused"].to_string();
    assert!(said.contains("wants two persons"), "{said}");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3, "{runs:#?}");
}

#[test]
fn a_lost_quorum_is_restored_by_the_word_of_two_persons() {
    if has_etcd("the drill of an etcd quorum") {
        was_restored_by_two(&passes_with_timings("etcd-quorum", REAL));
    }
}

#[test]
fn a_lost_quorum_of_the_double_is_restored() {
    was_restored_by_two(&passes_with_timings("etcd-quorum", "double"));
}

fn lost_what_was_told(report: &Value) {
    let said = report["refused"].to_string();
    assert!(
        said.contains("wants two persons") && said.contains("is lost for good"),
        "{said}"
    );
    let timeline = report["timeline"].to_string();
    assert!(timeline.contains("which were told to be lost"), "{timeline}");
}

#[test]
fn all_members_that_lose_their_data_are_restored_from_what_loses_least() {
    if has_etcd("the drill of an etcd of which nobody is left") {
        lost_what_was_told(&passes_with_timings("etcd-all", REAL));
    }
}

#[test]
fn all_members_of_the_double_that_lose_their_data_are_restored() {
    lost_what_was_told(&passes_with_timings("etcd-all", "double"));
}

#[test]
fn a_drill_of_etcd_finds_that_the_old_data_is_gone() {
    if has_etcd("a saboteur of the drill of an etcd member") {
        let args = [
            "etcd-member",
            "--seed",
            "2",
            "--etcd",
            REAL,
            "--sabotage",
            "no-copy",
        ];
        let (output, report) = drill(&args);
        assert_eq!(output.status.code(), Some(6));
        assert_eq!(broken(&report), ["copies"], "{report:#}");
    }
}

#[test]
fn on_the_double_as_well_it_finds_who_breaks_a_law() {
    for (sabotage, laws) in [("no-copy", ["copies"]), ("lose-key", ["data"])] {
        let args = [
            "etcd-member",
            "--seed",
            "2",
            "--etcd",
            "double",
            "--sabotage",
            sabotage,
        ];
        let (output, report) = drill(&args);
        assert_eq!(output.status.code(), Some(6), "{sabotage}");
        assert_eq!(broken(&report), laws, "{sabotage}: {report:#}");
    }
}

#[test]
fn without_the_etcd_that_was_asked_for_it_is_said_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .args(["drill", "etcd-member", "--etcd", "/nowhere/etcd"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("apt-get install etcd-server") && said.contains("--etcd double"),
        "{said}"
    );
}

#[test]
fn the_drill_finds_who_breaks_a_law() {
    for (sabotage, laws) in [
        ("two-at-once", &["one-at-a-time", "only-planned"][..]),
        ("rewrite", &["only-planned", "manifests"]),
        ("mute", &["missing-evidence"]),
        ("rogue-agent", &["agents"]),
        ("undone", &["chapter-end"]),
    ] {
        let (output, report) = drill(&["control-plane", "--seed", "2", "--sabotage", sabotage]);
        assert_eq!(output.status.code(), Some(6), "{sabotage}");
        assert_eq!(broken(&report), laws, "{sabotage}: {report:#}");
    }
}

/// The command lines with a file of this directory in them.
fn processes(of: &Path) -> Vec<String> {
    let of = of.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap();
    // One that has ended meanwhile has none.
    let lines = entries.filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(of)).collect()
}

/// Nothing ends it in order; what it has started ends all the same.
async fn ends_whatever_ends_the_drill(etcd: &str) {
    let dir = tempfile::tempdir().unwrap();
    // With all of it in one directory, which is in the command lines of all that is started.
    let mut drill = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .args(["drill", "etcd-member", "--seed", "1", "--etcd", etcd, "--keep"])
        .arg(dir.path().join("kept"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = dir.path().join("kept/");
    let is_member = |line: &String| {
        let program = line.split(' ').next().unwrap_or_default();
        program.ends_with("/etcd") && line.contains("--data-dir=")
    };
    // With the coordinator, and what plays the three parts of each control plane.
    let began = wait::until("three members", Duration::from_mins(1), async || {
        let all = processes(&started);
        let members = all.iter().filter(|line| is_member(line)).count();
        Ok((members == 3 && all.len() >= 13).then_some(()))
    })
    .await;
    drill.kill().unwrap();
    drill.wait().unwrap();
    began.unwrap();
    wait::until("their end", Duration::from_secs(10), async || {
        Ok(processes(&started).is_empty().then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}: {:#?}", processes(&started)));
}

#[tokio::test]
async fn members_of_etcd_end_with_a_drill_that_is_killed() {
    if has_etcd("the end of a drill of etcd that is killed") {
        ends_whatever_ends_the_drill(REAL).await;
    }
}

#[tokio::test]
async fn members_of_the_double_end_with_a_drill_that_is_killed() {
    ends_whatever_ends_the_drill("double").await;
}
