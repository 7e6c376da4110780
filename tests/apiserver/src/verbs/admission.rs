//! What is refused of a pod by the limit ranges and quotas of its namespace, in the words of the real plugins
//! (plugin/pkg/admission/limitranger, staging …/plugin/resourcequota).

use crate::json::{at, default, items, name, text};
use crate::quantity::millis;
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::world::World;
use serde_json::{Value, json};

/// What a quota may count of pods, and where each pod says it.
const COUNTED: [(&str, &str, &str); 6] = [
    ("requests.cpu", "requests", "cpu"),
    ("cpu", "requests", "cpu"),
    ("requests.memory", "requests", "memory"),
    ("memory", "requests", "memory"),
    ("limits.cpu", "limits", "cpu"),
    ("limits.memory", "limits", "memory"),
];

/// Fills in what limit ranges give where a pod is silent, and refuses what they or quotas do not allow.
pub(super) fn admit(
    world: &World,
    resource: &Resource,
    namespace: &str,
    pod: &mut Value,
) -> Result<(), Refusal> {
    for range in world.store.list("limitranges", Some(namespace)) {
        for item in items(range, "/spec/limits") {
            limit(item, pod).map_err(|why| Refusal::forbidden(resource, name(pod), &why))?;
        }
    }
    for quota in world.store.list("resourcequotas", Some(namespace)) {
        fits(world, quota, pod).map_err(|why| Refusal::forbidden(resource, name(pod), &why))?;
    }
    Ok(())
}

fn limit(item: &Value, pod: &mut Value) -> Result<(), String> {
    let kind = text(item, "/type").to_owned();
    if kind == "Container"
        && let Some(containers) = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut)
    {
        for container in containers {
            for what in ["cpu", "memory"] {
                for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
                    let given = at(item, &format!("/{from}/{what}")).clone();
                    if !given.is_null() {
                        default(container, &format!("/resources/{to}/{what}"), given);
                    }
                }
            }
        }
    }
    for what in ["cpu", "memory"] {
        let of =
            |container: &Value, field: &str| millis(at(container, &format!("/resources/{field}/{what}")));
        let containers = items(pod, "/spec/containers");
        let limits: Vec<i64> = if kind == "Pod" {
            vec![containers.iter().map(|container| of(container, "limits")).sum()]
        } else {
            containers
                .iter()
                .map(|container| of(container, "limits"))
                .collect()
        };
        let requests: Vec<i64> = if kind == "Pod" {
            vec![containers.iter().map(|container| of(container, "requests")).sum()]
        } else {
            containers
                .iter()
                .map(|container| of(container, "requests"))
                .collect()
        };
        let max = at(item, &format!("/max/{what}"));
        for given in &limits {
            if max.is_null() {
                break;
            }
            if *given == 0 {
                return Err(format!(
                    "maximum {what} usage per {kind} is {}.  No limit is specified",
                    told(max)
                ));
            }
            if *given > millis(max) {
                return Err(format!(
                    "maximum {what} usage per {kind} is {}, but limit is {}",
                    told(max),
                    given / 1000
                ));
            }
        }
        let min = at(item, &format!("/min/{what}"));
        if let Some(given) = requests
            .iter()
            .find(|given| !min.is_null() && **given < millis(min))
        {
            return Err(format!(
                "minimum {what} usage per {kind} is {}, but request is {}",
                told(min),
                given / 1000
            ));
        }
    }
    Ok(())
}

fn fits(world: &World, quota: &Value, pod: &Value) -> Result<(), String> {
    let hard = at(quota, "/spec/hard").as_object().cloned().unwrap_or_default();
    for (counted, bound) in &hard {
        let wanted = amount(pod, counted);
        if wanted == 0 && counted != "pods" {
            if COUNTED.iter().any(|(known, ..)| known == counted) {
                let of = text(pod, "/spec/containers/0/name");
                return Err(format!(
                    "failed quota: {}: must specify {counted} for: {of}",
                    name(quota)
                ));
            }
            continue;
        }
        let taken = used(world, quota, counted);
        if taken + wanted > millis(bound) {
            return Err(format!(
                "exceeded quota: {}, requested: {counted}={}, used: {counted}={}, limited: {counted}={}",
                name(quota),
                wanted / 1000,
                taken / 1000,
                told(bound)
            ));
        }
    }
    Ok(())
}

/// What a pod takes of what a quota counts, in thousandths.
fn amount(pod: &Value, counted: &str) -> i64 {
    if counted == "pods" {
        return 1000;
    }
    let Some((_, field, what)) = COUNTED.iter().find(|(known, ..)| *known == counted) else {
        return 0;
    };
    let path = format!("/resources/{field}/{what}");
    items(pod, "/spec/containers")
        .iter()
        .map(|container| millis(at(container, &path)))
        .sum()
}

/// What is taken already.
fn used(world: &World, quota: &Value, counted: &str) -> i64 {
    world
        .store
        .list("pods", Some(crate::json::namespace(quota)))
        .filter(|pod| !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed"))
        .map(|pod| amount(pod, counted))
        .sum()
}

fn told(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Keeps the status of quotas, as the controller manager does.
pub(crate) fn count(world: &mut World) {
    for quota in world.store.all("resourcequotas") {
        let hard = at(&quota, "/spec/hard").clone();
        let mut status = json!({"hard": hard, "used": {}});
        for counted in hard.as_object().into_iter().flatten().map(|(counted, _)| counted) {
            let taken = used(world, &quota, counted);
            let taken = if counted.ends_with("cpu") {
                format!("{taken}m")
            } else {
                (taken / 1000).to_string()
            };
            status["used"][counted] = json!(taken);
        }
        world.change(
            "resourcequotas",
            crate::json::namespace(&quota),
            name(&quota),
            |quota| {
                quota["status"] = status;
            },
        );
    }
}
