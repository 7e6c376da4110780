//! Answers, as they stand in JSON: fields are added, never renamed. Durations are milliseconds (`_ms`), wall-clock times RFC 3339 (`_at`),
//! states `kebab-case`.

use std::net::SocketAddr;
use std::path::PathBuf;

use blackstart_proto::boot::PreviousShutdown;
use blackstart_proto::component::Component;
use serde::{Deserialize, Serialize};

use crate::brakes::Scope;
use crate::explain::Explanation;
use crate::gate::GateState;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Answer {
    /// To [`super::Question::Status`].
    NodeStatus(Box<NodeStatus>),
    /// To [`super::Question::Conditions`]; the worst first.
    ConditionList {
        /// What stands.
        items: Vec<Standing>,
    },
    /// To [`super::Question::Remedies`]; oldest first.
    RemedyList {
        /// What was done.
        items: Vec<Done>,
        /// What is not done here for lack of a privilege.
        #[serde(default)]
        lacks: Vec<Lacking>,
    },
    /// To [`super::Question::Explain`].
    Explanation(Explanation),
    /// To [`super::Question::Hold`]: what is held now.
    Held(HeldHere),
    /// To [`super::Question::Lift`]: what was held.
    Lifted(HeldHere),
    /// There is no answer.
    Refusal {
        /// Why not, for people.
        why: String,
    },
}

/// How the agent and its node are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub agent_version: String,
    /// How long it has run.
    pub running_for_ms: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// How the boot before this one ended.
    pub previous_shutdown: PreviousShutdown,
    /// It decides and records, and changes nothing.
    pub dry_run: bool,
    /// The boot gate.
    pub gate: Gate,
    /// The coordinator.
    pub coordinator: Coordinator,
    /// What the node waits for; empty when nothing.
    pub waiting_on: String,
    /// What is watched.
    pub watches: Watches,
    /// The kubelet's unit is active.
    pub kubelet_active: bool,
    /// The kubelet answered its last probe with 200.
    pub kubelet_healthy: bool,
    /// The API server on this node answered its last probe with 200; `null` where none is configured.
    pub apiserver_ready: Option<bool>,
    /// The watched units, as last seen.
    pub units: Vec<Unit>,
    /// The watched file systems, as last seen.
    pub disks: Vec<Disk>,
    /// What is left of every budget: of units, of what is restarted for something else, of disks, and of whatever was drawn on.
    pub budgets: Vec<Budget>,
    /// So many conditions stand.
    pub conditions: usize,
    /// What the agent cannot do here for lack of a privilege.
    #[serde(default)]
    pub lacks: Vec<Lacking>,
    /// Manifests that are out while the cluster starts.
    #[serde(default)]
    pub set_aside: Vec<Aside>,
    /// What people hold here, and silence: the node's own, and the coordinator's.
    pub holds: Vec<HeldHere>,
    /// Conditions that are frozen here, because many nodes have them.
    pub freezes: Vec<FrozenHere>,
}

/// A component whose manifest is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Which.
    pub component: Component,
    /// The run that asked.
    pub run: String,
    /// Why.
    pub reason: String,
    /// Out for so long, in this boot.
    pub for_ms: u64,
}

/// Something that the agent cannot do here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// What.
    pub function: String,
    /// For lack of what.
    pub missing: String,
    /// What follows from it.
    pub effect: String,
    /// What would mend it.
    pub mend: String,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldHere {
    /// For whom it was made.
    pub scope: Scope,
    /// The remedy; `null`: every one.
    pub remedy: Option<String>,
    /// The node is silenced.
    pub silence: bool,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// It ends by itself after this; `null`: it does not.
    pub ends_in_ms: Option<u64>,
}

/// A freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenHere {
    /// The condition's name.
    pub condition: String,
    /// What was seen.
    pub why: String,
    /// It ends by itself after this, unless it is renewed.
    pub ends_in_ms: u64,
}

/// The boot gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What it is doing.
    pub state: GateState,
    /// What held or opened it.
    pub why: String,
    /// What a held gate waits for; empty when it holds nobody.
    pub waiting_on: String,
    /// A held gate opens by itself after this, if nobody speaks to it before.
    pub opens_by_itself_in_ms: Option<u64>,
}

/// How it stands with the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Coordinator {
    /// None is configured.
    None,
    /// In session.
    Up {
        /// With this one.
        address: SocketAddr,
        /// For so long.
        for_ms: u64,
    },
    /// No session.
    Down {
        /// For so long.
        for_ms: u64,
        /// Why.
        trouble: String,
    },
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watches {
    /// systemd units.
    pub units: Vec<String>,
    /// Health endpoints.
    pub endpoints: Vec<String>,
    /// File systems.
    pub disks: Vec<PathBuf>,
    /// Logs: globs.
    pub logs: Vec<String>,
    /// The kernel's log, memory, load and clock, and certificates.
    pub machine: bool,
    /// Certificates: globs.
    pub certificates: Vec<String>,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// systemd's `ActiveState`, `not-found` or `unknown`.
    pub state: String,
    /// `SubState`.
    pub sub: String,
    /// `MainPID`; 0 when there is none.
    pub main_pid: u32,
    /// `NRestarts`: those of systemd's own.
    pub restarts: u32,
    /// `Result`.
    pub result: String,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Size.
    pub bytes_total: u64,
    /// What may still be written.
    pub bytes_available: u64,
    /// Percent of the bytes in use.
    pub used_percent: u64,
    /// Inodes; 0 where there is no fixed number.
    pub inodes_total: u64,
    /// Free ones.
    pub inodes_free: u64,
    /// Full after this at the present rate; `null` when it does not fill.
    pub time_to_full_ms: Option<u64>,
}

/// What is left of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Of what.
    pub subject: String,
    /// For which remedy.
    pub remedy: String,
    /// So many in all.
    pub limit: u32,
    /// So many are left.
    pub left: u32,
}

/// A standing condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its kind; `kind` is what the answer itself is.
    pub condition: String,
    /// With what.
    pub subject: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// For so long.
    pub for_ms: u64,
    /// What was seen.
    pub evidence: String,
    /// The agent will not mend it.
    pub escalated: bool,
    /// The node is silenced: it is told, and nothing is done.
    pub silenced: bool,
    /// Why nothing is done about it at present; `null` when something is, or when nothing can be.
    pub waiting_on: Option<String>,
}

/// A remedy of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its number.
    pub number: u64,
    /// When it was begun, by the wall clock.
    pub begun_at: String,
    /// What.
    pub remedy: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// `succeeded`, `failed` or `unknown`.
    pub outcome: String,
    /// What came of it.
    pub detail: String,
    /// How long it took.
    pub took_ms: u64,
    /// The coordinator's command; `null` for the agent's own decisions.
    pub command_id: Option<String>,
    /// Nothing was changed.
    pub dry_run: bool,
}
