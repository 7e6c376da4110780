//! What a drill's cluster shows of itself: what a script waits for, what is to be true at the end, and how its pods are, in words. Pure.

use std::collections::BTreeMap;

use blackstart_apiserver::World;
use serde_json::Value;

use super::objects::{APP, OURS};
use super::script::{End, Sight};

/// The pods of a workload that are not on their way out.
fn pods_of<'w>(world: &'w World, namespace: &'w str, app: &'w str) -> impl Iterator<Item = &'w Value> {
    let pods = world.store.list("pods", Some(namespace)).map(AsRef::as_ref);
    pods.filter(move |pod: &&Value| {
        pod["metadata"]["labels"]["app"] == app && pod["metadata"]["deletionTimestamp"].is_null()
    })
}

/// How the pods of [`OURS`] are, by workload: `gateway-proxy 2/5 ready (3 CrashLoopBackOff)`.
pub(super) fn pods_words(world: &World) -> String {
    let workloads = world.store.list("deployments", Some(OURS));
    let told = workloads.map(|workload| {
        let name = blackstart_apiserver::json::name(workload);
        let wants = workload["spec"]["replicas"].as_u64().unwrap_or_default();
        let mut ready = 0;
        let mut others: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in pods_of(world, OURS, name) {
            if is_ready(pod) {
                ready += 1;
                continue;
            }
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
            let state = waiting.as_str().or(pod["status"]["phase"].as_str());
            *others.entry(state.unwrap_or("Pending")).or_default() += 1;
        }
        let others: Vec<_> = others
            .into_iter()
            .map(|(state, count)| {
                let state = if state == "Running" { "not ready" } else { state };
                format!("{count} {state}")
            })
            .collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" ({})", others.join(", "))
        };
        format!("{name} {ready}/{wants} ready{others}")
    });
    told.collect::<Vec<_>>().join(", ")
}

fn is_ready(pod: &Value) -> bool {
    blackstart_apiserver::json::condition(pod, "Ready") == "True"
}

/// It is to be seen in the API; a machine is not.
pub(super) fn is_so(world: &World, sight: &Sight) -> bool {
    let mut ours = pods_of(world, OURS, APP);
    match sight {
        Sight::Ready {
            namespace,
            workload,
            pods,
        } => {
            let found = world.get("deployments", namespace, workload);
            found.is_some_and(|found| found["status"]["readyReplicas"].as_u64().unwrap_or_default() == *pods)
        }
        Sight::Waits { reason, restarts } => {
            let mut ours = ours.peekable();
            ours.peek().is_some()
                && ours.all(|pod| {
                    let status = &pod["status"]["containerStatuses"][0];
                    status["state"]["waiting"]["reason"] == *reason
                        && status["restartCount"].as_i64().unwrap_or_default() >= *restarts
                })
        }
        Sight::NotReady => ours.any(|pod| !is_ready(pod)),
        Sight::Unscheduled => {
            ours.any(|pod| blackstart_apiserver::json::condition(pod, "PodScheduled") == "False")
        }
        Sight::Machine(..) => false,
        Sight::Node(name, ready) => {
            let node = world.get("nodes", "", name);
            node.is_some_and(|node| {
                (blackstart_apiserver::json::condition(&node, "Ready") == "True") == *ready
            })
        }
        Sight::Elsewhere(node) => !ours.any(|pod| pod["spec"]["nodeName"] == node.as_str()),

        Sight::On(node) => ours.any(|pod| pod["spec"]["nodeName"] == node.as_str()),
    }
}

/// What the pods of a node use of its processors, by what they were made to use; percent.
fn load(world: &World, node: &str) -> i64 {
    use blackstart_apiserver::quantity::millis;

    let pods = world.store.list("pods", None);
    let here = pods.filter(|pod| pod["spec"]["nodeName"] == node);
    let takes = |pod: &Value| millis(&pod["metadata"]["annotations"]["apiserver-double/cpu"]);
    let used: i64 = here.map(|pod| takes(pod)).sum();
    let has = world
        .get("nodes", "", node)
        .map_or(0, |node| millis(&node["status"]["allocatable"]["cpu"]));
    if has > 0 { used * 100 / has } else { 0 }
}

/// What is to be true, and why it is not.
pub(super) fn ending(world: &World, end: &End) -> (String, Option<String>) {
    match end {
        End::Whole { namespace, workload } => {
            let what = format!("{namespace}/{workload} has all its pods");
            let Some(found) = world.get("deployments", namespace, workload) else {
                return (what, Some("it is not there".to_owned()));
            };
            let wants = found["spec"]["replicas"].as_u64().unwrap_or_default();
            let pods: Vec<_> = pods_of(world, namespace, workload).collect();
            let well = pods
                .iter()
                .filter(|pod| is_ready(pod) && pod["status"]["phase"] == "Running");
            let well = u64::try_from(well.count()).unwrap_or_default();
            let all = u64::try_from(pods.len()).unwrap_or_default();
            let wrong = wants == 0 || well != wants || all != wants;
            (
                what,
                wrong.then(|| format!("{well} of {all} are Running and ready, and {wants} are wanted")),
            )
        }
        End::Back(name) => {
            let what = format!("node {name} is back");
            let Some(node) = world.get("nodes", "", name) else {
                return (what, Some("the API has none".to_owned()));
            };
            let ready = blackstart_apiserver::json::condition(&node, "Ready");
            let mut wrong = Vec::new();
            if ready != "True" {
                wrong.push(format!("Ready is {ready}"));
            }
            if node["spec"]["unschedulable"] == true {
                wrong.push("it is cordoned".to_owned());
            }
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            let taints: Vec<_> = taints.filter_map(|taint| taint["key"].as_str()).collect();
            if !taints.is_empty() {
                wrong.push(format!("it is tainted: {}", taints.join(", ")));
            }
            (what, (!wrong.is_empty()).then(|| wrong.join("; ")))
        }
        End::Left { workload, node } => {
            let here = pods_of(world, OURS, workload).filter(|pod| pod["spec"]["nodeName"] == node.as_str());
            let here = here.count();
            (
                format!("{OURS}/{workload} has no pod on {node}"),
                (here > 0).then(|| format!("it has {here}")),
            )
        }
        End::Load { node, below } => {
            let what = format!("the pods of {node} use less than {below}% of its processors");
            let used = load(world, node);
            (what, (used >= *below).then(|| format!("they use {used}%")))
        }
        End::Template { workload, at, is } => {
            let what = format!("{at} of {OURS}/{workload} is {is}");
            let found = world.get("deployments", OURS, workload);
            let found = found
                .and_then(|found| found.pointer(at).cloned())
                .unwrap_or_default();
            (what, (found != *is).then(|| format!("it is {found}")))
        }
    }
}
