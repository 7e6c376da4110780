//! A cold start of a large fleet in simulated time: the real plan, executor and driver; simulated machines, and the doubles of
//! [`crate::apiserver`] for what a control plane does to it.
//!
//! Nothing goes wrong here but what kubelets do to an API server by starting: misfortunes are the business of [`super::simulate`]. A second of
//! simulated time is a look at every machine.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_coordinator::events::Events;
use blackstart_coordinator::execute::status::{RunState, RunStatus};
use blackstart_coordinator::execute::typical::typical;
use blackstart_coordinator::execute::{Executor, Ports, Surroundings};
use blackstart_coordinator::fleet::view::{
    ApiServerAnswer, ApiServerError, Attestation, FleetView, GateState, NodeView, Phase,
};
use blackstart_coordinator::fleet::{Answer, Order, OrderResult};
use blackstart_coordinator::inventory::{Cluster, ClusterName, Inventory, NodeName, NodeSpec, Role};
use blackstart_coordinator::plan::estimate::{Estimate, estimate};
use blackstart_coordinator::plan::{cold_start, lint::lint};
use blackstart_coordinator::policy::{ColdStartPolicy, Typical};
use blackstart_proto::component::Manifests;
use rand::SeedableRng;
use rand::rngs::{SmallRng, StdRng};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::store::{Disk, StoreDouble};
use crate::apiserver::{ApiServer, Limits, NodeLifecycle, Reply};

/// Every machine is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// An agent's probe of its API server waits no longer.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// A kubelet renews its lease so often, seconds.
const RENEW_EVERY: u64 = 10;

/// A fleet, and how it is started.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// (name, after, masters, workers)
    pub clusters: Vec<(&'static str, &'static [&'static str], usize, usize)>,
    /// How the coordinator goes about it.
    pub policy: ColdStartPolicy,
    /// What each cluster's API servers can do.
    pub limits: Limits,
    /// From the release of a kubelet to its health.
    pub kubelet: Duration,
    /// From the health of a master's kubelet to the readiness of its API server.
    pub api_server: Duration,
    /// Agents tell how their API server answers.
    pub told: bool,
    /// It is given up after so long.
    pub limit: Duration,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How the run stood at the end.
    pub state: RunState,
    /// Of simulated time.
    pub makespan: Duration,
    /// What the plan was said to take, with the durations that were known before.
    pub estimate: Estimate,
    /// What the next run would be estimated with.
    pub learned: Typical,
    /// For each cluster.
    pub clusters: Vec<ClusterOutcome>,
    /// What it took of real time.
    pub cost: Cost,
}

/// How a cluster fared.
#[derive(Debug, Clone)]
pub struct ClusterOutcome {
    /// Which.
    pub name: &'static str,
    /// How often its API servers crashed.
    pub crashes: u32,
    /// Seconds in which they refused.
    pub refusals: u32,
    /// Their slowest answer.
    pub slowest: Duration,
    /// Nodes whose pods were evicted.
    pub evicted: usize,
    /// The largest window.
    pub window: usize,
}

/// Figures of this machine, to be told and not to be judged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Making the plan.
    pub plan: Duration,
    /// Looking for its mistakes.
    pub lint: Duration,
    /// Estimating it.
    pub estimate: Duration,
    /// The whole simulation.
    pub all: Duration,
    /// The part of it that the executor and its journal took.
    pub executor: Duration,
}

/// Starts a dark fleet and follows it to the end of its run.
///
/// # Errors
/// No runtime can be made, or the executor refuses.
pub fn cold_start(fleet: &Fleet) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(World::new(fleet).run())
}

struct Machine {
    name: NodeName,
    cluster: usize,
    master: bool,
    /// Its number in its cluster.
    number: usize,
    started: Option<Instant>,
}

struct World<'a> {
    fleet: &'a Fleet,
    inventory: Arc<Inventory>,
    machines: Vec<Machine>,
    place: BTreeMap<NodeName, usize>,
    servers: Vec<ApiServer>,
    controllers: Vec<NodeLifecycle>,
    windows: Vec<usize>,
    base: Instant,
}

impl<'a> World<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        let (mut clusters, mut nodes, mut machines) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (cluster, (name, after, masters, workers)) in fleet.clusters.iter().enumerate() {
            let mut names = Vec::new();
            for number in 0..masters + workers {
                let master = number < *masters;
                let spec = NodeSpec {
                    name: NodeName(format!("{name}-{}{number:04}", if master { "m" } else { "w" })),
                    cluster: ClusterName((*name).to_owned()),
                    role: if master { Role::ControlPlane } else { Role::Worker },
                    address: [10, 0, 0, 1].into(),
                    rack: None,
                    machine_id: None,
                    bmc: None,
                };
                machines.push(Machine {
                    name: spec.name.clone(),
                    cluster,
                    master,
                    number,
                    started: None,
                });
                names.push(spec.name.clone());
                nodes.insert(spec.name.clone(), spec);
            }
            clusters.push(Cluster {
                vip: None,
                name: ClusterName((*name).to_owned()),
                after: after.iter().map(|name| ClusterName((*name).to_owned())).collect(),
                nodes: names,
            });
        }
        Self {
            fleet,
            inventory: Arc::new(Inventory { clusters, nodes }),
            place: machines
                .iter()
                .enumerate()
                .map(|(at, it)| (it.name.clone(), at))
                .collect(),
            machines,
            servers: vec![ApiServer::new(fleet.limits.clone()); fleet.clusters.len()],
            controllers: fleet
                .clusters
                .iter()
                .map(|(_, _, masters, workers)| NodeLifecycle::new(masters + workers))
                .collect(),
            windows: vec![0; fleet.clusters.len()],
            base: Instant::now(),
        }
    }

    async fn run(mut self) -> io::Result<Outcome> {
        let begun = std::time::SystemTime::now();
        let mut cost = Cost::default();
        let policy = &self.fleet.policy;
        let view = self.view();
        let plan = timed(&mut cost.plan, || {
            cold_start::plan(&self.inventory, &view, policy, &[])
        });
        let findings = timed(&mut cost.lint, || lint(&plan, &self.inventory));
        if !findings.is_empty() {
            return Err(io::Error::other(format!("the plan is refused: {findings:?}")));
        }
        let expected = timed(&mut cost.estimate, || {
            estimate(&plan, &view, &policy.typical, &policy.wave)
        });

        let disk = Arc::new(Mutex::new(Disk::default()));
        let store = Arc::new(StoreDouble::new(disk, SmallRng::seed_from_u64(1)));
        let (show, views) = watch::channel(Arc::new(view));
        let (to_world, mut orders) = mpsc::channel(self.machines.len());
        let (results, answers) = mpsc::channel(self.machines.len());
        let (hold, _holds) = watch::channel(BTreeMap::new());
        let ports = Ports {
            view: views,
            orders: to_world,
            results: answers,
            holds: hold,
            stalls: watch::Sender::default().subscribe(),
            events: Events::default(),
        };
        let surroundings = Surroundings {
            unix_ms: Box::new(|| 0),
            chance: StdRng::seed_from_u64(1),
            store_waits: false,
        };
        let inventory = Arc::clone(&self.inventory);
        let (executor, driver) = Executor::open_in(surroundings, store, inventory, policy.clone(), ports)
            .map_err(io::Error::other)?;
        let stop = CancellationToken::new();
        let driver = tokio::spawn(driver.run(stop.clone()));
        let started = executor.start(plan, "a large fleet".to_owned()).await;
        started.map_err(io::Error::other)?;

        let run = loop {
            while let Ok(order) = orders.try_recv() {
                let _full = results.try_send(self.obey(&order));
            }
            self.second();
            show.send_replace(Arc::new(self.view()));
            let looked = std::time::SystemTime::now();
            sleep(LOOK).await;
            cost.executor += looked.elapsed().unwrap_or_default();
            let run = only(&executor)?;
            for lane in &run.lanes {
                let cluster = self
                    .fleet
                    .clusters
                    .iter()
                    .position(|(name, ..)| lane.lane.0.ends_with(name));
                if let Some(cluster) = cluster {
                    self.windows[cluster] = self.windows[cluster].max(lane.window);
                }
            }
            let over = self.base.elapsed() > self.fleet.limit;
            if over || !matches!(run.state, RunState::Running | RunState::Paused) {
                break run;
            }
        };
        stop.cancel();
        driver.await.map_err(io::Error::other)?;
        cost.all = begun.elapsed().unwrap_or_default();
        Ok(Outcome {
            state: run.state,
            makespan: Duration::from_millis(run.elapsed_ms_at(Instant::now())),
            estimate: expected,
            learned: typical(&[run], &self.fleet.policy.typical),
            clusters: self.told(),
            cost,
        })
    }

    fn told(&self) -> Vec<ClusterOutcome> {
        self.fleet
            .clusters
            .iter()
            .enumerate()
            .map(|(at, (name, ..))| ClusterOutcome {
                name,
                crashes: self.servers[at].crashes,
                refusals: self.servers[at].refusals,
                slowest: self.servers[at].slowest,
                evicted: self.controllers[at].evicted(),
                window: self.windows[at],
            })
            .collect()
    }

    fn obey(&mut self, order: &Order) -> OrderResult {
        let machine = &mut self.machines[self.place[&order.node]];
        if machine.started.is_none() {
            machine.started = Some(Instant::now());
            self.servers[machine.cluster].kubelet_starts();
        }
        OrderResult {
            node: order.node.clone(),
            command_id: order.command_id.clone(),
            answer: Answer::Done,
            detail: String::new(),
        }
    }

    /// Lets a second pass for the control planes.
    fn second(&mut self) {
        let now = self.base.elapsed().as_secs();
        let mut up = vec![false; self.servers.len()];
        for machine in &self.machines {
            up[machine.cluster] |= machine.master && self.serves(machine);
        }
        for (at, server) in self.servers.iter_mut().enumerate() {
            server.second();
            let controller = &mut self.controllers[at];
            if up[at] && !controller.runs() {
                controller.begin(now);
            }
        }
        for machine in &self.machines {
            let replies = matches!(self.servers[machine.cluster].reply(), Reply::After(_));
            let turn = (now + machine.number as u64).is_multiple_of(RENEW_EVERY);
            let controller = &mut self.controllers[machine.cluster];
            if turn && replies && controller.runs() && healthy(self.fleet, machine) {
                controller.renew(machine.number, now);
            }
        }
        for controller in &mut self.controllers {
            controller.second(now);
        }
    }

    /// This master's API server has come up, whatever it answers.
    fn serves(&self, machine: &Machine) -> bool {
        let up = self.fleet.kubelet + self.fleet.api_server;
        machine.master && machine.started.is_some_and(|at| at.elapsed() >= up)
    }

    /// What this master's agent sees of its API server.
    fn probe(&self, machine: &Machine) -> Option<ApiServerAnswer> {
        if !machine.master {
            return None;
        }
        if !self.serves(machine) {
            return Some(ApiServerAnswer::Failed(ApiServerError::Refused));
        }
        Some(match self.servers[machine.cluster].reply() {
            Reply::After(took) if took < PROBE_DEADLINE => ApiServerAnswer::Ready(took),
            Reply::After(_) => ApiServerAnswer::Failed(ApiServerError::TimedOut),
            Reply::TooManyRequests => ApiServerAnswer::Failed(ApiServerError::Overloaded),
            Reply::Down => ApiServerAnswer::Failed(ApiServerError::Refused),
        })
    }

    fn view(&self) -> FleetView {
        let now = Instant::now();
        let node = |machine: &Machine| {
            let well = healthy(self.fleet, machine);
            let probed = self.probe(machine);
            let (phase, gate) = match machine.started {
                None => (Phase::Held, GateState::Held),
                Some(_) if well => (Phase::Ready, GateState::Released),
                Some(_) => (Phase::NotReady, GateState::Released),
            };
            NodeView {
                phase,
                in_session: true,
                attestation: Some(Attestation {
                    gate,
                    kubelet_active: machine.started.is_some(),
                    kubelet_healthy: well,
                    apiserver_ready: matches!(probed, Some(ApiServerAnswer::Ready(_))),
                    apiserver: probed.filter(|_| self.fleet.told),
                    observed_at: now,
                    waiting_on: String::new(),
                    manifests: Manifests::new(),
                }),
                ..NodeView::unknown(self.base)
            }
        };
        FleetView {
            at: now,
            nodes: self
                .machines
                .iter()
                .map(|machine| (machine.name.clone(), node(machine)))
                .collect(),
            own_unclean_boot: true,
            began_at: self.base,
        }
    }
}

fn healthy(fleet: &Fleet, machine: &Machine) -> bool {
    machine.started.is_some_and(|at| at.elapsed() >= fleet.kubelet)
}

fn only(executor: &Executor) -> io::Result<Arc<RunStatus>> {
    executor
        .runs()
        .pop()
        .ok_or_else(|| io::Error::other("the run is gone"))
}

/// Simulated time stands still meanwhile, so the wall clock has to tell.
fn timed<T>(took: &mut Duration, what: impl FnOnce() -> T) -> T {
    let begun = std::time::SystemTime::now();
    let done = what();
    *took = begun.elapsed().unwrap_or_default();
    done
}
