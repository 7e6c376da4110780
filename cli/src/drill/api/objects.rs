//! What stands in the cluster of a drill, as manifests.

use blackstart_apiserver::Release;
use serde_json::{Map, Value, json};

/// The namespace of the workload that it happens to.
pub(super) const OURS: &str = "gateway-system";
/// A namespace that no runbook of a drill is about.
pub(super) const THEIRS: &str = "ledger";
/// The system's.
pub(super) const SYSTEM: &str = "kube-system";
/// The workload that it happens to.
pub(super) const APP: &str = "gateway-proxy";
/// What its image is called.
pub(super) const IMAGE: &str = "registry.lan/gateway-proxy:1";
/// A workload of [`THEIRS`] whose budget lets none of its pods go.
pub(super) const GUARDED: &str = "ledger";
/// A workload of [`THEIRS`] without a budget.
pub(super) const BYSTANDER: &str = "notes";
/// The annotation that tells the double how a pod fares.
pub(super) const OUTCOME: &str = "apiserver-double/outcome";

/// A workload of a namespace, with parts of its pods' template.
pub(super) fn workload(
    namespace: &str,
    name: &str,
    replicas: u32,
    annotations: &Value,
    spec: &Value,
) -> Value {
    let labels = json!({ "app": name });
    let mut pods = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": format!("registry.lan/{name}:1")}],
    });
    merge(&mut pods, spec);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels, "annotations": annotations}, "spec": pods,
        }},
    })
}

/// A container of [`APP`] that asks for so much, and is limited to so much.
pub(super) fn container(resources: &Value) -> Value {
    json!({"containers": [{"name": "main", "image": IMAGE, "resources": resources}]})
}

/// A workload whose pods want, and use, so much of a processor.
pub(super) fn heavy(name: &str, replicas: u32, uses: &str, spec: &Value) -> Value {
    let annotations = json!({"apiserver-double/cpu": uses, "apiserver-double/memory": "1Mi"});
    let mut pods = json!({"containers": [{
        "name": "main", "image": format!("registry.lan/{name}:1"), "resources": {"requests": {"cpu": "100m"}},
    }]});
    merge(&mut pods, spec);
    workload(OURS, name, replicas, &annotations, &pods)
}

/// A disruption budget of a workload.
pub(super) fn budget(namespace: &str, name: &str, release: Release, spec: &Value) -> Value {
    let version = if release.minor >= 21 {
        "policy/v1"
    } else {
        "policy/v1beta1"
    };
    let mut budget = json!({
        "apiVersion": version, "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": name}}},
    });
    merge(&mut budget["spec"], spec);
    budget
}

/// What every drill's cluster has: namespaces, the network's daemon set, and those who are to be left alone, on a node of their own.
pub(super) fn bystanders(release: Release, refuge: &str) -> Vec<Value> {
    let here = json!({"nodeSelector": {"kubernetes.io/hostname": refuge}});
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let labels = json!({"app": "cni"});
    let network = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "cni", "namespace": SYSTEM},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "hostNetwork": true, "priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 1,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "cni", "image": "registry.lan/cni:1"}],
            },
        }},
    });
    vec![
        namespace(OURS),
        namespace(THEIRS),
        network,
        workload(THEIRS, GUARDED, 2, &json!({}), &here),
        budget(THEIRS, GUARDED, release, &json!({"maxUnavailable": 0})),
        workload(THEIRS, BYSTANDER, 2, &json!({}), &here),
    ]
}

/// Merges as RFC 7386 does: objects by field, `null` removes, anything else replaces.
pub(super) fn merge(to: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *to = patch.clone();
        return;
    };
    if !to.is_object() {
        *to = Value::Object(Map::new());
    }
    let Some(object) = to.as_object_mut() else { return };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
