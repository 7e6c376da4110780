//! What a coordinator that begins to lead reads from its store.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::RunError;
use super::house::House;
use crate::brakes::BrakesHandle;
use crate::config::Settings;
use crate::control_plane;
use crate::execute::{Driver, Executor, Ports};
use crate::fleet::{Fleet, FleetParts, Holds, Order, OrderResult};
use crate::inventory::Inventory;
use crate::kubernetes::Clusters;
use crate::leader::Tenure;
use crate::metrics::Sources;
use crate::permit::{Keeper, KeeperParts, PermitsHandle};
use crate::quorum::Eyes;
use crate::runbooks::conditions::Conditions;
use crate::runbooks::{self, Runbooks, Work};
use crate::store::Store;
use crate::trust::desk::Desk;

/// Orders and answers on their way between the executor and the sessions.
const BACKLOG: usize = 256;

/// What was read from the store.
pub(super) struct Opened {
    pub(super) fleet: Fleet,
    pub(super) brakes: BrakesHandle,
    pub(super) executor: Executor,
    pub(super) driver: Driver,
    pub(super) to_nodes: mpsc::Receiver<Order>,
    pub(super) keeper: Keeper,
    pub(super) permits: PermitsHandle,
    pub(super) clusters: Clusters,
    pub(super) runbooks: Runbooks,
    pub(super) work: Work,
    pub(super) answers: Answers,
    pub(super) desk: Arc<Desk>,
}

impl Opened {
    /// What Prometheus is told of.
    pub(super) fn sources(&self) -> Sources {
        Sources {
            fleet: self.fleet.clone(),
            executor: self.executor.clone(),
            runbooks: self.runbooks.clone(),
            brakes: self.brakes.clone(),
            permits: self.permits.clone(),
        }
    }
}

/// Agents' answers on their way: to the executor, or to runbooks.
pub(super) struct Answers {
    pub(super) from_nodes: mpsc::Receiver<OrderResult>,
    pub(super) to_executor: mpsc::Sender<OrderResult>,
    pub(super) to_runbooks: mpsc::Sender<OrderResult>,
    /// Of runbooks.
    pub(super) heard: mpsc::Receiver<OrderResult>,
}

/// Reads everything anew. That may take a while, and the store may have to wait for others, so it is done on threads that may.
pub(super) async fn open(house: &House, store: &Arc<dyn Store>, tenure: &Tenure) -> Result<Opened, RunError> {
    let (results, from_nodes) = mpsc::channel(BACKLOG);
    let (to_executor, answers) = mpsc::channel(BACKLOG);
    let (to_runbooks, heard) = mpsc::channel(BACKLOG);
    let (orders, to_nodes) = mpsc::channel(BACKLOG);
    let (hold, holds) = watch::channel(Holds::new());
    let own_unclean_boot = house.own_boot.is_unclean();
    let of_fleet = FleetParts {
        inventory: Arc::clone(&house.inventory),
        silent_after: house.settings.silent_after,
        own_unclean_boot,
        events: house.events.clone(),
        results,
        holds,
    };
    let from = Arc::clone(store);
    let fleet = spawn_blocking(move || Fleet::new(of_fleet, from.as_ref()));
    let fleet = fleet.await.map_err(RunError::Broke)??;
    let (in_hand, stalls) = (watch::Sender::default(), watch::Sender::default());
    let ports = Ports {
        view: fleet.view(),
        orders: orders.clone(),
        results: answers,
        holds: hold,
        stalls: stalls.subscribe(),
        events: house.events.clone(),
    };
    let brakes = open_brakes(house, store).await?;
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let policy = house.settings.cold_start.clone();
    let opened = spawn_blocking(move || Executor::open(from, inventory, policy, ports));
    let (executor, driver) = opened.await.map_err(RunError::Broke)??;
    let of_keeper = KeeperParts {
        inventory: Arc::clone(&house.inventory),
        policy: house.settings.permits,
        outage: house.settings.outage.clone(),
        fresh: house.settings.cold_start.fresh,
        fleet: fleet.clone(),
        executor: executor.clone(),
        brakes: brakes.clone(),
        in_hand: in_hand.subscribe(),
        events: house.events.clone(),
    };
    let from = Arc::clone(store);
    let keeping = spawn_blocking(move || Keeper::open(from, of_keeper));
    let (keeper, permits) = keeping.await.map_err(RunError::Broke)??;
    let clusters = clusters(&house.settings, &house.inventory);
    let of_runbooks = runbooks::Ports {
        store: Arc::clone(store),
        inventory: Arc::clone(&house.inventory),
        clusters: clusters.clone(),
        view: fleet.view(),
        orders,
        brakes: brakes.clone(),
        cold_starts: executor.watch(),
        stalls,
        events: house.events.clone(),
        epoch: executor.epoch(),
        tenure: tenure.clone(),
        timing: house.settings.timing,
        conditions: conditions(&fleet),
        policy: house.settings.runbooks.clone(),
        outage: house.settings.outage.clone(),
        permits: permits.watch(),
        in_hand,
        declared: Arc::new(house.settings.workloads.clone()),
        bmcs: house.bmcs.clone(),
        etcd: Eyes::of(&fleet),
        control_plane: control_plane::Eyes::of(&fleet),
    };
    let opened = spawn_blocking(move || Runbooks::open(of_runbooks));
    let (runbooks, work) = opened.await.map_err(RunError::Broke)??;
    let desk = open_desk(house, store).await?;
    tracing::info!(
        nodes = house.inventory.nodes.len(),
        clusters = house.inventory.clusters.len(),
        epoch = executor.epoch(),
        own_unclean_boot,
        "coordinator begins"
    );
    Ok(Opened {
        fleet,
        brakes,
        executor,
        driver,
        to_nodes,
        keeper,
        permits,
        clusters,
        runbooks,
        work,
        answers: Answers {
            from_nodes,
            to_executor,
            to_runbooks,
            heard,
        },
        desk,
    })
}

/// What operators hold and silence, as the store has it.
async fn open_brakes(house: &House, store: &Arc<dyn Store>) -> Result<BrakesHandle, RunError> {
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let brakes = spawn_blocking(move || BrakesHandle::open(from, inventory));
    Ok(brakes.await.map_err(RunError::Broke)??)
}

/// What agents find wrong, for runbooks.
fn conditions(fleet: &Fleet) -> Conditions {
    let fleet = fleet.clone();
    Conditions::new(move |node| {
        fleet.read(|state| {
            let node = state.node(node);
            node.map(|node| node.conditions().to_vec()).unwrap_or_default()
        })
    })
}

/// The configured ways to clusters' APIs.
pub(super) fn clusters(settings: &Settings, inventory: &Inventory) -> Clusters {
    let access = settings.clusters.iter().map(|cluster| {
        let mut access = cluster.access.clone();
        access.masters = inventory
            .masters(&cluster.name)
            .map(|spec| spec.address)
            .collect();
        (cluster.name.clone(), access)
    });
    Clusters::new(access)
}

/// Who is let in. What is revoked is in force once this has returned, and before anybody is served.
async fn open_desk(house: &House, store: &Arc<dyn Store>) -> Result<Arc<Desk>, RunError> {
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let (gate, clock) = (Arc::clone(&house.door.gate), Arc::clone(&house.clock));
    let (enrolment, events) = (house.settings.enrolment.clone(), house.events.clone());
    let opened = spawn_blocking(move || Desk::open(from, inventory, enrolment.as_ref(), gate, clock, events));
    Ok(Arc::new(opened.await.map_err(RunError::Broke)??))
}
