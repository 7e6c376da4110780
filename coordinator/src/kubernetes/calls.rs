//! What is asked of a cluster's API. The closed list; each may be sent again without harm, because it carries what it rests on.

use std::fmt;

use serde_json::{Value, json};

use super::capabilities::GroupVersion;
use super::detail::{ContainerMemory, RESTARTED_AT};
use super::objects::scheduling::Toleration;
use super::objects::workload::WorkloadName;
use super::objects::{Key, OUT_OF_SERVICE, Taint};
use super::quantity;

/// A node as it was when a call was decided: the call is refused (409) if it is another by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// Which.
    pub name: String,
    /// Of this registration.
    pub uid: String,
    /// As it was seen.
    pub resource_version: String,
}

/// An annotation that says which run did it; `None` removes it.
pub type Mark = (&'static str, Option<String>);

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiCall {
    /// Cordons or uncordons, with the mark of the run in the same write.
    Schedulable {
        /// Which node.
        node: Precondition,
        /// Cordon.
        unschedulable: bool,
        /// Who.
        mark: Mark,
    },
    /// Sets or removes the out-of-service taint.
    OutOfService {
        /// Which node.
        node: Precondition,
        /// All its taints, as they were.
        taints: Vec<Taint>,
        /// Who; without a name it is removed.
        mark: Mark,
    },
    /// Evicts a pod, as its budgets allow.
    Evict {
        /// Which.
        pod: Key,
        /// This one and no later one of its name.
        uid: String,
        /// The version of the eviction that the cluster takes.
        version: GroupVersion,
    },
    /// Deletes a pod, past its budgets.
    DeletePod {
        /// Which.
        pod: Key,
        /// This one and no later one of its name.
        uid: String,
        /// Without its kubelet's word.
        force: bool,
    },
    /// Deletes a volume attachment.
    DeleteAttachment {
        /// Which.
        name: String,
        /// This one and no later one of its name.
        uid: String,
    },
    /// Changes the pod template of a workload, with the marks of the run in the same write.
    Template {
        /// Which.
        workload: WorkloadName,
        /// This one and no later one of its name.
        uid: String,
        /// As it was seen.
        resource_version: String,
        /// What of it.
        change: TemplateChange,
        /// Who, and what was there before.
        marks: Vec<Mark>,
    },
}

/// What of a template is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateChange {
    /// What these containers ask for; what is `None` is removed.
    Memory(Vec<ContainerMemory>),
    /// What its pods tolerate: all of it; `None`: its template says nothing of that.
    Tolerations(Option<Vec<Toleration>>),
    /// Nothing but the time of a restart.
    Restart(String),
}

/// What a call changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A node, by name.
    Node(String),
    /// A pod, by uid.
    Pod(String),
    /// A volume attachment, by uid.
    Attachment(String),
    /// A workload, by uid.
    Workload(String),
}

impl fmt::Display for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedulable {
                node,
                unschedulable: true,
                ..
            } => write!(f, "cordon node {}", node.name),
            Self::Schedulable { node, .. } => write!(f, "uncordon node {}", node.name),
            Self::OutOfService {
                node,
                mark: (_, Some(_)),
                ..
            } => write!(f, "taint node {} out of service", node.name),
            Self::OutOfService { node, .. } => {
                write!(f, "remove the out-of-service taint of node {}", node.name)
            }
            Self::Evict { pod, version, .. } => write!(f, "evict pod {pod} ({version})"),
            Self::DeletePod { pod, force: true, .. } => write!(f, "delete pod {pod} by force"),
            Self::DeletePod { pod, .. } => write!(f, "delete pod {pod}"),
            Self::DeleteAttachment { name, .. } => write!(f, "delete volume attachment {name}"),
            Self::Template {
                workload,
                change: TemplateChange::Memory(_),
                ..
            } => write!(f, "change the memory of {workload}"),
            Self::Template {
                workload,
                change: TemplateChange::Tolerations(_),
                ..
            } => write!(f, "change the tolerations of {workload}"),
            Self::Template {
                workload,
                change: TemplateChange::Restart(_),
                ..
            } => write!(f, "restart {workload}"),
        }
    }
}

/// How a call goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    /// `PATCH`, `POST`, `DELETE`.
    pub method: &'static str,
    /// After the server's address.
    pub path: String,
    /// Of the body.
    pub content_type: &'static str,
    /// JSON.
    pub body: Value,
}

const MERGE: &str = "application/merge-patch+json";
/// Merges lists of containers by name; lists without a key, tolerations among them, it replaces whole.
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";

impl ApiCall {
    /// What it changes.
    pub fn target(&self) -> Target {
        match self {
            Self::Schedulable { node, .. } | Self::OutOfService { node, .. } => {
                Target::Node(node.name.clone())
            }
            Self::Evict { uid, .. } | Self::DeletePod { uid, .. } => Target::Pod(uid.clone()),
            Self::DeleteAttachment { uid, .. } => Target::Attachment(uid.clone()),
            Self::Template { uid, .. } => Target::Workload(uid.clone()),
        }
    }

    /// The request. `attachments`: where volume attachments are served.
    pub fn wire(&self, attachments: Option<&GroupVersion>) -> Wire {
        match self {
            Self::Schedulable {
                node,
                unschedulable,
                mark,
            } => patch_node(
                node,
                mark,
                // null removes the field, as kubectl uncordon does.
                &json!({ "unschedulable": unschedulable.then_some(true) }),
            ),
            Self::OutOfService { node, taints, mark } => {
                let mut taints: Vec<_> = taints
                    .iter()
                    .filter(|taint| taint.key != OUT_OF_SERVICE)
                    .collect();
                let taint = Taint {
                    key: OUT_OF_SERVICE.to_owned(),
                    value: "nodeshutdown".to_owned(),
                    effect: "NoExecute".to_owned(),
                    rest: std::collections::BTreeMap::new(),
                };
                if mark.1.is_some() {
                    taints.push(&taint);
                }
                patch_node(node, mark, &json!({ "taints": taints }))
            }
            Self::Evict { pod, uid, version } => Wire {
                method: "POST",
                path: format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name),
                content_type: JSON,
                body: json!({
                    "apiVersion": version.0,
                    "kind": "Eviction",
                    "metadata": { "name": pod.name, "namespace": pod.namespace },
                    "deleteOptions": { "preconditions": { "uid": uid } },
                }),
            },
            Self::DeletePod { pod, uid, force } => Wire {
                method: "DELETE",
                path: format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name),
                content_type: JSON,
                body: delete_options(uid, *force),
            },
            Self::DeleteAttachment { name, uid } => Wire {
                method: "DELETE",
                path: format!(
                    "/apis/{}/volumeattachments/{name}",
                    attachments.map_or("storage.k8s.io/v1", |version| version.0.as_str())
                ),
                content_type: JSON,
                body: delete_options(uid, false),
            },
            Self::Template {
                workload,
                uid,
                resource_version,
                change,
                marks,
            } => {
                let marks: serde_json::Map<String, Value> = marks
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(value)))
                    .collect();
                Wire {
                    method: "PATCH",
                    path: workload_path(workload.kind.plural(), &workload.key),
                    content_type: STRATEGIC,
                    body: json!({
                        "metadata": { "uid": uid, "resourceVersion": resource_version, "annotations": marks },
                        "spec": { "template": change.template() },
                    }),
                }
            }
        }
    }
}

fn workload_path(plural: &str, key: &Key) -> String {
    format!("/apis/apps/v1/namespaces/{}/{plural}/{}", key.namespace, key.name)
}

impl TemplateChange {
    fn template(&self) -> Value {
        match self {
            Self::Memory(containers) => {
                let containers: Vec<_> = containers
                    .iter()
                    .map(|one| {
                        json!({ "name": one.container, "resources": {
                            "requests": { "memory": one.request.map(quantity::text) },
                            "limits": { "memory": one.limit.map(quantity::text) },
                        }})
                    })
                    .collect();
                json!({ "spec": { "containers": containers } })
            }
            Self::Tolerations(tolerations) => json!({ "spec": { "tolerations": tolerations } }),
            Self::Restart(at) => json!({ "metadata": { "annotations": { (RESTARTED_AT): at } } }),
        }
    }
}

fn delete_options(uid: &str, force: bool) -> Value {
    let mut options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": { "uid": uid },
    });
    if force {
        options["gracePeriodSeconds"] = json!(0);
    }
    options
}

/// A merge patch replaces lists whole, so the resource version is part of it: nobody's taint is lost.
fn patch_node(node: &Precondition, mark: &Mark, spec: &Value) -> Wire {
    Wire {
        method: "PATCH",
        path: format!("/api/v1/nodes/{}", node.name),
        content_type: MERGE,
        body: json!({
            "metadata": {
                "uid": node.uid,
                "resourceVersion": node.resource_version,
                "annotations": { (mark.0): mark.1 },
            },
            "spec": spec,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Precondition {
        Precondition {
            name: "biz-4".into(),
            uid: "u".into(),
            resource_version: "7".into(),
        }
    }

    #[test]
    fn a_cordon_is_one_write_with_its_mark_and_its_preconditions() {
        let call = |unschedulable, mark: Option<&str>| {
            let mark = ("blackstart.io/cordoned-by", mark.map(str::to_owned));
            ApiCall::Schedulable {
                node: node(),
                unschedulable,
                mark,
            }
            .wire(None)
        };
        let wire = call(true, Some("drain-1"));
        assert_eq!(
            (wire.method, wire.path.as_str(), wire.content_type),
            ("PATCH", "/api/v1/nodes/biz-4", MERGE)
        );
        assert_eq!(wire.body["metadata"]["resourceVersion"], "7");
        assert_eq!(
            wire.body["metadata"]["annotations"]["blackstart.io/cordoned-by"],
            "drain-1"
        );
        assert_eq!(wire.body["spec"]["unschedulable"], true);
        // null removes both, and is there.
        let back = call(false, None).body;
        assert!(back["spec"].as_object().unwrap()["unschedulable"].is_null());
        assert!(back["metadata"]["annotations"].as_object().unwrap()["blackstart.io/cordoned-by"].is_null());
    }

    #[test]
    fn the_taint_joins_those_that_are_there_and_leaves_them() {
        let other: Taint =
            serde_json::from_value(json!({"key": "a", "effect": "NoSchedule", "timeAdded": "t"})).unwrap();
        let call = |taints: Vec<Taint>, mark: Option<&str>| {
            let mark = ("m", mark.map(str::to_owned));
            let wire = ApiCall::OutOfService {
                node: node(),
                taints,
                mark,
            }
            .wire(None);
            wire.body["spec"]["taints"].clone()
        };
        let set = call(vec![other.clone()], Some("node-down-1"));
        assert_eq!(
            set[0],
            json!({"key": "a", "effect": "NoSchedule", "timeAdded": "t"})
        );
        assert_eq!(
            set[1],
            json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"})
        );
        let taints = serde_json::from_value(set).unwrap();
        assert_eq!(
            call(taints, None),
            json!([{"key": "a", "effect": "NoSchedule", "timeAdded": "t"}])
        );
    }

    #[test]
    fn a_template_is_changed_by_container_and_in_one_write_with_its_marks() {
        let call = |change| ApiCall::Template {
            workload: WorkloadName {
                kind: super::super::objects::workload::WorkloadKind::StatefulSet,
                key: Key {
                    namespace: "skiff-nsf".into(),
                    name: "nsf-redis".into(),
                },
            },
            uid: "u".into(),
            resource_version: "7".into(),
            change,
            marks: vec![
                ("blackstart.io/a", Some("pods-heal-1".into())),
                ("blackstart.io/b", None),
            ],
        };
        let wire = call(TemplateChange::Memory(vec![ContainerMemory {
            container: "redis".into(),
            request: None,
            limit: Some(150 << 20),
        }]))
        .wire(None);
        assert_eq!(
            wire.path,
            "/apis/apps/v1/namespaces/skiff-nsf/statefulsets/nsf-redis"
        );
        assert_eq!(wire.content_type, STRATEGIC);
        assert_eq!(wire.body["metadata"]["resourceVersion"], "7");
        assert_eq!(
            wire.body["metadata"]["annotations"],
            json!({"blackstart.io/a": "pods-heal-1", "blackstart.io/b": null})
        );
        assert_eq!(
            wire.body["spec"]["template"]["spec"]["containers"],
            json!([{"name": "redis", "resources": {"limits": {"memory": "150Mi"}, "requests": {"memory": null}}}])
        );
        let restart = call(TemplateChange::Restart("2026-11-28T08:00:00Z".into())).wire(None);
        assert_eq!(
            restart.body["spec"]["template"],
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-28T08:00:00Z"}}})
        );
    }

    #[test]
    fn an_eviction_has_the_version_that_the_cluster_takes_and_the_uid_of_the_pod() {
        let evict = ApiCall::Evict {
            pod: Key {
                namespace: "biz".into(),
                name: "web-1".into(),
            },
            uid: "u".into(),
            version: GroupVersion("policy/v1beta1".into()),
        };
        let wire = evict.wire(None);
        assert_eq!(wire.path, "/api/v1/namespaces/biz/pods/web-1/eviction");
        assert_eq!(wire.body["apiVersion"], "policy/v1beta1");
        assert_eq!(wire.body["deleteOptions"]["preconditions"]["uid"], "u");
    }
}
