//! Whole beds lose power. What is judged is what the nodes' own journals and ledgers say, not what the coordinator says of
//! itself; all nodes share one monotonic clock, so their journals can be laid side by side.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../coordinator/tests/etcd/mod.rs"]
mod etcd;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackstart_tests::bed::{Bed, Wish};
use blackstart_tests::coordinator::Coordinator;
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::node::Node;
use blackstart_tests::settings::{Yaml, gate};
use blackstart_tests::topology::{Declared, Role};
use blackstart_tests::wait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const KUBELET: &str = "kubelet.service";
const GATE: &str = "blackstart-gate.service";
const DEADLINE: Duration = Duration::from_mins(3);
/// Of three masters.
const QUORUM: usize = 2;

/// A bed whose coordinator knows all nodes as well.
async fn raise(docker: &Docker, name: &str, wish: &Wish) -> Bed {
    let bed = Bed::raise(docker, name, wish).await.unwrap();
    all_ready(&bed, bed.declared().len()).await;
    bed
}

async fn items(bed: &Bed, what: &[&str]) -> anyhow::Result<Vec<Value>> {
    items_of(bed.coordinator()?, what).await
}

async fn items_of(coordinator: &Coordinator, what: &[&str]) -> anyhow::Result<Vec<Value>> {
    let list = coordinator.ask(what).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

async fn all_ready(bed: &Bed, count: usize) {
    wait::until("all nodes to be ready", DEADLINE, async || {
        let nodes = items(bed, &["get", "nodes"]).await?;
        let ready = nodes.iter().filter(|node| node["phase"] == "ready").count();
        Ok((ready == count).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until the coordinator has finished so many cold starts; the last one.
async fn succeeded(bed: &Bed, count: usize) -> Value {
    succeeded_by(bed.coordinator().unwrap(), count).await
}

async fn succeeded_by(coordinator: &Coordinator, count: usize) -> Value {
    let run = wait::until("the cold start to succeed", DEADLINE, async || {
        let runs = items_of(coordinator, &["get", "runs"]).await?;
        let done: Vec<_> = runs.iter().filter(|run| run["state"] == "succeeded").collect();
        Ok((done.len() == count && runs.len() == count).then(|| newest(&runs)))
    })
    .await
    .unwrap();
    say(&format!("{}: {} ms", run["id"], run["elapsed_ms"]));
    run
}

fn newest(runs: &[Value]) -> Value {
    let started = |run: &&Value| run["started_at"].as_str().unwrap_or_default().to_owned();
    runs.iter().max_by_key(started).cloned().unwrap_or_default()
}

/// When a node's kubelet was started in this boot, by its journal; that it was only once.
async fn kubelet_start(node: &Node) -> u64 {
    let starts: Vec<_> = node
        .journal(KUBELET)
        .await
        .unwrap()
        .into_iter()
        .filter(|entry| entry.is_start)
        .map(|entry| entry.monotonic_us)
        .collect();
    assert_eq!(
        starts.len(),
        1,
        "starts of the kubelet of {} in this boot",
        node.name()
    );
    starts[0]
}

async fn kubelet_starts(nodes: impl Iterator<Item = &Node>) -> BTreeMap<String, u64> {
    let mut starts = BTreeMap::new();
    for node in nodes.filter(|node| node.is_on()) {
        starts.insert(node.name().to_owned(), kubelet_start(node).await);
    }
    starts
}

/// Masters first, and workers only after a quorum of masters served.
async fn check_order(bed: &Bed) {
    let masters = kubelet_starts(bed.of_role(Role::Master)).await;
    let workers = kubelet_starts(bed.of_role(Role::Worker)).await;
    let mut serving = Vec::new();
    for node in bed.of_role(Role::Master).filter(|node| node.is_on()) {
        let journal = node.journal(KUBELET).await.unwrap();
        let ready = journal
            .iter()
            .find(|entry| entry.message.contains("api server ready"));
        serving.extend(ready.map(|entry| entry.monotonic_us));
    }
    serving.sort_unstable();
    let passed = serving[QUORUM - 1];
    for (name, start) in &workers {
        assert!(
            *start > passed,
            "{name} started at {start} us, the control plane served from {passed}: {masters:?} {workers:?}"
        );
    }
    let released_by = |node: &Node, journal: &str| {
        assert!(
            journal.contains("state=Released"),
            "gate of {}: {journal}",
            node.name()
        );
    };
    for node in bed.nodes().filter(|node| node.is_on()) {
        released_by(node, &gate_words(node).await);
    }
}

async fn gate_words(node: &Node) -> String {
    let journal = node.journal(GATE).await.unwrap();
    journal
        .iter()
        .map(|entry| entry.message.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn masters_come_back_first_and_workers_after_the_control_plane() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = raise(&docker, "loss", &Wish::fleet(3, 2)).await;

    bed.power_loss().await.unwrap();
    bed.power_on().await.unwrap();
    succeeded(&bed, 1).await;
    check_order(&bed).await;
    all_ready(&bed, 5).await;

    // Now the coordinator's machine as well.
    bed.power_loss().await.unwrap();
    let coordinator = bed.coordinator().unwrap();
    coordinator.lose_power().await.unwrap();
    coordinator.start().await.unwrap();
    bed.power_on().await.unwrap();
    succeeded(&bed, 2).await;
    check_order(&bed).await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_node_that_never_returns_is_residue_and_holds_nobody() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        coordinator: Yaml::default().with("cold_start", "{return_deadline: 15s}"),
        ..Wish::fleet(3, 3)
    };
    let bed = raise(&docker, "residue", &wish).await;
    bed.power_loss().await.unwrap();
    bed.power_on_except(&["worker-3"]).await.unwrap();

    bed.kubelets_answer(bed.nodes().filter(|node| node.is_on()), DEADLINE)
        .await
        .unwrap();
    let run = newest(&items(&bed, &["get", "runs"]).await.unwrap());
    assert_eq!(run["state"], "running", "the others did not wait for it: {run}");
    assert!(run["waiting_on"].to_string().contains("worker-3"), "{run}");
    let run = succeeded(&bed, 1).await;
    assert_eq!(run["residue"], serde_json::json!(["worker-3"]));
    check_order(&bed).await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_is_killed_again_and_again_finishes_and_does_nothing_twice() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    say(&format!("SEED={seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let bed = raise(&docker, "killed", &Wish::fleet(3, 2)).await;
    let coordinator = bed.coordinator().unwrap();
    bed.power_loss().await.unwrap();

    // Nodes return one by one while it is killed; the last with the tenth kill, so that all fall into the cold start.
    let mut returning = bed.nodes_as_declared();
    for kill in 1..=10 {
        let back = match kill {
            1 | 3 | 5 | 7 | 10 => returning.next(),
            _ => None,
        };
        if kill == 10 {
            let run = newest(&items(&bed, &["get", "runs"]).await.unwrap());
            assert_eq!(run["state"], "running", "nine kills in: {run}");
        }
        let moment = Duration::from_millis(random.random_range(0..700));
        let powers_on = async {
            if let Some(node) = back {
                node.power_on().await.unwrap();
            }
        };
        let dies = async {
            tokio::time::sleep(moment).await;
            coordinator.kill().await.unwrap();
            coordinator.start().await.unwrap();
        };
        tokio::join!(powers_on, dies);
    }
    assert!(returning.next().is_none());
    drop(returning);
    succeeded(&bed, 1).await;
    check_order(&bed).await;

    let mut commands = BTreeSet::new();
    for node in bed.nodes() {
        let deeds = node.ledger().await.unwrap();
        let releases: Vec<_> = deeds
            .iter()
            .filter(|deed| deed.remedy == "release-kubelet")
            .collect();
        assert_eq!(releases.len(), 1, "{}: {releases:?}", node.name());
        assert_eq!(releases[0].succeeded, Some(true));
        assert!(
            commands.insert(releases[0].command_id.clone().unwrap()),
            "{releases:?}"
        );
    }
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn without_a_coordinator_the_gates_open_by_themselves_masters_first() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |node| Yaml::default().with("gate", gate(node, "5s", "25s")),
        ..Wish::fleet(3, 2)
    };
    let bed = raise(&docker, "dead-man", &wish).await;
    let coordinator = bed.coordinator().unwrap();
    bed.power_loss().await.unwrap();
    // One master is not a control plane: the cold start stops in the middle.
    bed.power_on_except(&["master-2", "master-3"]).await.unwrap();
    bed.kubelets_answer([bed.node("master-1").unwrap()], DEADLINE)
        .await
        .unwrap();
    assert_eq!(
        newest(&items(&bed, &["get", "runs"]).await.unwrap())["state"],
        "running"
    );
    coordinator.kill().await.unwrap();
    bed.power_on().await.unwrap();

    bed.kubelets_answer(bed.nodes(), DEADLINE).await.unwrap();
    assert!(coordinator.pid().is_none());
    let masters = kubelet_starts(bed.of_role(Role::Master)).await;
    let workers = kubelet_starts(bed.of_role(Role::Worker)).await;
    assert!(
        masters.values().max() < workers.values().min(),
        "masters first: {masters:?} {workers:?}"
    );
    for node in bed.nodes() {
        let by = if node.name() == "master-1" {
            "state=Released"
        } else {
            "state=DeadMan"
        };
        let words = gate_words(node).await;
        assert!(words.contains(by), "{}: {words}", node.name());
    }
    bed.take_down().await.unwrap();
}

/// Agents that know three coordinators, all on their network's gateway.
fn of_three(node: &Declared) -> Yaml {
    let [a, b, c, _] = node.address.octets();
    let addresses: Vec<_> = (7443..7446)
        .map(|port| format!("\"{a}.{b}.{c}.1:{port}\""))
        .collect();
    let pki = "/etc/blackstart/pki";
    Yaml::default().with(
        "coordinator",
        format!(
            "{{addresses: [{}], ca: {pki}/ca.crt, certificate: {pki}/node.crt, key: {pki}/node.key, report_interval: 500ms}}",
            addresses.join(", ")
        ),
    )
}

#[tokio::test]
async fn of_three_coordinators_the_one_that_led_never_returns_and_the_cold_start_goes_by_plan() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    if !etcd::is_here("a power loss with three coordinators") {
        return;
    }
    let mut etcd = etcd::Etcd::start(3);
    let endpoints: Vec<_> = etcd
        .addresses()
        .iter()
        .map(|address| format!("\"http://{address}\""))
        .collect();
    let store = |number: u16| {
        let endpoints = endpoints.join(", ");
        let store = format!("{{etcd: {{endpoints: [{endpoints}], name: coordinator-{number}}}}}");
        Yaml::default().with("store", store)
    };
    let wish = Wish {
        agent: of_three,
        coordinator: store(0),
        ..Wish::fleet(3, 2)
    };
    // The first is alone, so it leads.
    let bed = raise(&docker, "three", &wish).await;
    let first = bed.coordinator().unwrap();
    let others = [
        first.another(1, &store(1)).unwrap(),
        first.another(2, &store(2)).unwrap(),
    ];
    for other in &others {
        other.start().await.unwrap();
    }
    wait::until("three coordinators", DEADLINE, async || {
        let all = items_of(&others[1], &["get", "coordinators"]).await?;
        let leads: Vec<_> = all.iter().filter(|one| one["leads"] == true).collect();
        Ok((all.len() == 3 && leads.len() == 1 && leads[0]["name"] == "coordinator-0").then_some(()))
    })
    .await
    .unwrap();

    // All of it goes dark: nodes, coordinators, etcd. One coordinator and one member of etcd stay away.
    bed.power_loss().await.unwrap();
    for coordinator in others.iter().chain([first]) {
        coordinator.lose_power().await.unwrap();
    }
    for member in 0..3 {
        etcd.kill_member(member);
    }
    bed.power_on().await.unwrap();
    for member in [1, 2] {
        etcd.start_member(member);
    }
    for other in &others {
        other.start().await.unwrap();
    }
    succeeded_by(&others[0], 1).await;
    check_order(&bed).await;
    for node in bed.nodes() {
        let deeds = node.ledger().await.unwrap();
        let releases = deeds.iter().filter(|deed| deed.remedy == "release-kubelet");
        assert_eq!(releases.count(), 1, "{}: {deeds:?}", node.name());
    }
    bed.take_down().await.unwrap();
}
