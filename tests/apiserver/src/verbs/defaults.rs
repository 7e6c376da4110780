//! What the server fills in where a manifest is silent (pkg/apis/core/v1/defaults.go, pkg/apis/apps/v1/defaults.go), and the
//! tolerations that admission adds (plugin/pkg/admission/defaulttolerationseconds).

use crate::json::{at, default, items, name, object, set, text};
use crate::quantity::millis;
use crate::resources::Resource;
use serde_json::{Value, json};

/// How long a pod stays on a node that does not answer, unless it says otherwise.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// Fills in the defaults of an object.
pub(super) fn fill(resource: &Resource, target: &mut Value) {
    match resource.plural {
        "pods" => {
            if let Some(spec) = target.get_mut("spec") {
                pod_spec(spec);
                default(spec, "/serviceAccountName", "default");
                default(spec, "/priority", priority(text(spec, "/priorityClassName")));
                for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
                    tolerate(spec, key);
                }
            }
        }
        "namespaces" => {
            default(target, "/spec/finalizers", json!(["kubernetes"]));
            let called = name(target).to_owned();
            set(target, "/metadata/labels/kubernetes.io~1metadata.name", called);
        }
        "services" => {
            default(target, "/spec/type", "ClusterIP");
            default(target, "/spec/sessionAffinity", "None");
        }
        "deployments" => {
            default(target, "/spec/replicas", 1);
            default(target, "/spec/revisionHistoryLimit", 10);
            default(target, "/spec/progressDeadlineSeconds", 600);
            default(target, "/spec/strategy/type", "RollingUpdate");
            if text(target, "/spec/strategy/type") == "RollingUpdate" {
                default(target, "/spec/strategy/rollingUpdate/maxUnavailable", "25%");
                default(target, "/spec/strategy/rollingUpdate/maxSurge", "25%");
            }
        }
        "replicasets" => default(target, "/spec/replicas", 1),
        "statefulsets" => {
            default(target, "/spec/replicas", 1);
            default(target, "/spec/revisionHistoryLimit", 10);
            default(target, "/spec/podManagementPolicy", "OrderedReady");
            default(target, "/spec/updateStrategy/type", "RollingUpdate");
        }
        "daemonsets" => {
            default(target, "/spec/revisionHistoryLimit", 10);
            default(target, "/spec/updateStrategy/type", "RollingUpdate");
            if text(target, "/spec/updateStrategy/type") == "RollingUpdate" {
                default(target, "/spec/updateStrategy/rollingUpdate/maxUnavailable", 1);
                default(target, "/spec/updateStrategy/rollingUpdate/maxSurge", 0);
            }
        }
        "jobs" => {
            default(target, "/spec/parallelism", 1);
            default(target, "/spec/completions", 1);
            default(target, "/spec/backoffLimit", 6);
        }
        _ => {}
    }
    if let Some(spec) = target.pointer_mut("/spec/template/spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    default(spec, "/restartPolicy", "Always");
    default(spec, "/terminationGracePeriodSeconds", 30);
    default(spec, "/dnsPolicy", "ClusterFirst");
    default(spec, "/schedulerName", "default-scheduler");
    default(spec, "/securityContext", json!({}));
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let image = text(container, "/image");
            let latest =
                image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or(image).contains([':', '@']);
            default(
                container,
                "/imagePullPolicy",
                if latest { "Always" } else { "IfNotPresent" },
            );
            default(container, "/terminationMessagePath", "/dev/termination-log");
            default(container, "/terminationMessagePolicy", "File");
            default(container, "/resources", json!({}));
            let limits = at(container, "/resources/limits").clone();
            for (name, limit) in limits.as_object().into_iter().flatten() {
                object(container, "/resources/requests")
                    .entry(name.clone())
                    .or_insert_with(|| limit.clone());
            }
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default(port, "/protocol", "TCP");
            }
        }
    }
}

fn tolerate(spec: &mut Value, key: &str) {
    let known = items(spec, "/tolerations").iter().any(|toleration| {
        let named = text(toleration, "/key");
        (named == key || named.is_empty()) && matches!(text(toleration, "/effect"), "" | "NoExecute")
    });
    if !known {
        default(spec, "/tolerations", json!([]));
        if let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": DEFAULT_TOLERATION_SECONDS,
            }));
        }
    }
}

fn priority(class: &str) -> i64 {
    match class {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        _ => 0,
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>).
pub(super) fn quality_of_service(pod: &Value) -> &'static str {
    let containers = items(pod, "/spec/containers");
    let given = |container: &Value, kind: &str, name: &str| {
        millis(at(container, &format!("/resources/{kind}/{name}")))
    };
    let any = containers.iter().any(|container| {
        ["requests", "limits"].iter().any(|kind| {
            ["cpu", "memory"]
                .iter()
                .any(|name| given(container, kind, name) > 0)
        })
    });
    let all = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = given(container, "limits", name);
            limit > 0 && given(container, "requests", name) == limit
        })
    });
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The seconds that a pod has to end, by its own spec.
pub(super) fn grace_seconds(pod: &Value) -> i64 {
    at(pod, "/spec/terminationGracePeriodSeconds")
        .as_i64()
        .unwrap_or(30)
}
