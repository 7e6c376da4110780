//! Objects as API servers tell them.

use serde_json::json;

use super::*;

fn keep<T: Kept>(value: serde_json::Value) -> T {
    T::keep(serde_json::from_value(value).unwrap()).unwrap()
}

#[test]
fn what_a_node_says_and_what_it_does_not() {
    let node: Node = keep(json!({
        "metadata": {"name": "biz-4", "uid": "u", "resourceVersion": "7", "annotations": {CORDONED_BY: "drain-1"}},
        "spec": {"unschedulable": true, "taints": [{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute", "timeAdded": "t"}]},
        "status": {"conditions": [
            {"type": "MemoryPressure", "status": "True"},
            {"type": "Ready", "status": "False", "lastHeartbeatTime": "2026-11-28T08:00:00Z"},
        ], "nodeInfo": {"kubeletVersion": "v1.13.12-netease", "bootID": "b"}},
    }));
    assert!(node.unschedulable && node.is_out_of_service());
    assert_eq!(node.ready, Ready::False);
    assert_eq!(node.heartbeat, Some("2026-11-28T08:00:00Z".parse().unwrap()));
    assert_eq!(node.cordoned_by.as_deref(), Some("drain-1"));
    // What is not read is written back.
    assert_eq!(serde_json::to_value(&node.taints).unwrap()[0]["timeAdded"], "t");
    let bare: Node = keep(json!({"metadata": {"name": "biz-5"}}));
    assert_eq!((bare.ready, bare.unschedulable), (Ready::Unknown, false));
}

#[test]
fn a_pod_knows_whether_evicting_it_makes_sense() {
    let pod: Pod = keep(json!({
        "metadata": {"name": "web-1", "namespace": "biz", "uid": "u", "labels": {"app": "web"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}]},
        "spec": {"nodeName": "biz-4", "volumes": [{"name": "c", "configMap": {}}, {"name": "d", "emptyDir": {}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }));
    assert!(pod.has_local_data && pod.is_ready && pod.kind == PodKind::Plain && !pod.is_over());
    assert_eq!(pod.key.to_string(), "biz/web-1");
    let daemon: Pod = keep(json!({"metadata": {"name": "cni", "namespace": "kube-system",
        "ownerReferences": [{"kind": "DaemonSet", "name": "cni", "controller": true}]}}));
    assert_eq!(daemon.kind, PodKind::Daemon);
    assert_eq!(daemon.phase, PodPhase::Unknown);
    let mirror: Pod = keep(
        json!({"metadata": {"name": "etcd-m1", "namespace": "kube-system", "annotations": {MIRROR: "h"}}}),
    );
    assert_eq!(mirror.kind, PodKind::Mirror);
}

#[test]
fn a_budget_covers_by_labels_and_expressions_in_its_own_namespace() {
    let budget: Budget = keep(json!({
        "metadata": {"name": "web", "namespace": "biz"},
        "spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["test"]}]}},
        "status": {"disruptionsAllowed": 1},
    }));
    let pod = |namespace: &str, labels: serde_json::Value| -> Pod {
        keep(json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels}}))
    };
    assert_eq!(budget.allowed, 1);
    assert!(budget.covers(&pod("biz", json!({"app": "web"}))));
    assert!(!budget.covers(&pod("biz", json!({"app": "web", "tier": "test"}))));
    assert!(!budget.covers(&pod("biz", json!({"app": "db"}))));
    assert!(!budget.covers(&pod("lab", json!({"app": "web"}))));
}
