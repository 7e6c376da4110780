//! (inventory, observed state, policy) → a [`Plan`]: a DAG of typed [`Step`]s. Pure.
//!
//! A plan is specific enough that execution has no meaningful choice left. Runbooks build plans; [`crate::execute`]
//! carries them out, and [`lint`] checks each before that.
//!
//! ```text
//! set aside ─► release masters of A ─ ─evidence─ ─► control-plane gate A ─┬─► release workers of A (lane) ─ ─► serving gate A ─► … of B …
//!                                                                         └─► kubelets gate A ─► put back ─► verify A
//! ```
//!
//! Gates hang on evidence, not on the release steps of the masters: one that never returns must not hold a cluster.

pub mod cold_start;
pub mod estimate;
pub mod lint;
pub mod rejoin;

use std::fmt;
use std::time::Duration;

use blackstart_proto::component::Component;
use serde::{Deserialize, Serialize};

use crate::inventory::{ClusterName, NodeName};

/// Names a step within its plan, readable: `release/biz-1`, `gate/biz/control-plane`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl StepId {
    /// The step that releases a node.
    pub fn release(node: &NodeName) -> Self {
        Self(format!("release/{node}"))
    }

    /// The gate that a cluster's control plane passes.
    pub fn control_plane(cluster: &ClusterName) -> Self {
        Self(format!("gate/{cluster}/control-plane"))
    }

    /// The gate that a cluster passes when it serves.
    pub fn serving(cluster: &ClusterName) -> Self {
        Self(format!("gate/{cluster}/serving"))
    }

    /// The step that sets a component of a master aside.
    pub fn hold(node: &NodeName, component: Component) -> Self {
        Self(format!("hold/{node}/{component}"))
    }

    /// The gate behind which what was set aside of a cluster is put back.
    pub fn kubelets(cluster: &ClusterName) -> Self {
        Self(format!("gate/{cluster}/kubelets"))
    }

    /// The step that puts a component of a master back.
    pub fn put_back(node: &NodeName, component: Component) -> Self {
        Self(format!("put-back/{node}/{component}"))
    }

    /// The step that sums a cluster up.
    pub fn verify(cluster: &ClusterName) -> Self {
        Self(format!("verify/{cluster}"))
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a step does. Closed: the executor knows how to gate, act and verify each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StepKind {
    /// Gate: the node is back (a session of a boot newer than the event), or was never lost. Act: release its kubelet
    /// if it is held. Verify: the agent attests a healthy kubelet.
    ReleaseKubelet {
        /// Which node.
        node: NodeName,
    },
    /// Gate: the master is back. Act: move a component's manifest out, unless the agent tells of none, its API server serves, or the
    /// kubelets of the cluster run. Verify: the agent attests that it is out.
    HoldManifest {
        /// Which node.
        node: NodeName,
        /// What of it.
        component: Component,
    },
    /// Passes when the control plane of a cluster serves and `share` percent of its `nodes`, without those that were given up, attest a
    /// healthy kubelet. Given up after its deadline, it lets through what is behind it: nothing but manifests to put back.
    KubeletsGate {
        /// Whose.
        cluster: ClusterName,
        /// All its nodes but those of etcd alone.
        nodes: Vec<NodeName>,
        /// Percent, 1 to 100.
        share: u32,
    },
    /// Gate: the kubelets of the cluster run. Act: move a component's manifest back, if it is out. Verify: the agent attests that it is.
    ReleaseManifest {
        /// Which node.
        node: NodeName,
        /// What of it.
        component: Component,
    },
    /// Passes when `quorum` of `masters` attest a healthy kubelet and a ready API server.
    ControlPlaneGate {
        /// Whose control plane.
        cluster: ClusterName,
        /// The candidates.
        masters: Vec<NodeName>,
        /// How many it takes.
        quorum: usize,
    },
    /// Passes when the cluster serves well enough for those that depend on it: its control plane, and `quorum` of its
    /// workers, attest health.
    ServingGate {
        /// Whose.
        cluster: ClusterName,
        /// The candidates.
        workers: Vec<NodeName>,
        /// How many it takes.
        quorum: usize,
    },
    /// Runs when every node of the cluster is done or residue: says what came back and what did not.
    VerifyCluster {
        /// Which.
        cluster: ClusterName,
    },
}

/// What happens when a step's deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is given up, and holds nobody; a node that was not released is residue.
    Residue,
    /// The run halts and asks: resume tries again, abort ends it.
    Halt,
}

/// Steps of one lane draw on one budget: how many may be between dispatch and verification at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneId(pub String);

impl LaneId {
    /// The workers of a cluster, in whichever run.
    pub fn workers(cluster: &ClusterName) -> Self {
        Self(format!("workers/{cluster}"))
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StepKind {
    /// Its name on the wire and in the terminal.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ReleaseKubelet { .. } => "release-kubelet",
            Self::ControlPlaneGate { .. } => "control-plane-gate",
            Self::ServingGate { .. } => "serving-gate",
            Self::VerifyCluster { .. } => "verify-cluster",
            Self::HoldManifest { .. } => "hold-manifest",
            Self::KubeletsGate { .. } => "kubelets-gate",
            Self::ReleaseManifest { .. } => "release-manifest",
        }
    }

    /// The node it changes, if it changes one.
    pub const fn node(&self) -> Option<&NodeName> {
        match self {
            Self::ReleaseKubelet { node }
            | Self::HoldManifest { node, .. }
            | Self::ReleaseManifest { node, .. } => Some(node),
            Self::ControlPlaneGate { .. }
            | Self::ServingGate { .. }
            | Self::KubeletsGate { .. }
            | Self::VerifyCluster { .. } => None,
        }
    }

    /// The node whose kubelet it releases, if it releases one.
    pub const fn releases(&self) -> Option<&NodeName> {
        match self {
            Self::ReleaseKubelet { node } => Some(node),
            Self::HoldManifest { .. }
            | Self::ReleaseManifest { .. }
            | Self::ControlPlaneGate { .. }
            | Self::ServingGate { .. }
            | Self::KubeletsGate { .. }
            | Self::VerifyCluster { .. } => None,
        }
    }

    /// The component that it sets aside or puts back, if it does.
    pub const fn component(&self) -> Option<Component> {
        match self {
            Self::HoldManifest { component, .. } | Self::ReleaseManifest { component, .. } => {
                Some(*component)
            }
            Self::ReleaseKubelet { .. }
            | Self::ControlPlaneGate { .. }
            | Self::ServingGate { .. }
            | Self::KubeletsGate { .. }
            | Self::VerifyCluster { .. } => None,
        }
    }

    /// The cluster it names, if it names one.
    pub const fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::ReleaseKubelet { .. } | Self::HoldManifest { .. } | Self::ReleaseManifest { .. } => None,
            Self::ControlPlaneGate { cluster, .. }
            | Self::ServingGate { cluster, .. }
            | Self::KubeletsGate { cluster, .. }
            | Self::VerifyCluster { cluster } => Some(cluster),
        }
    }
}

/// One unit of a plan: gate → act → verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// What it does.
    pub kind: StepKind,
    /// Steps that must be done (or residue) before its gate is looked at.
    pub after: Vec<StepId>,
    /// The budget it draws on; `None` for steps that change nothing.
    pub lane: Option<LaneId>,
    /// A gate: how long after its dependencies are done it may take to pass. A release: how long its node may take to come
    /// back; waiting in its lane is not counted, and once dispatched it has the policy's `release_deadline`.
    #[serde(with = "duration_ms")]
    pub deadline: Duration,
    /// What then.
    pub on_failure: OnFailure,
}

/// The budget of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its name.
    pub id: LaneId,
    /// How many at once to begin with.
    pub initial: usize,
    /// How many at once at most; the window grows by one for each verified step (additive increase), and is halved by
    /// a failed one.
    pub max: usize,
}

/// A whole plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which runbook made it: `cold-start`, `rejoin`.
    pub runbook: String,
    /// Its steps, in an order in which each comes after those it depends on.
    pub steps: Vec<Step>,
    /// The budgets.
    pub lanes: Vec<Lane>,
    /// What a person should know before approving it.
    pub notes: Vec<String>,
}

impl Plan {
    /// The nodes it may release.
    pub fn releases(&self) -> impl Iterator<Item = &NodeName> {
        self.steps.iter().filter_map(|step| step.kind.releases())
    }
}

mod duration_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests;
