//! How many pods each disruption budget can spare at present (pkg/controller/disruption/disruption.go).

use super::pods::{is_active, is_ready};
use crate::clock;
use crate::json::{at, controller, is_terminating, members, name, namespace, number, set, text, uid};
use crate::quantity::of_total;
use crate::selector::label_selector;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long an eviction that was granted may take to be seen, seconds (`DeletionTimeout`).
const DELETION_TIMEOUT: i64 = 120;

/// Counts every budget anew.
pub fn pass(world: &mut World) {
    for budget in world.store.all("poddisruptionbudgets") {
        let pods: Vec<_> = world
            .store
            .list("pods", Some(namespace(&budget)))
            .filter(|pod| label_selector(at(&budget, "/spec/selector"), pod))
            .cloned()
            .collect();
        let status = count(world, &budget, &pods);
        let mut counted = Value::clone(&budget);
        for (field, value) in status.as_object().into_iter().flatten() {
            set(&mut counted, &format!("/status/{field}"), value.clone());
        }
        let allowed = number(&counted, "/status/disruptionsAllowed");
        if world.release.minor >= 21 {
            let (state, reason) = if allowed > 0 {
                ("True", "SufficientPods")
            } else {
                ("False", "InsufficientPods")
            };
            super::conditions::set(&mut counted, "DisruptionAllowed", state, (reason, ""), world.now);
        }
        world.write("poddisruptionbudgets", counted);
    }
}

fn count(world: &World, budget: &Value, pods: &[Arc<Value>]) -> Value {
    // Evictions that were granted and are not seen in the pods yet still count.
    let mut disrupted = serde_json::Map::new();
    for (pod, since) in members(budget, "/status/disruptedPods") {
        let waits = pods
            .iter()
            .any(|found| name(found) == pod && !is_terminating(found))
            && clock::parse(since).is_some_and(|since| clock::elapsed(since, world.now) < DELETION_TIMEOUT);
        if waits {
            disrupted.insert(pod.clone(), since.clone());
        }
    }
    let current = pods
        .iter()
        .filter(|pod| is_ready(pod) && !disrupted.contains_key(name(pod)))
        .count();
    let current = i64::try_from(current).unwrap_or(i64::MAX);
    let (expected, desired) = expected(world, budget, pods);
    let allowed = if expected > 0 {
        (current - desired).max(0)
    } else {
        0
    };
    json!({
        "currentHealthy": current, "desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": allowed,
        "disruptedPods": disrupted, "observedGeneration": number(budget, "/metadata/generation"),
    })
}

/// How many pods there should be, and how many have to stay.
fn expected(world: &World, budget: &Value, pods: &[Arc<Value>]) -> (i64, i64) {
    let most = at(budget, "/spec/maxUnavailable");
    let least = at(budget, "/spec/minAvailable");
    if !most.is_null() {
        let expected = replicas(world, pods);
        return (expected, (expected - of_total(most, expected, true)).max(0));
    }
    if least.is_string() {
        let expected = replicas(world, pods);
        return (expected, of_total(least, expected, true));
    }
    let active = pods.iter().filter(|pod| is_active(pod)).count();
    (
        i64::try_from(active).unwrap_or(i64::MAX),
        least.as_i64().unwrap_or(1),
    )
}

/// The replicas that the controllers of the pods want, as a whole.
fn replicas(world: &World, pods: &[Arc<Value>]) -> i64 {
    let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller(pod) else { continue };
        let resource = match text(owner, "/kind") {
            "ReplicaSet" => "replicasets",
            "StatefulSet" => "statefulsets",
            _ => continue,
        };
        let Some(mut found) = world.store.get(resource, namespace(pod), text(owner, "/name")) else {
            continue;
        };
        let above = controller(found).filter(|above| text(above, "/kind") == "Deployment");
        if let Some(above) = above.and_then(|above| {
            world
                .store
                .get("deployments", namespace(pod), text(above, "/name"))
        }) {
            found = above;
        }
        wanted.insert(uid(found).to_owned(), number(found, "/spec/replicas"));
    }
    wanted.values().sum()
}
