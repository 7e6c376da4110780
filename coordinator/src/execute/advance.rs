//! What to do next in a run, and what each step waits on. Pure: a function of (run, fleet, policy, now).
//!
//! ```text
//!  release  Open ── its gates stand, node held, room in the lane ──► Dispatch        Started ── healthy ──► Done
//!             │ ── kubelet healthy already ──► Done                      │ ── still held, no answer ──► Resend (same command)
//!             └ ── not back, not healthy in time ──► Residue             │ ── answered failed ──► Retry, then Residue
//!           Done, Residue ── back and held ──► Reopen                    └ ── not healthy in time ──► Residue
//!
//!  gate     Open ── evidence ──► Done        Done ── evidence gone while a held node is behind it ──► Reopen
//!             └ ── deadline ──► Failed
//! ```
//!
//! A gate that has passed is not forgotten: before each dispatch it is looked at again. So an API server that is overwhelmed stops
//! the waves until it answers, and a second power loss in the middle of a run does not send workers against a control plane that is gone.
//! Nor is a command sent again to a node that is held without that look: it may have been dispatched before such a loss.

mod aside;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use self::aside::Want;
use super::pace::{self, Feedback, Pace};
use super::record::{Clock, Run, Window};
use super::stall::Stall;
use super::state::Phase;
use super::status::RunState;
use super::tally::{Of, Tally, stand};
use super::waiting::{NAMED, Stand, WaitingOn};
use crate::fleet::Answer;
use crate::fleet::view::{FleetView, GateState};
use crate::inventory::{ClusterName, NodeName};
use crate::plan::{LaneId, OnFailure, StepId, StepKind};
use crate::policy::ColdStartPolicy;

/// A command is tried so often before its step is given up.
pub const ATTEMPTS: u32 = 3;
/// A command without an answer is sent again, under its own id, after this.
pub const RESEND_AFTER: Duration = Duration::from_secs(5);
/// A probe counts as made after an answer only if it was by this much: ages are rounded on their way.
const SLACK: Duration = Duration::from_secs(1);

/// All that a decision rests on besides the run itself.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The fleet.
    pub view: &'a FleetView,
    /// What operators tuned.
    pub policy: &'a ColdStartPolicy,
    /// Now.
    pub now: Instant,
    /// How many steps of each lane are under way, in all runs.
    pub in_flight: &'a BTreeMap<LaneId, usize>,
    /// How API servers answer a client of the coordinator's own, where there is one: heard beside what agents attest.
    pub feedback: &'a BTreeMap<ClusterName, Feedback>,
    /// Why control planes do not come up, as far as somebody looks into it.
    pub stalls: &'a BTreeMap<ClusterName, Stall>,
}

/// What to do with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Todo {
    /// Write the intent and send its command.
    Dispatch,
    /// Send its command again.
    Resend,
    /// Its attempt failed; another follows.
    Retry(String),
    /// It is verified, on this evidence.
    Done(String),
    /// Give its node up.
    Residue(String),
    /// Halt the run for it.
    Failed(String),
    /// It is not as it was: open it again.
    Reopen(String),
}

/// What comes next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// What to do with which step.
    pub todo: Vec<(usize, Todo)>,
    /// Every step is settled.
    pub ended: bool,
    /// What each step waits on; `None` for those that wait on nothing.
    pub waiting: Vec<Option<WaitingOn>>,
    /// For each step the one that it waits for in the end: itself, or one before it.
    pub root: Vec<usize>,
    /// The times of each step, brought up to now.
    pub clocks: Vec<Clock>,
    /// Each budget, brought up to now.
    pub lanes: Vec<LaneNow>,
    /// When to look again at the latest, if nothing changes before.
    pub wake: Option<Instant>,
}

/// A budget at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneNow {
    /// How many at once, and why.
    pub pace: Pace,
    /// So many are under way, in all runs, with those that are dispatched now.
    pub in_flight: usize,
}

impl LaneNow {
    const fn room(&self) -> usize {
        self.pace.window.saturating_sub(self.in_flight)
    }
}

/// Says what comes next in an active run.
pub fn advance(run: &Run, circumstances: Circumstances<'_>) -> Advance {
    let mut pass = Pass {
        run,
        c: circumstances,
        tallies: BTreeMap::new(),
        lapsing: BTreeSet::new(),
        out: Advance {
            waiting: vec![None; run.steps.len()],
            root: (0..run.steps.len()).collect(),
            clocks: run.steps.iter().map(|step| step.clock).collect(),
            lanes: lanes(run, circumstances),
            ..Advance::default()
        },
    };
    for at in 0..run.steps.len() {
        pass.step(at);
    }
    pass.lapsed_gates();
    pass.out.ended = run.state == RunState::Running
        && pass.out.todo.is_empty()
        && run.steps.iter().all(|step| step.phase.is_settled());
    pass.out
}

struct Pass<'a> {
    run: &'a Run,
    c: Circumstances<'a>,
    tallies: BTreeMap<usize, Tally>,
    /// Gates that have passed, whose evidence is gone, and which a held node needs.
    lapsing: BTreeSet<usize>,
    out: Advance,
}

impl<'a> Pass<'a> {
    fn step(&mut self, at: usize) {
        let paused = self.run.state == RunState::Paused;
        match (self.run.steps[at].phase, &self.run.plan.steps[at].kind) {
            (Phase::Open, kind) => {
                let before = self.run.after[at]
                    .iter()
                    .copied()
                    .find(|before| !self.run.steps[*before].phase.is_settled());
                if let Some(before) = before {
                    self.out.root[at] = self.out.root[before];
                    self.wait(at, WaitingOn::Step(self.run.plan.steps[before].id.clone()));
                } else if paused {
                    self.wait(at, WaitingOn::Paused);
                } else {
                    match kind {
                        StepKind::ReleaseKubelet { node } => self.release_open(at, node),
                        StepKind::HoldManifest { node, component } => self.hold_open(at, node, *component),
                        StepKind::ReleaseManifest { node, component } => {
                            self.put_back_open(at, node, *component);
                        }
                        StepKind::ControlPlaneGate { .. }
                        | StepKind::ServingGate { .. }
                        | StepKind::KubeletsGate { .. } => self.gate_open(at),
                        StepKind::VerifyCluster { .. } => self.verify(at),
                    }
                }
            }
            (Phase::Started, StepKind::ReleaseKubelet { node }) => self.release_started(at, node),
            (Phase::Done | Phase::Residue, StepKind::ReleaseKubelet { node }) => {
                self.release_settled(at, node, paused);
            }
            (Phase::Started, StepKind::HoldManifest { node, component }) => {
                self.move_started(at, node, *component, Want::Out);
            }
            (Phase::Started, StepKind::ReleaseManifest { node, component }) => {
                self.move_started(at, node, *component, Want::Back);
            }
            (Phase::Done | Phase::Residue, StepKind::HoldManifest { node, component }) => {
                self.hold_settled(at, node, *component);
            }
            (Phase::Done | Phase::Residue, StepKind::ReleaseManifest { node, component }) => {
                self.put_back_settled(at, node, *component);
            }
            (Phase::Residue, StepKind::KubeletsGate { .. }) => self.kubelets_given_up(at),
            (Phase::Failed, _) => self.wait(at, WaitingOn::Operator),
            (Phase::Started | Phase::Done | Phase::Residue | Phase::Cancelled, _) => {}
        }
    }

    fn release_open(&mut self, at: usize, node: &NodeName) {
        let stand = self.stand(node);
        match stand {
            Stand::KubeletHealthy(gate) | Stand::ApiServerReady(gate) => {
                self.todo(at, Todo::Done(runs(node, gate)));
            }
            Stand::Held => {
                self.out.clocks[at].away_since = None;
                self.out.clocks[at].unwell_since = None;
                self.dispatch_if_it_may(at);
            }
            Stand::NotBack(_) | Stand::Stale => self.away(at, node, stand),
            Stand::KubeletNotHealthy(gate) => {
                let since = *self.out.clocks[at].unwell_since.get_or_insert(self.c.now);
                let deadline = self.c.policy.release_deadline;
                if self.reached(since + deadline) {
                    let why = format!(
                        "the kubelet of {node} is not healthy after {deadline:?}; its gate is {}",
                        gate_word(gate)
                    );
                    self.give_up(at, why);
                } else {
                    self.wait(at, WaitingOn::KubeletNotHealthy { node: node.clone() });
                }
            }
        }
    }

    /// A node that is not there: waited for, for as long as it may take to come back. One that was waited for in vain is not waited for
    /// again by its next step.
    fn away(&mut self, at: usize, node: &NodeName, stand: Stand) {
        let clock = &mut self.out.clocks[at];
        clock.seen_away = true;
        clock.unwell_since = None;
        let since = *clock.away_since.get_or_insert(self.c.now);
        let deadline = self.run.plan.steps[at].deadline;
        let given_up = self.run.places_of(node).iter().any(|other| {
            let step = &self.run.steps[*other];
            // Given up without an attempt.
            *other != at && step.phase == Phase::Residue && step.attempts == step.forgiven
        });
        if given_up || self.reached(since + deadline) {
            self.give_up(
                at,
                format!("{node} did not come back within {deadline:?}: {stand}"),
            );
        } else {
            let node = node.clone();
            self.wait(at, WaitingOn::NodeNotBack { node, stand });
        }
    }

    fn dispatch_if_it_may(&mut self, at: usize) {
        let step = &self.run.steps[at];
        if let Some(retry_at) = step.clock.retry_at
            && !self.reached(retry_at)
        {
            let attempts = step.attempts - step.forgiven;
            let why = step.evidence.clone();
            return self.wait(at, WaitingOn::BackOff { attempts, why });
        }
        for before in self.run.after[at].clone() {
            if let Some(waiting) = self.shut(before) {
                self.lapsing.insert(before);
                return self.wait(at, waiting);
            }
        }
        if let Some(lane) = self.run.lane_of[at] {
            let now = &mut self.out.lanes[lane];
            if now.room() == 0 {
                let waiting = WaitingOn::LaneFull {
                    lane: self.run.lanes[lane].lane.clone(),
                    in_flight: now.in_flight,
                    window: now.pace.window,
                };
                return self.wait(at, waiting);
            }
            now.in_flight += 1;
        }
        self.todo(at, Todo::Dispatch);
    }

    fn release_started(&mut self, at: usize, node: &NodeName) {
        let stand = self.stand(node);
        let step = &self.run.steps[at];
        let clock = &mut self.out.clocks[at];
        let dispatched = *clock.dispatched.get_or_insert(self.c.now);
        clock.seen_away |= stand.is_away();
        if let Stand::KubeletHealthy(gate) | Stand::ApiServerReady(gate) = stand {
            return self.todo(at, Todo::Done(runs(node, gate)));
        }
        if let Some(heard) = &step.heard
            && let Some(why) = self.in_vain(node, heard)
        {
            if step.attempts - step.forgiven >= ATTEMPTS {
                self.give_up(at, format!("{ATTEMPTS} attempts failed, the last: {why}"));
            } else {
                self.todo(at, Todo::Retry(why));
            }
            return;
        }
        // Nobody can say that it arrived, and by now perhaps nothing of what it was dispatched on is left.
        if stand == Stand::Held && step.heard.is_none() && self.is_shut_before(at) {
            self.out.clocks[at].dispatched = Some(self.c.now);
            return;
        }
        let deadline = self.c.policy.release_deadline;
        if self.reached(dispatched + deadline) {
            return self.give_up(
                at,
                format!("{node} was released and is not healthy after {deadline:?}: {stand}"),
            );
        }
        let node = node.clone();
        match stand {
            Stand::Held => {
                let due = step.clock.sent.map(|sent| sent + RESEND_AFTER);
                if step.heard.is_none() && due.is_none_or(|due| self.reached(due)) {
                    self.out.todo.push((at, Todo::Resend));
                }
                let command_id = step.command_id.clone().unwrap_or_default();
                self.wait(at, WaitingOn::Answer { node, command_id });
            }
            Stand::NotBack(_) | Stand::Stale => self.wait(at, WaitingOn::NodeNotBack { node, stand }),
            Stand::KubeletNotHealthy(_) | Stand::KubeletHealthy(_) | Stand::ApiServerReady(_) => {
                self.wait(at, WaitingOn::KubeletNotHealthy { node });
            }
        }
    }

    /// Has a gate before a begun step lost its evidence? Then it waits for that, and its command is not sent again.
    fn is_shut_before(&mut self, at: usize) -> bool {
        for before in self.run.after[at].clone() {
            if !self.run.steps[before].phase.is_settled() {
                self.out.root[at] = self.out.root[before];
                self.wait(at, WaitingOn::Step(self.run.plan.steps[before].id.clone()));
                return true;
            }
            if let Some(waiting) = self.shut(before) {
                if self.run.state != RunState::Paused {
                    self.lapsing.insert(before);
                }
                self.wait(at, waiting);
                return true;
            }
        }
        false
    }

    /// Why an answered command has to be followed by another; `None`: it need not, so far.
    fn in_vain(&self, node: &NodeName, heard: &super::record::Heard) -> Option<String> {
        match heard.answer {
            Answer::Failed => Some(format!("{node} answered failed: {}", heard.detail)),
            Answer::Refused => Some(format!("{node} refused: {}", heard.detail)),
            // Whether that supersedes the executor is for the driver to say.
            Answer::RefusedEpoch => Some(format!("{node} refused the epoch: {}", heard.detail)),
            Answer::Done => {
                // A ledger answers for a boot that is over: the gate of this one was not opened.
                let word = self.c.view.nodes.get(node)?.attestation.as_ref()?;
                (word.gate == GateState::Held && word.observed_at > heard.at + SLACK)
                    .then(|| format!("{node} answered done and is held: it has booted since"))
            }
        }
    }

    fn release_settled(&mut self, at: usize, node: &NodeName, paused: bool) {
        let residue = self.run.steps[at].phase == Phase::Residue;
        match self.stand(node) {
            Stand::KubeletHealthy(gate) | Stand::ApiServerReady(gate) => {
                if residue {
                    self.todo(at, Todo::Done(format!("late: {}", runs(node, gate))));
                }
            }
            // Given up in this same boot, it was tried often enough.
            Stand::Held => {
                if !paused && (!residue || self.run.steps[at].clock.seen_away) {
                    self.todo(at, Todo::Reopen(format!("{node} is back and held")));
                }
            }
            Stand::NotBack(_) | Stand::Stale => self.out.clocks[at].seen_away = true,
            Stand::KubeletNotHealthy(_) => {}
        }
    }

    fn gate_open(&mut self, at: usize) {
        let stall = self.stall(at);
        let turn = *self.out.clocks[at].turn.get_or_insert(self.c.now);
        // Who has to be asked is not late.
        let turn = if stall.is_some_and(|stall| stall.run.is_some()) {
            self.out.clocks[at].turn = Some(self.c.now);
            self.c.now
        } else {
            turn
        };
        let deadline = self.run.plan.steps[at].deadline;
        let missing = self
            .missing(at)
            .map(Tally::waiting_on)
            .map(|waiting| match stall {
                Some(stall) => waiting.because(&stall.words),
                None => waiting,
            });
        match missing {
            None => {
                let evidence = self.tallies.get(&at).map(Tally::evidence).unwrap_or_default();
                self.todo(at, Todo::Done(evidence));
            }
            Some(missing) if self.reached(turn + deadline) => {
                self.give_up(at, format!("not passed within {deadline:?}: {missing}"));
            }
            Some(missing) => self.wait(at, missing),
        }
    }

    /// What keeps the control plane of a gate down.
    fn stall(&self, at: usize) -> Option<&'a Stall> {
        match &self.run.plan.steps[at].kind {
            StepKind::ControlPlaneGate { cluster, .. } => self.c.stalls.get(cluster),
            StepKind::ServingGate { .. }
            | StepKind::KubeletsGate { .. }
            | StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::VerifyCluster { .. } => None,
        }
    }

    fn verify(&mut self, at: usize) {
        let (mut released, mut residue) = (0, Vec::new());
        for before in &self.run.after[at] {
            if let Some(node) = self.run.plan.steps[*before].kind.releases() {
                if self.run.steps[*before].phase == Phase::Residue {
                    residue.push(node);
                } else {
                    released += 1;
                }
            }
        }
        let of = released + residue.len();
        let named: Vec<_> = residue.iter().take(NAMED).map(ToString::to_string).collect();
        let evidence = match residue.len() {
            0 => format!("all {of} nodes attest a healthy kubelet"),
            count => format!(
                "{released} of {of} nodes attest a healthy kubelet; residue: {}{}",
                named.join(", "),
                if count > NAMED {
                    format!(" and {} more", count - NAMED)
                } else {
                    String::new()
                }
            ),
        };
        self.todo(at, Todo::Done(evidence));
    }

    /// What keeps a step shut that comes after this one, which is settled: evidence that is gone since.
    fn shut(&mut self, before: usize) -> Option<WaitingOn> {
        match &self.run.plan.steps[before].kind {
            StepKind::HoldManifest { node, component } => self.in_place(before, node, *component),
            StepKind::ControlPlaneGate { .. }
            | StepKind::ServingGate { .. }
            | StepKind::KubeletsGate { .. } => self.missing(before).map(Tally::waiting_on),
            StepKind::ReleaseKubelet { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::VerifyCluster { .. } => None,
        }
    }

    /// The tally that keeps a gate shut; `None` if there is none, or the step is no gate.
    fn missing(&mut self, at: usize) -> Option<&Tally> {
        let given_up = self.run.steps[at].phase == Phase::Residue;
        match &self.run.plan.steps[at].kind {
            StepKind::KubeletsGate { .. } if given_up => None,
            StepKind::KubeletsGate { .. } => self.kubelets_missing(at),
            StepKind::ServingGate { cluster, .. } => {
                let cluster = cluster.clone();
                self.behind_control_plane(at, &cluster)
            }
            StepKind::ControlPlaneGate { .. }
            | StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::VerifyCluster { .. } => self.tally(at).filter(|tally| !tally.passes()),
        }
    }

    fn kubelets_missing(&mut self, at: usize) -> Option<&Tally> {
        let cluster = self.run.plan.steps[at].kind.cluster()?.clone();
        // What it shows is counted in either case.
        self.tally(at)?;
        self.behind_control_plane(at, &cluster)
    }

    /// What keeps a gate shut that takes a control plane as well.
    fn behind_control_plane(&mut self, at: usize, cluster: &ClusterName) -> Option<&Tally> {
        if let Some(control_plane) = self.run.control_planes.get(cluster).copied()
            && !self.tally(control_plane)?.passes()
        {
            return self.tallies.get(&control_plane);
        }
        self.tally(at).filter(|tally| !tally.passes())
    }

    fn tally(&mut self, at: usize) -> Option<&Tally> {
        let (run, c) = (self.run, self.c);
        let how = |node: &NodeName| stand(c.view, node, c.now, c.policy.fresh);
        let tally = self.tallies.entry(at);
        let count = |of, cluster, quorum, candidates: &[NodeName]| {
            Some(&*tally.or_insert_with(|| Tally::count(of, cluster, quorum, candidates, how)))
        };
        match &run.plan.steps[at].kind {
            StepKind::ControlPlaneGate {
                cluster,
                masters,
                quorum,
            } => count(Of::Masters, cluster, *quorum, masters),
            StepKind::ServingGate {
                cluster,
                workers,
                quorum,
            } => count(Of::Workers, cluster, *quorum, workers),
            StepKind::KubeletsGate {
                cluster,
                nodes,
                share,
            } => {
                let expected: Vec<_> = nodes
                    .iter()
                    .filter(|node| !run.is_given_up(node))
                    .cloned()
                    .collect();
                let quorum = (expected.len() * *share as usize).div_ceil(100);
                count(Of::Kubelets, cluster, quorum, &expected)
            }
            StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::VerifyCluster { .. } => None,
        }
    }

    /// Opens gates again whose evidence has been gone for longer than one late report explains.
    fn lapsed_gates(&mut self) {
        for at in 0..self.run.steps.len() {
            if !self.lapsing.contains(&at) {
                self.out.clocks[at].lapsed_since = None;
                continue;
            }
            let since = *self.out.clocks[at].lapsed_since.get_or_insert(self.c.now);
            if self.reached(since + self.c.policy.fresh)
                && let Some(missing) = self.missing(at).map(Tally::waiting_on)
            {
                self.todo(at, Todo::Reopen(format!("its evidence is gone: {missing}")));
            }
        }
    }

    fn stand(&self, node: &NodeName) -> Stand {
        stand(self.c.view, node, self.c.now, self.c.policy.fresh)
    }

    fn todo(&mut self, at: usize, todo: Todo) {
        self.out.todo.push((at, todo));
    }

    fn wait(&mut self, at: usize, on: WaitingOn) {
        self.out.waiting[at] = Some(on);
    }

    fn give_up(&mut self, at: usize, why: String) {
        let todo = match self.run.plan.steps[at].on_failure {
            OnFailure::Residue => Todo::Residue(why),
            OnFailure::Halt => Todo::Failed(why),
        };
        self.todo(at, todo);
    }

    /// Has this time come? If not, the pass is repeated when it does.
    fn reached(&mut self, at: Instant) -> bool {
        let reached = self.c.now >= at;
        if !reached {
            self.out.wake = Some(self.out.wake.map_or(at, |wake| wake.min(at)));
        }
        reached
    }
}

/// Each budget, by what is known now of the API server behind it.
fn lanes(run: &Run, c: Circumstances<'_>) -> Vec<LaneNow> {
    let lane = |lane: &Window| {
        let in_flight = c.in_flight.get(&lane.lane).copied().unwrap_or(0);
        let heard = lane.gate.and_then(|gate| feedback(run, gate, c));
        let pace = lane.pace.hear(heard, in_flight, lane.max, c.now, &c.policy.wave);
        LaneNow { pace, in_flight }
    };
    run.lanes.iter().map(lane).collect()
}

/// What is believed of the API server behind a control-plane gate; nothing that is older than evidence may be.
fn feedback(run: &Run, gate: usize, c: Circumstances<'_>) -> Option<Feedback> {
    let StepKind::ControlPlaneGate { cluster, masters, .. } = &run.plan.steps[gate].kind else {
        return None;
    };
    let fresh = |word: &Feedback| c.now.saturating_duration_since(word.at) <= c.policy.fresh;
    let attested = masters.iter().filter_map(|master| {
        let node = c.view.nodes.get(master).filter(|node| node.in_session)?;
        let word = node.attestation.as_ref()?;
        Some(Feedback {
            answer: word.apiserver?,
            at: word.observed_at,
        })
    });
    let own = c.feedback.get(cluster).copied().filter(fresh);
    pace::worse(own, pace::median(attested.filter(fresh)))
}

/// The steps that an active run can never reach unless an operator speaks: those behind a failed one.
pub fn is_stuck(run: &Run, advance: &Advance, at: usize) -> bool {
    advance
        .root
        .get(at)
        .is_some_and(|root| run.steps[*root].phase == Phase::Failed)
}

fn runs(node: &NodeName, gate: GateState) -> String {
    format!(
        "{node} attests a healthy kubelet; its gate is {}",
        gate_word(gate)
    )
}

const fn gate_word(gate: GateState) -> &'static str {
    match gate {
        GateState::Absent => "absent",
        GateState::Held => "held",
        GateState::Released => "released",
        GateState::Passed => "passed",
        GateState::DeadMan => "opened by its dead-man time",
    }
}

/// What a step waits on in the end, with the name of the step before it that does.
pub fn root_cause(run: &Run, advance: &Advance, at: usize) -> Option<String> {
    let root = *advance.root.get(at)?;
    let waiting = advance.waiting.get(root)?.as_ref()?;
    let id: &StepId = &run.plan.steps[root].id;
    Some(if root == at {
        waiting.to_string()
    } else {
        format!("{id}: {waiting}")
    })
}
