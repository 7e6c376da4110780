//! What an agent says, in the coordinator's own types. `api::convert` makes them from the wire.

use std::time::Duration;

use blackstart_proto::boot::BootIdentity;
use tokio::time::Instant;

use super::view::Attestation;
use crate::events::Severity;

/// The first word of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the agent.
    pub agent_version: String,
    /// The boot it runs in.
    pub boot: BootIdentity,
    /// The highest epoch it has obeyed.
    pub highest_epoch: u64,
    /// How often it means to report.
    pub report_interval: Duration,
}

/// Everything that a node shows of itself: level-triggered, each replaces the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of gate, kubelet and API server.
    pub attestation: Attestation,
    /// What stands.
    pub conditions: Vec<Condition>,
    /// Watched units.
    pub units: Vec<UnitStatus>,
    /// Watched file systems.
    pub disks: Vec<DiskStatus>,
    /// Remedies whose record changed since the last report that was acknowledged.
    pub remedies: Vec<RemedyRecord>,
    /// What was held on the node itself.
    pub holds: Vec<NodeHold>,
    /// The node is silenced, by whomever.
    pub silenced: bool,
    /// Rising within a session.
    pub sequence: u64,
}

/// A standing finding about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `UnitFailed`, `DiskPressure`, …
    pub kind: String,
    /// What it is about: a unit, a path, a mount point.
    pub subject: String,
    /// How much it hurts.
    pub severity: Severity,
    /// Since when it stands, by the coordinator's clock.
    pub since: Instant,
    /// What was seen, for people.
    pub evidence: String,
    /// The local remedies are spent: somebody has to look.
    pub escalated: bool,
    /// Its node is silenced: nothing is done about it.
    pub silenced: bool,
    /// Why nothing is done about it at present; empty when something is, or when nothing can be.
    pub waiting_on: String,
    /// Of `Overload`: the pods that weigh most; none from older agents.
    pub heaviest: Vec<HeavyPod>,
}

/// A pod that weighs on its node, by its agent's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeavyPod {
    /// Empty where only the uid is known.
    pub namespace: String,
    /// Empty where only the uid is known.
    pub name: String,
    /// Of this one pod.
    pub uid: String,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes that cannot be dropped; 0: not known.
    pub memory_bytes: u64,
}

/// A hold that was made on a node, without a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHold {
    /// The remedy; empty: every one.
    pub remedy: String,
    /// The node is silenced.
    pub silence: bool,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it ends by itself, by the coordinator's clock.
    pub until: Option<Instant>,
}

/// A watched unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    /// `kubelet.service`.
    pub name: String,
    /// systemd's `ActiveState`.
    pub active_state: String,
    /// systemd's `SubState`.
    pub sub_state: String,
    /// How often systemd restarted it.
    pub restarts: u32,
}

/// A watched file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStatus {
    /// Where it is mounted.
    pub mount_point: String,
    /// Its size.
    pub bytes_total: u64,
    /// What is left of it for those who are not root.
    pub bytes_available: u64,
    /// Its inodes.
    pub inodes_total: u64,
    /// What is left of them.
    pub inodes_free: u64,
}

/// How a remedy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemedyOutcome {
    /// Not known yet, or lost in a crash.
    Started,
    /// Done and verified.
    Succeeded,
    /// Tried, and failed.
    Failed,
}

/// One use of a remedy, as the node's ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemedyRecord {
    /// Number of the intent in the ledger: unique and rising on this node.
    pub sequence: u64,
    /// `restart-unit`, `reclaim-log`, …
    pub remedy: String,
    /// What it was used on.
    pub subject: String,
    /// How it ended.
    pub outcome: RemedyOutcome,
    /// Why it was done.
    pub reason: String,
    /// What came of it.
    pub detail: String,
    /// Wall clock of the node at the intent, milliseconds since the Unix epoch; for people only.
    pub at_unix_ms: u64,
    /// How long it took.
    pub took: Duration,
    /// Only recorded, not done.
    pub dry_run: bool,
    /// The coordinator's command that this answered, or empty.
    pub command_id: String,
}

/// Why an agent leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Only the agent stops.
    AgentStop,
    /// The machine shuts down in order.
    Shutdown,
}
