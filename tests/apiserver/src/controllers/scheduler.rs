//! A scheduler: cpu, memory, number of pods, taints, node selectors and node affinity; what does not fit is told in the words of the
//! real one (pkg/scheduler/framework/types.go, `FitError`).

use super::conditions;
use crate::json::{at, is_terminating, is_true, items, member, members, name, namespace, text};
use crate::quantity::{millis, units};
use crate::selector::node_requirement;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a node carries: its pods, and what they ask for in thousandths.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    pods: i64,
    cpu: i64,
    memory: i64,
}

impl Load {
    fn add(&mut self, pod: &Value) {
        self.pods += 1;
        self.cpu += requests(pod, "cpu");
        self.memory += requests(pod, "memory");
    }
}

/// Gives pods without a node one that has room, the emptiest first.
pub fn pass(world: &mut World) {
    let waits = |pod: &Value| {
        text(pod, "/spec/nodeName").is_empty()
            && !is_terminating(pod)
            && text(pod, "/spec/schedulerName") == "default-scheduler"
    };
    let waiting: Vec<_> = world
        .store
        .list("pods", None)
        .filter(|pod| waits(pod))
        .cloned()
        .collect();
    if waiting.is_empty() {
        return;
    }
    let nodes = world.store.all("nodes");
    let mut loads: BTreeMap<String, Load> = BTreeMap::new();
    let mut ports: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for pod in world.store.list("pods", None) {
        if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            loads
                .entry(text(pod, "/spec/nodeName").to_owned())
                .or_default()
                .add(pod);
            ports
                .entry(text(pod, "/spec/nodeName").to_owned())
                .or_default()
                .extend(host_ports(pod));
        }
    }
    for pod in waiting {
        if let Some(claim) = missing_claim(world, &pod) {
            let message = format!("persistentvolumeclaim \"{claim}\" not found");
            let told = if world.release.minor < 22 {
                message
            } else {
                format!("0/{0} nodes are available: {0} {message}.", nodes.len())
            };
            say(world, &pod, &told);
            continue;
        }
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut best: Option<(i64, &str)> = None;
        for node in &nodes {
            let load = loads.get(name(node)).copied().unwrap_or_default();
            let taken = ports.get(name(node)).map_or(&[][..], Vec::as_slice);
            let refused = refusals(world.release.minor, &pod, node, load, taken);
            let candidate = (load.pods, name(node));
            if refused.is_empty() && best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
            for reason in refused {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        if let Some((_, node)) = best {
            loads.entry(node.to_owned()).or_default().add(&pod);
            ports.entry(node.to_owned()).or_default().extend(host_ports(&pod));
            // Nobody else binds meanwhile: the world is locked.
            let _ = world.bind(namespace(&pod), name(&pod), node);
            let message = format!(
                "Successfully assigned {}/{} to {node}",
                namespace(&pod),
                name(&pod)
            );
            world.event(
                ("pods", &pod),
                "Normal",
                "Scheduled",
                &message,
                "default-scheduler",
            );
        } else {
            fail(world, &pod, nodes.len(), &reasons);
        }
    }
}

fn fail(world: &mut World, pod: &Value, nodes: usize, reasons: &BTreeMap<String, usize>) {
    let mut message = if nodes == 0 {
        "no nodes available to schedule pods".to_owned()
    } else {
        format!("0/{nodes} nodes are available: ")
    };
    let mut counted: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    counted.sort();
    message.push_str(&counted.join(", "));
    if nodes > 0 {
        message.push('.');
    }
    if nodes > 0 && world.release.minor >= 24 {
        let room = reasons
            .iter()
            .filter(|(reason, _)| reason.starts_with("Insufficient") || reason.starts_with("Too many"))
            .map(|(_, count)| count)
            .sum::<usize>()
            .min(nodes);
        let mut help = Vec::new();
        if nodes > room {
            help.push(format!(
                "{} Preemption is not helpful for scheduling",
                nodes - room
            ));
        }
        if room > 0 {
            help.push(format!("{room} No preemption victims found for incoming pod"));
        }
        message = format!(
            "{message} preemption: 0/{nodes} nodes are available: {}.",
            help.join(", ")
        );
    }
    say(world, pod, &message);
}

/// Says why a pod is not scheduled, once for as long as it is the same.
fn say(world: &mut World, pod: &Value, message: &str) {
    let now = world.now;
    let said = crate::json::find(pod, "/status/conditions", "type", "PodScheduled")
        .is_some_and(|said| text(said, "/message") == message);
    if !said {
        world.event(
            ("pods", pod),
            "Warning",
            "FailedScheduling",
            message,
            "default-scheduler",
        );
        world.change("pods", namespace(pod), name(pod), |pod| {
            conditions::set(pod, "PodScheduled", "False", ("Unschedulable", message), now);
        });
    }
}

/// What a pod asks for of a resource, in thousandths.
pub(crate) fn requests(pod: &Value, what: &str) -> i64 {
    let path = format!("/resources/requests/{what}");
    items(pod, "/spec/containers")
        .iter()
        .map(|container| millis(at(container, &path)))
        .sum()
}

/// Why a pod cannot go to a node, by the first plugin that says no.
fn refusals(minor: u8, pod: &Value, node: &Value, load: Load, taken: &[(String, i64)]) -> Vec<String> {
    let old = minor < 18;
    if is_true(node, "/spec/unschedulable")
        && !tolerates(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule")
    {
        return vec!["node(s) were unschedulable".into()];
    }
    if let Some(taint) = untolerated(pod, node, &["NoSchedule", "NoExecute"]) {
        if old {
            return vec!["node(s) had taints that the pod didn't tolerate".into()];
        }
        let (key, value) = (text(taint, "/key"), text(taint, "/value"));
        return vec![format!("node(s) had untolerated taint {{{key}: {value}}}")];
    }
    if !selects(pod, node) {
        return vec![
            if old {
                "node(s) didn't match node selector"
            } else {
                "node(s) didn't match Pod's node affinity/selector"
            }
            .into(),
        ];
    }
    if !ports_are_free(pod, taken) {
        return vec!["node(s) didn't have free ports for the requested pod ports".into()];
    }
    let mut short = Vec::new();
    if load.pods >= units(at(node, "/status/allocatable/pods")) {
        short.push("Too many pods".to_owned());
    }
    for (what, taken) in [("cpu", load.cpu), ("memory", load.memory)] {
        let wanted = requests(pod, what);
        if wanted > 0 && taken + wanted > millis(at(node, &format!("/status/allocatable/{what}"))) {
            short.push(format!("Insufficient {what}"));
        }
    }
    short
}

/// A claim of the pod's that is not there.
fn missing_claim(world: &World, pod: &Value) -> Option<String> {
    items(pod, "/spec/volumes")
        .iter()
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .find(|claim| {
            !claim.is_empty()
                && world
                    .get("persistentvolumeclaims", namespace(pod), claim)
                    .is_none()
        })
        .map(str::to_owned)
}

/// The ports of its node that a pod wants.
fn host_ports(pod: &Value) -> Vec<(String, i64)> {
    let ports = items(pod, "/spec/containers")
        .iter()
        .flat_map(|container| items(container, "/ports"));
    ports
        .map(|port| {
            (
                text(port, "/protocol").to_owned(),
                crate::json::number(port, "/hostPort"),
            )
        })
        .filter(|(_, number)| *number > 0)
        .collect()
}

fn ports_are_free(pod: &Value, taken: &[(String, i64)]) -> bool {
    host_ports(pod).iter().all(|port| !taken.contains(port))
}

/// Whether a pod's node selector and required node affinity select a node.
pub(crate) fn selects(pod: &Value, node: &Value) -> bool {
    let label = |key: &str| member(node, "/metadata/labels", key);
    let terms = at(
        pod,
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let holds = |term: &Value| {
        items(term, "/matchExpressions")
            .iter()
            .all(|wanted| node_requirement(wanted, label(text(wanted, "/key"))))
            && items(term, "/matchFields")
                .iter()
                .all(|wanted| node_requirement(wanted, Some(name(node))))
    };
    members(pod, "/spec/nodeSelector").all(|(key, value)| label(key) == value.as_str())
        && terms.as_array().is_none_or(|terms| terms.iter().any(holds))
}

/// The first taint of a node, of some effects, that a pod does not tolerate.
pub(crate) fn untolerated<'a>(pod: &Value, node: &'a Value, effects: &[&str]) -> Option<&'a Value> {
    items(node, "/spec/taints").iter().find(|taint| {
        let effect = text(taint, "/effect");
        effects.contains(&effect) && !tolerates(pod, text(taint, "/key"), text(taint, "/value"), effect)
    })
}

fn tolerates(pod: &Value, key: &str, value: &str, effect: &str) -> bool {
    items(pod, "/spec/tolerations")
        .iter()
        .any(|toleration| tolerated_by(toleration, key, value, effect))
}

/// Whether a toleration tolerates a taint (k8s.io/api/core/v1/toleration.go).
pub(crate) fn tolerated_by(toleration: &Value, key: &str, value: &str, effect: &str) -> bool {
    let (of_key, of_effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    let exists = text(toleration, "/operator") == "Exists";
    (of_effect.is_empty() || of_effect == effect)
        && (of_key == key || of_key.is_empty() && exists)
        && (exists || text(toleration, "/value") == value)
}
