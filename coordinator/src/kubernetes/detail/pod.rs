//! A pod with its containers, and what was said of it in events.

use jiff::Timestamp;
use serde_json::Value;

use super::super::objects::{Key, Owner, PodKind, PodPhase};
use super::super::quantity;
use super::{key, list, metadata, text};
use crate::kubernetes::objects::{Kept, Object, Pod};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDetail {
    /// What it is called.
    pub key: Key,
    /// Of this one pod.
    pub uid: String,
    /// Where it is; empty while it is not scheduled.
    pub node: String,
    /// Of the whole pod.
    pub phase: PodPhase,
    /// `Evicted`, `NodeLost`, ...
    pub reason: String,
    /// More of it.
    pub message: String,
    /// Whether it may run elsewhere.
    pub kind: PodKind,
    /// Who makes another in its place.
    pub controller: Option<Owner>,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// When it is to be gone at the latest, if it is going.
    pub deleted: Option<Timestamp>,
    /// Who has to agree to its end.
    pub finalizers: Vec<String>,
    /// All its containers are ready.
    pub is_ready: bool,
    /// `PodScheduled`, `Ready`, ...
    pub conditions: Vec<Condition>,
    /// Those that run before the others, then the others.
    pub containers: Vec<Container>,
    /// Ports of the node that it wants.
    pub host_ports: Vec<(String, u64)>,
    /// Its claims, by name.
    pub claims: Vec<String>,
    /// It has an emptyDir, whose content goes with it.
    pub has_local_data: bool,
    /// Started again whenever it ends.
    pub restarts_always: bool,
    /// Bytes of memory that its containers may take together; `None`: one of them has no limit.
    pub memory_limit: Option<u64>,
}

/// A condition of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `PodScheduled`.
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// In a word.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// It runs before the others.
    pub is_init: bool,
    /// What it is made of.
    pub image: String,
    /// What it is doing.
    pub state: ContainerState,
    /// How it ended before that.
    pub last: Option<Termination>,
    /// How often it was started again.
    pub restarts: u64,
    /// Its probe says so.
    pub is_ready: bool,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Nothing yet, or not now.
    Waiting {
        /// `CrashLoopBackOff`.
        reason: String,
        /// In words.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Terminated(Termination),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// 128 and more: by a signal.
    pub code: i64,
    /// `OOMKilled`, `Error`, `Completed`, ...
    pub reason: String,
    /// In words.
    pub message: String,
    /// When, by the node's clock.
    pub finished: Option<Timestamp>,
}

/// What was said of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Of whom: `Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `FailedScheduling`.
    pub reason: String,
    /// In words.
    pub message: String,
    /// It is a warning.
    pub is_warning: bool,
    /// So often.
    pub count: u64,
    /// Last.
    pub last: Option<Timestamp>,
}

impl PodDetail {
    /// A pod as the API has it; `None`: it is none.
    pub fn read(object: &Value) -> Option<Self> {
        // The one reading of what a pod is, as caches have it.
        let kept = Pod::keep(serde_json::from_value::<Object>(object.clone()).ok()?)?;
        let metadata = metadata(object);
        let (spec, status) = (&object["spec"], &object["status"]);
        let finalizers = list(&object["metadata"]["finalizers"]).map(text).collect();
        let of = |specs: &'static str, statuses: &'static str, is_init| {
            list(&spec[specs]).map(move |one| {
                let said = list(&status[statuses]).find(|said| said["name"] == one["name"]);
                container(one, said.unwrap_or(&Value::Null), is_init)
            })
        };
        let containers: Vec<Container> = of("initContainers", "initContainerStatuses", true)
            .chain(of("containers", "containerStatuses", false))
            .collect();
        let ports = list(&spec["containers"]).flat_map(|one| list(&one["ports"]));
        let limits =
            list(&spec["containers"]).map(|one| quantity::bytes(&one["resources"]["limits"]["memory"]));
        Some(Self {
            uid: kept.uid,
            node: kept.node,
            phase: kept.phase,
            kind: kept.kind,
            is_ready: kept.is_ready,
            has_local_data: kept.has_local_data,
            reason: text(&status["reason"]),
            message: text(&status["message"]),
            controller: metadata
                .owner_references
                .iter()
                .find(|owner| owner.controller)
                .cloned(),
            created: time(&object["metadata"]["creationTimestamp"]),
            deleted: time(&object["metadata"]["deletionTimestamp"]),
            finalizers,
            conditions: list(&status["conditions"]).map(condition).collect(),
            containers,
            host_ports: ports
                .filter_map(|port| {
                    let number = port["hostPort"].as_u64().filter(|number| *number > 0)?;
                    Some((port["protocol"].as_str().unwrap_or("TCP").to_owned(), number))
                })
                .collect(),
            claims: list(&spec["volumes"])
                .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
                .map(str::to_owned)
                .collect(),
            restarts_always: spec["restartPolicy"]
                .as_str()
                .is_none_or(|policy| policy == "Always"),
            memory_limit: limits.sum(),
            key: key(&metadata),
        })
    }

    /// Restarts of all its containers.
    pub fn restarts(&self) -> u64 {
        let each = self.containers.iter().map(|container| container.restarts);
        each.fold(0, u64::saturating_add)
    }

    /// Its containers have ended for good.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// A condition of it.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Who makes another in its place, for people.
    pub fn controller_words(&self) -> Option<String> {
        self.controller
            .as_ref()
            .map(|owner| format!("{} {}", owner.kind, owner.name))
    }
}

fn condition(object: &Value) -> Condition {
    Condition {
        kind: text(&object["type"]),
        status: text(&object["status"]),
        reason: text(&object["reason"]),
        message: text(&object["message"]),
    }
}

fn container(spec: &Value, said: &Value, is_init: bool) -> Container {
    let state = &said["state"];
    let state = if state["running"].is_object() {
        ContainerState::Running
    } else if let Some(ended) = termination(&state["terminated"]) {
        ContainerState::Terminated(ended)
    } else {
        ContainerState::Waiting {
            reason: text(&state["waiting"]["reason"]),
            message: text(&state["waiting"]["message"]),
        }
    };
    Container {
        name: text(&spec["name"]),
        is_init,
        image: text(&spec["image"]),
        state,
        last: termination(&said["lastState"]["terminated"]),
        restarts: said["restartCount"].as_u64().unwrap_or_default(),
        is_ready: said["ready"].as_bool().unwrap_or_default(),
    }
}

fn termination(object: &Value) -> Option<Termination> {
    object.as_object()?;
    Some(Termination {
        code: object["exitCode"].as_i64().unwrap_or(-1),
        reason: text(&object["reason"]),
        message: text(&object["message"]),
        finished: time(&object["finishedAt"]),
    })
}

impl Event {
    /// An event as the API has it.
    pub fn read(object: &Value) -> Self {
        let about = &object["involvedObject"];
        Self {
            kind: text(&about["kind"]),
            name: text(&about["name"]),
            uid: text(&about["uid"]),
            reason: text(&object["reason"]),
            message: text(&object["message"]),
            is_warning: object["type"] == "Warning",
            count: object["count"]
                .as_u64()
                .or_else(|| object["series"]["count"].as_u64())
                .unwrap_or(1),
            last: ["lastTimestamp", "eventTime", "firstTimestamp"]
                .iter()
                .find_map(|name| time(&object[*name])),
        }
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
