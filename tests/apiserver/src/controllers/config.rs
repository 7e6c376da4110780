//! What a pod is given from config maps and secrets: a container is not made while one of them is missing, and its kubelet says which
//! (`pkg/kubelet/kuberuntime/kuberuntime_container.go`, `pkg/volume/configmap`).

use crate::json::{at, is_true, items, namespace, text};
use crate::world::World;
use serde_json::{Value, json};

/// Something that is missing.
pub(super) struct Lack {
    /// `configmap "app" not found`.
    what: String,
    /// The volume that it is for; `None`: the environment.
    volume: Option<String>,
}

impl Lack {
    /// The state of the containers meanwhile.
    pub(super) fn state(&self) -> Value {
        match &self.volume {
            Some(_) => json!({"waiting": {"reason": "ContainerCreating"}}),
            None => json!({"waiting": {"reason": "CreateContainerConfigError", "message": self.what}}),
        }
    }

    /// Says it once in an event.
    pub(super) fn tell(&self, world: &mut World, pod: &Value) {
        let (reason, message) = match &self.volume {
            Some(volume) => (
                "FailedMount",
                format!("MountVolume.SetUp failed for volume \"{volume}\" : {}", self.what),
            ),
            None => ("Failed", format!("Error: {}", self.what)),
        };
        let known = world.store.list("events", Some(namespace(pod))).any(|event| {
            text(event, "/involvedObject/uid") == crate::json::uid(pod) && text(event, "/reason") == reason
        });
        if !known {
            world.event(("pods", pod), "Warning", reason, &message, "kubelet");
        }
    }
}

/// The first that is missing.
pub(super) fn missing(world: &World, pod: &Value) -> Option<Lack> {
    let lacks = |resource: &'static str, kind: &str, name: &str, optional: bool| {
        (!name.is_empty() && !optional && world.get(resource, namespace(pod), name).is_none())
            .then(|| format!("{kind} \"{name}\" not found"))
    };
    for volume in items(pod, "/spec/volumes") {
        let config = lacks(
            "configmaps",
            "configmap",
            text(volume, "/configMap/name"),
            is_true(volume, "/configMap/optional"),
        );
        let secret = lacks(
            "secrets",
            "secret",
            text(volume, "/secret/secretName"),
            is_true(volume, "/secret/optional"),
        );
        if let Some(what) = config.or(secret) {
            return Some(Lack {
                what,
                volume: Some(text(volume, "/name").to_owned()),
            });
        }
    }
    for container in items(pod, "/spec/containers") {
        let whole = items(container, "/envFrom").iter().map(|from| (from, ""));
        let single = items(container, "/env")
            .iter()
            .map(|from| (at(from, "/valueFrom"), "Key"));
        for (from, key) in whole.chain(single) {
            for (resource, kind, field) in [
                ("configmaps", "configmap", "configMap"),
                ("secrets", "secret", "secret"),
            ] {
                let path = format!("/{field}{key}Ref");
                let optional = is_true(from, &format!("{path}/optional"));
                if let Some(what) = lacks(resource, kind, text(from, &format!("{path}/name")), optional) {
                    return Some(Lack { what, volume: None });
                }
            }
        }
    }
    None
}
