//! Bindings: how a scheduler gives a pod its node (pkg/registry/core/pod/storage/storage.go).

use crate::clock;
use crate::json::{put, set, text};
use crate::refusal::Refusal;
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};

impl World {
    /// Binds a pod to a node.
    pub fn bind(&mut self, namespace: &str, pod: &str, node: &str) -> Result<(), Refusal> {
        let pods = named("pods");
        let stored = self
            .get("pods", namespace, pod)
            .ok_or_else(|| Refusal::not_found(pods, pod))?;
        let bound = text(&stored, "/spec/nodeName");
        if !bound.is_empty() {
            let why = format!("pod {pod} is already assigned to node \"{bound}\"");
            return Err(Refusal::conflict(pods, pod, &why));
        }
        let mut object = Value::clone(&stored);
        set(&mut object, "/spec/nodeName", node);
        let condition = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": clock::seconds(self.now),
        });
        put(&mut object, "/status/conditions", "type", condition);
        self.write("pods", object);
        Ok(())
    }
}
