//! A scheduler: cpu, memory, number of pods, taints, node selectors and node affinity; what does not fit is told in the words of the
//! real one (pkg/scheduler/framework/types.go, `FitError`).

use super::conditions;
use crate::json::{at, is_terminating, is_true, items, member, members, name, namespace, text};
use crate::quantity::{millis, units};
use crate::selector::node_requirement;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

/// Gives pods without a node one that has room, the emptiest first.
pub fn pass(world: &mut World) {
    for pod in world.store.all("pods") {
        let waits = text(&pod, "/spec/nodeName").is_empty() && !is_terminating(&pod);
        if !waits || text(&pod, "/spec/schedulerName") != "default-scheduler" {
            continue;
        }
        let nodes = world.store.all("nodes");
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut best: Option<(usize, String)> = None;
        for node in &nodes {
            let here: Vec<_> = world
                .store
                .list("pods", None)
                .filter(|other| occupies(other, name(node)))
                .collect();
            let refused = refusals(
                world,
                &pod,
                node,
                &here.iter().map(|pod| &***pod).collect::<Vec<_>>(),
            );
            if refused.is_empty() {
                let candidate = (here.len(), name(node).to_owned());
                if best.as_ref().is_none_or(|best| candidate < *best) {
                    best = Some(candidate);
                }
            }
            for reason in refused {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        if let Some((_, node)) = best {
            // Nobody else binds meanwhile: the world is locked.
            let _ = world.bind(namespace(&pod), name(&pod), &node);
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
    let now = world.now;
    let said = crate::json::find(pod, "/status/conditions", "type", "PodScheduled")
        .is_some_and(|said| text(said, "/message") == message);
    if !said {
        world.event(
            ("pods", pod),
            "Warning",
            "FailedScheduling",
            &message,
            "default-scheduler",
        );
        world.change("pods", namespace(pod), name(pod), |pod| {
            conditions::set(pod, "PodScheduled", "False", ("Unschedulable", &message), now);
        });
    }
}

fn occupies(pod: &Value, node: &str) -> bool {
    text(pod, "/spec/nodeName") == node && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
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
fn refusals(world: &World, pod: &Value, node: &Value, here: &[&Value]) -> Vec<String> {
    let old = world.release.minor < 18;
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
    let mut short = Vec::new();
    if i64::try_from(here.len()).unwrap_or(i64::MAX) >= units(at(node, "/status/allocatable/pods")) {
        short.push("Too many pods".to_owned());
    }
    for what in ["cpu", "memory"] {
        let wanted = requests(pod, what);
        let taken: i64 = here.iter().map(|pod| requests(pod, what)).sum();
        if wanted > 0 && taken + wanted > millis(at(node, &format!("/status/allocatable/{what}"))) {
            short.push(format!("Insufficient {what}"));
        }
    }
    short
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
