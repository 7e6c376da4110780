//! Jobs (`pkg/controller/job/job_controller.go`), and claims, which a provisioner binds at once.

use super::pods::{self, controlled, is_active};
use crate::clock;
use crate::json::{at, condition, is_terminating, is_true, name, namespace, number, object, set, text, uid};
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};

/// Makes the pods of each job what it wants, and the volumes that claims ask for.
pub fn pass(world: &mut World) {
    for job in world.store.all("jobs") {
        let done = condition(&job, "Complete") == "True" || condition(&job, "Failed") == "True";
        if !done && !is_terminating(&job) {
            run(world, &job);
        }
    }
    for claim in world.store.all("persistentvolumeclaims") {
        if text(&claim, "/status/phase") == "Pending" {
            bind(world, &claim);
        }
    }
}

fn run(world: &mut World, job: &Value) {
    let all = controlled(world, "pods", job);
    let ended = |phase: &str| {
        let count = all
            .iter()
            .filter(|pod| text(pod, "/status/phase") == phase)
            .count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    let (succeeded, failed) = (ended("Succeeded"), ended("Failed"));
    let active = i64::try_from(all.iter().filter(|pod| is_active(pod)).count()).unwrap_or(i64::MAX);
    let complete = succeeded >= number(job, "/spec/completions");
    let given_up = failed > number(job, "/spec/backoffLimit");
    if !complete && !given_up && !is_true(job, "/spec/suspend") {
        let wanted = number(job, "/spec/parallelism").min(number(job, "/spec/completions") - succeeded);
        for _ in active..wanted {
            let mut pod = pods::of_template("jobs", job, at(job, "/spec/template"));
            for label in ["job-name", "batch.kubernetes.io/job-name"] {
                object(&mut pod, "/metadata/labels").insert(label.into(), name(job).into());
            }
            pods::create(world, "jobs", job, pod);
        }
    }
    let now = world.now;
    world.change("jobs", namespace(job), name(job), |job| {
        for (field, value) in [("active", active), ("succeeded", succeeded), ("failed", failed)] {
            set(job, &format!("/status/{field}"), value);
        }
        crate::json::default(job, "/status/startTime", clock::seconds(now));
        if complete {
            set(job, "/status/completionTime", clock::seconds(now));
            super::conditions::set(job, "Complete", "True", ("CompletionsReached", ""), now);
        } else if given_up {
            let why = (
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            );
            super::conditions::set(job, "Failed", "True", why, now);
        }
    });
}

fn bind(world: &mut World, claim: &Value) {
    let volume = format!("pvc-{}", uid(claim));
    let object = json!({
        "metadata": {"name": volume},
        "spec": {
            "capacity": at(claim, "/spec/resources/requests"), "accessModes": at(claim, "/spec/accessModes"),
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace(claim), "name": name(claim), "uid": uid(claim)},
            "csi": {"driver": "csi.double.example", "volumeHandle": volume}, "persistentVolumeReclaimPolicy": "Delete",
        },
    });
    if world.create(named("persistentvolumes"), "", object).is_ok() {
        world.change("persistentvolumes", "", &volume, |object| {
            set(object, "/status/phase", "Bound");
        });
        world.change("persistentvolumeclaims", namespace(claim), name(claim), |claim| {
            set(claim, "/spec/volumeName", volume.clone());
            set(claim, "/status/phase", "Bound");
        });
    }
}
