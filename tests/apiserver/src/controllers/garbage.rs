//! What nobody else takes away: dependents whose owners are gone (pkg/controller/garbagecollector), the contents of namespaces that
//! end, pods of nodes that are gone or proven to be off (pkg/controller/podgc).

use crate::clock::elapsed;
use crate::json::{condition, is_terminating, items, name, namespace, set, text, uid};
use crate::resources::{RESOURCES, named};
use crate::store::Key;
use crate::verbs::DeleteOptions;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;

/// How long events are kept, seconds (`--event-ttl`).
const EVENT_TTL: i64 = 3600;

/// Takes it away.
pub fn pass(world: &mut World) {
    dependents(world);
    for space in world.store.all("namespaces") {
        if is_terminating(&space) {
            end(world, &space);
        }
    }
    pods(world);
    let is_old = |event: &Value| {
        crate::clock::parse(&event["lastTimestamp"]).is_some_and(|last| elapsed(last, world.now) > EVENT_TTL)
    };
    let old: Vec<_> = world
        .store
        .list("events", None)
        .filter(|event| is_old(event))
        .cloned()
        .collect();
    for event in old {
        world.store.remove(&Key::of("events", &event));
    }
}

fn dependents(world: &mut World) {
    // Events belong to nobody, and there are many.
    let owned = || RESOURCES.iter().filter(|resource| resource.plural != "events");
    let known: BTreeSet<String> = owned()
        .flat_map(|resource| world.store.list(resource.plural, None))
        .map(|object| uid(object).to_owned())
        .collect();
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    let ending: BTreeSet<String> = owned()
        .flat_map(|resource| world.store.list(resource.plural, None))
        .filter(|object| is_foreground(object))
        .map(|object| uid(object).to_owned())
        .collect();
    for resource in owned() {
        for object in world.store.all(resource.plural) {
            let owners: Vec<_> = items(&object, "/metadata/ownerReferences")
                .iter()
                .map(|owner| text(owner, "/uid"))
                .collect();
            waiting.extend(
                owners
                    .iter()
                    .filter(|owner| ending.contains(**owner))
                    .map(|owner| (*owner).to_owned()),
            );
            let orphaned = !owners.is_empty()
                && owners
                    .iter()
                    .all(|owner| !known.contains(*owner) || ending.contains(*owner));
            if orphaned && !is_terminating(&object) {
                // It may be gone by a deletion that came first.
                let _ = world.delete(
                    resource,
                    namespace(&object),
                    name(&object),
                    &DeleteOptions::default(),
                );
            }
        }
    }
    for resource in owned() {
        for object in world.store.all(resource.plural) {
            if is_foreground(&object) && !waiting.contains(uid(&object)) {
                world.store.remove(&Key::of(resource.plural, &object));
            }
        }
    }
}

fn is_foreground(object: &Value) -> bool {
    is_terminating(object)
        && items(object, "/metadata/finalizers")
            .iter()
            .any(|finalizer| finalizer == "foregroundDeletion")
}

fn end(world: &mut World, space: &Value) {
    let called = name(space);
    let mut left = false;
    for resource in RESOURCES.iter().filter(|resource| resource.namespaced) {
        let objects: Vec<_> = world.store.list(resource.plural, Some(called)).cloned().collect();
        for object in objects {
            left = true;
            if !is_terminating(&object) {
                let _ = world.delete(resource, called, name(&object), &DeleteOptions::default());
            }
        }
    }
    if !left {
        world.store.remove(&Key::new("namespaces", "", called));
    }
}

fn pods(world: &mut World) {
    for pod in world.store.all("pods") {
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            continue;
        }
        let off = |node: &Value| {
            condition(node, "Ready") != "True"
                && items(node, "/spec/taints")
                    .iter()
                    .any(|taint| text(taint, "/key").ends_with("/out-of-service"))
        };
        let gone = match world.store.get("nodes", "", node) {
            None => true,
            Some(node) => is_terminating(&pod) && off(node),
        };
        if gone {
            if !matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
                world.change("pods", namespace(&pod), name(&pod), |pod| {
                    set(pod, "/status/phase", "Failed");
                });
            }
            let _ = world.delete(named("pods"), namespace(&pod), name(&pod), &DeleteOptions::now());
        }
    }
}
