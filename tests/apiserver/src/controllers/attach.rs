//! Volume attachments: a volume is on one node at a time. One on a node that does not answer stays there until somebody shows that the
//! node is off, or six minutes have passed (pkg/controller/volume/attachdetach).

use crate::clock::{self, elapsed};
use crate::json::{at, condition, is_true, items, name, namespace, set, text};
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// After so long a volume is detached by force, seconds (`maxWaitForUnmountDuration`).
const FORCED: i64 = 360;
const SINCE: &str = "apiserver-double/unused-since";

/// The claims of a pod with the volumes that they are bound to.
fn volumes(world: &World, pod: &Value) -> Vec<String> {
    items(pod, "/spec/volumes")
        .iter()
        .filter_map(|volume| {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            let claim = world.store.get("persistentvolumeclaims", namespace(pod), claim)?;
            Some(text(claim, "/spec/volumeName").to_owned()).filter(|volume| !volume.is_empty())
        })
        .collect()
}

/// Whether everything that a pod wants mounted is attached to its node.
pub(crate) fn is_attached(world: &World, pod: &Value) -> bool {
    if !world.running.contains(&super::Controller::Attach) {
        return true;
    }
    let node = text(pod, "/spec/nodeName");
    let has = |volume: &String| {
        world.store.list("volumeattachments", None).any(|attachment| {
            text(attachment, "/spec/source/persistentVolumeName") == volume
                && text(attachment, "/spec/nodeName") == node
                && is_true(attachment, "/status/attached")
        })
    };
    volumes(world, pod).iter().all(has)
}

/// Attaches what pods need, and detaches what none does.
pub fn pass(world: &mut World) {
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    for pod in world.store.all("pods") {
        let node = text(&pod, "/spec/nodeName").to_owned();
        if node.is_empty() || matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
            continue;
        }
        for volume in volumes(world, &pod) {
            attach(world, &pod, &volume, &node);
            used.insert((volume, node.clone()));
        }
    }
    for attachment in world.store.all("volumeattachments") {
        let volume = text(&attachment, "/spec/source/persistentVolumeName").to_owned();
        let node = text(&attachment, "/spec/nodeName").to_owned();
        if text(&attachment, "/spec/attacher") == DRIVER && !used.contains(&(volume, node.clone())) {
            detach(world, &attachment, &node);
        }
    }
}

const DRIVER: &str = "csi.double.example";

fn attach(world: &mut World, pod: &Value, volume: &str, node: &str) {
    let others: Vec<_> = world
        .store
        .list("volumeattachments", None)
        .filter(|attachment| text(attachment, "/spec/source/persistentVolumeName") == volume)
        .map(|attachment| text(attachment, "/spec/nodeName").to_owned())
        .collect();
    if others.iter().any(|other| other == node) {
        return;
    }
    if others.is_empty() {
        let object = json!({
            "metadata": {"name": format!("csi-{}-{node}", volume.trim_start_matches("pvc-"))},
            "spec": {"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}},
        });
        if let Ok(made) = world.create(named("volumeattachments"), "", object) {
            world.change("volumeattachments", "", name(&made), |made| {
                set(made, "/status/attached", true);
            });
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
            world.event(
                ("pods", pod),
                "Normal",
                "SuccessfulAttachVolume",
                &message,
                "attachdetach-controller",
            );
        }
        return;
    }
    let message = format!(
        "Multi-Attach error for volume \"{volume}\" Volume is already exclusively attached to one node and can't be attached to another"
    );
    let said = world.store.list("events", Some(namespace(pod))).any(|event| {
        text(event, "/involvedObject/uid") == crate::json::uid(pod) && text(event, "/message") == message
    });
    if !said {
        world.event(
            ("pods", pod),
            "Warning",
            "FailedAttachVolume",
            &message,
            "attachdetach-controller",
        );
    }
}

fn detach(world: &mut World, attachment: &Value, node: &str) {
    let found = world.get("nodes", "", node);
    // A kubelet that answers unmounts first; one that does not may still have the volume mounted.
    let safe = found.as_deref().is_none_or(|node| {
        condition(node, "Ready") == "True"
            || items(node, "/spec/taints")
                .iter()
                .any(|taint| text(taint, "/key").ends_with("/out-of-service"))
    });
    let since = clock::parse(&at(attachment, "/metadata/annotations")[SINCE]);
    let now = world.now;
    if safe || since.is_some_and(|since| elapsed(since, now) >= FORCED) {
        // Whoever deleted it first did the same.
        let _ = world.delete(
            named("volumeattachments"),
            "",
            name(attachment),
            &crate::DeleteOptions::now(),
        );
    } else if since.is_none() {
        world.change("volumeattachments", "", name(attachment), |attachment| {
            crate::json::object(attachment, "/metadata/annotations")
                .insert(SINCE.into(), clock::seconds(now).into());
        });
    }
}
