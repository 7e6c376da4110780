//! One process of the coordinator: the real executor with its driver, the real picture of the fleet, the real trigger.
//!
//! ```text
//!  agents' words ─► fleet::State ─► FleetView ─┬─► outage::assess ─► trigger::decide ─► plan ─► Executor::start
//!                                              └─► Driver ─► Order ─► the world, which looks at the laws before it carries it
//! ```
//!
//! The driver runs as a task in paused time. [`Ice`] freezes it as a machine that hangs does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use blackstart_coordinator::events::Events;
use blackstart_coordinator::execute::{Executor, Ports, Refusal, Runs, Surroundings};
use blackstart_coordinator::fleet::view::{Attestation, FleetView, GateState};
use blackstart_coordinator::fleet::{Order, OrderResult, SessionId, State, boots};
use blackstart_coordinator::inventory::{Inventory, NodeName, Role};
use blackstart_coordinator::outage;
use blackstart_coordinator::plan::{cold_start, rejoin};
use blackstart_coordinator::policy::{ColdStartPolicy, OutagePolicy};
use blackstart_coordinator::store::Store;
use blackstart_coordinator::trigger::{self, Decision, Input};
use rand::SeedableRng;
use rand::rngs::{SmallRng, StdRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::mutations::Mutation;
use super::script::Script;
use super::store::{SharedDisk, StoreDouble};

/// What was refused is asked for again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// So many orders and answers may be on their way, as in the real process.
const BACKLOG: usize = 256;

/// The wall clock of the coordinator's machine.
#[derive(Debug, Clone)]
pub(super) struct Wall {
    base: Instant,
    /// What it showed at `base`, milliseconds since the Unix epoch.
    offset: Arc<AtomicU64>,
}

impl Wall {
    pub(super) fn new(base: Instant) -> Self {
        Self {
            base,
            offset: Arc::new(AtomicU64::new(1_700_000_000_000)),
        }
    }

    pub(super) fn jump(&self, to: u64) {
        self.offset.store(to, Ordering::Relaxed);
    }

    fn unix_ms(&self) -> u64 {
        let since = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.offset.load(Ordering::Relaxed).saturating_add(since)
    }
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) epoch: u64,
    pub(super) disk: SharedDisk,
    pub(super) state: State,
    pub(super) executor: Executor,
    pub(super) runs: watch::Receiver<Runs>,
    pub(super) holds: watch::Receiver<BTreeMap<NodeName, String>>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) frozen: bool,
    /// For each node the connection that is in session, and its session.
    pub(super) sessions: BTreeMap<usize, (u64, SessionId)>,
    /// Something changed that should not wait for the next second.
    pub(super) prompt: bool,
    results: mpsc::Sender<OrderResult>,
    view: watch::Sender<Arc<FleetView>>,
    task: JoinHandle<()>,
    ice: Arc<Ice>,
    store: Arc<StoreDouble>,
    inventory: Arc<Inventory>,
    policy: ColdStartPolicy,
    outage: OutagePolicy,
    wall: Wall,
    not_before: Option<Instant>,
    refused: Option<String>,
    mutation: Option<Mutation>,
}

impl Process {
    /// Starts from what is on the disk. `None`: it died of it, or could not.
    pub(super) fn open(
        disk: &SharedDisk,
        chance: &mut SmallRng,
        script: &Script,
        wall: &Wall,
        own_unclean_boot: bool,
        mutation: Option<Mutation>,
    ) -> Option<Self> {
        let store = Arc::new(StoreDouble::new(Arc::clone(disk), SmallRng::from_rng(chance)));
        let mut inventory = script.inventory.clone();
        let mut policy = script.policy.clone();
        let mut silent_after = script.silent_after;
        match mutation {
            Some(Mutation::TierGateSkipped) => {
                for cluster in &mut inventory.clusters {
                    cluster.after.clear();
                }
            }
            Some(Mutation::FreshnessIgnored) => {
                policy.fresh = Duration::from_hours(5);
                silent_after = Duration::from_hours(5);
            }
            Some(Mutation::WindowIgnored) => {
                policy.wave.initial = 1000;
                policy.wave.max = 1000;
            }
            Some(Mutation::SetAsideSkipped) => policy.set_aside.enabled = false,
            Some(Mutation::ShareIgnored) => policy.set_aside.release_share = 1,
            Some(_) | None => {}
        }
        let inventory = Arc::new(inventory);
        let now = Instant::now();
        let remembered = boots::load(store.as_ref()).ok()?;
        let own = own_unclean_boot && !remembered.is_empty();
        let state = State::new(&inventory, &remembered, silent_after, own, now);
        let (view, views) = watch::channel(Arc::new(state.view(now)));
        let (to_world, orders) = mpsc::channel(BACKLOG);
        let (results, answers) = mpsc::channel(BACKLOG);
        let (hold, holds) = watch::channel(BTreeMap::new());
        let clock = wall.clone();
        let surroundings = Surroundings {
            unix_ms: Box::new(move || clock.unix_ms()),
            chance: StdRng::from_rng(chance),
            store_waits: false,
        };
        let ports = Ports {
            view: views,
            orders: to_world,
            results: answers,
            holds: hold,
            // Who looks into etcd is no part of this.
            stalls: watch::Sender::default().subscribe(),
            events: Events::default(),
        };
        let opening = || {
            Executor::open_in(
                surroundings,
                Arc::clone(&store) as Arc<dyn Store>,
                Arc::clone(&inventory),
                policy.clone(),
                ports,
            )
        };
        let (executor, driver) = catch_unwind(AssertUnwindSafe(opening)).ok()?.ok()?;
        let ice = Arc::new(Ice::default());
        let freezable = Freezable {
            inner: Box::pin(driver.run(CancellationToken::new())),
            ice: Arc::clone(&ice),
        };
        Some(Self {
            epoch: executor.epoch(),
            disk: Arc::clone(disk),
            state,
            runs: executor.watch(),
            executor,
            holds,
            orders,
            frozen: false,
            sessions: BTreeMap::new(),
            prompt: false,
            results,
            view,
            task: tokio::spawn(freezable),
            ice,
            store,
            inventory,
            policy,
            outage: script.outage.clone(),
            wall: wall.clone(),
            not_before: None,
            refused: None,
            mutation,
        })
    }

    /// It has died at a write.
    pub(super) fn is_dead(&self) -> bool {
        self.task.is_finished()
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = true;
        self.ice.frozen.store(true, Ordering::Relaxed);
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = false;
        self.ice.frozen.store(false, Ordering::Relaxed);
        let waker = self
            .ice
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// An answer of a node. There is room, or it comes again with the next session.
    pub(super) fn answer(&self, result: OrderResult) {
        let _full = self.results.try_send(result);
    }

    /// Lets time pass for the picture, shows it, keeps what has to be kept. Tells which nodes fell silent; `None`: the process
    /// died of it.
    pub(super) fn look(&mut self) -> Option<Vec<NodeName>> {
        let now = Instant::now();
        let (silent, _told) = self.state.tick(now);
        let mut view = self.state.view(now);
        mutate(&mut view, &self.inventory, self.mutation);
        self.view.send_replace(Arc::new(view));
        let unsaved = self.state.take_unsaved();
        if !unsaved.is_empty() {
            let saved = catch_unwind(AssertUnwindSafe(|| boots::save(self.store.as_ref(), &unsaved))).ok()?;
            if saved.is_err() {
                self.state
                    .still_unsaved(unsaved.into_iter().map(|(name, _)| name));
            }
        }
        Some(silent)
    }

    /// What the coordinator begins by itself, as its starter does it.
    pub(super) async fn begin(&mut self) -> Vec<String> {
        let runs = Arc::clone(&self.runs.borrow());
        self.state.attend(trigger::ahead(&runs));
        let now = Instant::now();
        let view = self.state.view(now);
        let attended: BTreeSet<_> = self
            .state
            .nodes()
            .filter(|(_, node)| node.attended())
            .map(|(name, _)| name.clone())
            .collect();
        let decisions = trigger::decide(&Input {
            inventory: &self.inventory,
            view: &view,
            outages: &outage::assess(&view, &self.inventory, &self.outage),
            runs: &runs,
            attended: &attended,
            policy: &self.policy,
            outage: &self.outage,
            now_unix_ms: self.wall.unix_ms(),
        });
        let mut told = Vec::new();
        if self.not_before.is_some_and(|at| now < at) {
            return told;
        }
        for decision in decisions {
            let (plan, why) = match decision {
                Decision::Start { clusters, evidence } => {
                    let plan = cold_start::plan(&self.inventory, &view, &self.policy, &clusters);
                    (Some(plan), evidence)
                }
                Decision::Rejoin { node, evidence } => {
                    (rejoin::plan(&self.inventory, &self.policy, &node), evidence)
                }
                Decision::Propose { .. } => continue,
            };
            let Some(plan) = plan else { continue };
            match self.executor.start(plan, why).await {
                Ok(run) => told.push(format!("began {}: {}", run.id, run.reason)),
                Err(Refusal::Stopping) => return told,
                Err(refusal) => {
                    let refused = refusal.to_string();
                    if self.refused.as_ref() != Some(&refused) {
                        told.push(format!("was refused: {refused}"));
                        self.refused = Some(refused);
                    }
                    self.not_before = Some(Instant::now() + AGAIN);
                    return told;
                }
            }
        }
        told
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an executor sees that is broken on purpose.
fn mutate(view: &mut FleetView, inventory: &Inventory, mutation: Option<Mutation>) {
    let at_once = match mutation {
        Some(Mutation::WorkerGateSkipped) => usize::MAX,
        Some(Mutation::QuorumOffByOne) => 1,
        Some(_) | None => return,
    };
    let at = view.at;
    for cluster in &inventory.clusters {
        let mut left = at_once;
        for spec in inventory.masters(&cluster.name) {
            let Some(node) = view
                .nodes
                .get_mut(&spec.name)
                .filter(|_| spec.role == Role::ControlPlane)
            else {
                continue;
            };
            let ready = node.attestation.as_ref().is_some_and(|word| word.apiserver_ready);
            if ready || left == 0 {
                continue;
            }
            left -= 1;
            let manifests = node.attestation.as_ref().map(|word| word.manifests.clone());
            node.in_session = true;
            node.attestation = Some(Attestation {
                gate: GateState::Released,
                kubelet_active: true,
                kubelet_healthy: true,
                apiserver_ready: true,
                apiserver: None,
                observed_at: at,
                waiting_on: String::new(),
                manifests: manifests.unwrap_or_default(),
            });
        }
    }
}

/// What freezes a process.
#[derive(Debug, Default)]
struct Ice {
    frozen: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

struct Freezable {
    inner: Pin<Box<dyn Future<Output = ()> + Send>>,
    ice: Arc<Ice>,
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.ice.frozen.load(Ordering::Relaxed) {
            let mut waker = self.ice.waker.lock().unwrap_or_else(PoisonError::into_inner);
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}
