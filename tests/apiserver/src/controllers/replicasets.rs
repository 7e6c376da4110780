//! Replica sets (`pkg/controller/replicaset/replica_set.go`). Pods that are ending are replaced at once.

use super::pods::{self, controlled, is_active, is_ready};
use crate::json::{at, is_terminating, name, number, text};
use crate::world::World;
use serde_json::json;

/// Makes and takes away pods until there are as many as wanted.
pub fn pass(world: &mut World) {
    for set in world.store.all("replicasets") {
        let all = controlled(world, "pods", &set);
        let mut active: Vec<_> = all.iter().filter(|pod| is_active(pod)).collect();
        let wanted = usize::try_from(number(&set, "/spec/replicas")).unwrap_or_default();
        if !is_terminating(&set) {
            for _ in active.len()..wanted {
                let pod = pods::of_template("replicasets", &set, at(&set, "/spec/template"));
                pods::create(world, "replicasets", &set, pod);
            }
            // Those go first that are of least use: without a node, then not ready, then the youngest.
            active.sort_by_key(|pod| {
                let placed = !text(pod, "/spec/nodeName").is_empty();
                (
                    placed,
                    is_ready(pod),
                    std::cmp::Reverse(pods::created(pod)),
                    name(pod).to_owned(),
                )
            });
            for pod in active.iter().take(active.len().saturating_sub(wanted)) {
                pods::delete(world, "replicasets", &set, pod);
            }
        }
        let now: Vec<_> = controlled(world, "pods", &set)
            .into_iter()
            .filter(|pod| is_active(pod))
            .collect();
        let ready = now.iter().filter(|pod| is_ready(pod)).count();
        let status = json!({
            "replicas": now.len(), "readyReplicas": ready, "availableReplicas": ready, "fullyLabeledReplicas": now.len(),
            "observedGeneration": number(&set, "/metadata/generation"),
        });
        pods::status(world, "replicasets", &set, &status);
    }
}
