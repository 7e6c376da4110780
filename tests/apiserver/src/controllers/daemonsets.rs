//! Daemon sets: one pod a node, also on nodes that are not ready or cordoned (`pkg/controller/daemon/daemon_controller.go`).

use super::pods::{self, controlled, hash, is_active, is_ready};
use super::scheduler;
use crate::json::{at, default, is_terminating, member, name, number, object, set, text};
use crate::world::World;
use serde_json::{Value, json};

const REVISION: &str = "controller-revision-hash";

/// Taints that pods of daemon sets tolerate (`pkg/controller/daemon/util/daemonset_util.go`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Makes the pods of each daemon set what it wants.
pub fn pass(world: &mut World) {
    for set in world.store.all("daemonsets") {
        let revision = hash(at(&set, "/spec/template"));
        let nodes = world.store.all("nodes");
        let all = controlled(world, "pods", &set);
        let mut desired = 0;
        for node in &nodes {
            let pod = pod_for(&set, name(node), &revision);
            let wanted = scheduler::selects(&pod, node)
                && scheduler::untolerated(&pod, node, &["NoSchedule", "NoExecute"]).is_none();
            desired += i64::from(wanted);
            let mut here = all.iter().filter(|pod| text(pod, "/spec/nodeName") == name(node));
            if is_terminating(&set) {
                continue;
            }
            match here.next() {
                None if wanted => pods::create(world, "daemonsets", &set, pod),
                Some(present) if !is_terminating(present) && (!wanted || !is_active(present)) => {
                    pods::delete(world, "daemonsets", &set, present);
                }
                _ => {}
            }
        }
        if !is_terminating(&set) {
            update(world, &set, &revision, desired);
        }
        report(world, &set, &revision, desired);
    }
}

fn pod_for(owner: &Value, node: &str, revision: &str) -> Value {
    let mut pod = pods::of_template("daemonsets", owner, at(owner, "/spec/template"));
    set(&mut pod, "/spec/nodeName", node);
    object(&mut pod, "/metadata/labels").insert(REVISION.into(), revision.into());
    default(&mut pod, "/spec/tolerations", json!([]));
    if let Some(tolerations) = pod.pointer_mut("/spec/tolerations").and_then(Value::as_array_mut) {
        for (key, effect) in TOLERATED {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
    }
    pod
}

/// Replaces pods of an old template, no more at once than may be unavailable.
fn update(world: &mut World, set: &Value, revision: &str, desired: i64) {
    if text(set, "/spec/updateStrategy/type") != "RollingUpdate" {
        return;
    }
    let most = at(set, "/spec/updateStrategy/rollingUpdate/maxUnavailable");
    let all = controlled(world, "pods", set);
    let ready = all.iter().filter(|pod| is_ready(pod)).count();
    let mut room =
        crate::quantity::of_total(most, desired, true) - (desired - i64::try_from(ready).unwrap_or(0));
    for pod in all
        .iter()
        .filter(|pod| is_active(pod) && member(pod, "/metadata/labels", REVISION) != Some(revision))
    {
        if !is_ready(pod) || room > 0 {
            room -= i64::from(is_ready(pod));
            pods::delete(world, "daemonsets", set, pod);
        }
    }
}

fn report(world: &mut World, set: &Value, revision: &str, desired: i64) {
    let all: Vec<_> = controlled(world, "pods", set)
        .into_iter()
        .filter(|pod| is_active(pod))
        .collect();
    let ready = all.iter().filter(|pod| is_ready(pod)).count();
    let updated = all
        .iter()
        .filter(|pod| member(pod, "/metadata/labels", REVISION) == Some(revision))
        .count();
    let status = json!({
        "desiredNumberScheduled": desired, "currentNumberScheduled": all.len(), "numberReady": ready,
        "numberAvailable": ready, "numberUnavailable": (desired - i64::try_from(ready).unwrap_or(0)).max(0),
        "updatedNumberScheduled": updated, "numberMisscheduled": 0,
        "observedGeneration": number(set, "/metadata/generation"),
    });
    pods::status(world, "daemonsets", set, &status);
}
