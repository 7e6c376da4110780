//! The live picture of the fleet as one value: what [`crate::outage`], [`crate::plan`] and the executor decide on.
//!
//! A view is a snapshot. It carries the time it was taken at, so that whoever reads it needs no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use blackstart_proto::boot::BootIdentity;
use blackstart_proto::component::Manifests;
use tokio::time::Instant;

use crate::inventory::NodeName;

/// What a node is doing, as far as the coordinator can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Declared, never heard of since this coordinator's store was made.
    Unknown,
    /// In session; its kubelet is healthy.
    Ready,
    /// In session; its kubelet is not healthy.
    NotReady,
    /// In session; its kubelet waits at the boot gate.
    Held,
    /// The session was lost, or three reports were missed.
    Silent,
    /// Said goodbye.
    Stopped,
}

/// What the boot gate of a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateState {
    /// Not installed, or did not run in this boot.
    Absent,
    /// Holds the kubelet.
    Held,
    /// Opened by the coordinator's word.
    Released,
    /// Opened by itself on a normal boot.
    Passed,
    /// Opened by itself because nobody spoke to it in time.
    DeadMan,
}

/// How an API server's `/readyz` answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiServerAnswer {
    /// 200, after so long.
    Ready(Duration),
    /// Not with 200.
    Failed(ApiServerError),
}

/// Why an API server did not answer 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiServerError {
    /// 429.
    Overloaded,
    /// 5xx.
    Unavailable,
    /// Nothing within the deadline.
    TimedOut,
    /// Nobody listens, or the connection was cut.
    Refused,
}

/// What an agent vouches for, observed in its present boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The boot gate.
    pub gate: GateState,
    /// The kubelet's unit is active.
    pub kubelet_active: bool,
    /// The kubelet's `/healthz` answered 200.
    pub kubelet_healthy: bool,
    /// The API server's `/readyz` on this node answered 200 (control planes only).
    pub apiserver_ready: bool,
    /// How it answered that probe; `None`: the agent does not tell.
    pub apiserver: Option<ApiServerAnswer>,
    /// When the probes behind these were last made, by the coordinator's clock.
    pub observed_at: Instant,
    /// What the node waits for, for people.
    pub waiting_on: String,
    /// Where the manifests of the control plane's components are; empty: the agent does not tell.
    pub manifests: Manifests,
}

impl Attestation {
    /// It says what the other says: only when, and how long a good answer took, may differ.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let answer = |word: &Self| match word.apiserver {
            Some(ApiServerAnswer::Ready(_)) => Some(ApiServerAnswer::Ready(Duration::ZERO)),
            other @ (Some(ApiServerAnswer::Failed(_)) | None) => other,
        };
        (
            self.gate,
            self.kubelet_active,
            self.kubelet_healthy,
            self.apiserver_ready,
        ) == (
            other.gate,
            other.kubelet_active,
            other.kubelet_healthy,
            other.apiserver_ready,
        ) && answer(self) == answer(other)
            && self.waiting_on == other.waiting_on
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// What it is doing.
    pub phase: Phase,
    /// Since when.
    pub phase_since: Instant,
    /// Its agent is connected and reports in time.
    pub in_session: bool,
    /// When the session was last lost without a goodbye (by this coordinator process), if it was since the node last
    /// came up.
    pub lost_at: Option<Instant>,
    /// The boot it last spoke in.
    pub boot: Option<BootIdentity>,
    /// The boot before that one, as far as this coordinator's store remembers: a node that comes back with another boot
    /// has been down meanwhile.
    pub previous_boot: Option<BootIdentity>,
    /// When this coordinator process first heard the present boot speak; `None` if the boot was known from the store.
    pub new_boot_at: Option<Instant>,
    /// Its agent's word in the present session; `None` without a session or before its first report.
    pub attestation: Option<Attestation>,
    /// The highest epoch it said it has obeyed.
    pub highest_epoch: u64,
}

/// The whole fleet at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetView {
    /// When it was taken.
    pub at: Instant,
    /// Every declared node.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// The coordinator's own machine booted anew after an unclean end, and its store knew a fleet before that.
    pub own_unclean_boot: bool,
    /// When this coordinator process began.
    pub began_at: Instant,
}

impl NodeView {
    /// A node that was never heard of.
    pub fn unknown(at: Instant) -> Self {
        Self {
            phase: Phase::Unknown,
            phase_since: at,
            in_session: false,
            lost_at: None,
            boot: None,
            previous_boot: None,
            new_boot_at: None,
            attestation: None,
            highest_epoch: 0,
        }
    }
}
