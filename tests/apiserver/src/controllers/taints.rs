//! Evictions by taint: pods leave a node with a `NoExecute` taint when their toleration ends
//! (`pkg/controller/tainteviction/taint_eviction.go`). Disruption budgets are not asked.

use super::conditions;
use super::lifecycle::added;
use super::scheduler::tolerated_by;
use crate::clock::elapsed;
use crate::json::{at, is_terminating, items, name, namespace, text};
use crate::resources::named;
use crate::verbs::DeleteOptions;
use crate::world::World;
use jiff::Timestamp;
use serde_json::Value;

/// Deletes the pods whose time on their node is over.
pub fn pass(world: &mut World) {
    for node in world.store.all("nodes") {
        let taints: Vec<_> = items(&node, "/spec/taints")
            .iter()
            .filter(|taint| text(taint, "/effect") == "NoExecute")
            .collect();
        if taints.is_empty() {
            continue;
        }
        let mine = |pod: &Value| text(pod, "/spec/nodeName") == name(&node) && !is_terminating(pod);
        let pods: Vec<_> = world
            .store
            .list("pods", None)
            .filter(|pod| mine(pod))
            .cloned()
            .collect();
        for pod in pods {
            if !is_due(&pod, &taints, world.now) {
                continue;
            }
            let message = format!("Marking for deletion Pod {}/{}", namespace(&pod), name(&pod));
            world.event(
                ("pods", &pod),
                "Normal",
                "TaintManagerEviction",
                &message,
                "taint-eviction-controller",
            );
            let now = world.now;
            if world.release.minor >= 26 {
                let why = (
                    "DeletionByTaintManager",
                    "Taint manager: deleting due to NoExecute taint",
                );
                world.change("pods", namespace(&pod), name(&pod), |pod| {
                    conditions::set(pod, "DisruptionTarget", "True", why, now);
                });
            }
            // A pod that is gone meanwhile is what was wanted.
            let _ = world.delete(
                named("pods"),
                namespace(&pod),
                name(&pod),
                &DeleteOptions::default(),
            );
        }
    }
}

/// Whether a taint is not tolerated, or not any longer.
fn is_due(pod: &Value, taints: &[&Value], now: Timestamp) -> bool {
    taints.iter().any(|taint| {
        let (key, value) = (text(taint, "/key"), text(taint, "/value"));
        let mut tolerations = items(pod, "/spec/tolerations")
            .iter()
            .filter(|one| tolerated_by(one, key, value, "NoExecute"))
            .peekable();
        if tolerations.peek().is_none() {
            return true;
        }
        let limit = tolerations
            .filter_map(|one| at(one, "/tolerationSeconds").as_i64())
            .min();
        limit.is_some_and(|limit| elapsed(added(taint).unwrap_or(now), now) >= limit)
    })
}
