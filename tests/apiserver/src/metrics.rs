//! What metrics-server answers (`metrics.k8s.io/v1beta1`): half of what running pods ask for, or what their annotations
//! `apiserver-double/cpu` and `apiserver-double/memory` say.

use crate::clock;
use crate::json::{at, items, member, name, namespace, text};
use crate::quantity::{millis, units};
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::selector::Selector;
use crate::world::World;
use serde_json::{Value, json};

/// The answer to a request for metrics.
pub(crate) fn answer(world: &World, asked: &Asked) -> Result<Value, Refusal> {
    if !matches!(asked.verb, "get" | "list") {
        return Err(Refusal::method_not_allowed());
    }
    let (kind, all): (_, Vec<Value>) = match asked.resource.as_str() {
        "nodes" => {
            let nodes = world.store.list("nodes", None);
            ("NodeMetrics", nodes.map(|node| of_node(world, node)).collect())
        }
        "pods" => {
            let space = Some(asked.namespace.as_str()).filter(|space| !space.is_empty());
            let running = world
                .store
                .list("pods", space)
                .filter(|pod| text(pod, "/status/phase") == "Running");
            ("PodMetrics", running.map(|pod| of_pod(world, pod)).collect())
        }
        _ => return Err(Refusal::no_such_path()),
    };
    if asked.name.is_empty() {
        let selector = Selector::parse("", asked.param("labelSelector"), asked.param("fieldSelector"))?;
        let items: Vec<_> = all.into_iter().filter(|item| selector.matches(item)).collect();
        return Ok(json!({
            "kind": format!("{kind}List"), "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items,
        }));
    }
    let found = all.into_iter().find(|item| name(item) == asked.name);
    let mut found = found.ok_or_else(|| Refusal {
        code: 404,
        reason: "NotFound",
        ..Refusal::bad_request(format!(
            "{}.metrics.k8s.io \"{}\" not found",
            asked.resource, asked.name
        ))
    })?;
    found["kind"] = json!(kind);
    found["apiVersion"] = json!("metrics.k8s.io/v1beta1");
    Ok(found)
}

/// What a container takes: thousandths of a core, and bytes.
fn usage(pod: &Value, container: &Value) -> (i64, i64) {
    let said = |what: &str| {
        member(pod, "/metadata/annotations", &format!("apiserver-double/{what}")).map(|text| json!(text))
    };
    let half = |what: &str| json!(units(at(container, &format!("/resources/requests/{what}"))) / 2);
    let cpu = said("cpu").map_or_else(
        || millis(at(container, "/resources/requests/cpu")) / 2,
        |cpu| millis(&cpu),
    );
    (cpu, units(&said("memory").unwrap_or_else(|| half("memory"))))
}

fn shown((cpu, memory): (i64, i64)) -> Value {
    json!({"cpu": format!("{cpu}m"), "memory": format!("{}Ki", memory / 1024)})
}

fn of_pod(world: &World, pod: &Value) -> Value {
    let container =
        |container: &Value| json!({"name": text(container, "/name"), "usage": shown(usage(pod, container))});
    json!({
        "metadata": {"name": name(pod), "namespace": namespace(pod), "labels": at(pod, "/metadata/labels")},
        "timestamp": clock::seconds(world.now), "window": "15s",
        "containers": items(pod, "/spec/containers").iter().map(container).collect::<Vec<_>>(),
    })
}

fn of_node(world: &World, node: &Value) -> Value {
    let mine = world
        .store
        .list("pods", None)
        .filter(|pod| text(pod, "/spec/nodeName") == name(node) && text(pod, "/status/phase") == "Running");
    let total = mine.fold((50, 512 << 20), |sum: (i64, i64), pod| {
        items(pod, "/spec/containers")
            .iter()
            .map(|container| usage(pod, container))
            .fold(sum, |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    json!({
        "metadata": {"name": name(node), "labels": at(node, "/metadata/labels")},
        "timestamp": clock::seconds(world.now), "window": "10s", "usage": shown(total),
    })
}
