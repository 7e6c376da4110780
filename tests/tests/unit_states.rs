//! Units that are not well and have not failed, and units that need each other, on a real node with the real systemd and journal.
//!
//! containerd and dockerd are stand-ins: a main process, and beside it in the same cgroup one that keeps a container, as a shim does.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use anyhow::Context;
use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const CONTAINERD: &str = "containerd.service";
const DOCKER: &str = "docker.service";
const LOOPS: &str = "loops.service";
const LIMITED: &str = "limited.service";
const UNWANTED: &str = "unwanted.service";
const HANGS: &str = "hangs.service";
/// For what takes as long as it takes.
const LONG: Duration = Duration::from_mins(3);

/// A runtime with a shim. Both units of the real packages have `KillMode=process`.
fn runtime(after: &str) -> String {
    format!(
        "[Unit]\nAfter={after}\nStartLimitIntervalSec=0\n\n[Service]\nKillMode=process\n\
         ExecStart=/bin/sh -c '[ -e /run/refuse ] && exit 1; [ -e /run/shim ] || sleep 100001 & touch /run/shim; exec sleep 100002'\n"
    )
}

/// Dies when there is a file, else stays.
fn dies(service: &str) -> String {
    format!("[Unit]\n{service}ExecStart=/bin/sh -c '[ -e /run/die ] && exit 3; exec sleep 100003'\n")
}

async fn raise(docker: &Docker, name: &str, wish: &Wish) -> Bed {
    let bed = Bed::raise(docker, name, wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    main_pid(node, AGENT).await;
    for (unit, _) in &wish.units {
        active(node, unit).await;
    }
    bed
}

async fn main_pid(node: &Node, unit: &str) -> Pid {
    let what = format!("a main process of {unit}");
    let found = wait::until(&what, LONG, async || node.main_pid(unit).await).await;
    found.unwrap()
}

async fn active(node: &Node, unit: &str) {
    let what = format!("{unit} to run");
    wait::until(&what, LONG, async || {
        let state = node.property(unit, "ActiveState").await?;
        Ok((state == "active").then_some(()))
    })
    .await
    .unwrap();
}

/// What the agent says that stands.
async fn conditions(node: &Node) -> anyhow::Result<Vec<Value>> {
    let answer = node
        .exec(&["blackstart-agent", "conditions", "--output=json"])
        .await?;
    let answer: Value = serde_json::from_str(&answer)?;
    let list = answer["items"].as_array().cloned();
    list.context("read the list of conditions")
}

async fn stands(node: &Node, kind: &str, unit: &str) -> Value {
    let what = format!("{kind} of {unit}");
    wait::until(&what, LONG, async || {
        let mut standing = conditions(node).await?.into_iter();
        Ok(standing.find(|one| one["condition"] == kind && one["subject"] == unit))
    })
    .await
    .unwrap()
}

async fn clears(node: &Node, kind: &str) {
    let what = format!("{kind} to clear");
    wait::until(&what, LONG, async || {
        let standing = conditions(node).await?;
        Ok((!standing.iter().any(|one| one["condition"] == kind)).then_some(()))
    })
    .await
    .unwrap();
}

async fn deeds_to(node: &Node, unit: &str) -> Vec<Deed> {
    let ledger = node.ledger().await.unwrap().into_iter();
    ledger.filter(|deed| deed.subject == unit).collect()
}

/// Waits for the first deed to this unit that has ended.
async fn mended(node: &Node, remedy: &str, unit: &str) -> Deed {
    let what = format!("{remedy} {unit}");
    wait::until(&what, LONG, async || {
        let mut ledger = node.ledger().await?.into_iter();
        Ok(ledger.find(|deed| deed.remedy == remedy && deed.subject == unit && deed.succeeded == Some(true)))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_crash_loop_is_told_a_start_limit_is_mended_and_a_masked_unit_is_left_alone() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with("units", format!("[{KUBELET}, {LOOPS}, {LIMITED}, {UNWANTED}]"))
                .with("unit_states", "{flapping_restarts: 5, flapping_window: 15s}")
                .with(
                    "restart",
                    // Longer than systemd takes from the stop of a unit that is masked to the word that it is.
                    "{inactive_hold: 10s, restarts: 50, backoff_first: 100ms, backoff_max: 1s}",
                )
        },
        units: vec![
            (
                LOOPS,
                dies("StartLimitIntervalSec=0\n\n[Service]\nRestart=always\nRestartSec=300ms\n"),
            ),
            // Not within a minute would it be started again by anybody who asks politely.
            (
                LIMITED,
                dies(
                    "StartLimitIntervalSec=60\nStartLimitBurst=3\n\n[Service]\nRestart=always\nRestartSec=10ms\n",
                ),
            ),
            (UNWANTED, dies("\n[Service]\n")),
        ],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-states", &wish).await;
    let node = bed.node("worker-1").unwrap();
    node.write("/run/die", "").unwrap();
    kill(main_pid(node, LOOPS).await, Signal::SIGKILL).unwrap();
    let told = stands(node, "UnitFlapping", LOOPS).await;
    let evidence = told["evidence"].as_str().unwrap();
    assert!(
        evidence.contains("exit status 3") && evidence.contains("times within 15s"),
        "{evidence}"
    );
    assert_eq!(told["escalated"], true);

    kill(main_pid(node, LIMITED).await, Signal::SIGKILL).unwrap();
    stands(node, "UnitFlapping", LIMITED).await;
    std::fs::remove_file(node.path("/run/die").unwrap()).unwrap();
    // By the agent's restart, or by systemd's own after the agent has reset its limit.
    active(node, LIMITED).await;
    assert_ne!(deeds_to(node, LIMITED).await, []);
    clears(node, "UnitFlapping").await;
    assert_eq!(deeds_to(node, LOOPS).await, [], "systemd was at it");

    // The unit's own file is on a mount that nobody may write to, and a mask goes before it.
    node.exec(&["systemctl", "mask", "--now", UNWANTED])
        .await
        .unwrap();
    stands(node, "UnitMasked", UNWANTED).await;
    let load = node.property(UNWANTED, "LoadState").await.unwrap();
    assert_eq!(load, "masked");
    assert_eq!(deeds_to(node, UNWANTED).await, []);
    node.exec(&["systemctl", "unmask", UNWANTED]).await.unwrap();
    clears(node, "UnitMasked").await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_start_that_never_ends_is_killed_and_made_again() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with("units", format!("[{KUBELET}, {HANGS}]"))
                .with("unit_states", "{job_hung_after: 3s}")
        },
        units: vec![(
            HANGS,
            "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=infinity\n\
             ExecStart=/bin/sh -c '[ -e /run/hang ] || systemd-notify --ready; exec sleep 100003'\n"
                .to_owned(),
        )],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-hangs", &wish).await;
    let node = bed.node("worker-1").unwrap();
    node.write("/run/hang", "").unwrap();
    node.exec(&["systemctl", "restart", "--no-block", HANGS])
        .await
        .unwrap();
    wait::until("a start that does not end", LONG, async || {
        let state = node.property(HANGS, "ActiveState").await?;
        Ok((state == "activating").then_some(()))
    })
    .await
    .unwrap();
    let hung = main_pid(node, HANGS).await;
    std::fs::remove_file(node.path("/run/hang").unwrap()).unwrap();
    mended(node, "kill-restart-unit", HANGS).await;
    active(node, HANGS).await;
    assert_ne!(main_pid(node, HANGS).await, hung);
    clears(node, "UnitJobHung").await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn units_that_fail_together_come_back_in_order_and_a_kill_leaves_the_shims_alone() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with("units", format!("[{KUBELET}, {DOCKER}, {CONTAINERD}]"))
                .with(
                    "restart",
                    "{restarts: 0, kill_restarts: 60, backoff_first: 100ms, backoff_max: 500ms}",
                )
        },
        units: vec![
            (CONTAINERD, runtime("basic.target")),
            (DOCKER, runtime(CONTAINERD)),
        ],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-order", &wish).await;
    let node = bed.node("worker-1").unwrap();
    let shim = async || node.exec(&["pgrep", "--full", "sleep 10000[1]"]).await.unwrap();
    let before = shim().await;
    let dependents = [main_pid(node, KUBELET).await, main_pid(node, DOCKER).await];
    // What they need refuses to start for a while. It fails first: whatever failed milliseconds before it may have been restarted by then.
    node.write("/run/refuse", "").unwrap();
    kill(main_pid(node, CONTAINERD).await, Signal::SIGKILL).unwrap();
    wait::until("a kill-restart of containerd that fails", LONG, async || {
        let mut ledger = node.ledger().await?.into_iter();
        Ok(ledger.find(|deed| deed.subject == CONTAINERD && deed.succeeded == Some(false)))
    })
    .await
    .unwrap();
    for pid in dependents {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    for unit in [DOCKER, KUBELET] {
        stands(node, "UnitFailed", unit).await;
    }
    std::fs::remove_file(node.path("/run/refuse").unwrap()).unwrap();
    for unit in [CONTAINERD, DOCKER, KUBELET] {
        mended(node, "kill-restart-unit", unit).await;
        active(node, unit).await;
    }
    let mut last = 0;
    for unit in [CONTAINERD, DOCKER, KUBELET] {
        let journal = node.journal(unit).await.unwrap();
        let started = journal.iter().rfind(|entry| entry.is_start).unwrap().monotonic_us;
        assert!(
            started > last,
            "{unit} was started at {started}, and what it needs at {last}"
        );
        last = started;
    }
    assert_eq!(shim().await, before, "the container's keeper lives on");
    assert!(!before.is_empty());
    for unit in [DOCKER, KUBELET] {
        let tries = deeds_to(node, unit).await;
        assert!(
            tries.iter().all(|deed| deed.succeeded == Some(true)),
            "{unit} lost attempts on what it needs: {tries:?}"
        );
    }
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn what_the_kubelet_says_in_its_journal_is_told_then_mended() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with("kubelet", "{interval: 500ms, deadline: 5s}")
                .with("pleg", "{interval: 2s, deadline: 20s, restart_after: 8s}")
        },
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-pleg", &wish).await;
    let node = bed.node("worker-1").unwrap();
    let old = main_pid(node, KUBELET).await;
    node.write("/run/stand-in-kubelet", "pleg").unwrap();
    let told = stands(node, "KubeletPlegUnhealthy", KUBELET).await;
    let evidence = told["evidence"].as_str().unwrap();
    assert!(
        evidence.contains("PLEG is not healthy: pleg was last seen active"),
        "{evidence}"
    );
    assert_eq!(main_pid(node, KUBELET).await, old, "told first");
    // It comes right by itself.
    node.write("/run/stand-in-kubelet", "").unwrap();
    clears(node, "KubeletPlegUnhealthy").await;
    assert_eq!(deeds_to(node, KUBELET).await, []);

    node.write("/run/stand-in-kubelet", "pleg").unwrap();
    mended(node, "restart-unit", KUBELET).await;
    assert_ne!(main_pid(node, KUBELET).await, old);
    clears(node, "KubeletPlegUnhealthy").await;
    bed.take_down().await.unwrap();
}
