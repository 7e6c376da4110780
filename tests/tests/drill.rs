//! `blackstart drill … --on testbed` as its users run it. All of them here: they share one bed, which is held by one at a time.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::time::Duration;

use blackstart_tests::bed;
use blackstart_tests::coordinator::program;
use blackstart_tests::docker::Docker;
use blackstart_tests::image;
use blackstart_tests::masters::Etcd;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

/// The bed of the command.
const BED: &str = "drill";
const DEADLINE: Duration = Duration::from_mins(10);

fn drill(args: &[&str], report: &Path) -> Child {
    Command::new(program("blackstart").unwrap())
        .arg("drill")
        .args(args)
        .args(["--on", "testbed", "--report"])
        .arg(report)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Its exit code and what it told.
async fn end(drill: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(DEADLINE, drill.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

async fn nothing_is_left(docker: &Docker) {
    let left = bed::left(docker).await.unwrap();
    assert!(!left.iter().any(|name| name == BED), "{left:?}");
    let disks = image::cache().join("beds").join(BED);
    let loops = Command::new("losetup")
        .args(["--list", "--noheadings", "--output", "BACK-FILE"])
        .output()
        .await
        .unwrap();
    let loops = String::from_utf8_lossy(&loops.stdout).into_owned();
    assert!(!loops.contains(&disks.display().to_string()), "{loops}");
}

fn broken(report: &Value) -> Vec<&str> {
    let laws = report["laws"].as_array().unwrap();
    laws.iter()
        .filter(|law| !law["violations"].as_array().unwrap().is_empty())
        .map(|law| law["law"].as_str().unwrap())
        .collect()
}

fn read(report: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap()
}

#[tokio::test]
async fn a_power_loss_of_real_nodes_passes_and_leaves_nothing_behind() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let (code, told) = end(drill(&["power-loss", "--seed", "1"], &file)).await;
    assert_eq!(code, Some(0), "{told}");
    let report = read(&file);
    assert_eq!(report["on"], "testbed");
    assert_eq!(report["passed"], true, "{told}");
    assert_eq!(broken(&report), [""; 0], "{told}");
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 6);
    let residue: Vec<_> = nodes.iter().filter(|node| node["residue"] == true).collect();
    assert_eq!(residue.len(), 1, "{told}");
    assert_eq!(residue[0]["role"], "worker");
    assert_eq!(residue[0]["powered_ms"], Value::Null);
    // The others have records of their own of all that was judged.
    for node in nodes.iter().filter(|node| node["residue"] == false) {
        for what in ["powered_ms", "released_ms", "ready_ms"] {
            assert!(node[what].is_u64(), "{what} of {node}");
        }
    }
    nothing_is_left(&docker).await;
}

#[tokio::test]
async fn a_real_worker_that_was_let_go_early_is_found_and_the_law_named() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let args = [
        "power-loss",
        "--seed",
        "1",
        "--nodes",
        "5",
        "--sabotage",
        "early-worker",
    ];
    let (code, told) = end(drill(&args, &file)).await;
    assert_eq!(code, Some(6), "{told}");
    assert_eq!(broken(&read(&file)), ["order-workers"], "{told}");
    nothing_is_left(&docker).await;
}

#[tokio::test]
async fn a_drill_that_is_broken_off_leaves_nothing_behind() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let drill = drill(&["power-loss", "--seed", "1"], &dir.path().join("report.json"));
    wait::until("the first containers", DEADLINE, async || {
        Ok((!docker.containers(BED).await?.is_empty()).then_some(()))
    })
    .await
    .unwrap();
    let pid = Pid::from_raw(i32::try_from(drill.id().unwrap()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let (code, told) = end(drill).await;
    assert_eq!(code, Some(130), "{told}");
    nothing_is_left(&docker).await;
}

/// Its end is success, on nodes, and it looked at these laws and found none broken.
async fn passes(args: &[&str], laws: &[&str]) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let (code, told) = end(drill(args, &file)).await;
    assert_eq!(code, Some(0), "{told}");
    let report = read(&file);
    assert_eq!(report["on"], "testbed");
    assert_eq!(report["passed"], true, "{told}");
    assert_eq!(broken(&report), [""; 0], "{told}");
    let judged = report["laws"].as_array().unwrap().iter();
    let judged: Vec<_> = judged.map(|law| law["law"].as_str().unwrap()).collect();
    for law in laws {
        assert!(judged.contains(law), "{law}: {judged:?}");
        assert!(told.contains(law), "{law}: {told}");
    }
    assert!(told.contains("passed (seed 1"), "{told}");
    (told, report)
}

#[tokio::test]
async fn a_real_member_of_etcd_is_replaced_on_its_node_and_nothing_is_left_behind() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let Some(etcd) = Etcd::all_or_skip().into_iter().next() else {
        return;
    };
    let program = etcd.program().to_str().unwrap();
    let args = ["etcd-member", "--seed", "1", "--database", "1", "--etcd", program];
    let (told, report) = passes(
        &args,
        &[
            "only-planned",
            "manifests",
            "agents",
            "data",
            "copies",
            "chapter-end",
        ],
    )
    .await;
    assert_eq!(report["etcd"]["program"], program);
    assert_eq!(report["runs"][0]["state"], "succeeded", "{report:#}");
    assert!(report["acknowledged"].as_u64().unwrap() > 10, "{report:#}");
    let timings = report["timings"].as_array().unwrap().iter();
    let timings: Vec<_> = timings
        .map(|timing| (timing["what"].as_str().unwrap(), timing["ms"].as_u64().unwrap()))
        .collect();
    let [(whole, lost_ms), (approval, approved_ms)] = timings[..] else {
        panic!("{timings:?}");
    };
    assert_eq!(whole, "from the loss of a member to one that votes");
    assert_eq!(approval, "from the approval to a member that votes");
    assert!(0 < approved_ms && approved_ms < lost_ms, "{timings:?}");
    for what in [whole, approval] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(report["makespan_ms"].as_u64() >= Some(lost_ms), "{report:#}");
    nothing_is_left(&docker).await;
}

#[tokio::test]
async fn static_pods_of_real_masters_are_bounced_one_at_a_time_and_nothing_is_left_behind() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let laws = [
        "one-at-a-time",
        "only-planned",
        "stops",
        "manifests",
        "missing-evidence",
        "agents",
        "chapter-end",
    ];
    let (told, report) = passes(&["control-plane", "--seed", "1"], &laws).await;
    let runs = report["runs"].as_array().unwrap().iter();
    let states: Vec<_> = runs.clone().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(
        states,
        ["succeeded", "succeeded", "halted", "succeeded"],
        "{told}"
    );
    for run in runs {
        assert!(run["asked_ms"].as_u64() < run["ended_ms"].as_u64(), "{run:#}");
    }
    // One API server, three schedulers, one controller manager, three API servers.
    let outs = report["outs"].as_array().unwrap();
    assert_eq!(outs.len(), 8, "{outs:#?}");
    for out in outs {
        assert!(out["gone_ms"].as_u64() < out["back_ms"].as_u64(), "{out:#}");
        assert!(out["well_ms"].is_u64(), "{out:#}");
    }
    assert!(report["makespan_ms"].is_u64(), "{report:#}");
    nothing_is_left(&docker).await;
}
