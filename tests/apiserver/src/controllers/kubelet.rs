//! A kubelet a machine: heartbeats, and pods that start, fail by script, and end.

use super::containers::{Container, Outcome, STEP, go_on, status};
use super::{attach, conditions, config};
use crate::clock::{self, elapsed};
use crate::json::{
    at, condition, default, is_terminating, items, member, name, namespace, number, set, text, uid,
};
use crate::resources::named;
use crate::verbs::DeleteOptions;
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Leases are renewed every ten seconds, and so was the status before there were leases.
const HEARTBEAT: i64 = 10;
/// The status of a node that does not change is sent every five minutes (`nodeStatusReportFrequency`).
const REPORT: i64 = 300;

/// The machine behind a node.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Whether it has power.
    pub powered: bool,
    /// Whether its kubelet runs.
    pub kubelet: bool,
    /// How often it was booted.
    pub boots: u32,
    /// The names of its static pods.
    pub static_pods: Vec<String>,
    pub(crate) since: Timestamp,
    pub(crate) beat: Option<Timestamp>,
    pub(crate) pods: BTreeMap<String, Container>,
}

impl Machine {
    pub(crate) fn started(now: Timestamp) -> Self {
        Self {
            powered: true,
            kubelet: true,
            boots: 1,
            static_pods: Vec::new(),
            since: now,
            beat: None,
            pods: BTreeMap::new(),
        }
    }
}

/// Lets every kubelet that runs do what is due.
pub fn pass(world: &mut World) {
    let mut by_node: BTreeMap<String, Vec<Arc<Value>>> = BTreeMap::new();
    for pod in world.store.list("pods", None) {
        by_node
            .entry(text(pod, "/spec/nodeName").to_owned())
            .or_default()
            .push(Arc::clone(pod));
    }
    let running: Vec<String> = world
        .machines
        .iter()
        .filter(|(_, machine)| machine.kubelet)
        .map(|(node, _)| node.clone())
        .collect();
    for node in running {
        let Some(mut machine) = world.machines.remove(&node) else {
            continue;
        };
        beat(world, &node, &mut machine);
        mirror(world, &node, &machine);
        let pods = by_node.remove(&node).unwrap_or_default();
        machine
            .pods
            .retain(|known, _| pods.iter().any(|pod| uid(pod) == known));
        for pod in &pods {
            sync(world, &node, &mut machine, pod);
        }
        world.machines.insert(node, machine);
    }
}

fn beat(world: &mut World, node: &str, machine: &mut Machine) {
    let now = world.now;
    let Some(object) = world.get("nodes", "", node) else {
        return;
    };
    let ready = crate::json::find(&object, "/status/conditions", "type", "Ready");
    let reported = ready.and_then(|ready| clock::parse(at(ready, "/lastHeartbeatTime")));
    let due = machine.beat.is_none_or(|last| elapsed(last, now) >= HEARTBEAT);
    if due {
        machine.beat = Some(now);
        if world.release.has_leases() {
            renew(world, &object);
        }
    }
    let every = if world.release.has_leases() {
        REPORT
    } else {
        HEARTBEAT
    };
    let well = ready.is_some_and(|ready| text(ready, "/status") == "True");
    // A node that somebody else calls not ready hears from its kubelet at once.
    if well && reported.is_some_and(|last| elapsed(last, now) < every && last >= machine.since) {
        return;
    }
    let boot = format!("{node}-boot-{}", machine.boots);
    world.change("nodes", "", node, |object| {
        set(object, "/status/nodeInfo/bootID", boot);
        for (kind, status, reason, message) in [
            (
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            (
                "DiskPressure",
                "False",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ),
            (
                "PIDPressure",
                "False",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ] {
            conditions::set(object, kind, status, (reason, message), now);
            let list = object
                .pointer_mut("/status/conditions")
                .and_then(Value::as_array_mut);
            for condition in list
                .into_iter()
                .flatten()
                .filter(|condition| text(condition, "/type") == kind)
            {
                set(condition, "/lastHeartbeatTime", clock::seconds(now));
            }
        }
    });
    if !well {
        let message = format!("Node {node} status is now: NodeReady");
        world.event(("nodes", &object), "Normal", "NodeReady", &message, "kubelet");
    }
}

/// Mirrors static pods in the API; a mirror that was deleted comes back
/// (<https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/>).
fn mirror(world: &mut World, node: &str, machine: &Machine) {
    let Some(owner) = world.get("nodes", "", node) else {
        return;
    };
    for called in &machine.static_pods {
        let pod_name = format!("{called}-{node}");
        if world.store.get("pods", "kube-system", &pod_name).is_some() {
            continue;
        }
        let hash = super::pods::hash(&json!(pod_name));
        let pod = json!({
            "metadata": {
                "name": pod_name, "labels": {"component": called, "tier": "control-plane"},
                "annotations": {
                    "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash,
                    "kubernetes.io/config.seen": clock::seconds(world.now), "kubernetes.io/config.source": "file",
                },
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid(&owner), "controller": true},
                ],
            },
            "spec": {
                "nodeName": node, "hostNetwork": true, "priorityClassName": "system-node-critical",
                "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                "containers": [{"name": called, "image": format!("registry.k8s.io/{called}:1")}],
            },
        });
        // In a namespace that ends it cannot be mirrored, and runs all the same.
        let _ = world.create(named("pods"), "kube-system", pod);
    }
}

fn renew(world: &mut World, node: &Value) {
    let renewed = clock::micros(world.now);
    if world.get("leases", "kube-node-lease", name(node)).is_some() {
        world.change("leases", "kube-node-lease", name(node), |lease| {
            set(lease, "/spec/renewTime", renewed);
        });
        return;
    }
    let lease = json!({
        "metadata": {"name": name(node), "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": name(node), "uid": uid(node)},
        ]},
        "spec": {"holderIdentity": name(node), "leaseDurationSeconds": 40, "renewTime": renewed},
    });
    // Without its namespace there are no leases, as for the real one.
    let _ = world.create(named("leases"), "kube-node-lease", lease);
}

fn outcome(world: &World, pod: &Value) -> Outcome {
    let annotated = member(pod, "/metadata/annotations", "apiserver-double/outcome");
    let annotated = annotated.and_then(|text| Outcome::of(text, pod));
    let image = text(pod, "/spec/containers/0/image");
    let by_image = world
        .outcomes
        .iter()
        .find(|(part, _)| image.contains(part.as_str()))
        .map(|(_, outcome)| *outcome);
    let of_job = crate::json::controller(pod).is_some_and(|owner| text(owner, "/kind") == "Job");
    annotated
        .or(by_image)
        .unwrap_or(if of_job { Outcome::Completes } else { Outcome::Runs })
}

fn sync(world: &mut World, node: &str, machine: &mut Machine, pod: &Value) {
    let now = world.now;
    let fate = outcome(world, pod);
    if is_terminating(pod) {
        let end = clock::parse(at(pod, "/metadata/deletionTimestamp")).unwrap_or(now);
        let asked = end - SignedDuration::from_secs(number(pod, "/metadata/deletionGracePeriodSeconds"));
        let stops = if fate == Outcome::IgnoresTermination {
            end
        } else {
            end.min(asked + SignedDuration::from_secs(STEP))
        };
        if now >= stops {
            machine.pods.remove(uid(pod));
            let _ = world.delete(named("pods"), namespace(pod), name(pod), &DeleteOptions::now());
        }
        return;
    }
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
    }
    let ran = !at(pod, "/status/containerStatuses/0/containerID").is_null();
    let before = number(pod, "/status/containerStatuses/0/restartCount");
    let container = machine
        .pods
        .entry(uid(pod).to_owned())
        .or_insert_with(|| Container {
            seen: now,
            started: None,
            next: Some(now + SignedDuration::from_secs(STEP)),
            restarts: before + i64::from(ran),
            last: None,
            ended: false,
            told: String::new(),
        });
    // A pod that runs as it should, and that nobody wrote since it was told so, needs no second look.
    let steady = fate == Outcome::Runs && container.started.is_some() && !container.ended;
    if steady && container.told == text(pod, "/metadata/resourceVersion") {
        return;
    }
    let lacking = container
        .started
        .is_none()
        .then(|| config::missing(world, pod))
        .flatten();
    if lacking.is_some() || !attach::is_attached(world, pod) {
        container.next = Some(now + SignedDuration::from_secs(STEP));
    } else if fate != Outcome::ImagePullBackOff {
        go_on(container, fate, now);
    }
    let status = match &lacking {
        Some(lack) => {
            lack.tell(world, pod);
            (lack.state(), "Pending")
        }
        None => status(container, fate, pod, now),
    };
    tell(world, pod, container, fate, &status);
    report(world, node, pod, container, fate, &status);
    let told = world
        .store
        .get("pods", namespace(pod), name(pod))
        .filter(|pod| condition(pod, "Ready") == "True");
    container.told = told
        .map(|pod| text(pod, "/metadata/resourceVersion").to_owned())
        .unwrap_or_default();
}

/// The events of what changed.
fn tell(
    world: &mut World,
    pod: &Value,
    container: &Container,
    fate: Outcome,
    (state, _): &(Value, &'static str),
) {
    let old = at(pod, "/status/containerStatuses/0/state");
    let image = text(pod, "/spec/containers/0/image");
    let called = text(pod, "/spec/containers/0/name");
    let reason = |state: &Value| text(state, "/waiting/reason").to_owned();
    if reason(old) != reason(state) && fate == Outcome::ImagePullBackOff {
        let error = reason(state) == "ErrImagePull";
        let message = if error {
            format!("Failed to pull image \"{image}\": not found")
        } else {
            format!("Back-off pulling image \"{image}\"")
        };
        let (kind, why) = if error {
            ("Warning", "Failed")
        } else {
            ("Normal", "BackOff")
        };
        world.event(("pods", pod), kind, why, &message, "kubelet");
    } else if reason(old) != reason(state) && reason(state) == "CrashLoopBackOff" {
        let message = format!(
            "Back-off restarting failed container {called} in pod {}_{}({})",
            name(pod),
            namespace(pod),
            uid(pod)
        );
        world.event(("pods", pod), "Warning", "BackOff", &message, "kubelet");
        if fate == Outcome::LivenessFails {
            let message = "Liveness probe failed: HTTP probe failed with statuscode: 500";
            world.event(("pods", pod), "Warning", "Unhealthy", message, "kubelet");
            let message = format!("Container {called} failed liveness probe, will be restarted");
            world.event(("pods", pod), "Normal", "Killing", &message, "kubelet");
        }
    } else if at(old, "/running").is_null() && !at(state, "/running").is_null() {
        if container.restarts == 0 {
            let message = format!("Container image \"{image}\" already present on machine");
            world.event(("pods", pod), "Normal", "Pulled", &message, "kubelet");
        }
        world.event(
            ("pods", pod),
            "Normal",
            "Started",
            &format!("Started container {called}"),
            "kubelet",
        );
        if fate == Outcome::NeverReady {
            let message = "Readiness probe failed: HTTP probe failed with statuscode: 503";
            world.event(("pods", pod), "Warning", "Unhealthy", message, "kubelet");
        }
    }
}

fn report(
    world: &mut World,
    node: &str,
    pod: &Value,
    container: &Container,
    fate: Outcome,
    status: &(Value, &'static str),
) {
    let (state, phase) = status;
    let now = world.now;
    let running = !at(state, "/running").is_null();
    let since = container.started.map_or(0, |started| elapsed(started, now));
    let ready = running && matches!(fate, Outcome::Runs | Outcome::IgnoresTermination) && since >= STEP;
    let host = world.get("nodes", "", node);
    let host = host
        .as_deref()
        .map(|host| text(host, "/status/addresses/0/address").to_owned())
        .unwrap_or_default();
    let ip = address(host.as_str(), uid(pod));
    let (flag, why) = if ready {
        ("True", ("", ""))
    } else {
        ("False", ("ContainersNotReady", "containers with unready status"))
    };
    let why = if *phase == "Succeeded" {
        ("PodCompleted", "")
    } else {
        why
    };
    world.change("pods", namespace(pod), name(pod), |changed| {
        set(changed, "/status/phase", *phase);
        set(changed, "/status/hostIP", host);
        default(changed, "/status/startTime", clock::seconds(now));
        if container.started.is_some() {
            set(changed, "/status/podIP", ip.clone());
            set(changed, "/status/podIPs", json!([{"ip": ip}]));
        }
        conditions::set(changed, "Initialized", "True", ("", ""), now);
        conditions::set(changed, "PodScheduled", "True", ("", ""), now);
        conditions::set(changed, "ContainersReady", flag, why, now);
        conditions::set(changed, "Ready", flag, why, now);
        let statuses: Vec<Value> = items(changed, "/spec/containers")
            .iter()
            .map(|spec| {
                let mut entry = json!({
                    "name": text(spec, "/name"), "image": text(spec, "/image"), "imageID": "", "ready": ready,
                    "started": running, "restartCount": container.restarts, "state": state,
                    "lastState": container.last.clone().filter(|_| *phase == "Running").unwrap_or(json!({})),
                });
                if container.started.is_some() {
                    entry["containerID"] =
                        json!(format!("containerd://{}-{}", uid(changed), container.restarts));
                    entry["imageID"] = json!(text(spec, "/image"));
                }
                // What an in-place resize set is in force as soon as the kubelet has seen it.
                if at(spec, "/resources/requests").is_object() {
                    entry["resources"] = spec["resources"].clone();
                }
                entry
            })
            .collect();
        set(changed, "/status/containerStatuses", statuses);
    });
}

/// An address that a pod keeps, from its number.
fn address(host: &str, uid: &str) -> String {
    let number = uid
        .rsplit('-')
        .next()
        .and_then(|tail| u64::from_str_radix(tail, 16).ok())
        .unwrap_or(1);
    let node = host.rsplit('.').next().unwrap_or("0");
    format!("10.244.{node}.{}", number % 250 + 2)
}
