//! What is known of one node and its cluster, as one value: all that plans and steps of a runbook are decided on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::around::Around;
use super::case::Case;
use super::declared::Declared;
use crate::control_plane;
use crate::inventory::{ClusterName, NodeName, Role};
use crate::kubernetes::objects::Node;
pub use crate::kubernetes::view::{Api, ApiView, Life};
use crate::power::Word;
use crate::quorum::eyes::{Findings, Glance};
use crate::quorum::newcomer::Newcomer;
use crate::quorum::sources::Last;

/// How long signs of life count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// What the API says is acted on only if it is no older than this: a cache that has not heard of its server for longer may tell
    /// of a world that is gone. Twice what a quiet watch lasts.
    pub fresh: Duration,
    /// A kubelet that has not renewed its lease for so long counts as gone: the grace of the controller manager since 1.32
    /// (`--node-monitor-grace-period`), five missed renewals.
    pub lease_old: Duration,
    /// A kubelet renews its lease every 10 s. Who has watched for less than this cannot say that it does not.
    pub renewal: Duration,
    /// Usage and workloads are asked for so often while a run needs them: metrics-server looks every 15 s (`--metric-resolution`).
    pub usage: Duration,
    /// So long after an eviction its load is measured anew: two of those looks.
    pub settle: Duration,
    /// A management controller's word on a machine's power counts for so long.
    pub power: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(40),
            lease_old: Duration::from_secs(50),
            renewal: Duration::from_secs(12),
            usage: Duration::from_secs(15),
            settle: Duration::from_secs(30),
            power: Duration::from_secs(30),
        }
    }
}

/// One node and its cluster at one instant.
#[derive(Debug, Clone)]
pub struct World {
    /// How long signs of life count.
    pub timing: Timing,
    /// When it was looked at.
    pub now: Instant,
    /// Wall clock then, milliseconds since the Unix epoch; to show times by.
    pub unix_ms: u64,
    /// Which node.
    pub node: NodeName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// What it is for.
    pub role: Role,
    /// What the cluster's API says.
    pub api: Api,
    /// What its agent says.
    pub agent: Agent,
    /// What its management controller says, where a runbook needs it.
    pub power: Word,
    /// Who silenced its agent, if somebody did.
    pub silence: Option<Silence>,
    /// What is known beyond the node, where the runbook needs it.
    pub around: Around,
    /// What was read of the pods that it is about, or why they could not be read; `None`: it is about none.
    pub case: Option<Result<Arc<Case>, String>>,
    /// What the agents of its masters told of etcd; `None`: they were not asked.
    pub etcd: Option<Glance>,
    /// What they found to restore, where the runbook needs it.
    pub found: Option<Findings>,
    /// What was told of a member that is to be on a node that has none, where the runbook needs it.
    pub newcomer: Option<Newcomer>,
    /// Where the nodes are that may have a member.
    pub addresses: BTreeMap<NodeName, IpAddr>,
    /// What was last seen of its etcd while that was well.
    pub last: Option<Last>,
    /// What they told of the rest of the control plane; `None`: they were not asked.
    pub control_plane: Option<control_plane::Glance>,
    /// What the agents of its masters say of themselves, where the runbook needs it.
    pub masters: BTreeMap<NodeName, Agent>,
    /// The workloads that operators declared.
    pub declared: Arc<Vec<Declared>>,
}

/// A node's agent mends nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// An operator, or a run by its id.
    pub by: String,
    /// It is for this node alone; not for its cluster, or the fleet.
    pub own: bool,
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// Nothing, for so long as is known.
    Silent {
        /// `None`: it was never heard of by this coordinator.
        since: Option<Instant>,
        /// It said goodbye.
        left: bool,
    },
    /// It is in session.
    Speaks {
        /// Its kubelet's unit is active.
        kubelet_active: bool,
        /// Its kubelet answers.
        kubelet_healthy: bool,
        /// The boot gate holds the kubelet: it is for a release to let it go.
        held: bool,
        /// When it last looked.
        observed: Instant,
    },
}

impl World {
    /// The API's word, if it may be acted on.
    pub fn api(&self) -> Result<&ApiView, String> {
        match &self.api {
            Api::Unknown { why } => Err(why.clone()),
            Api::Known(view) if view.age > self.timing.fresh => Err(format!(
                "what is known of cluster {} is {} old: its API server does not answer",
                self.cluster,
                seconds(view.age)
            )),
            Api::Known(view) => Ok(view),
        }
    }

    /// The API's word on the node.
    pub fn api_node(&self) -> Result<(&ApiView, &Node), String> {
        let view = self.api()?;
        let node = view.node.as_ref();
        node.map(|node| (view, node)).ok_or_else(|| {
            format!(
                "cluster {} has no node {}: is it called otherwise there? (kubectl get nodes)",
                self.cluster, self.node
            )
        })
    }

    /// No renewal of the node's lease came for so long that the kubelet counts as gone.
    pub fn is_quiet(&self) -> bool {
        let Api::Known(view) = &self.api else { return false };
        let quiet = view.life.quiet_for(self.now);
        quiet.is_some_and(|quiet| quiet >= self.timing.lease_old)
    }

    /// A renewal of the node's lease was seen after this.
    pub fn renewed_after(&self, then: Instant) -> bool {
        match &self.api {
            Api::Known(view) => view.life.seen.is_some_and(|seen| seen > then),
            Api::Unknown { .. } => false,
        }
    }

    /// How the node's lease stands, for people.
    pub fn lease_words(&self) -> String {
        let Api::Known(view) = &self.api else {
            return "its lease is not known".to_owned();
        };
        let what = if view.can.leases.is_some() {
            "lease"
        } else {
            "heartbeat"
        };
        match (view.life.seen, view.life.quiet_for(self.now)) {
            (Some(_), Some(quiet)) => format!("its {what} was renewed {} ago", seconds(quiet)),
            (None, Some(watched)) => {
                let last = view.life.renewed.map_or_else(
                    || format!("it has no {what}"),
                    |at| format!("its {what} says {at}"),
                );
                format!(
                    "{last}, and no renewal came in the {} that it is watched",
                    seconds(watched)
                )
            }
            (_, None) => format!("its {what} is not watched yet"),
        }
    }

    /// What the agent says, for people.
    pub fn agent_words(&self) -> String {
        match &self.agent {
            Agent::Silent { since: None, .. } => "its agent was never heard of".to_owned(),
            Agent::Silent {
                since: Some(since),
                left,
            } => format!(
                "its agent {} {} ago",
                if *left {
                    "said goodbye"
                } else {
                    "was last heard of"
                },
                seconds(self.now.saturating_duration_since(*since))
            ),
            Agent::Speaks {
                kubelet_active,
                kubelet_healthy,
                held,
                ..
            } => {
                let kubelet = match (held, kubelet_active, kubelet_healthy) {
                    (true, ..) => "is held by the boot gate",
                    (_, true, true) => "is healthy",
                    (_, false, true) => "does not run, and was healthy when it was last asked",
                    (_, true, false) => "runs and does not answer",
                    (_, false, false) => "does not run",
                };
                format!("its agent speaks and says that the kubelet {kubelet}")
            }
        }
    }
}

/// A duration in words, to the second.
pub fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}
