//! The world: one queue of events in simulated time, and what each does to nodes and coordinators.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use blackstart_coordinator::fleet::Order;
use blackstart_coordinator::inventory::{ClusterName, Role};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep_until};

use super::coordinator::{Process, Wall};
use super::laws::Bench;
use super::lines::{Down, Line, Up};
use super::mutations::Mutation;
use super::node::{Kubelet, Node};
use super::script::{self, Script, Stroke};
use super::store::{self, Disk, SharedDisk};
use super::trace::Trace;
use super::{Law, Ms};

/// Nothing lasts longer.
const HORIZON: Ms = 2 * 60 * 60 * 1000;
/// It has to stay over for so long.
const STAYS_OVER: Ms = 20_000;

/// What happens.
#[derive(Debug)]
pub(super) enum Happening {
    Stroke(Stroke),
    PowerOn { node: usize },
    Gate { node: usize, boot: u64 },
    Kubelet { node: usize, turn: u64, to: Kubelet },
    AgentStart { node: usize, boot: u64 },
    Dial { node: usize, incarnation: u64 },
    Report { node: usize, line: u64 },
    Impatience { node: usize, line: u64 },
    Stage { node: usize, incarnation: u64 },
    Aside { node: usize, incarnation: u64 },
    Up { line: u64, up: Up },
    Down { line: u64, down: Down },
    LineEnds { line: u64 },
    Look { process: u64, prompt: bool },
    CoordinatorStart,
    Thaw { process: u64 },
    DiskRoom,
    Resume { run: String },
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) script: Script,
    pub(super) mutation: Option<Mutation>,
    pub(super) rng: SmallRng,
    pub(super) base: Instant,
    pub(super) now: Ms,
    pub(super) trace: Trace,
    pub(super) bench: Bench,
    pub(super) nodes: Vec<Node>,
    /// For each cluster since when enough of its masters have a healthy kubelet.
    pub(super) quorum_since: Vec<Option<Ms>>,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) lines: BTreeMap<u64, Line>,
    pub(super) next_line: u64,
    pub(super) next_process: u64,
    pub(super) disk: SharedDisk,
    pub(super) wall: Wall,
    pub(super) own_unclean: bool,
    pub(super) gone_for_good: bool,
    queue: BTreeMap<(Ms, u64), Happening>,
    next: u64,
    over_since: Option<Ms>,
    /// Runs that an operator was asked about.
    pub(super) asked: BTreeSet<String>,
    /// Runs that an operator is going to resume.
    pub(super) to_resume: BTreeSet<String>,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, keep_all: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let script = script::write(&mut rng);
        let base = Instant::now();
        let mut nodes = Vec::new();
        for spec in script.inventory.nodes.values() {
            let clusters = &script.inventory.clusters;
            let cluster = clusters
                .iter()
                .position(|cluster| cluster.name == spec.cluster)
                .unwrap_or(0);
            let role = match (mutation, spec.role) {
                (Some(Mutation::MastersLast), Role::Worker) => Role::ControlPlane,
                (Some(Mutation::MastersLast), Role::ControlPlane | Role::Etcd) => Role::Worker,
                (Some(_) | None, role) => role,
            };
            let dead_man = match mutation {
                Some(Mutation::DeadManDisabled) => Duration::from_hours(24 * 365),
                Some(_) | None => script
                    .gates
                    .get(&role)
                    .map_or(Duration::ZERO, |gate| gate.dead_man(&spec.name.0)),
            };
            nodes.push(Node::new(spec.name.clone(), cluster, spec.role, dead_man));
        }
        let disk = Disk::new(script.chances, mutation == Some(Mutation::DispatchBeforeJournal));
        let mut world = Self {
            quorum_since: vec![None; script.inventory.clusters.len()],
            script,
            mutation,
            rng,
            base,
            now: 0,
            trace: Trace::new(keep_all),
            bench: Bench::default(),
            nodes,
            processes: BTreeMap::new(),
            lines: BTreeMap::new(),
            next_line: 1,
            next_process: 1,
            disk: Arc::new(Mutex::new(disk)),
            wall: Wall::new(base),
            own_unclean: false,
            gone_for_good: false,
            queue: BTreeMap::new(),
            next: 0,
            over_since: None,
            asked: BTreeSet::new(),
            to_resume: BTreeSet::new(),
        };
        for (at, stroke) in std::mem::take(&mut world.script.strokes) {
            world.at(at, Happening::Stroke(stroke));
        }
        for node in 0..world.nodes.len() {
            world.boots(node);
        }
        world.at(0, Happening::CoordinatorStart);
        world
    }

    /// Until everything is over, or a law is broken.
    pub(super) async fn run(&mut self) {
        self.runs_until_over().await;
        if self.bench.found.is_some() {
            self.tell_runs();
        }
    }

    /// How the runs stand, for whoever looks into a violation.
    fn tell_runs(&mut self) {
        for (id, process) in &self.processes {
            for run in process.runs.borrow().iter().filter(|run| run.state.is_active()) {
                self.trace.say(
                    self.now,
                    format_args!(
                        "coordinator {id}: {} is {:?} and waits for {:?}",
                        run.id, run.state, run.waiting_on
                    ),
                );
            }
            let holds = process.holds.borrow();
            self.trace
                .say(self.now, format_args!("coordinator {id} holds {holds:?}"));
        }
    }

    async fn runs_until_over(&mut self) {
        while self.bench.found.is_none() {
            let Some(next) = self.queue.first_key_value().map(|(key, _)| *key) else {
                break;
            };
            let due = self.base + Duration::from_millis(next.0);
            tokio::select! {
                biased;
                (process, order) = next_order(&mut self.processes) => {
                    self.tell_time();
                    self.dispatched(process, order);
                }
                () = sleep_until(due) => {
                    self.tell_time();
                    if let Some(happening) = self.queue.remove(&next) {
                        self.happens(happening).await;
                    }
                }
            }
            self.bury();
            self.judge_always();
            if self.ends() {
                break;
            }
        }
    }

    fn tell_time(&mut self) {
        let since = Instant::now().saturating_duration_since(self.base);
        self.now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }

    fn ends(&mut self) -> bool {
        if self.now < self.script.quiet_at {
            return false;
        }
        if self.now > HORIZON {
            if let Some(what) = self.unfinished() {
                self.accuse(Law::Ends, what);
            }
            return true;
        }
        if !self.is_over() {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(self.now);
        self.now > since + STAYS_OVER
    }

    pub(super) fn at(&mut self, at: Ms, happening: Happening) {
        self.queue.insert((at, self.next), happening);
        self.next += 1;
    }

    pub(super) fn after(&mut self, ms: Ms, happening: Happening) {
        self.at(self.now + ms, happening);
    }

    pub(super) fn between(&mut self, least: Ms, most: Ms) -> Ms {
        self.rng.random_range(least..most)
    }

    pub(super) fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.random_ratio(percent.min(100), 100)
    }

    /// The nodes of a cluster.
    pub(super) fn members(&self, cluster: &ClusterName) -> impl Iterator<Item = usize> {
        let clusters = &self.script.inventory.clusters;
        let cluster = clusters.iter().position(|known| known.name == *cluster);
        (0..self.nodes.len()).filter(move |at| Some(self.nodes[*at].cluster) == cluster)
    }

    async fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Stroke(stroke) => self.strikes(stroke).await,
            Happening::PowerOn { node } => {
                if !self.nodes[node].power {
                    self.nodes[node].power_on(self.now);
                    let (name, boot) = (&self.nodes[node].name, self.nodes[node].boot);
                    let previous = self.nodes[node].previous;
                    self.trace
                        .say(self.now, format_args!("{name} boots ({boot}, {previous:?})"));
                    self.boots(node);
                }
            }
            Happening::Gate { node, boot } => {
                if self.nodes[node].power && self.nodes[node].boot == boot {
                    self.gate_looks(node);
                }
            }
            Happening::Kubelet { node, turn, to } => {
                if self.nodes[node].kubelet_turn == turn {
                    self.kubelet(node, to);
                }
            }
            Happening::AgentStart { node, boot } => self.agent_starts(node, boot),
            Happening::Dial { node, incarnation } => self.dials(node, incarnation),
            Happening::Report { node, line } => self.reports(node, line),
            Happening::Impatience { node, line } => self.is_impatient(node, line),
            Happening::Stage { node, incarnation } => self.stage(node, incarnation),
            Happening::Aside { node, incarnation } => self.looks_at_aside(node, incarnation),
            Happening::Up { line, up } => self.comes_up(line, up),
            Happening::Down { line, down } => self.comes_down(line, down),
            Happening::LineEnds { line } => self.line_ends(line),
            Happening::Look { process, prompt } => self.looks(process, prompt).await,
            Happening::CoordinatorStart => self.coordinator_starts(),
            Happening::Thaw { process } => {
                if let Some(frozen) = self.processes.get_mut(&process) {
                    self.trace
                        .say(self.now, format_args!("coordinator {process} goes on"));
                    frozen.thaw();
                }
            }
            Happening::DiskRoom => {
                for disk in self
                    .processes
                    .values()
                    .map(|process| &process.disk)
                    .chain([&self.disk])
                {
                    store::lock(disk).full = false;
                }
            }
            Happening::Resume { run } => self.operator_resumes(run).await,
        }
    }
}

/// The next order that a coordinator which is not frozen sends.
async fn next_order(processes: &mut BTreeMap<u64, Process>) -> (u64, Order) {
    poll_fn(|context| {
        for (id, process) in processes.iter_mut().filter(|(_, process)| !process.frozen) {
            if let Poll::Ready(Some(order)) = process.orders.poll_recv(context) {
                return Poll::Ready((*id, order));
            }
        }
        Poll::Pending
    })
    .await
}
