//! Local repairs on a real node: systemd, D-Bus and the agent's unit file as they are shipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const UNWANTED: &str = "unwanted.service";
/// What the product promises for a hung kubelet.
const MENDED: Duration = Duration::from_secs(20);
/// For what takes as long as it takes.
const LONG: Duration = Duration::from_mins(3);

async fn raise(docker: &Docker, name: &str, wish: &Wish) -> Bed {
    let bed = Bed::raise(docker, name, wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    bed
}

async fn main_pid(node: &Node, unit: &str) -> Pid {
    let what = format!("a main process of {unit}");
    let found = wait::until(&what, LONG, async || node.main_pid(unit).await).await;
    found.unwrap()
}

/// Waits for another kubelet than this one.
async fn replaced(node: &Node, old: Pid, within: Duration) -> Pid {
    wait::until("another kubelet to run", within, async || {
        let new = node.main_pid(KUBELET).await?;
        Ok(new.filter(|new| *new != old))
    })
    .await
    .unwrap()
}

/// Kills the kubelet and waits for the next one.
async fn dies_and_comes_back(node: &Node) {
    let old = main_pid(node, KUBELET).await;
    kill(old, Signal::SIGKILL).unwrap();
    replaced(node, old, MENDED).await;
}

/// Waits for so many deeds of this name, all of which have ended.
async fn deeds(node: &Node, remedy: &str, count: usize) -> Vec<Deed> {
    let what = format!("{count} {remedy} in the ledger");
    wait::until(&what, LONG, async || {
        let deeds = node
            .ledger()
            .await?
            .into_iter()
            .filter(|deed| deed.remedy == remedy);
        let ended: Vec<_> = deeds.filter(|deed| deed.succeeded.is_some()).collect();
        Ok((ended.len() >= count).then_some(ended))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_killed_kubelet_is_restarted() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = raise(&docker, "units-killed", &Wish::single(Runs::Agents)).await;
    let node = bed.node("worker-1").unwrap();
    main_pid(node, AGENT).await;
    dies_and_comes_back(node).await;
    let deeds = deeds(node, "restart-unit", 1).await;
    assert_eq!(deeds.len(), 1, "{deeds:?}");
    assert_eq!(
        (deeds[0].subject.as_str(), deeds[0].succeeded),
        (KUBELET, Some(true))
    );
    nothing_stands(node).await;
    bed.take_down().await.unwrap();
}

/// Waits until the agent has nothing to tell of its node.
async fn nothing_stands(node: &Node) {
    wait::until("every condition to clear", LONG, async || {
        let answer = node
            .exec(&["blackstart-agent", "conditions", "--output=json"])
            .await?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        Ok(answer["items"]
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_unit_that_somebody_stops_is_started_again_and_one_that_is_disabled_is_not() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let installed = "[Service]\nExecStart=/bin/sleep 100004\n[Install]\nWantedBy=multi-user.target\n";
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with("units", format!("[{KUBELET}, {UNWANTED}]"))
                .with("restart", "{inactive_hold: 2s, backoff_first: 100ms}")
        },
        units: vec![(UNWANTED, installed.to_owned())],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-stopped", &wish).await;
    let node = bed.node("worker-1").unwrap();
    main_pid(node, AGENT).await;
    main_pid(node, UNWANTED).await;
    node.exec(&["systemctl", "disable", "--now", UNWANTED])
        .await
        .unwrap();
    // Stopped after the other, and as often as it takes for the other's hold time to be over.
    for count in 1..=2 {
        let old = main_pid(node, KUBELET).await;
        node.exec(&["systemctl", "stop", KUBELET]).await.unwrap();
        replaced(node, old, LONG).await;
        let deeds = deeds(node, "restart-unit", count).await;
        assert_eq!(deeds.len(), count, "{deeds:?}");
        for deed in deeds {
            assert_eq!((deed.subject.as_str(), deed.succeeded), (KUBELET, Some(true)));
            assert!(deed.reason.contains("UnitInactive"), "{}", deed.reason);
        }
    }
    let state = node.property(UNWANTED, "ActiveState").await.unwrap();
    assert_eq!(state, "inactive");
    nothing_stands(node).await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_hung_kubelet_is_killed_and_restarted_within_20_seconds() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    // The shipped times: what is promised holds for them.
    let wish = Wish {
        agent: |_| Yaml::default().with("kubelet", "{}"),
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-hung", &wish).await;
    let node = bed.node("worker-1").unwrap();
    main_pid(node, AGENT).await;
    let old = main_pid(node, KUBELET).await;
    node.write("/run/stand-in-kubelet", "hang").unwrap();
    replaced(node, old, MENDED).await;
    let deeds = deeds(node, "kill-restart-unit", 1).await;
    assert_eq!(
        (deeds[0].subject.as_str(), deeds[0].succeeded),
        (KUBELET, Some(true))
    );
    nothing_stands(node).await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_kubelet_that_refuses_to_start_spends_its_budget_and_is_reported() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default().with(
                "restart",
                "{restarts: 2, kill_restarts: 1, backoff_first: 100ms, backoff_max: 500ms}",
            )
        },
        ..Wish::fleet(1, 0)
    };
    let bed = raise(&docker, "units-refuses", &wish).await;
    let node = bed.node("master-1").unwrap();
    main_pid(node, AGENT).await;
    let old = main_pid(node, KUBELET).await;
    node.write("/run/stand-in-kubelet", "refuse").unwrap();
    kill(old, Signal::SIGKILL).unwrap();

    let coordinator = bed.coordinator().unwrap();
    let told = wait::until("RemedyExhausted to be reported", LONG, async || {
        let list = coordinator.ask(&["get", "conditions"]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .into_iter()
            .find(|item| item["condition"] == "RemedyExhausted"))
    })
    .await
    .unwrap();
    assert_eq!(
        (told["node"].as_str(), told["cluster"].as_str()),
        (Some("master-1"), Some("bed"))
    );
    assert_eq!(told["subject"], KUBELET);
    assert!(!told["evidence"].as_str().unwrap().is_empty());
    assert_eq!(deeds(node, "restart-unit", 2).await.len(), 2);
    assert_eq!(deeds(node, "kill-restart-unit", 1).await.len(), 1);
    let state = node.property(KUBELET, "ActiveState").await.unwrap();
    assert_eq!(state, "failed", "the agent has stopped");
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn repairs_go_on_after_systemd_and_the_bus_were_restarted() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| Yaml::default().with("restart", "{backoff_first: 100ms, backoff_max: 500ms}"),
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "units-bus", &wish).await;
    let node = bed.node("worker-1").unwrap();
    let agent = main_pid(node, AGENT).await;
    dies_and_comes_back(node).await;
    node.exec(&["systemctl", "daemon-reexec"]).await.unwrap();
    dies_and_comes_back(node).await;
    node.exec(&["systemctl", "restart", "dbus.service"])
        .await
        .unwrap();
    dies_and_comes_back(node).await;
    assert_eq!(main_pid(node, AGENT).await, agent, "the agent itself goes on");
    bed.take_down().await.unwrap();
}
