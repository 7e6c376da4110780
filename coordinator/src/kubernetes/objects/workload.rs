//! Workloads: what makes pods again, how many it wants, and what its pods tolerate.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::budget::Selector;
use super::scheduling::Toleration;
use super::{Key, Metadata, Pod};

/// Which run shortened the tolerations of a workload: only what carries it is put back.
pub const TOLERATIONS_BY: &str = "blackstart.io/tolerations-by";
/// What they were before, as JSON.
pub const TOLERATIONS_BEFORE: &str = "blackstart.io/tolerations-before";

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A `Deployment`.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
    /// A `ReplicaSet`: its template is for new pods alone.
    ReplicaSet,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
    ];
    /// Those that make new pods by themselves once their template has changed.
    pub const ROLLING: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// As an object names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }

    /// As people type it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
        }
    }

    /// As a path names it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::ReplicaSet => "replicasets",
        }
    }

    /// The kind of this name, as objects or people write it: `Deployment`, `deployment`, `deployments`.
    pub fn named(name: &str) -> Option<Self> {
        let is_it =
            |kind: &Self| kind.word().eq_ignore_ascii_case(name) || kind.plural().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(is_it)
    }

    /// A changed template makes new pods by itself.
    pub const fn rolls(self) -> bool {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => true,
            Self::ReplicaSet => false,
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which workload. Written as people type it: `NAMESPACE/KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadName {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Namespace and name.
    #[serde(flatten)]
    pub key: Key,
}

impl WorkloadName {
    /// `NAMESPACE/KIND/NAME`: `gateway-system/deployment/gateway-proxy`. Of the kinds that people make; a replica set is its
    /// deployment's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = WorkloadKind::named(kind).filter(|kind| kind.rolls())?;
        let is_whole = parts.next().is_none() && !namespace.is_empty() && !name.is_empty();
        is_whole.then(|| Self {
            kind,
            key: Key {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        })
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.key.namespace, self.kind.word(), self.key.name)
    }
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which.
    pub name: WorkloadName,
    /// Of this one object.
    pub uid: String,
    /// Changes with the object.
    pub resource_version: String,
    /// So many pods it wants.
    pub desired: u64,
    /// So many of them are ready.
    pub ready: u64,
    /// What the pods that it makes tolerate; `None`: its template does not say.
    pub tolerations: Option<Vec<Toleration>>,
    /// The run that shortened them, if one of ours did.
    pub tolerations_by: Option<String>,
    selector: Selector,
}

impl Workload {
    /// From what a list has of it.
    pub fn read(kind: WorkloadKind, item: &serde_json::Value) -> Option<Self> {
        let metadata = Metadata::deserialize(&item["metadata"]).ok()?;
        let (spec, status) = (&item["spec"], &item["status"]);
        let count = |value: &serde_json::Value| value.as_u64();
        let (desired, ready) = match kind {
            // A number that is not written is one.
            WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::ReplicaSet => (
                count(&spec["replicas"]).unwrap_or(1),
                count(&status["readyReplicas"]),
            ),
            WorkloadKind::DaemonSet => (
                count(&status["desiredNumberScheduled"]).unwrap_or_default(),
                count(&status["numberReady"]),
            ),
        };
        Some(Self {
            desired,
            ready: ready.unwrap_or_default(),
            tolerations: Vec::deserialize(&spec["template"]["spec"]["tolerations"]).ok(),
            tolerations_by: metadata.annotations.get(TOLERATIONS_BY).cloned(),
            selector: Selector::deserialize(&spec["selector"]).unwrap_or_default(),
            name: WorkloadName {
                kind,
                key: metadata.key(),
            },
            uid: metadata.uid,
            resource_version: metadata.resource_version,
        })
    }

    /// It speaks for this pod.
    pub fn covers(&self, pod: &Pod) -> bool {
        self.name.key.namespace == pod.key.namespace && self.selector.chooses(&pod.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_by_namespace_kind_and_name() {
        let name = WorkloadName::parse("gateway-system/Deployment/gateway-proxy").unwrap();
        assert_eq!(name.kind, WorkloadKind::Deployment);
        assert_eq!(name.to_string(), "gateway-system/deployment/gateway-proxy");
        assert_eq!(WorkloadName::parse(&name.to_string()), Some(name));
        for wrong in [
            "web",
            "a/web",
            "a/pod/web",
            "a/replicaset/web",
            "/deployment/web",
            "a/deployment/web/1",
        ] {
            assert_eq!(WorkloadName::parse(wrong), None, "{wrong}");
        }
    }
}
