//! Brakes on real nodes: what is held stays as it is, over restarts and reboots, and a storm freezes who is still well.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node::Node;
use blackstart_tests::settings::{Yaml, gate};
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const LONG: Duration = Duration::from_mins(3);

async fn raise(docker: &Docker, name: &str, wish: &Wish) -> Bed {
    let bed = Bed::raise(docker, name, wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    bed
}

/// Kills the kubelet.
async fn dies(node: &Node) {
    let old = node.main_pid(KUBELET).await.unwrap().unwrap();
    kill(old, Signal::SIGKILL).unwrap();
}

/// Waits until the agent of the node says that its failed kubelet waits for such words.
async fn waits_for(node: &Node, words: &str) {
    wait::until(
        &format!("{} to wait for {words}", node.name()),
        LONG,
        async || {
            let told = node
                .exec(&["blackstart-agent", "conditions"])
                .await
                .unwrap_or_default();
            let waits = told
                .lines()
                .any(|line| line.contains(KUBELET) && line.contains(words));
            Ok(waits.then_some(()))
        },
    )
    .await
    .unwrap();
}

async fn comes_back(node: &Node) {
    wait::until("the kubelet to run again", LONG, async || {
        node.main_pid(KUBELET).await
    })
    .await
    .unwrap();
}

async fn restarts(node: &Node) -> usize {
    let deeds = node.ledger().await.unwrap();
    deeds.iter().filter(|deed| deed.remedy == "restart-unit").count()
}

#[tokio::test]
async fn a_held_kubelet_stays_dead_until_unhold_and_silence_survives_a_power_loss() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    // Without a coordinator nobody else lets the kubelet go after a power loss.
    let wish = Wish {
        agent: |node| Yaml::default().with("gate", gate(node, "1s", "5s")),
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "brakes-held", &wish).await;
    let node = bed.node("worker-1").unwrap();
    node.exec(&[
        "blackstart-agent",
        "hold",
        "--remedy",
        "restart-unit",
        "--reason",
        "upgrade",
    ])
    .await
    .unwrap();
    dies(node).await;
    waits_for(node, "a hold to be lifted").await;
    node.exec(&["systemctl", "restart", AGENT]).await.unwrap();
    waits_for(node, "a hold to be lifted").await;
    assert_eq!(node.main_pid(KUBELET).await.unwrap(), None);
    assert_eq!(restarts(node).await, 0);
    node.exec(&["blackstart-agent", "unhold", "--remedy", "restart-unit"])
        .await
        .unwrap();
    comes_back(node).await;

    node.exec(&["blackstart-agent", "silence", "--reason", "disk", "--for", "2h"])
        .await
        .unwrap();
    node.power_off().await.unwrap();
    node.power_on().await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    let before = restarts(node).await;
    dies(node).await;
    waits_for(node, "the end of the node's silence").await;
    assert_eq!(restarts(node).await, before);
    node.exec(&["blackstart-agent", "unsilence"]).await.unwrap();
    comes_back(node).await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_storm_on_three_nodes_freezes_the_fourth_until_it_is_thawed() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = raise(&docker, "brakes-storm", &Wish::fleet(3, 1)).await;
    let coordinator = bed.coordinator().unwrap();
    let nodes: Vec<&Node> = bed.nodes_as_declared().collect();
    let (fourth, sick) = nodes.split_last().unwrap();
    wait::until("all nodes to be ready", LONG, async || {
        let list = coordinator.ask(&["get", "nodes"]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let ready = items.iter().filter(|node| node["phase"] == "ready").count();
        Ok((ready == 4).then_some(()))
    })
    .await
    .unwrap();
    for node in sick {
        node.write("/run/stand-in-kubelet", "refuse").unwrap();
        dies(node).await;
    }
    wait::until("the fourth node to be frozen", LONG, async || {
        let node = coordinator.ask(&["describe", "node", fourth.name()]).await?;
        let told = node["freezes"].as_array().cloned().unwrap_or_default();
        let here = fourth.exec(&["blackstart-agent", "status"]).await?;
        let frozen = told.iter().any(|freeze| freeze["condition"] == "UnitFailed");
        Ok((frozen && here.contains("frozen")).then_some(()))
    })
    .await
    .unwrap();
    dies(fourth).await;
    waits_for(fourth, "a storm to pass").await;
    assert_eq!(restarts(fourth).await, 0);
    coordinator
        .ask(&["storm", "thaw", "--cluster", "bed", "UnitFailed"])
        .await
        .unwrap();
    comes_back(fourth).await;
    bed.take_down().await.unwrap();
}
