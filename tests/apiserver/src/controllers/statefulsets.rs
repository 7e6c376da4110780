//! Stateful sets: one pod a number, in order. A pod that is ending is not replaced until it is gone, so one on a node that is off holds
//! its place until somebody shows that the node is off
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>).

use super::pods::{self, controlled, hash, is_active, is_ready};
use crate::json::{at, is_terminating, items, member, name, namespace, number, object, set, text};
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};

const REVISION: &str = "controller-revision-hash";

/// Makes the pods of each stateful set what it wants.
pub fn pass(world: &mut World) {
    for set in world.store.all("statefulsets") {
        if !is_terminating(&set) {
            manage(world, &set);
        }
        report(world, &set);
    }
}

fn revision(set: &Value) -> String {
    format!("{}-{}", name(set), hash(at(set, "/spec/template")))
}

fn manage(world: &mut World, set: &Value) {
    let wanted = number(set, "/spec/replicas");
    let parallel = text(set, "/spec/podManagementPolicy") == "Parallel";
    for number in 0..wanted {
        let called = format!("{}-{number}", name(set));
        let Some(pod) = world.get("pods", namespace(set), &called) else {
            create(world, set, &called, number);
            if parallel {
                continue;
            }
            return;
        };
        if !is_terminating(&pod) && !is_active(&pod) {
            pods::delete(world, "statefulsets", set, &pod);
        }
        if !parallel && !is_ready(&pod) {
            // A pod of an old template that never becomes ready is a known trap of the real one too.
            return;
        }
    }
    let of_set = |pod: &Value| {
        name(pod)
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse::<i64>().ok())
            .unwrap_or(-1)
    };
    let mut all = controlled(world, "pods", set);
    all.sort_by_key(|pod| std::cmp::Reverse(of_set(pod)));
    // From the highest number down, one at a time.
    if let Some(pod) = all.iter().find(|pod| of_set(pod) >= wanted) {
        if !is_terminating(pod) {
            pods::delete(world, "statefulsets", set, pod);
        }
        return;
    }
    let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition");
    let newest = revision(set);
    let outdated = all
        .iter()
        .find(|pod| of_set(pod) >= partition && member(pod, "/metadata/labels", REVISION) != Some(&newest));
    if let Some(pod) = outdated.filter(|_| text(set, "/spec/updateStrategy/type") == "RollingUpdate")
        && all.iter().all(|pod| is_ready(pod))
    {
        pods::delete(world, "statefulsets", set, pod);
    }
}

fn create(world: &mut World, owner: &Value, called: &str, ordinal: i64) {
    let mut pod = pods::of_template("statefulsets", owner, at(owner, "/spec/template"));
    set(&mut pod, "/metadata/name", called);
    for (label, value) in [
        (REVISION, revision(owner)),
        ("statefulset.kubernetes.io/pod-name", called.to_owned()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
    ] {
        object(&mut pod, "/metadata/labels").insert(label.into(), value.into());
    }
    for template in items(owner, "/spec/volumeClaimTemplates") {
        let claim_name = format!("{}-{called}", name(template));
        let claim = json!({
            "metadata": {"name": claim_name, "labels": at(template, "/metadata/labels")}, "spec": at(template, "/spec"),
        });
        if world
            .get("persistentvolumeclaims", namespace(owner), &claim_name)
            .is_none()
        {
            // A claim that cannot be made keeps the pod pending, as it does there.
            let _ = world.create(named("persistentvolumeclaims"), namespace(owner), claim);
        }
        let volume = json!({"name": name(template), "persistentVolumeClaim": {"claimName": claim_name}});
        crate::json::put(&mut pod, "/spec/volumes", "name", volume);
    }
    set(&mut pod, "/spec/hostname", called);
    pods::create(world, "statefulsets", owner, pod);
}

fn report(world: &mut World, set: &Value) {
    let all: Vec<_> = controlled(world, "pods", set);
    let newest = revision(set);
    let ready = all.iter().filter(|pod| is_ready(pod)).count();
    let updated = all
        .iter()
        .filter(|pod| member(pod, "/metadata/labels", REVISION) == Some(&newest))
        .count();
    let mut status = json!({
        "replicas": all.len(), "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": updated,
        "observedGeneration": number(set, "/metadata/generation"), "updateRevision": newest,
    });
    if updated == all.len() || text(set, "/status/currentRevision").is_empty() {
        status["currentRevision"] = json!(newest);
        status["currentReplicas"] = json!(all.len());
    }
    pods::status(world, "statefulsets", set, &status);
}
