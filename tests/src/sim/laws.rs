//! The laws, as far as a simulation can hold the truth against what was done.
//!
//! Truth is what the world knows of its nodes, not what an agent told or a coordinator believes. Evidence may be as old as the
//! policy lets it be and as late as the network is: a gate that is let through on it is judged by whether it was true within
//! that time.

use std::collections::BTreeMap;
use std::fmt;

use blackstart_agent::gate::GateState;
use blackstart_coordinator::execute::status::{RunState, StepState};
use blackstart_coordinator::fleet::{Action, Order};
use blackstart_coordinator::inventory::{ClusterName, NodeName, Role};
use blackstart_coordinator::plan::StepId;
use blackstart_proto::component::Component;

use super::Ms;
use super::mutations::Mutation;
use super::node::{Kubelet, Node};
use super::script::LONGEST_DELAY;
use super::store;
use super::world::World;

/// A gate that should have opened by itself may be late by this.
const DEAD_MAN_SLACK: Ms = 1_500;
/// An agent looks at what is set aside once a second.
const ASIDE_SLACK: Ms = 1_500;
/// A run that says nothing of what it waits for is at fault after this.
const SILENT_RUN: Ms = 5_000;
/// Masters and workers that were spoken to within this are compared.
const SAME_TIME: Ms = 30_000;

/// A law, by what breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// 1: no worker is released before its control plane serves.
    WorkerOrder,
    /// 1: nothing of a cluster is released before what it depends on serves.
    TierOrder,
    /// 1: no controller acts on a cluster whose control plane a cold start has released before enough of its kubelets run.
    SetAside,
    /// 2: nothing is done for an epoch on a node where a higher one has acted.
    OneHand,
    /// 2: no more workers of a cluster at once than the policy lets.
    Budget,
    /// 3: the intent of a command is durable before anybody can see the command.
    IntentFirst,
    /// 3: a command is begun at most once, and a gate is released at most once in a boot.
    NothingTwice,
    /// 5: a held node to which nobody speaks opens in time.
    FailTowardsRunning,
    /// 5: and masters do before workers.
    MastersFirst,
    /// 8: a run that is at work says what it waits for.
    SayWhy,
    /// Every run ends or halts, and no node stays held for ever.
    Ends,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkerOrder => "1 order (workers)",
            Self::TierOrder => "1 order (tiers)",
            Self::SetAside => "1 order (set aside)",
            Self::OneHand => "2 one hand",
            Self::Budget => "2 one hand (budget)",
            Self::IntentFirst => "3 intent first",
            Self::NothingTwice => "3 nothing twice",
            Self::FailTowardsRunning => "5 fail towards running",
            Self::MastersFirst => "5 fail towards running (masters first)",
            Self::SayWhy => "8 say why",
            Self::Ends => "every run ends",
        })
    }
}

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// How.
    pub what: String,
}

/// What has to be remembered to judge.
#[derive(Debug, Default)]
pub(super) struct Bench {
    /// Runs that say nothing, and since when.
    mute: BTreeMap<(u64, String), Ms>,
    pub(super) found: Option<Violation>,
}

impl World {
    /// Law broken; the first one counts.
    pub(super) fn accuse(&mut self, law: Law, what: String) {
        self.bench.found.get_or_insert(Violation { law, what });
    }

    /// An order that can be seen from now on.
    pub(super) fn judge_order(&mut self, process: u64, order: &Order) {
        let durable = self
            .processes
            .get(&process)
            .is_some_and(|process| store::lock(&process.disk).has_intent(&order.command_id));
        if !durable {
            let what = format!("{} was sent and its intent is not on disk", order.command_id);
            self.accuse(Law::IntentFirst, what);
        }
        match &order.action {
            Action::ReleaseKubelet { run, .. } => self.judge_controllers(process, order, run),
            Action::ReleaseManifest { run, .. } => {
                if let Some(why) = self.too_early(process, &order.node, run) {
                    let what = format!("{} puts back on {}: {why}", order.command_id, order.node);
                    self.accuse(Law::SetAside, what);
                }
                return;
            }
            // The others belong to runbooks, which are not simulated here.
            Action::HoldManifest { .. }
            | Action::RestartUnit { .. }
            | Action::StopKubelet { .. }
            | Action::StartKubelet { .. }
            | Action::Etcd { .. }
            | Action::ControlPlane { .. } => return,
        }
        let Some(spec) = self.script.inventory.node(&order.node) else {
            return;
        };
        let inventory = &self.script.inventory;
        let mut found = Vec::new();
        match spec.role {
            Role::Worker => {
                if let Some(why) = self.no_control_plane(&spec.cluster) {
                    found.push((Law::WorkerOrder, why));
                }
            }
            Role::ControlPlane | Role::Etcd => {
                let after = inventory
                    .cluster(&spec.cluster)
                    .map_or(&[][..], |cluster| &cluster.after);
                for dependency in after {
                    if let Some(why) = self
                        .no_control_plane(dependency)
                        .or_else(|| self.not_serving(dependency))
                    {
                        found.push((Law::TierOrder, why));
                    }
                }
            }
        }
        for (law, why) in found {
            self.accuse(
                law,
                format!("{} is released by {}: {why}", order.node, order.command_id),
            );
        }
    }

    /// A master that a cold start releases has its controllers set aside, or a reason not to.
    fn judge_controllers(&mut self, process: u64, order: &Order, run: &str) {
        let Some(at) = self.nodes.iter().position(|node| node.name == order.node) else {
            return;
        };
        // One that comes alone joins a control plane that stands, or that nobody holds.
        if self.nodes[at].role != Role::ControlPlane || !run.starts_with("cold-start") {
            return;
        }
        let in_place =
            |component: &&Component| !self.lately(self.nodes[at].aside_at.get(*component).copied());
        let Some(component) = Component::ALL.iter().find(in_place).copied() else {
            return;
        };
        let given_up =
            self.state_of(process, run, &StepId::hold(&order.node, component)) == Some(StepState::Residue);
        let early = self.too_early(process, &order.node, run);
        match early.filter(|_| !given_up) {
            None => self.nodes[at].license = Some("they did not have to be set aside".to_owned()),
            Some(why) => {
                let what = format!(
                    "{} is released by {} with its {component} in place: {why}",
                    order.node, order.command_id
                );
                self.accuse(Law::SetAside, what);
            }
        }
    }

    /// How a step of a run stands.
    fn state_of(&self, process: u64, run: &str, step: &StepId) -> Option<StepState> {
        let runs = self.processes.get(&process)?.runs.borrow();
        let run = runs.iter().find(|known| known.id == run)?;
        run.steps
            .iter()
            .find(|known| known.id == *step)
            .map(|step| step.state)
    }

    /// Why the controllers of a node's cluster may not act yet, as far as a run has not given up waiting.
    fn too_early(&self, process: u64, node: &NodeName, run: &str) -> Option<String> {
        let cluster = &self.script.inventory.node(node)?.cluster;
        if self.state_of(process, run, &StepId::kubelets(cluster)) == Some(StepState::Residue) {
            return None;
        }
        let expected: Vec<_> = self
            .members(cluster)
            .filter(|at| {
                let release = StepId::release(&self.nodes[*at].name);
                self.state_of(process, run, &release) != Some(StepState::Residue)
            })
            .collect();
        let have = expected
            .iter()
            .filter(|at| self.lately(self.healthy_at(**at)))
            .count();
        let share = self.script.policy.set_aside.release_share as usize;
        let few = have * 100 < expected.len() * share;
        let few = few.then(|| {
            format!(
                "{have} of {} kubelets of {cluster} were healthy lately, {share} % needed",
                expected.len()
            )
        });
        self.no_control_plane(cluster).or(few)
    }

    /// How old the truth behind good evidence may be.
    fn memory(&self) -> Ms {
        let fresh = u64::try_from(self.script.policy.fresh.as_millis()).unwrap_or(u64::MAX);
        fresh + LONGEST_DELAY + 1_000
    }

    fn lately(&self, at: Option<Ms>) -> bool {
        at.is_some_and(|at| at + self.memory() >= self.now)
    }

    fn no_control_plane(&self, cluster: &ClusterName) -> Option<String> {
        let masters: Vec<_> = self
            .members(cluster)
            .filter(|at| self.nodes[*at].role == Role::ControlPlane)
            .collect();
        let need = masters.len() / 2 + 1;
        let have = masters
            .iter()
            .filter(|at| self.lately(self.served_at(**at)))
            .count();
        (have < need).then(|| {
            format!(
                "{have} of {} masters of {cluster} have served lately, {need} needed",
                masters.len()
            )
        })
    }

    fn not_serving(&self, cluster: &ClusterName) -> Option<String> {
        let workers: Vec<_> = self
            .members(cluster)
            .filter(|at| self.nodes[*at].role == Role::Worker)
            .collect();
        let need = (workers.len() * self.script.policy.serving_percent as usize).div_ceil(100);
        let have = workers
            .iter()
            .filter(|at| self.lately(self.healthy_at(**at)))
            .count();
        (have < need).then(|| {
            format!(
                "{have} of {} workers of {cluster} were healthy lately, {need} needed",
                workers.len()
            )
        })
    }

    /// Something is done on a node for an epoch.
    pub(super) fn judge_act(&mut self, at: usize, command_id: &str, epoch: u64) {
        let node = &mut self.nodes[at];
        let (name, acted) = (node.name.clone(), node.acted_epoch);
        node.acted_epoch = acted.max(epoch);
        if epoch < acted {
            self.accuse(
                Law::OneHand,
                format!("{name} obeys {command_id} of epoch {epoch} after one of epoch {acted}"),
            );
        }
    }

    /// A command is begun: its intent is written.
    pub(super) fn judge_begun(&mut self, at: usize, command_id: &str) {
        let node = &mut self.nodes[at];
        let name = node.name.clone();
        let times = node.begun.entry(command_id.to_owned()).or_default();
        *times += 1;
        if *times > 1 {
            let times = *times;
            self.accuse(
                Law::NothingTwice,
                format!("{name} has begun {command_id} {times} times"),
            );
        }
    }

    /// A gate opened by its dead-man time; nobody had spoken to it since `base`.
    pub(super) fn judge_dead_man(&mut self, at: usize, base: Ms) {
        let node = &self.nodes[at];
        if node.role != Role::Worker {
            return;
        }
        let dark = self.nodes.iter().find(|master| {
            master.cluster == node.cluster
                && master.role == Role::ControlPlane
                && master
                    .spoken_to_at()
                    .is_some_and(|spoken| spoken <= base + SAME_TIME)
        });
        if let Some(master) = dark {
            let what = format!(
                "worker {} opens by itself while master {} is held",
                node.name, master.name
            );
            self.accuse(Law::MastersFirst, what);
        }
    }

    /// What has to be true whatever has just happened.
    pub(super) fn judge_always(&mut self) {
        let late = self.nodes.iter().find_map(|node| {
            let gate = self.script.gates.get(&node.role)?;
            let limit = u64::try_from(gate.dead_man(&node.name.0).as_millis()).ok()?;
            let spoken = node.spoken_to_at()?;
            (self.now > spoken + limit + DEAD_MAN_SLACK).then(|| {
                format!(
                    "{} is held, and nobody has spoken to it for {} ms",
                    node.name,
                    self.now - spoken
                )
            })
        });
        if let Some(what) = late {
            self.accuse(Law::FailTowardsRunning, what);
        }
        self.judge_aside();
        self.judge_runs();
    }

    /// What is set aside comes back in time, and no controller acts without leave.
    fn judge_aside(&mut self) {
        let mut found = None;
        for at in 0..self.nodes.len() {
            if self.nodes[at].role != Role::ControlPlane {
                continue;
            }
            let dead_man = self.aside_dead_man(at);
            let now = self.now;
            let node = &mut self.nodes[at];
            for component in Component::ALL {
                if node.is_aside(component) {
                    node.aside_at.insert(component, now);
                }
            }
            let late = node.agent.then(|| node.aside_until(dead_man, now)).flatten();
            if let Some(until) = late.filter(|until| now > *until + DEAD_MAN_SLACK + ASIDE_SLACK) {
                let what = format!(
                    "{} has its controllers set aside for {} ms too long",
                    node.name,
                    now - until
                );
                found = Some((Law::FailTowardsRunning, what));
            }
            let by_plan = node.gate() == GateState::Released
                && node
                    .words
                    .release
                    .get()
                    .is_some_and(|release| release.run_id.starts_with("cold-start"));
            let all = Component::ALL
                .into_iter()
                .all(|component| node.is_aside(component));
            let acts = by_plan && !all && node.kubelet != Kubelet::Stopped;
            if acts && !node.in_office && node.license.is_none() {
                let what = format!("a controller of {} acts and nobody has put it back", node.name);
                found = Some((Law::SetAside, what));
            }
            node.in_office = acts;
        }
        if let Some((law, what)) = found {
            self.accuse(law, what);
        }
    }

    fn judge_runs(&mut self) {
        let mute = self.mutation == Some(Mutation::BlockerEmpty);
        let mut found = None;
        let most = self.script.policy.wave.max.max(self.script.policy.wave.initial);
        for (id, process) in self.processes.iter().filter(|(_, process)| !process.frozen) {
            for run in process.runs.borrow().iter() {
                let key = || (*id, run.id.clone());
                if !run.state.is_active() {
                    continue;
                }
                if !mute && run.waiting_on.iter().any(|why| !why.trim().is_empty()) {
                    if !self.bench.mute.is_empty() {
                        self.bench.mute.remove(&key());
                    }
                } else {
                    let since = *self.bench.mute.entry(key()).or_insert(self.now);
                    if self.now > since + SILENT_RUN {
                        found = Some((Law::SayWhy, format!("{} does not say what it waits for", run.id)));
                    }
                }
                let mut busy: BTreeMap<_, usize> = BTreeMap::new();
                for (step, status) in run.plan.steps.iter().zip(&run.steps) {
                    if status.state == StepState::Started
                        && let Some(lane) = &step.lane
                    {
                        *busy.entry(lane).or_default() += 1;
                    }
                }
                if let Some((lane, busy)) = busy.into_iter().find(|(_, busy)| *busy > most) {
                    let what = format!(
                        "{busy} steps of lane {lane} are under way in {}, {most} may be",
                        run.id
                    );
                    found = Some((Law::Budget, what));
                }
            }
        }
        if let Some((law, what)) = found {
            self.accuse(law, what);
        }
    }

    /// Nothing is left to happen: no node is held, and every run has ended, or halted and said so.
    pub(super) fn is_over(&self) -> bool {
        self.unfinished().is_none()
    }

    /// What is not over yet.
    pub(super) fn unfinished(&self) -> Option<String> {
        if let Some(node) = self.nodes.iter().find(|node| node.gate() == GateState::Held) {
            return Some(format!("{} is still held", node.name));
        }
        let aside = |node: &&Node| node.power && !node.durable.aside.is_empty();
        if let Some(node) = self.nodes.iter().find(aside) {
            return Some(format!("controllers of {} are still set aside", node.name));
        }
        // An older one that another has overtaken names that as its blocker, for ever.
        if let Some(process) = self.processes.values().next_back() {
            for run in process.runs.borrow().iter() {
                match run.state {
                    RunState::Running => {
                        return Some(format!(
                            "{} still runs; it waits for {:?}",
                            run.id, run.waiting_on
                        ));
                    }
                    RunState::Halted | RunState::Paused | RunState::Succeeded | RunState::Aborted => {}
                }
            }
        }
        None
    }
}
