//! Workloads: who makes pods of a template, and what the template says.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::objects::Taint;
use super::super::objects::scheduling::Toleration;
use super::super::objects::workload::{WorkloadKind, WorkloadName};
use super::super::quantity;
use super::{list, metadata, text};

/// When a rollout was restarted: `kubectl rollout restart` writes it into the template.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The time of a restart as kubectl writes it, of milliseconds since the Unix epoch.
pub fn restarted_at(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.unwrap_or_default().to_string()
}

/// What a container of a template asks for, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMemory {
    /// Its name.
    pub container: String,
    /// What the scheduler counts.
    pub request: Option<u64>,
    /// What it is killed above.
    pub limit: Option<u64>,
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
    /// By name.
    pub annotations: BTreeMap<String, String>,
    /// Who made it: the deployment of a replica set.
    pub owner: Option<(String, String)>,
    /// Counts up with what is wanted.
    pub generation: u64,
    /// The last that its controller has seen.
    pub observed: u64,
    /// So many pods are wanted.
    pub desired: u64,
    /// So many there are, of any template.
    pub replicas: u64,
    /// Of the newest template.
    pub updated: u64,
    /// That serve.
    pub available: u64,
    /// Its controller does nothing.
    pub is_paused: bool,
    /// A changed template makes new pods only when somebody deletes the old ones.
    pub on_delete: bool,
    /// A rollout of it has come to its deadline, in its controller's words.
    pub stuck: Option<String>,
    /// What its containers ask for.
    pub memory: Vec<ContainerMemory>,
    /// What its pods tolerate.
    pub tolerations: Vec<Toleration>,
    /// When it was restarted last, as the template says.
    pub restarted_at: Option<String>,
}

impl Workload {
    /// A workload as the API has it.
    pub fn read(kind: WorkloadKind, object: &Value) -> Self {
        let metadata = metadata(object);
        let (spec, status) = (&object["spec"], &object["status"]);
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let template = &spec["template"]["spec"];
        let memory = |container: &Value| ContainerMemory {
            container: text(&container["name"]),
            request: quantity::bytes(&container["resources"]["requests"]["memory"]),
            limit: quantity::bytes(&container["resources"]["limits"]["memory"]),
        };
        let (desired, replicas, updated, available) = match kind {
            WorkloadKind::DaemonSet => (
                number(&status["desiredNumberScheduled"]),
                number(&status["currentNumberScheduled"]),
                number(&status["updatedNumberScheduled"]),
                number(&status["numberAvailable"]),
            ),
            WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::ReplicaSet => (
                spec["replicas"].as_u64().unwrap_or(1),
                number(&status["replicas"]),
                number(&status["updatedReplicas"]),
                // Stateful sets of old clusters tell ready ones alone (availableReplicas is beta in 1.23).
                status["availableReplicas"]
                    .as_u64()
                    .unwrap_or_else(|| number(&status["readyReplicas"])),
            ),
        };
        let stuck = list(&status["conditions"])
            .find(|one| one["type"] == "Progressing" && one["status"] == "False")
            .map(|one| text(&one["message"]));
        let owner = metadata.owner_references.iter().find(|owner| owner.controller);
        Self {
            name: WorkloadName {
                kind,
                key: super::key(&metadata),
            },
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
            generation: number(&object["metadata"]["generation"]),
            observed: number(&status["observedGeneration"]),
            desired,
            replicas,
            updated,
            available,
            is_paused: spec["paused"].as_bool().unwrap_or_default(),
            on_delete: spec["updateStrategy"]["type"] == "OnDelete",
            stuck,
            memory: list(&template["containers"]).map(memory).collect(),
            tolerations: Vec::deserialize(&template["tolerations"]).unwrap_or_default(),
            restarted_at: spec["template"]["metadata"]["annotations"][RESTARTED_AT]
                .as_str()
                .map(str::to_owned),
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            annotations: metadata.annotations,
        }
    }

    /// As many as wanted, of the newest template, and no other, and its controller has seen what is wanted.
    pub fn is_whole(&self) -> bool {
        let rolled = match self.name.kind {
            WorkloadKind::ReplicaSet => true,
            WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
                self.on_delete || self.updated == self.desired
            }
        };
        self.observed >= self.generation
            && self.replicas == self.desired
            && self.available >= self.desired
            && rolled
    }

    /// How it stands, for people.
    pub fn words(&self) -> String {
        format!(
            "{} has {} of {} available ({} of the newest template)",
            self.name, self.available, self.desired, self.updated
        )
    }
}

/// What a node could carry, for what has to fit somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The node.
    pub node: String,
    /// Bytes of memory for pods.
    pub memory: Option<u64>,
    /// New pods are not scheduled to it.
    pub is_cordoned: bool,
    /// `Ready`.
    pub is_ready: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Under pressure of: `MemoryPressure`, `DiskPressure`, `PIDPressure`.
    pub pressures: Vec<String>,
}

impl Room {
    /// A node by what the API says of it.
    pub fn read(object: &Value) -> Self {
        let conditions = || list(&object["status"]["conditions"]);
        Self {
            node: text(&object["metadata"]["name"]),
            memory: quantity::bytes(&object["status"]["allocatable"]["memory"]),
            is_cordoned: object["spec"]["unschedulable"].as_bool().unwrap_or_default(),
            is_ready: conditions().any(|one| one["type"] == "Ready" && one["status"] == "True"),
            taints: Vec::deserialize(&object["spec"]["taints"]).unwrap_or_default(),
            pressures: conditions()
                .filter(|one| {
                    one["status"] == "True"
                        && one["type"]
                            .as_str()
                            .is_some_and(|kind| kind.ends_with("Pressure"))
                })
                .map(|one| text(&one["type"]))
                .collect(),
        }
    }
}
