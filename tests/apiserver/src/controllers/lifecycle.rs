//! Heartbeats that stop (`pkg/controller/nodelifecycle/node_lifecycle_controller.go` of 1.36): a node without one for the grace period is
//! `Unknown`; its taint for evictions comes at a rate that goes by how much of its zone is lost, and not at all once everything is.

use super::conditions;
use crate::clock::{self, elapsed, seconds};
use crate::json::{at, condition, find, is_true, items, member, name, set, text};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nodes are tainted for eviction at 0.1 a second.
const EVERY: i64 = 10;
/// In a large zone of which much is lost, at 0.01 a second; in one of at most [`SMALL_ZONE`] nodes not at all.
const EVERY_IF_UNHEALTHY: i64 = 100;
const SMALL_ZONE: usize = 50;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// What the controller has seen.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The last heartbeat of each node as it was written, and when it was seen first. Only our own clock is believed.
    beats: BTreeMap<String, (String, Timestamp)>,
    /// When each zone may taint its next node.
    next: BTreeMap<String, Timestamp>,
    /// Whether all zones are lost (master disruption mode).
    all_lost: bool,
}

/// Looks at every node.
pub fn pass(world: &mut World) {
    let mut memory = std::mem::take(&mut world.lifecycle);
    let nodes: Vec<String> = world
        .store
        .list("nodes", None)
        .map(|node| name(node).to_owned())
        .collect();
    memory.beats.retain(|node, _| nodes.contains(node));
    for node in &nodes {
        monitor(world, &mut memory, node);
    }
    let mut zones: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for node in world.store.list("nodes", None) {
        let (ready, lost) = zones.entry(zone(node)).or_default();
        *if condition(node, "Ready") == "True" {
            ready
        } else {
            lost
        } += 1;
    }
    let all_lost = !zones.is_empty() && zones.values().all(|(ready, lost)| *ready == 0 && *lost > 0);
    if memory.all_lost && !all_lost {
        for (_, seen) in memory.beats.values_mut() {
            *seen = world.now;
        }
    }
    memory.all_lost = all_lost;
    for node in &nodes {
        taint(world, &mut memory, node, &zones);
    }
    world.lifecycle = memory;
}

fn zone(node: &Value) -> String {
    member(node, "/metadata/labels", "topology.kubernetes.io/zone")
        .unwrap_or_default()
        .to_owned()
}

/// Takes in a node's heartbeat, or that there was none for too long.
fn monitor(world: &mut World, memory: &mut Memory, called: &str) {
    let Some(node) = world.get("nodes", "", called) else {
        return;
    };
    let lease = world.get("leases", "kube-node-lease", called);
    let renewed = lease
        .as_deref()
        .map(|lease| text(lease, "/spec/renewTime"))
        .unwrap_or_default();
    let ready = find(&node, "/status/conditions", "type", "Ready");
    let reported = ready
        .map(|ready| text(ready, "/lastHeartbeatTime"))
        .unwrap_or_default();
    let beat = format!("{renewed} {reported}");
    let now = world.now;
    let (last, seen) = memory
        .beats
        .entry(called.to_owned())
        .or_insert_with(|| (beat.clone(), now));
    if *last != beat {
        (*last, *seen) = (beat, now);
    }
    if elapsed(*seen, now) <= world.release.monitor_grace_seconds()
        || condition(&node, "Ready") == "Unknown" && ready.is_some()
    {
        return;
    }
    let never = ("NodeStatusNeverUpdated", "Kubelet never posted node status.");
    let stopped = ("NodeStatusUnknown", "Kubelet stopped posting node status.");
    world.change("nodes", "", called, |node| {
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            let known = find(node, "/status/conditions", "type", kind).is_some();
            conditions::set(node, kind, "Unknown", if known { stopped } else { never }, now);
        }
    });
    let message = format!("Node {called} status is now: NodeNotReady");
    world.event(
        ("nodes", &node),
        "Normal",
        "NodeNotReady",
        &message,
        "node-controller",
    );
    for pod in world
        .store
        .all("pods")
        .iter()
        .filter(|pod| text(pod, "/spec/nodeName") == called)
    {
        if condition(pod, "Ready") == "True" {
            world.change("pods", crate::json::namespace(pod), name(pod), |pod| {
                conditions::set(pod, "Ready", "False", ("", ""), now);
            });
            world.event(
                ("pods", pod),
                "Warning",
                "NodeNotReady",
                "Node is not ready",
                "node-controller",
            );
        }
    }
}

/// Keeps a node's taints as its conditions are.
fn taint(world: &mut World, memory: &mut Memory, called: &str, zones: &BTreeMap<String, (usize, usize)>) {
    let Some(node) = world.get("nodes", "", called) else {
        return;
    };
    let lost = match condition(&node, "Ready") {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    let pressure = |kind: &str| condition(&node, kind) == "True";
    let mut wanted: Vec<&str> = lost.into_iter().collect();
    for (key, holds) in [
        (
            "node.kubernetes.io/unschedulable",
            is_true(&node, "/spec/unschedulable"),
        ),
        ("node.kubernetes.io/memory-pressure", pressure("MemoryPressure")),
        ("node.kubernetes.io/disk-pressure", pressure("DiskPressure")),
        ("node.kubernetes.io/pid-pressure", pressure("PIDPressure")),
    ] {
        if holds {
            wanted.push(key);
        }
    }
    let ours = |taint: &Value| {
        text(taint, "/key").starts_with("node.kubernetes.io/")
            && !text(taint, "/key").ends_with("out-of-service")
    };
    let is = |taint: &Value, key: &str, effect: &str| {
        text(taint, "/key") == key && text(taint, "/effect") == effect
    };
    let old = items(&node, "/spec/taints");
    let now = seconds(world.now);
    let keep = |taint: &&Value| match text(taint, "/effect") {
        "NoSchedule" if ours(taint) => wanted.contains(&text(taint, "/key")),
        "NoExecute" if is(taint, NOT_READY, "NoExecute") || is(taint, UNREACHABLE, "NoExecute") => {
            lost == Some(text(taint, "/key")) && !memory.all_lost
        }
        _ => true,
    };
    let mut taints: Vec<Value> = old.iter().filter(keep).cloned().collect();
    for key in &wanted {
        if !taints.iter().any(|taint| is(taint, key, "NoSchedule")) {
            taints.push(json!({"key": key, "effect": "NoSchedule", "timeAdded": now}));
        }
    }
    if let Some(key) =
        lost.filter(|key| !memory.all_lost && !taints.iter().any(|taint| is(taint, key, "NoExecute")))
    {
        let swapped = old.iter().any(|taint| {
            text(taint, "/effect") == "NoExecute"
                && (is(taint, NOT_READY, "NoExecute") || is(taint, UNREACHABLE, "NoExecute"))
        });
        if swapped || may_evict(memory, &zone(&node), zones, world.now) {
            taints.push(json!({"key": key, "effect": "NoExecute", "timeAdded": now}));
        }
    }
    if taints != old {
        world.change("nodes", "", called, |node| {
            if taints.is_empty() {
                crate::json::take(node, "/spec/taints");
            } else {
                set(node, "/spec/taints", taints);
            }
        });
    }
}

/// Whether a zone may taint one more node now.
fn may_evict(
    memory: &mut Memory,
    zone: &str,
    zones: &BTreeMap<String, (usize, usize)>,
    now: Timestamp,
) -> bool {
    let (ready, lost) = zones.get(zone).copied().unwrap_or_default();
    // Partial disruption: more than two nodes and at least 55 % of the zone.
    let partial = ready > 0 && lost > 2 && lost * 100 >= (ready + lost) * 55;
    let every = match partial {
        false => EVERY,
        true if ready + lost > SMALL_ZONE => EVERY_IF_UNHEALTHY,
        true => return false,
    };
    let next = memory.next.entry(zone.to_owned()).or_insert(now);
    if now < *next {
        return false;
    }
    *next = now + SignedDuration::from_secs(every);
    true
}

/// When a taint was set.
pub(super) fn added(taint: &Value) -> Option<Timestamp> {
    clock::parse(at(taint, "/timeAdded"))
}
