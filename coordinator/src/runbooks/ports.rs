//! What runbooks are connected to.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::conditions::Conditions;
use super::declared::Declared;
use super::policy::RunbookPolicy;
use super::world::Timing;
use crate::brakes::BrakesHandle;
use crate::control_plane;
use crate::events::Events;
use crate::execute::Runs;
use crate::execute::stall::Stalls;
use crate::fleet::Order;
use crate::fleet::view::FleetView;
use crate::inventory::{Inventory, NodeName};
use crate::kubernetes::Clusters;
use crate::leader::Tenure;
use crate::permit::Book;
use crate::policy::OutagePolicy;
use crate::power::Bmcs;
use crate::quorum::Eyes;
use crate::store::Store;

/// What runbooks are connected to.
#[derive(Clone)]
pub struct Ports {
    /// Journals.
    pub store: Arc<dyn Store>,
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// The clusters' APIs.
    pub clusters: Clusters,
    /// The live picture.
    pub view: watch::Receiver<Arc<FleetView>>,
    /// Commands to nodes.
    pub orders: mpsc::Sender<Order>,
    /// Silences.
    pub brakes: BrakesHandle,
    /// Cold starts, which go first.
    pub cold_starts: watch::Receiver<Runs>,
    /// Why the control planes that they wait for do not come up, told to them.
    pub stalls: watch::Sender<Stalls>,
    /// What happens, for people.
    pub events: Events,
    /// Of the executor: one hand for all commands of this coordinator.
    pub epoch: u64,
    /// The right to act.
    pub tenure: Tenure,
    /// How long signs of life count.
    pub timing: Timing,
    /// What agents find wrong.
    pub conditions: Conditions,
    /// When runbooks begin by themselves, and when none is to change anything.
    pub policy: RunbookPolicy,
    /// When lost nodes are a power event.
    pub outage: OutagePolicy,
    /// Permits that agents have: one budget for all that takes nodes away.
    pub permits: watch::Receiver<Arc<Book>>,
    /// Nodes that runs have in hand, told to whoever gives permits.
    pub in_hand: watch::Sender<BTreeSet<NodeName>>,
    /// Management controllers of machines.
    pub bmcs: Bmcs,
    /// The workloads that operators declared.
    pub declared: Arc<Vec<Declared>>,
    /// What agents tell of etcd.
    pub etcd: Eyes,
    /// And of the rest of the control plane.
    pub control_plane: control_plane::Eyes,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
