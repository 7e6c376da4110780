//! What a request would have changed, read from the double's own record of it. Pure.

use std::fmt;

use blackstart_apiserver::Recorded;
use blackstart_coordinator::kubernetes::detail::RESTARTED_AT;
use blackstart_coordinator::kubernetes::objects::OUT_OF_SERVICE;
use serde_json::Value;

/// A pod or workload by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// The plural of its kind.
    pub(super) resource: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    Cordon(Object),
    Uncordon(Object),
    /// The node is said to be out of service.
    Taint(Object),
    /// That is taken back.
    Untaint(Object),
    Evict(Object),
    Delete {
        pod: Object,
        /// Without its kubelet's word.
        force: bool,
    },
    /// A volume is taken from a node.
    Detach(Object),
    /// What the pods of a workload tolerate.
    Tolerations(Object),
    /// What they may use of memory.
    Memory(Object),
    /// They are made anew.
    Restart(Object),
    /// Nothing that any runbook does.
    Other(String),
}

/// The workloads whose templates runbooks change.
const WORKLOADS: [&str; 3] = ["deployments", "statefulsets", "daemonsets"];

impl Deed {
    /// `None`: it changes nothing in the cluster, as reviews of one's own rights do.
    pub(super) fn of(asked: &Recorded) -> Option<Self> {
        if !asked.is_change()
            || matches!(
                asked.group.as_str(),
                "authorization.k8s.io" | "authentication.k8s.io"
            )
        {
            return None;
        }
        let object = |resource| Object {
            resource,
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
        };
        let other = || Self::Other(format!("{} {}", asked.verb, asked.path));
        let body = &asked.body;
        let what = (
            asked.verb.as_str(),
            asked.resource.as_str(),
            asked.subresource.as_str(),
        );
        Some(match what {
            ("create", "pods", "eviction") => Self::Evict(object("pods")),
            ("delete", "pods", "") => Self::Delete {
                pod: object("pods"),
                force: body["gracePeriodSeconds"] == 0,
            },
            ("delete", "volumeattachments", "") => Self::Detach(object("volumeattachments")),
            ("patch", "nodes", "") => of_node(object("nodes"), body).unwrap_or_else(other),
            ("patch", resource, "") => {
                let known = WORKLOADS.into_iter().find(|known| *known == resource);
                known
                    .and_then(|resource| of_template(object(resource), &body["spec"]))
                    .unwrap_or_else(other)
            }
            _ => other(),
        })
    }

    /// What it is about, if it is something that a runbook does.
    pub(super) const fn object(&self) -> Option<&Object> {
        match self {
            Self::Cordon(object)
            | Self::Uncordon(object)
            | Self::Taint(object)
            | Self::Untaint(object)
            | Self::Evict(object)
            | Self::Delete { pod: object, .. }
            | Self::Detach(object)
            | Self::Tolerations(object)
            | Self::Memory(object)
            | Self::Restart(object) => Some(object),
            Self::Other(_) => None,
        }
    }
}

/// It changes these fields and no other.
fn only(spec: &Value, fields: &[&str]) -> bool {
    spec.as_object()
        .is_some_and(|spec| spec.keys().map(String::as_str).eq(fields.iter().copied()))
}

fn of_node(node: Object, body: &Value) -> Option<Deed> {
    let spec = &body["spec"];
    if only(spec, &["unschedulable"]) {
        return Some(if spec["unschedulable"] == true {
            Deed::Cordon(node)
        } else {
            Deed::Uncordon(node)
        });
    }
    if !only(spec, &["taints"]) {
        return None;
    }
    let mut taints = spec["taints"].as_array().into_iter().flatten();
    Some(if taints.any(|taint| taint["key"] == OUT_OF_SERVICE) {
        Deed::Taint(node)
    } else {
        Deed::Untaint(node)
    })
}

fn of_template(workload: Object, spec: &Value) -> Option<Deed> {
    if !only(spec, &["template"]) {
        return None;
    }
    let template = &spec["template"];
    if only(template, &["metadata"]) && template["metadata"]["annotations"].get(RESTARTED_AT).is_some() {
        return Some(Deed::Restart(workload));
    }
    if !only(template, &["spec"]) {
        return None;
    }
    if only(&template["spec"], &["tolerations"]) {
        return Some(Deed::Tolerations(workload));
    }
    only(&template["spec"], &["containers"]).then_some(Deed::Memory(workload))
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cordon(node) => write!(f, "cordon node {node}"),
            Self::Uncordon(node) => write!(f, "uncordon node {node}"),
            Self::Taint(node) => write!(f, "say that node {node} is out of service"),
            Self::Untaint(node) => write!(f, "take back that node {node} is out of service"),
            Self::Evict(pod) => write!(f, "evict pod {pod}"),
            Self::Delete { pod, force: true } => write!(f, "delete pod {pod} by force"),
            Self::Delete { pod, force: false } => write!(f, "delete pod {pod}"),
            Self::Detach(attachment) => write!(f, "delete volume attachment {attachment}"),
            Self::Tolerations(workload) => write!(f, "change the tolerations of {workload}"),
            Self::Memory(workload) => write!(f, "change the memory of {workload}"),
            Self::Restart(workload) => write!(f, "restart {workload}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
