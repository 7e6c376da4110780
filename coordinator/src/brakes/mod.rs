//! What holds remedies back in the fleet: operators' holds, and the storm guard's freezes.
//!
//! ```text
//!  operators ──set, lift──► Book ──durable──► store           one value for holds, one for storms
//!  storm::guard ─storms───►  └──► watch ──► each session: all that concerns its node, whole, at its beginning and at each change
//! ```
//!
//! Level-triggered: a node is told everything that holds there, never what changed. A freeze carries a term and is said again within
//! it; one that is not renewed ends on the node by itself.

mod handle;
pub(crate) mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use tokio::time::Instant;

use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec};
use crate::storm::Frozen;

pub use handle::{BrakesError, BrakesHandle};

/// What a hold is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// This remedy.
    Remedy(RemedyKind),
    /// Every remedy.
    Every,
    /// Every remedy, and its nodes count neither for a storm nor for an outage.
    Silence,
}

/// Whom a hold is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// One node.
    Node(NodeName),
    /// A cluster's nodes.
    Cluster(ClusterName),
    /// Every node.
    Fleet,
}

impl Scope {
    /// Whether it is for this node.
    pub fn has(&self, spec: &NodeSpec) -> bool {
        match self {
            Self::Node(name) => *name == spec.name,
            Self::Cluster(name) => *name == spec.cluster,
            Self::Fleet => true,
        }
    }
}

/// An operator's word that remedies are not to be used. At most one stands for each scope and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// For whom.
    pub scope: Scope,
    /// Of what.
    pub what: Held,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Wall clock when it was made, milliseconds since the Unix epoch.
    pub made_unix_ms: u64,
    /// How long it was made for; `None`: until it is lifted.
    pub length: Option<Duration>,
    /// When that is over, by this process's clock.
    pub until: Option<Instant>,
}

/// Everything that is held and frozen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    /// Operators' holds, oldest first.
    pub holds: Vec<Hold>,
    /// What the guard froze, by cluster and condition.
    pub storms: BTreeMap<(ClusterName, String), Frozen>,
    /// Rises whenever freezes are to be said again.
    pub renewal: u64,
}

/// What concerns one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeBrakes {
    /// Its holds.
    pub holds: Vec<Hold>,
    /// Its freezes: condition and evidence.
    pub freezes: Vec<(String, String)>,
    /// [`Book::renewal`] while something is frozen, so that it is said again.
    pub renewal: u64,
}

impl Book {
    /// The holds that stand at `now`.
    pub fn standing(&self, now: Instant) -> impl Iterator<Item = &Hold> {
        self.holds
            .iter()
            .filter(move |hold| hold.until.is_none_or(|until| until > now))
    }

    /// What concerns a node at `now`.
    pub fn of(&self, spec: &NodeSpec, now: Instant) -> NodeBrakes {
        let freezes: Vec<_> = self
            .storms
            .iter()
            .filter(|((cluster, _), _)| *cluster == spec.cluster)
            .map(|((_, condition), frozen)| (condition.clone(), frozen.evidence.clone()))
            .collect();
        NodeBrakes {
            holds: self
                .standing(now)
                .filter(|hold| hold.scope.has(spec))
                .cloned()
                .collect(),
            renewal: if freezes.is_empty() { 0 } else { self.renewal },
            freezes,
        }
    }

    /// The nodes that an operator silenced here.
    pub fn silenced(&self, inventory: &Inventory, now: Instant) -> BTreeSet<NodeName> {
        let silences: Vec<_> = self
            .standing(now)
            .filter(|hold| hold.what == Held::Silence)
            .collect();
        inventory
            .nodes
            .values()
            .filter(|spec| silences.iter().any(|hold| hold.scope.has(spec)))
            .map(|spec| spec.name.clone())
            .collect()
    }
}
