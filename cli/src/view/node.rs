//! A node, and what is known of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::holds::{Freeze, Hold};
use super::{Resource, Severity};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Unknown,
    ControlPlane,
    Worker,
    Etcd,
}

impl Role {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::Etcd => "etcd",
        }
    }
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodePhase {
    /// Declared, never heard of.
    Unknown,
    Ready,
    /// In session, its kubelet is not healthy.
    NotReady,
    /// In session, its kubelet waits at the boot gate.
    Held,
    /// Nothing is heard of it.
    Silent,
    /// It said goodbye.
    Stopped,
}

impl NodePhase {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Held => "Held",
            Self::Silent => "Silent",
            Self::Stopped => "Stopped",
        }
    }
}

/// One node, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) role: Role,
    pub(crate) address: String,
    pub(crate) rack: Option<String>,
    pub(crate) phase: NodePhase,
    /// Since the phase last changed.
    pub(crate) phase_age_ms: u64,
    pub(crate) agent_version: Option<String>,
    /// Standing conditions.
    pub(crate) conditions: u32,
    pub(crate) boot_id: Option<String>,
    pub(crate) waiting_on: Option<String>,
}

impl Resource for Node {
    const KIND: &'static str = "Node";
    const NOUN: &'static str = "node";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn settled(&self) -> Self {
        Self {
            phase_age_ms: 0,
            ..self.clone()
        }
    }
}

/// How the boot before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PreviousShutdown {
    Unknown,
    FirstBoot,
    Clean,
    Unclean,
}

impl PreviousShutdown {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::FirstBoot => "none known: this is its first boot with Blackstart",
            Self::Clean => "in order",
            Self::Unclean => "not in order: power loss, crash or hard reset",
        }
    }
}

/// One start of one machine.
#[allow(clippy::struct_field_names, reason = "the names are those of the JSON")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Boot {
    pub(crate) boot_id: String,
    pub(crate) nonce: String,
    pub(crate) previous_shutdown: PreviousShutdown,
}

/// What the boot gate is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GateState {
    Unknown,
    Absent,
    Held,
    Released,
    Passed,
    DeadMan,
}

impl GateState {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::Absent => "absent: not installed, or did not run in this boot",
            Self::Held => "held: the kubelet waits",
            Self::Released => "released by the coordinator",
            Self::Passed => "passed by itself on a normal boot",
            Self::DeadMan => "opened by itself: nobody spoke to it within the dead-man time",
        }
    }
}

/// What the agent vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Attestation {
    pub(crate) gate: GateState,
    pub(crate) kubelet_active: bool,
    pub(crate) kubelet_healthy: bool,
    /// Says something of control planes only.
    pub(crate) apiserver_ready: bool,
    /// How long it took to answer; `null`: it fails, or the agent does not tell.
    pub(crate) apiserver_latency_ms: Option<u64>,
    /// How it fails: `overloaded`, `unavailable`, `timed-out`, `refused`.
    pub(crate) apiserver_error: Option<&'static str>,
    /// Since the probes behind it.
    pub(crate) age_ms: u64,
    /// Where the manifests of control-plane components are: `in place`, `set aside`, `absent`, `unknown`.
    pub(crate) manifests: BTreeMap<&'static str, &'static str>,
}

/// A standing finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Condition {
    pub(crate) node: String,
    pub(crate) cluster: String,
    /// `kind` is taken: there it says that this is a condition.
    #[serde(rename = "condition")]
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) severity: Severity,
    pub(crate) standing_ms: u64,
    pub(crate) evidence: String,
    /// The local remedies are spent.
    pub(crate) escalated: bool,
    /// Its node is silenced: nothing is done about it.
    pub(crate) silenced: bool,
    /// Why nothing is done about it at present.
    pub(crate) waiting_on: Option<String>,
}

impl Resource for Condition {
    const KIND: &'static str = "Condition";
    const NOUN: &'static str = "condition";

    fn key(&self) -> String {
        format!("{}/{}/{}", self.node, self.kind, self.subject)
    }

    fn settled(&self) -> Self {
        Self {
            standing_ms: 0,
            ..self.clone()
        }
    }
}

/// What came of a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RemedyOutcome {
    Unknown,
    /// Begun; what came of it is not known yet, or was lost in a crash.
    Started,
    Succeeded,
    Failed,
}

impl RemedyOutcome {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Started => "Started",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// One use of a remedy.
#[allow(clippy::struct_field_names, reason = "the names are those of the JSON")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remedy {
    pub(crate) node: String,
    pub(crate) cluster: String,
    /// Its number in the node's ledger.
    pub(crate) sequence: u64,
    pub(crate) remedy: String,
    pub(crate) subject: String,
    pub(crate) outcome: RemedyOutcome,
    pub(crate) reason: String,
    pub(crate) detail: Option<String>,
    #[serde(rename = "started_at")]
    pub(crate) at: Option<Timestamp>,
    pub(crate) took_ms: u64,
    pub(crate) dry_run: bool,
    pub(crate) command_id: Option<String>,
}

impl Resource for Remedy {
    const KIND: &'static str = "Remedy";
    const NOUN: &'static str = "remedy";

    fn key(&self) -> String {
        format!("{}/{}", self.node, self.sequence)
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// A watched unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) active_state: String,
    pub(crate) sub_state: String,
    pub(crate) restarts: u32,
}

/// A watched file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Disk {
    pub(crate) mount_point: String,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_available: u64,
    pub(crate) inodes_total: u64,
    pub(crate) inodes_free: u64,
}

/// Everything known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeDetail {
    #[serde(flatten)]
    pub(crate) node: Node,
    pub(crate) boot: Option<Boot>,
    pub(crate) attestation: Option<Attestation>,
    /// `null`: never heard of.
    pub(crate) last_heard_ms: Option<u64>,
    pub(crate) highest_epoch: u64,
    // Named apart from the flattened number of conditions.
    pub(crate) standing_conditions: Vec<Condition>,
    pub(crate) units: Vec<Unit>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) remedies: Vec<Remedy>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) freezes: Vec<Freeze>,
}
