//! Deployments: one replica set a template, and a rolling update between them (pkg/controller/deployment/rolling.go).

use super::pods::{self, controlled, hash};
use crate::json::{at, is_terminating, is_true, member, name, namespace, number, object, set, text};
use crate::quantity::of_total;
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;

const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

/// Makes the replica sets of each deployment what it wants.
pub fn pass(world: &mut World) {
    for deployment in world.store.all("deployments") {
        if is_terminating(&deployment) {
            continue;
        }
        if !is_true(&deployment, "/spec/paused") {
            roll(world, &deployment);
        } else if let Some(current) = current(world, &deployment) {
            scale(world, &current, number(&deployment, "/spec/replicas"));
        }
        report(world, &deployment);
    }
}

fn template_hash(deployment: &Value) -> String {
    hash(at(deployment, "/spec/template"))
}

fn current(world: &World, deployment: &Value) -> Option<Arc<Value>> {
    let wanted = template_hash(deployment);
    let sets = controlled(world, "replicasets", deployment);
    sets.into_iter()
        .find(|set| member(set, "/metadata/labels", HASH) == Some(&wanted))
}

fn roll(world: &mut World, deployment: &Value) {
    let replicas = number(deployment, "/spec/replicas");
    let Some(newest) = current(world, deployment) else {
        return create(world, deployment);
    };
    let old: Vec<_> = controlled(world, "replicasets", deployment)
        .into_iter()
        .filter(|set| name(set) != name(&newest))
        .collect();
    let sum = |sets: &[Arc<Value>], path: &str| sets.iter().map(|set| number(set, path)).sum::<i64>();
    let (have, left) = (number(&newest, "/spec/replicas"), sum(&old, "/spec/replicas"));
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        for set in &old {
            scale(world, set, 0);
        }
        let gone = old.iter().all(|set| controlled(world, "pods", set).is_empty());
        if gone {
            scale(world, &newest, replicas);
        }
        return;
    }
    let surge = of_total(
        at(deployment, "/spec/strategy/rollingUpdate/maxSurge"),
        replicas,
        true,
    );
    let mut spare = of_total(
        at(deployment, "/spec/strategy/rollingUpdate/maxUnavailable"),
        replicas,
        false,
    );
    if surge == 0 && spare == 0 {
        spare = 1;
    }
    let room = (replicas + surge - have - left).max(0);
    let target = if left == 0 {
        replicas
    } else {
        have.min(replicas) + room.min((replicas - have).max(0))
    };
    scale(world, &newest, target);
    // Old pods go as far as enough stay available; those that are not ready cost nothing.
    let available = sum(&old, "/status/availableReplicas") + number(&newest, "/status/availableReplicas");
    let mut may_go = available - (replicas - spare);
    for set in &old {
        let (has, ready) = (
            number(set, "/spec/replicas"),
            number(set, "/status/availableReplicas"),
        );
        let useless = (has - ready).max(0);
        let of_use = ready.min(may_go.max(0));
        may_go -= of_use;
        scale(world, set, has - useless - of_use);
    }
}

fn create(world: &mut World, deployment: &Value) {
    let hash = template_hash(deployment);
    let mut template = at(deployment, "/spec/template").clone();
    object(&mut template, "/metadata/labels").insert(HASH.into(), hash.clone().into());
    let mut selector = at(deployment, "/spec/selector").clone();
    object(&mut selector, "/matchLabels").insert(HASH.into(), hash.clone().into());
    let revision = 1 + controlled(world, "replicasets", deployment)
        .iter()
        .filter_map(|set| {
            member(set, "/metadata/annotations", REVISION)?
                .parse::<i64>()
                .ok()
        })
        .max()
        .unwrap_or(0);
    let set_name = format!("{}-{hash}", name(deployment));
    let replica_set = json!({
        "metadata": {
            "name": set_name, "labels": template["metadata"]["labels"], "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [pods::owner("deployments", deployment)],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    });
    // A name that is taken is the replica set of another deployment: the next pass finds none again.
    if world
        .create(named("replicasets"), namespace(deployment), replica_set)
        .is_ok()
    {
        world.change(
            "deployments",
            namespace(deployment),
            name(deployment),
            |deployment| {
                object(deployment, "/metadata/annotations")
                    .insert(REVISION.into(), revision.to_string().into());
            },
        );
    }
}

fn scale(world: &mut World, replica_set: &Value, replicas: i64) {
    if number(replica_set, "/spec/replicas") != replicas {
        world.change(
            "replicasets",
            namespace(replica_set),
            name(replica_set),
            |changed| {
                set(changed, "/spec/replicas", replicas);
                let generation = number(changed, "/metadata/generation");
                set(changed, "/metadata/generation", generation + 1);
            },
        );
    }
}

fn report(world: &mut World, deployment: &Value) {
    let sets = controlled(world, "replicasets", deployment);
    let hash = template_hash(deployment);
    let updated = sets
        .iter()
        .find(|set| member(set, "/metadata/labels", HASH) == Some(&hash));
    let sum = |path: &str| sets.iter().map(|set| number(set, path)).sum::<i64>();
    let wanted = number(deployment, "/spec/replicas");
    let available = sum("/status/availableReplicas");
    let updated_replicas = updated.map_or(0, |set| number(set, "/status/replicas"));
    let (now, generation) = (world.now, number(deployment, "/metadata/generation"));
    let spare = of_total(
        at(deployment, "/spec/strategy/rollingUpdate/maxUnavailable"),
        wanted,
        false,
    );
    let complete = updated_replicas == wanted && available == wanted && sum("/status/replicas") == wanted;
    let set_name = updated.map(|set| name(set).to_owned()).unwrap_or_default();
    world.change(
        "deployments",
        namespace(deployment),
        name(deployment),
        |changed| {
            for (field, value) in [
                ("observedGeneration", generation),
                ("replicas", sum("/status/replicas")),
                ("updatedReplicas", updated_replicas),
                ("readyReplicas", sum("/status/readyReplicas")),
                ("availableReplicas", available),
                ("unavailableReplicas", (wanted - available).max(0)),
            ] {
                set(changed, &format!("/status/{field}"), value);
            }
            let (state, why) = if available >= wanted - spare {
                (
                    "True",
                    ("MinimumReplicasAvailable", "Deployment has minimum availability."),
                )
            } else {
                (
                    "False",
                    (
                        "MinimumReplicasUnavailable",
                        "Deployment does not have minimum availability.",
                    ),
                )
            };
            super::conditions::set(changed, "Available", state, why, now);
            let progress = if complete {
                (
                    "NewReplicaSetAvailable",
                    format!("ReplicaSet \"{set_name}\" has successfully progressed."),
                )
            } else {
                (
                    "ReplicaSetUpdated",
                    format!("ReplicaSet \"{set_name}\" is progressing."),
                )
            };
            super::conditions::set(changed, "Progressing", "True", (progress.0, &progress.1), now);
        },
    );
}
