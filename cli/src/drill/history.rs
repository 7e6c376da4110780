//! What happened in a drill, as the machines themselves recorded it: what [`super::laws`] judges and [`super::report`]
//! tells. Every ground gathers one.
//!
//! Times are milliseconds after the cut. What the coordinator says of itself stands in [`RunHistory`] alone.

use super::topology::Role;

/// One drill, from the cut to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// Each comes after those it depends on.
    pub(crate) clusters: Vec<ClusterHistory>,
    pub(crate) nodes: Vec<NodeHistory>,
    /// Every run of the coordinator since the cut.
    pub(crate) runs: Vec<RunHistory>,
    /// When the coordinator was started anew.
    pub(crate) coordinator_on_ms: u64,
    /// When it died once more, and was back, if it did.
    pub(crate) crash_ms: Option<(u64, u64)>,
    /// So long a machine was waited for before it was given up.
    pub(crate) patience_ms: u64,
    /// When it was looked at for the last time.
    pub(crate) ended_ms: u64,
}

/// What a cluster needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterHistory {
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    /// Masters.
    pub(crate) quorum: usize,
    /// Workers that have to be healthy before clusters that depend on this one may be begun.
    pub(crate) serving: usize,
}

/// What one machine did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeHistory {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) role: Role,
    /// When its power came back; `None`: never.
    pub(crate) powered_ms: Option<u64>,
    /// When it had booted so far that only its gate kept the kubelet.
    pub(crate) booted_ms: Option<u64>,
    /// When its boot gate let the kubelet go, and why.
    pub(crate) gate: Option<(u64, String)>,
    pub(crate) kubelets: Vec<Kubelet>,
    /// When its API server became ready.
    pub(crate) api_ready_ms: Option<u64>,
    pub(crate) healthy_at_end: bool,
    /// Its agent's ledger, oldest first; also from before the cut.
    pub(crate) ledger: Vec<Entry>,
    /// What should never happen to an agent, if it did.
    pub(crate) agent_failed: Option<String>,
}

impl NodeHistory {
    /// When a kubelet first ran here.
    pub(crate) fn started_ms(&self) -> Option<u64> {
        self.kubelets.first().map(|kubelet| kubelet.started_ms)
    }

    /// When a kubelet was first healthy here.
    pub(crate) fn ready_ms(&self) -> Option<u64> {
        self.kubelets.iter().find_map(|kubelet| kubelet.healthy_ms)
    }

    pub(crate) fn healthy_at(&self, at_ms: u64) -> bool {
        self.kubelets.iter().any(|kubelet| {
            kubelet.healthy_ms.is_some_and(|from| from <= at_ms)
                && kubelet.stopped_ms.is_none_or(|until| until > at_ms)
        })
    }

    pub(crate) fn api_ready_at(&self, at_ms: u64) -> bool {
        self.api_ready_ms.is_some_and(|from| from <= at_ms)
    }
}

/// One life of a kubelet's process.
#[allow(
    clippy::struct_field_names,
    reason = "times name their unit, here as elsewhere"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kubelet {
    pub(crate) started_ms: u64,
    /// `None`: never.
    pub(crate) healthy_ms: Option<u64>,
    /// `None`: it still runs.
    pub(crate) stopped_ms: Option<u64>,
}

/// One record of an agent's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) remedy: String,
    pub(crate) command: Option<String>,
    pub(crate) boot: String,
    pub(crate) epoch: u64,
    pub(crate) succeeded: bool,
}

/// A run as the coordinator told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunHistory {
    pub(crate) id: String,
    pub(crate) succeeded: bool,
    pub(crate) aborted: bool,
    /// In a word.
    pub(crate) state: String,
    pub(crate) started_ms: u64,
    pub(crate) took_ms: u64,
    pub(crate) residue: Vec<String>,
    pub(crate) steps: Vec<StepHistory>,
    /// What it waited for when it was last looked at.
    pub(crate) waiting_on: Vec<String>,
    /// Steps that were seen to wait without a word of what for.
    pub(crate) unnamed: Vec<UnnamedWait>,
}

/// A step as it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepHistory {
    pub(crate) id: String,
    pub(crate) node: Option<String>,
    pub(crate) state: String,
    pub(crate) said: String,
    pub(crate) is_residue: bool,
    /// When it was first seen to have ended. The run's own times stand still while the coordinator is dead.
    pub(crate) ended_ms: Option<u64>,
}

/// A step that waited without saying what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnnamedWait {
    pub(crate) step: String,
    pub(crate) at_ms: u64,
}
