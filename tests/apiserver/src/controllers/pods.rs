//! What the workload controllers share: pods of a template, owned by one of them (`pkg/controller/controller_utils.go`).

use crate::clock;
use crate::json::{at, condition, controller, is_terminating, name, namespace, set, text, uid};
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;

/// Seconds between two tries to make a pod that is refused.
const REFUSED: i64 = 5;

/// The reference by which an object owns another.
pub fn owner(resource: &'static str, object: &Value) -> Value {
    let known = named(resource);
    json!({
        "apiVersion": crate::resources::api_version(known.group, known.served[0].version), "kind": known.kind,
        "name": name(object), "uid": uid(object), "controller": true, "blockOwnerDeletion": true,
    })
}

/// The objects of a resource that an object controls.
pub fn controlled(world: &World, resource: &'static str, by: &Value) -> Vec<Arc<Value>> {
    let mine = world.store.list(resource, Some(namespace(by)));
    mine.filter(|object| controller(object).is_some_and(|owner| text(owner, "/uid") == uid(by)))
        .cloned()
        .collect()
}

/// Whether a pod counts: it has not ended and is not ending.
pub fn is_active(pod: &Value) -> bool {
    !is_terminating(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a pod is ready and is not ending.
pub fn is_ready(pod: &Value) -> bool {
    is_active(pod) && condition(pod, "Ready") == "True"
}

/// A pod of a template, not yet created.
pub fn of_template(resource: &'static str, owned_by: &Value, template: &Value) -> Value {
    let mut pod = json!({
        "metadata": {
            "labels": at(template, "/metadata/labels"), "annotations": at(template, "/metadata/annotations"),
            "generateName": format!("{}-", name(owned_by)), "ownerReferences": [owner(resource, owned_by)],
        },
        "spec": at(template, "/spec"),
    });
    for field in ["labels", "annotations"] {
        if pod["metadata"][field].is_null() {
            pod["metadata"][field] = json!({});
        }
    }
    pod
}

/// Creates a pod, and says so or why not in an event of its owner.
pub fn create(world: &mut World, resource: &'static str, owned_by: &Value, pod: Value) {
    let component = format!("{}-controller", named(resource).kind.to_lowercase());
    if refused_lately(world, owned_by) {
        return;
    }
    match world.create(named("pods"), namespace(owned_by), pod) {
        Ok(pod) => {
            let message = format!("Created pod: {}", name(&pod));
            world.event(
                (resource, owned_by),
                "Normal",
                "SuccessfulCreate",
                &message,
                &component,
            );
        }
        Err(refusal) => {
            let message = format!("Error creating: {}", refusal.message);
            world.event(
                (resource, owned_by),
                "Warning",
                "FailedCreate",
                &message,
                &component,
            );
        }
    }
}

/// Who was refused waits before the next try, as the real ones back off.
fn refused_lately(world: &World, owned_by: &Value) -> bool {
    world
        .store
        .list("events", Some(namespace(owned_by)))
        .filter(|event| {
            text(event, "/reason") == "FailedCreate" && text(event, "/involvedObject/uid") == uid(owned_by)
        })
        .filter_map(|event| clock::parse(at(event, "/lastTimestamp")))
        .any(|last| clock::elapsed(last, world.now) < REFUSED)
}

/// Deletes a pod with its grace period.
pub fn delete(world: &mut World, resource: &'static str, owned_by: &Value, pod: &Value) {
    let options = crate::verbs::DeleteOptions::default();
    if world
        .delete(named("pods"), namespace(pod), name(pod), &options)
        .is_ok()
    {
        let component = format!("{}-controller", named(resource).kind.to_lowercase());
        let message = format!("Deleted pod: {}", name(pod));
        world.event(
            (resource, owned_by),
            "Normal",
            "SuccessfulDelete",
            &message,
            &component,
        );
    }
}

const HASH_LETTERS: &[u8] = b"bcdf2456789";

/// A short name for what a template says: two templates that say the same have the same one.
pub fn hash(template: &Value) -> String {
    // FNV-1a, as the real one, over other bytes: the names differ from a real cluster's and mean the same.
    let hash = template.to_string().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let mut rest = hash;
    let mut name = String::new();
    while rest > 0 {
        name.push(char::from(HASH_LETTERS[(rest % 11) as usize]));
        rest /= 11;
    }
    name
}

/// Writes fields of an object's status.
pub fn status(world: &mut World, resource: &'static str, object: &Value, fields: &Value) {
    world.change(resource, namespace(object), name(object), |object| {
        for (field, value) in fields.as_object().into_iter().flatten() {
            set(object, &format!("/status/{field}"), value.clone());
        }
    });
}

/// When an object was created.
pub fn created(object: &Value) -> Option<jiff::Timestamp> {
    clock::parse(at(object, "/metadata/creationTimestamp"))
}
