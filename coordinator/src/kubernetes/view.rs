//! What is known of a cluster that concerns one node, as one value.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::capabilities::Capabilities;
use super::objects::resources::Resources;
use super::objects::{Attachment, Budget, Node, Pod};

/// What the API of a cluster says.
#[derive(Debug, Clone)]
pub enum Api {
    /// Nothing can be said by it: not configured, never reached, or heard of too long ago.
    Unknown {
        /// Why, and what to do.
        why: String,
    },
    /// As its caches have it.
    Known(Box<ApiView>),
}

/// The part of a cluster that concerns one node.
#[derive(Debug, Clone)]
pub struct ApiView {
    /// What the cluster can do.
    pub can: Capabilities,
    /// So old is the oldest of what is below.
    pub age: Duration,
    /// The node; `None`: the API does not have it.
    pub node: Option<Node>,
    /// Signs of life of its kubelet.
    pub life: Life,
    /// The pods that are bound to it.
    pub pods: Vec<Pod>,
    /// The budgets of these pods.
    pub budgets: Vec<Budget>,
    /// The volumes that are attached to it.
    pub attachments: Vec<Attachment>,
}

/// When a kubelet was last heard of by the API: by its lease, or by its heartbeat in clusters without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// By the node's own wall clock, to show.
    pub renewed: Option<jiff::Timestamp>,
    /// When a renewal was last *seen* to come, by our clock; `None`: not since this coordinator watches.
    pub seen: Option<Instant>,
    /// Since when this coordinator watches.
    pub watched: Option<Instant>,
}

impl Life {
    /// No renewal came for so long, as far as was watched.
    pub fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let since = self.seen.or(self.watched)?;
        Some(now.saturating_duration_since(since))
    }
}

/// What all nodes of a cluster have and carry, and the pods that have none.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// By name.
    pub nodes: BTreeMap<String, NodeRoom>,
    /// Pods that have no node, by name.
    pub waiting: Vec<Waiting>,
    /// How the pods of each controller are.
    pub controllers: Controllers,
    /// Those that were asked for by uid, as far as they are there.
    pub named: BTreeMap<String, Pod>,
}

/// By namespace, and kind and name of the controller.
pub type Controllers = BTreeMap<(String, String), Tally>;

/// What one node has and carries.
#[derive(Debug, Clone)]
pub struct NodeRoom {
    /// The node.
    pub node: Node,
    /// What the pods on it were promised.
    pub taken: Resources,
    /// So many they are.
    pub count: u64,
}

impl NodeRoom {
    /// With nothing on it.
    pub fn of(node: Node) -> Self {
        Self {
            node,
            taken: Resources::default(),
            count: 0,
        }
    }
}

/// A pod that has no node.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The pod.
    pub pod: Pod,
    /// Since when this coordinator has seen it so; it may be longer.
    pub since: Instant,
}

/// The pods of one controller, without those that are going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub pods: usize,
    /// Those that are ready.
    pub ready: usize,
    /// Those that have no node.
    pub waiting: usize,
}
