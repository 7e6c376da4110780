//! What is kept of a cluster's objects: the few fields that decisions rest on, since a cluster has thousands of pods.
//!
//! Whatever an object lacks, or says in a word that is not known here, becomes the reading that allows least.

mod budget;
pub mod resources;
pub mod scheduling;
pub mod workload;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::budget::Budget;
use self::resources::Resources;
use self::scheduling::Wants;
use super::rights::Resource;

/// Which run cordoned a node: only what carries it is uncordoned again.
pub const CORDONED_BY: &str = "blackstart.io/cordoned-by";
/// Which run set the out-of-service taint.
pub const TAINTED_BY: &str = "blackstart.io/out-of-service-by";
/// Tells the cluster that a node is off, so that volumes are detached and pods deleted (GA in 1.28).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A static pod's shadow in the API: evicting it does nothing.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What an object is called: namespace (empty for those that have none) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Empty for objects of the whole cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object as the API server tells it, of which a part is kept.
pub trait Kept: Sized + Send + Sync + 'static {
    /// What it is one of.
    const RESOURCE: Resource;
    /// What it is called in an object: `Node`.
    const KIND: &'static str;

    /// Keeps a part of it; `None`: it is none of this kind.
    fn keep(object: Object) -> Option<Self>;
    /// What it is called.
    fn key(&self) -> Key;
    /// The node that it is on, if it is on one: those of one node are found by it.
    fn node(&self) -> Option<&str> {
        None
    }
    /// A time that changes as long as what it stands for lives.
    fn pulse(&self) -> Option<Timestamp> {
        None
    }
}

/// The parts of any object that are read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Object {
    /// Names and versions.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default)]
    pub spec: serde_json::Value,
    /// What is.
    #[serde(default)]
    pub status: serde_json::Value,
}

/// The parts of an object's metadata that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    /// Of this one object, for ever: the next of the same name has another.
    pub uid: String,
    /// Changes with the object.
    pub resource_version: String,
    /// Set once it is going.
    pub deletion_timestamp: Option<String>,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// By name.
    pub annotations: BTreeMap<String, String>,
    /// Who made it.
    pub owner_references: Vec<Owner>,
}

/// Who made an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// `ReplicaSet`, `DaemonSet`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// It makes another in place of one that is gone.
    pub controller: bool,
}

impl Metadata {
    fn key(&self) -> Key {
        Key {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// What a node's `Ready` condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The kubelet's word, perhaps an old one.
    True,
    /// The kubelet says that it is not.
    False,
    /// The controller manager has not heard of it.
    Unknown,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Of this registration of the node.
    pub uid: String,
    /// Changes with the object.
    pub resource_version: String,
    /// No pod is scheduled to it.
    pub unschedulable: bool,
    /// The run that cordoned it, if one of ours did.
    pub cordoned_by: Option<String>,
    /// What it says of itself, perhaps long ago.
    pub ready: Ready,
    /// When the kubelet last posted its status, by the node's wall clock.
    pub heartbeat: Option<Timestamp>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// The run that set the out-of-service taint, if one of ours did.
    pub tainted_by: Option<String>,
    /// The kubelet's version.
    pub kubelet: String,
    /// The boot that it last posted its status in.
    pub boot_id: String,
    /// The machine's own, as in SMBIOS.
    pub system_uuid: String,
    /// What pods choose it by.
    pub labels: BTreeMap<String, String>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// So many pods it takes.
    pub pods: u64,
    /// Its kubelet says that a disk of it is short.
    pub disk_pressure: bool,
}

/// A taint, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// What it is called.
    pub key: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `NoExecute`, ...
    pub effect: String,
    /// What this version does not read; it is written back as it was.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Node {
    /// The cluster was told that it is off.
    pub fn is_out_of_service(&self) -> bool {
        self.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }
}

impl Kept for Node {
    const RESOURCE: Resource = Resource::Nodes;
    const KIND: &'static str = "Node";

    fn keep(object: Object) -> Option<Self> {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let conditions = status["conditions"].as_array();
        let find = |kind: &str| conditions?.iter().find(|condition| condition["type"] == kind);
        let ready = find("Ready");
        let room = &status["allocatable"];
        Some(Self {
            allocatable: Resources::read(room),
            pods: super::quantity::thousandths(&room["pods"])
                .and_then(|pods| u64::try_from(pods / 1000).ok())
                .unwrap_or_default(),
            disk_pressure: find("DiskPressure").is_some_and(|pressure| pressure["status"] == "True"),
            labels: metadata.labels,
            unschedulable: spec["unschedulable"].as_bool().unwrap_or_default(),
            cordoned_by: metadata.annotations.get(CORDONED_BY).cloned(),
            tainted_by: metadata.annotations.get(TAINTED_BY).cloned(),
            ready: match ready.and_then(|ready| ready["status"].as_str()) {
                Some("True") => Ready::True,
                Some("False") => Ready::False,
                Some(_) | None => Ready::Unknown,
            },
            heartbeat: ready.and_then(|ready| time(&ready["lastHeartbeatTime"])),
            taints: Vec::deserialize(&spec["taints"]).unwrap_or_default(),
            kubelet: text(&status["nodeInfo"]["kubeletVersion"]),
            boot_id: text(&status["nodeInfo"]["bootID"]),
            system_uuid: text(&status["nodeInfo"]["systemUUID"]),
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
        })
    }

    fn key(&self) -> Key {
        Key {
            namespace: String::new(),
            name: self.name.clone(),
        }
    }

    fn pulse(&self) -> Option<Timestamp> {
        self.heartbeat
    }
}

/// A node's lease in `kube-node-lease` (from 1.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The node's name.
    pub name: String,
    /// When the kubelet last renewed it, by the node's wall clock.
    pub renewed: Option<Timestamp>,
}

impl Kept for Lease {
    const RESOURCE: Resource = Resource::Leases;
    const KIND: &'static str = "Lease";

    fn keep(object: Object) -> Option<Self> {
        Some(Self {
            renewed: time(&object.spec["renewTime"]),
            name: object.metadata.name,
        })
    }

    fn key(&self) -> Key {
        Key {
            namespace: String::new(),
            name: self.name.clone(),
        }
    }

    fn pulse(&self) -> Option<Timestamp> {
        self.renewed
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What it is called.
    pub key: Key,
    /// Of this one pod.
    pub uid: String,
    /// Where it is; empty while it is not scheduled.
    pub node: String,
    /// Of the whole pod.
    pub phase: PodPhase,
    /// It is going.
    pub is_deleting: bool,
    /// Who makes another in its place.
    pub controller: Option<String>,
    /// Whether evicting it makes sense.
    pub kind: PodKind,
    /// It has an emptyDir, whose content goes with it.
    pub has_local_data: bool,
    /// All its containers are ready.
    pub is_ready: bool,
    /// What budgets choose it by.
    pub labels: BTreeMap<String, String>,
    /// What the scheduler sets aside for it.
    pub requests: Resources,
    /// Whether the system can do without it.
    pub priority: Priority,
    /// While it has no node: what it wants of one.
    pub wants: Option<Box<Wants>>,
}

/// Whether the system can do without a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// It can.
    Usual,
    /// It cannot, by the pod's priority class (`system-node-critical`, `system-cluster-critical`).
    System,
}

/// What keeps a pod on its node, if something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// Nothing: it may run elsewhere.
    Plain,
    /// One of a `DaemonSet`: it comes back to the same node whatever one does.
    Daemon,
    /// The shadow of a static pod.
    Mirror,
}

/// What a pod is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all of its containers run yet.
    Pending,
    /// It runs, or may.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// Nobody has heard of its node.
    Unknown,
}

impl Pod {
    /// Its containers have ended for good.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}

impl Kept for Pod {
    const RESOURCE: Resource = Resource::Pods;
    const KIND: &'static str = "Pod";

    fn keep(object: Object) -> Option<Self> {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let controller = metadata.owner_references.iter().find(|owner| owner.controller);
        let volumes = spec["volumes"].as_array();
        let conditions = status["conditions"].as_array();
        Some(Self {
            key: metadata.key(),
            node: text(&spec["nodeName"]),
            phase: match status["phase"].as_str() {
                Some("Pending") => PodPhase::Pending,
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                Some(_) | None => PodPhase::Unknown,
            },
            is_deleting: metadata.deletion_timestamp.is_some(),
            kind: if metadata.annotations.contains_key(MIRROR) {
                PodKind::Mirror
            } else if controller.is_some_and(|owner| owner.kind == "DaemonSet") {
                PodKind::Daemon
            } else {
                PodKind::Plain
            },
            controller: controller.map(|owner| format!("{} {}", owner.kind, owner.name)),
            has_local_data: volumes
                .into_iter()
                .flatten()
                .any(|volume| !volume["emptyDir"].is_null()),
            is_ready: conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
            requests: Resources::of_pod(&spec),
            priority: if text(&spec["priorityClassName"]).starts_with("system-") {
                Priority::System
            } else {
                Priority::Usual
            },
            wants: spec["nodeName"]
                .as_str()
                .is_none_or(str::is_empty)
                .then(|| Box::new(Wants::read(&spec, &status))),
            uid: metadata.uid,
            labels: metadata.labels,
        })
    }

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn node(&self) -> Option<&str> {
        Some(self.node.as_str()).filter(|node| !node.is_empty())
    }
}

/// A volume that is attached to a node, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Of this one attachment.
    pub uid: String,
    /// Where.
    pub node: String,
    /// The volume.
    pub volume: String,
    /// It is going.
    pub is_deleting: bool,
}

impl Kept for Attachment {
    const RESOURCE: Resource = Resource::Attachments;
    const KIND: &'static str = "VolumeAttachment";

    fn keep(object: Object) -> Option<Self> {
        Some(Self {
            node: text(&object.spec["nodeName"]),
            volume: text(&object.spec["source"]["persistentVolumeName"]),
            is_deleting: object.metadata.deletion_timestamp.is_some(),
            name: object.metadata.name,
            uid: object.metadata.uid,
        })
    }

    fn key(&self) -> Key {
        Key {
            namespace: String::new(),
            name: self.name.clone(),
        }
    }

    fn node(&self) -> Option<&str> {
        Some(self.node.as_str())
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &serde_json::Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
