//! What is known of a cluster that concerns one node, as one value.

use std::time::Duration;

use tokio::time::Instant;

use super::capabilities::Capabilities;
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
    /// Every budget of the cluster.
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
