//! A fleet of machines small enough to hold in the head, which judges the law of order itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::component::{Component, ManifestState, Manifests};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::execute::stall::Stalls;
use crate::execute::{Executor, Ports};
use crate::fleet::view::{ApiServerAnswer, Attestation, FleetView, GateState, NodeView, Phase};
use crate::fleet::{Action, Answer, Order, OrderResult};
use crate::inventory::{Cluster, ClusterName, Inventory, NodeName, NodeSpec, Role};
use crate::plan::{Plan, cold_start};
use crate::policy::ColdStartPolicy;
use crate::store::Store;

use super::memory::MemoryStore;

/// The world moves so often.
const TICK: Duration = Duration::from_millis(100);
/// A kubelet is healthy so long after its gate opened.
const KUBELET_START: Duration = Duration::from_secs(2);

/// (cluster, after, masters, workers)
pub(super) type Shape<'a> = (&'a str, &'a [&'a str], usize, usize);

/// Ten nodes in three clusters; `biz` and `lab` depend on `mgmt` only.
pub(super) const TEN: &[Shape<'_>] = &[
    ("mgmt", &[], 3, 1),
    ("biz", &["mgmt"], 1, 3),
    ("lab", &["mgmt"], 1, 1),
];

/// Thirty nodes in three clusters; `biz` and `lab` depend on `mgmt` only.
pub(super) const THIRTY: &[Shape<'_>] = &[
    ("mgmt", &[], 3, 5),
    ("biz", &["mgmt"], 3, 11),
    ("lab", &["mgmt"], 1, 7),
];

pub(super) fn inventory(shapes: &[Shape<'_>]) -> Inventory {
    let mut inventory = Inventory {
        clusters: Vec::new(),
        nodes: BTreeMap::new(),
    };
    for (name, after, masters, workers) in shapes {
        let cluster = ClusterName((*name).to_owned());
        let mut nodes = Vec::new();
        for (role, letter, count) in [(Role::ControlPlane, "m", *masters), (Role::Worker, "w", *workers)] {
            for index in 1..=count {
                let node = NodeSpec {
                    name: NodeName(format!("{name}-{letter}{index}")),
                    cluster: cluster.clone(),
                    role,
                    address: [10, 0, 0, 1].into(),
                    rack: None,
                    machine_id: None,
                    bmc: None,
                };
                nodes.push(node.name.clone());
                inventory.nodes.insert(node.name.clone(), node);
            }
        }
        inventory.clusters.push(Cluster {
            name: cluster,
            vip: None,
            after: after.iter().map(|name| ClusterName((*name).to_owned())).collect(),
            nodes,
        });
    }
    inventory
}

/// One machine and its agent.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// When it is up again; `None`: never.
    pub(super) back_at: Option<Instant>,
    pub(super) gate: GateState,
    /// When its gate opened.
    pub(super) opened_at: Option<Instant>,
    /// How often its kubelet was started in this boot.
    pub(super) starts: u32,
    /// So many of the next commands are lost on their way.
    pub(super) lose: u32,
    /// So many of the next commands fail.
    pub(super) fail: u32,
    /// Its kubelet never becomes healthy.
    pub(super) sick: bool,
    /// Its reports stopped long ago, its session did not.
    pub(super) stale: bool,
    pub(super) highest_epoch: u64,
    /// What it said of that when its session began.
    pub(super) said_epoch: u64,
    /// Commands that it has tried, for ever, and how they ended.
    ledger: BTreeMap<String, Answer>,
    /// Where its manifests are: on disk, whatever happens to its power. Empty: its agent does not tell.
    pub(super) manifests: Manifests,
    /// Until then its agent has not looked where they are, and says so.
    pub(super) looks_at: Option<Instant>,
}

impl Machine {
    /// Where its agent says that the manifests are.
    fn told(&self, now: Instant) -> Manifests {
        let mut manifests = self.manifests.clone();
        if self.looks_at.is_some_and(|at| now < at) {
            for state in manifests.values_mut() {
                *state = ManifestState::Unknown;
            }
        }
        manifests
    }
}

pub(super) struct World {
    pub(super) inventory: Arc<Inventory>,
    pub(super) policy: ColdStartPolicy,
    pub(super) machines: BTreeMap<NodeName, Machine>,
    /// Every command that arrived, in order.
    pub(super) commands: Vec<(NodeName, String)>,
    /// Breaches of the law of order.
    pub(super) breaches: Vec<String>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) events: Events,
    /// What is said of control planes that do not come up.
    pub(super) stalls: watch::Sender<Stalls>,
    /// The most workers of one cluster that were between release and health at once.
    pub(super) crowd: usize,
    /// What is set aside may be put back though too few kubelets run.
    pub(super) late_is_right: bool,
    /// How masters' agents say that their API servers answer.
    pub(super) api_server: Option<ApiServerAnswer>,
    side: Option<Side>,
}

/// The world's side of the executor's ports.
struct Side {
    view: watch::Sender<Arc<FleetView>>,
    orders: mpsc::Receiver<Order>,
    results: mpsc::Sender<OrderResult>,
    holds: watch::Receiver<BTreeMap<NodeName, String>>,
    driver: JoinHandle<()>,
}

impl World {
    /// Every machine lost its power just now and is back and held after a second.
    pub(super) fn new(shapes: &[Shape<'_>]) -> Self {
        let inventory = Arc::new(inventory(shapes));
        let machine = Machine {
            back_at: Some(Instant::now() + Duration::from_secs(1)),
            gate: GateState::Held,
            opened_at: None,
            starts: 0,
            lose: 0,
            fail: 0,
            sick: false,
            stale: false,
            highest_epoch: 0,
            said_epoch: 0,
            ledger: BTreeMap::new(),
            manifests: Manifests::new(),
            looks_at: None,
        };
        Self {
            machines: inventory
                .nodes
                .keys()
                .map(|node| (node.clone(), machine.clone()))
                .collect(),
            inventory,
            policy: ColdStartPolicy {
                return_deadline: Duration::from_mins(1),
                release_deadline: Duration::from_secs(30),
                control_plane_deadline: Duration::from_secs(90),
                ..ColdStartPolicy::default()
            },
            commands: Vec::new(),
            breaches: Vec::new(),
            store: Arc::new(MemoryStore::default()),
            events: Events::default(),
            stalls: watch::Sender::default(),
            crowd: 0,
            late_is_right: false,
            api_server: None,
            side: None,
        }
    }

    /// Its masters run controllers, whose manifests their agents tell of.
    pub(super) fn with_controllers(mut self) -> Self {
        let in_place = Component::ALL.map(|component| (component, ManifestState::InPlace));
        for (node, machine) in &mut self.machines {
            if self.inventory.nodes[node].role == Role::ControlPlane {
                machine.manifests = in_place.into();
            }
        }
        self
    }

    pub(super) fn machine(&mut self, node: &str) -> &mut Machine {
        self.machines.get_mut(&NodeName(node.to_owned())).unwrap()
    }

    pub(super) fn lose_power(&mut self, node: &str, back_at: Option<Instant>) {
        let machine = self.machine(node);
        machine.back_at = back_at;
        machine.gate = GateState::Held;
        machine.opened_at = None;
        machine.starts = 0;
    }

    pub(super) fn plan(&self) -> Plan {
        cold_start::plan(&self.inventory, &self.view(), &self.policy, &[])
    }

    /// A coordinator process over this world's store.
    pub(super) fn coordinator(&mut self) -> Result<Executor, crate::execute::ExecuteError> {
        self.kill();
        let (view, watched) = watch::channel(Arc::new(FleetView {
            // A new process has heard nobody yet.
            nodes: BTreeMap::new(),
            ..self.view()
        }));
        let (orders, orders_here) = mpsc::channel(4);
        let (results_here, results) = mpsc::channel(64);
        let (holds, holds_here) = watch::channel(BTreeMap::new());
        let ports = Ports {
            view: watched,
            orders,
            results,
            holds,
            stalls: self.stalls.subscribe(),
            events: self.events.clone(),
        };
        let store: Arc<dyn Store> = self.store.clone();
        let (executor, driver) =
            Executor::open(store, Arc::clone(&self.inventory), self.policy.clone(), ports)?;
        let driver = tokio::spawn(driver.run(CancellationToken::new()));
        self.side = Some(Side {
            view,
            orders: orders_here,
            results: results_here,
            holds: holds_here,
            driver,
        });
        Ok(executor)
    }

    /// The coordinator's process is gone, in the middle of whatever it did.
    pub(super) fn kill(&mut self) {
        if let Some(side) = self.side.take() {
            side.driver.abort();
        }
    }

    pub(super) fn holds(&self) -> BTreeMap<String, String> {
        let side = self.side.as_ref().unwrap();
        let holds = side.holds.borrow();
        holds
            .iter()
            .map(|(node, why)| (node.to_string(), why.clone()))
            .collect()
    }

    /// Lets time pass until `done`. Panics with how everything stands if that takes longer than `limit`.
    pub(super) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let deadline = Instant::now() + limit;
        loop {
            self.tick();
            if done(self) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {limit:?}; commands {:?}; machines {:#?}",
                self.commands,
                self.machines
            );
            sleep(TICK).await;
        }
    }

    /// Lets so much time pass.
    pub(super) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until("time", time + TICK * 2, |_| Instant::now() >= end)
            .await;
    }

    fn tick(&mut self) {
        while let Some(order) = self.side.as_mut().and_then(|side| side.orders.try_recv().ok()) {
            if let Some(result) = self.receive(&order) {
                let side = self.side.as_ref().unwrap();
                side.results.try_send(result).unwrap();
            }
        }
        let now = Instant::now();
        for cluster in &self.inventory.clusters {
            let starting = self
                .inventory
                .workers(&cluster.name)
                .filter(|node| {
                    let machine = &self.machines[&node.name];
                    machine.opened_at.is_some() && !healthy(machine, now)
                })
                .count();
            self.crowd = self.crowd.max(starting);
        }
        let view = Arc::new(self.view());
        if let Some(side) = &self.side {
            side.view.send_replace(view);
        }
    }

    fn receive(&mut self, order: &Order) -> Option<OrderResult> {
        let now = Instant::now();
        let breach = match order.action {
            Action::ReleaseKubelet { .. } => self.breach(&order.node, now),
            Action::HoldManifest { .. } => None,
            Action::ReleaseManifest { .. } => self.too_early(&order.node, now),
            Action::RestartUnit { .. }
            | Action::StopKubelet { .. }
            | Action::StartKubelet { .. }
            | Action::Etcd { .. }
            | Action::ControlPlane { .. } => Some(format!("a cold start asked for {:?}", order.action)),
        };
        let machine = self.machines.get_mut(&order.node).unwrap();
        if machine.back_at.is_none_or(|at| at > now) {
            return None;
        }
        self.commands.push((order.node.clone(), order.command_id.clone()));
        if !self.store.has_intent(&order.command_id) {
            let what = format!("{} was sent before its intent was durable", order.command_id);
            self.breaches.push(what);
        }
        if machine.lose > 0 {
            machine.lose -= 1;
            return None;
        }
        let answer = if order.epoch < machine.highest_epoch {
            Answer::RefusedEpoch
        } else if let Some(answer) = machine.ledger.get(&order.command_id) {
            *answer
        } else {
            let answer = if machine.fail > 0 {
                machine.fail -= 1;
                Answer::Failed
            } else {
                match order.action {
                    Action::ReleaseKubelet { .. } if machine.gate == GateState::Held => {
                        machine.gate = GateState::Released;
                        machine.opened_at = Some(now);
                        machine.starts += 1;
                        self.breaches.extend(breach);
                    }
                    Action::ReleaseKubelet { .. } => {}
                    Action::HoldManifest { component, .. } => {
                        machine.manifests.insert(component, ManifestState::SetAside);
                    }
                    Action::ReleaseManifest { component, .. } => {
                        machine.manifests.insert(component, ManifestState::InPlace);
                        self.breaches.extend(breach);
                    }
                    Action::RestartUnit { .. }
                    | Action::StopKubelet { .. }
                    | Action::StartKubelet { .. }
                    | Action::Etcd { .. }
                    | Action::ControlPlane { .. } => {
                        self.breaches.extend(breach);
                    }
                }
                Answer::Done
            };
            machine.ledger.insert(order.command_id.clone(), answer);
            answer
        };
        machine.highest_epoch = machine.highest_epoch.max(order.epoch);
        Some(OrderResult {
            node: order.node.clone(),
            command_id: order.command_id.clone(),
            answer,
            detail: "so it was".to_owned(),
        })
    }

    /// Why what was set aside of this node may not be put back now.
    fn too_early(&self, node: &NodeName, now: Instant) -> Option<String> {
        let cluster = &self.inventory.nodes[node].cluster;
        let awaited = |node: &&NodeName| self.machines[*node].back_at.is_some();
        let nodes = &self.inventory.cluster(cluster).unwrap().nodes;
        let awaited: Vec<_> = nodes.iter().filter(awaited).collect();
        let well = awaited
            .iter()
            .filter(|node| healthy(&self.machines[**node], now))
            .count();
        let share = self.policy.set_aside.release_share as usize;
        (well * 100 < awaited.len() * share && !self.late_is_right).then(|| {
            format!(
                "{node} has its controllers back while {well} of {} kubelets run",
                awaited.len()
            )
        })
    }

    /// Why this node may not be released now.
    fn breach(&self, node: &NodeName, now: Instant) -> Option<String> {
        let spec = &self.inventory.nodes[node];
        let in_place = |state: &ManifestState| *state == ManifestState::InPlace;
        if self.policy.set_aside.enabled
            && self.machines[node].manifests.values().any(in_place)
            && self.too_early(node, now).is_some()
        {
            return Some(format!("{node} was released with its controllers in place"));
        }
        if spec.role == Role::Worker && !self.control_plane(&spec.cluster, now) {
            return Some(format!("{node} was released without its control plane"));
        }
        let cluster = self.inventory.cluster(&spec.cluster).unwrap();
        let dark = cluster.after.iter().find(|name| {
            let workers: Vec<_> = self.inventory.workers(name).collect();
            let well = workers
                .iter()
                .filter(|node| healthy(&self.machines[&node.name], now))
                .count();
            !self.control_plane(name, now)
                || well * 100 < workers.len() * self.policy.serving_percent as usize
        });
        dark.map(|name| format!("{node} was released before {name} served"))
    }

    fn control_plane(&self, cluster: &ClusterName, now: Instant) -> bool {
        let masters: Vec<_> = self.inventory.masters(cluster).collect();
        let well = masters
            .iter()
            .filter(|node| healthy(&self.machines[&node.name], now))
            .count();
        well * 2 > masters.len()
    }

    pub(super) fn view(&self) -> FleetView {
        let now = Instant::now();
        let node = |name: &NodeName| {
            let machine = &self.machines[name];
            let mut view = NodeView::unknown(now);
            if machine.back_at.is_none_or(|at| at > now) {
                view.phase = Phase::Silent;
                return view;
            }
            let spec = &self.inventory.nodes[name];
            let well = healthy(machine, now);
            view.in_session = true;
            view.highest_epoch = machine.said_epoch;
            view.phase = match machine.gate {
                GateState::Held => Phase::Held,
                GateState::Absent | GateState::Released | GateState::Passed | GateState::DeadMan if well => {
                    Phase::Ready
                }
                GateState::Absent | GateState::Released | GateState::Passed | GateState::DeadMan => {
                    Phase::NotReady
                }
            };
            view.attestation = Some(Attestation {
                gate: machine.gate,
                kubelet_active: machine.opened_at.is_some(),
                kubelet_healthy: well,
                apiserver_ready: well
                    && spec.role == Role::ControlPlane
                    && self.control_plane(&spec.cluster, now),
                apiserver: self.api_server.filter(|_| spec.role == Role::ControlPlane),
                observed_at: if machine.stale {
                    now - Duration::from_hours(1)
                } else {
                    now
                },
                waiting_on: String::new(),
                manifests: machine.told(now),
            });
            view
        };
        FleetView {
            at: now,
            nodes: self
                .machines
                .keys()
                .map(|name| (name.clone(), node(name)))
                .collect(),
            own_unclean_boot: true,
            began_at: now,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

fn healthy(machine: &Machine, now: Instant) -> bool {
    let up = machine.back_at.is_some_and(|at| at <= now);
    up && !machine.sick && machine.opened_at.is_some_and(|at| at + KUBELET_START <= now)
}
