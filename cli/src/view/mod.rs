//! What the commands show. These are the documented, stable shapes of `-o json` and `-o yaml`; they are made from wire
//! types in [`convert`] and nowhere else, so the wire may change without them.
//!
//! Absent is `null`, never an empty text. Durations are whole milliseconds in fields that end in `_ms`; wall-clock
//! times are RFC 3339 in fields that end in `_at`. Names of states are `kebab-case`.

mod convert;
mod etcd;
mod holds;
mod local;
mod node;
mod permits;
mod run;
mod runbook;
mod trust;

mod heal;

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use etcd::{Etcd, EtcdMember, EtcdSnapshot};
pub(crate) use heal::{PodDiagnosis, Workload};
pub(crate) use holds::{Freeze, Hold, Storm};
pub(crate) use local::{Certificate, Lint};
pub(crate) use node::{
    Attestation, Boot, Condition, Disk, GateState, Node, NodeDetail, NodePhase, PreviousShutdown, Remedy,
    RemedyOutcome, Role, Unit,
};
pub(crate) use permits::{Permit, PermitState};
pub(crate) use run::{Lane, Plan, PlanStep, Run, RunDetail, RunState, Step, StepState};
pub(crate) use runbook::{Refusal, Runbook, RunbookPlan, RunbookRun, RunbookStep};
pub(crate) use trust::{AuditReport, NewToken, NodeCertificate, Revocation, Token};

/// A thing that `get` lists: how it is called and told apart.
pub(crate) trait Resource: Serialize + Clone + PartialEq {
    /// `kind` of one in JSON; a list is `KINDList`.
    const KIND: &'static str;
    /// As people call one.
    const NOUN: &'static str;
    /// What tells it from others of its kind.
    fn key(&self) -> String;
    /// It without what grows by itself, so that two looks are equal unless something happened.
    fn settled(&self) -> Self;
}

/// How bad a condition or event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    Unknown,
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

/// How many there are of something, and how many of them are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Ready {
    pub(crate) declared: u32,
    pub(crate) ready: u32,
}

/// By which way an answer came that was not given by the leader itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Via {
    /// The coordinator that was asked, which follows.
    pub(crate) coordinator: String,
    /// The leader, if that gave the answer.
    pub(crate) leader: Option<String>,
    /// How old the copy of the store is that gave it otherwise.
    pub(crate) store_age_ms: Option<u64>,
}

/// One of the coordinators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Coordinator {
    pub(crate) name: String,
    pub(crate) leads: bool,
    /// Where agents and operators find it.
    pub(crate) addresses: Vec<String>,
    pub(crate) version: String,
}

impl Resource for Coordinator {
    const KIND: &'static str = "Coordinator";
    const NOUN: &'static str = "coordinator";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// One cluster, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// The clusters that must serve before it.
    pub(crate) after: Vec<String>,
    pub(crate) control_planes: Ready,
    pub(crate) workers: Ready,
    /// Nodes of which nothing is heard.
    pub(crate) silent: u32,
    /// Nodes that wait at the boot gate.
    pub(crate) held: u32,
    /// Standing conditions of its nodes.
    pub(crate) conditions: u32,
}

impl Resource for Cluster {
    const KIND: &'static str = "Cluster";
    const NOUN: &'static str = "cluster";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// Something that happened in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    #[serde(rename = "happened_at")]
    pub(crate) at: Option<Timestamp>,
    pub(crate) severity: Severity,
    /// `kind` is taken: there it says that this is an event.
    #[serde(rename = "event")]
    pub(crate) kind: String,
    pub(crate) cluster: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) run: Option<String>,
    pub(crate) message: String,
}
