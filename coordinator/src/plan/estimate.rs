//! How long a plan is going to take, and which of its steps make it so. Pure.
//!
//! The plan is played through in thought: every node comes back after its typical time, every kubelet is healthy after its, every API server answers
//! well, so that windows open as fast as they may. What actually holds a run up is not known; the estimate says what the fleet would need if
//! nothing did.
//!
//! The critical path goes backwards from the last step: to the step whose end let it begin. For a worker that waited for room in its lane, that is
//! the one that made room; for a gate, the node that completed its quorum.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::{LaneId, Plan, StepId, StepKind};
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, NodeName};
use crate::policy::{Typical, WavePolicy};

/// What a plan is going to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimate {
    /// From its beginning to its end.
    pub makespan: Duration,
    /// The steps that make it take so long, first to last.
    pub critical_path: Vec<StepId>,
    /// For each cluster whose workers are released: how long after its controllers may act the last of them is ready.
    pub dark: Vec<(ClusterName, Duration)>,
}

/// Kubernetes' defaults: a node whose lease is older than the grace period (50 s; 40 s before 1.32) is not ready, and its pods tolerate
/// that for 300 s.
const TOLERATED_DARK: Duration = Duration::from_secs(350);

impl Estimate {
    /// What a person should know of it before approving the plan.
    pub fn notes(&self) -> Vec<String> {
        let long = self.dark.iter().filter(|(_, dark)| *dark > TOLERATED_DARK);
        long.map(|(cluster, dark)| {
            format!(
                "{cluster}: its last worker is ready about {} s after its controller manager acts; {} s after that Kubernetes begins to evict \
                 the pods of nodes that are still dark, onto those that are not. A larger cold_start.wave.max is quicker, and goes no \
                 further than the API server answers well; with cold_start.set_aside the controller manager acts later",
                dark.as_secs(),
                TOLERATED_DARK.as_secs()
            )
        })
        .collect()
    }
}

/// Plays `plan` through for a fleet that stands as `view` says.
pub fn estimate(plan: &Plan, view: &FleetView, typical: &Typical, wave: &WavePolicy) -> Estimate {
    let mut rehearsal = Rehearsal::new(plan, view, typical, wave);
    rehearsal.run();
    rehearsal.told()
}

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// A step ends.
    Ends(usize),
    /// A node is back, so that its step may begin.
    IsBack(usize),
    /// A lane has been used for an interval.
    Interval(usize),
}

struct LaneAt {
    window: usize,
    max: usize,
    in_flight: usize,
    queue: VecDeque<usize>,
    /// An interval runs.
    timed: bool,
    /// The step that last made room.
    room: Option<usize>,
}

struct Rehearsal<'a> {
    plan: &'a Plan,
    typical: &'a Typical,
    wave: &'a WavePolicy,
    /// For each step when its node is there: `None`, it has all it needs already.
    back: Vec<Option<Duration>>,
    /// For each step the steps that wait for its end.
    behind: Vec<Vec<usize>>,
    /// For each step how many ends it waits for before it may begin.
    waits: Vec<usize>,
    /// For each gate how many of its candidates have to end before it does.
    lacks: Vec<usize>,
    /// For each step the gates that count it.
    counted: Vec<Vec<usize>>,
    /// For each step whether all that it comes after has ended.
    turn: Vec<bool>,
    lane_of: Vec<Option<usize>>,
    lanes: Vec<LaneAt>,
    ended: Vec<Option<Duration>>,
    /// The step whose end let this one begin, or end.
    cause: Vec<Option<usize>>,
    coming: BinaryHeap<Reverse<(Duration, Happening)>>,
}

impl<'a> Rehearsal<'a> {
    fn new(plan: &'a Plan, view: &FleetView, typical: &'a Typical, wave: &'a WavePolicy) -> Self {
        let steps = &plan.steps;
        let index: HashMap<&StepId, usize> = steps
            .iter()
            .enumerate()
            .map(|(at, step)| (&step.id, at))
            .collect();
        let nodes: HashMap<&NodeName, usize> = steps
            .iter()
            .enumerate()
            .filter_map(|(at, step)| Some((step.kind.releases()?, at)))
            .collect();
        let lanes: HashMap<&LaneId, usize> = plan
            .lanes
            .iter()
            .enumerate()
            .map(|(at, lane)| (&lane.id, at))
            .collect();
        let mut behind = vec![Vec::new(); steps.len()];
        let mut counted = vec![Vec::new(); steps.len()];
        let (mut waits, mut lacks) = (vec![0; steps.len()], vec![0; steps.len()]);
        for (at, step) in steps.iter().enumerate() {
            for before in step.after.iter().filter_map(|id| index.get(id)) {
                behind[*before].push(at);
                waits[at] += 1;
            }
            let (candidates, quorum) = match &step.kind {
                StepKind::ControlPlaneGate { masters, quorum, .. } => (masters, *quorum),
                StepKind::ServingGate { workers, quorum, .. } => (workers, *quorum),
                StepKind::KubeletsGate { nodes, share, .. } => {
                    (nodes, (nodes.len() * *share as usize).div_ceil(100))
                }
                StepKind::ReleaseKubelet { .. }
                | StepKind::HoldManifest { .. }
                | StepKind::ReleaseManifest { .. }
                | StepKind::VerifyCluster { .. } => continue,
            };
            let ours: Vec<_> = candidates.iter().filter_map(|node| nodes.get(node)).collect();
            // Those that this plan does not release are taken to stand.
            lacks[at] = quorum.saturating_sub(candidates.len() - ours.len());
            for candidate in ours {
                counted[*candidate].push(at);
            }
        }
        let back = steps.iter().map(|step| {
            let phase = view
                .nodes
                .get(step.kind.node()?)
                .map_or(Phase::Unknown, |node| node.phase);
            match phase {
                Phase::Ready => None,
                Phase::NotReady | Phase::Held => Some(Duration::ZERO),
                Phase::Unknown | Phase::Silent | Phase::Stopped => Some(typical.node_return),
            }
        });
        Self {
            plan,
            typical,
            wave,
            back: back.collect(),
            behind,
            waits,
            lacks,
            counted,
            turn: vec![false; steps.len()],
            lane_of: steps
                .iter()
                .map(|step| lanes.get(step.lane.as_ref()?).copied())
                .collect(),
            lanes: plan
                .lanes
                .iter()
                .map(|lane| LaneAt {
                    window: lane.initial,
                    max: lane.max,
                    in_flight: 0,
                    queue: VecDeque::new(),
                    timed: false,
                    room: None,
                })
                .collect(),
            ended: vec![None; steps.len()],
            cause: vec![None; steps.len()],
            coming: BinaryHeap::new(),
        }
    }

    fn run(&mut self) {
        for at in 0..self.plan.steps.len() {
            if self.waits[at] == 0 {
                self.its_turn(at, Duration::ZERO);
            }
        }
        while let Some(Reverse((now, happening))) = self.coming.pop() {
            match happening {
                Happening::IsBack(at) => self.begin(at, now),
                Happening::Ends(at) => self.end(at, now),
                Happening::Interval(lane) => self.interval(lane, now),
            }
        }
    }

    fn come(&mut self, at: Duration, happening: Happening) {
        self.coming.push(Reverse((at, happening)));
    }

    /// All that it comes after has ended.
    fn its_turn(&mut self, at: usize, now: Duration) {
        self.turn[at] = true;
        match &self.plan.steps[at].kind {
            StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. } => match self.back[at] {
                None => self.come(now, Happening::Ends(at)),
                Some(back) if back > now => {
                    // What it waits for in the end is its machine.
                    self.cause[at] = None;
                    self.come(back, Happening::IsBack(at));
                }
                Some(_) => self.begin(at, now),
            },
            StepKind::ControlPlaneGate { .. }
            | StepKind::ServingGate { .. }
            | StepKind::KubeletsGate { .. } => {
                self.perhaps_pass(at, now);
            }
            StepKind::VerifyCluster { .. } => self.come(now, Happening::Ends(at)),
        }
    }

    /// A gate whose turn has come passes with the last of its quorum.
    fn perhaps_pass(&mut self, gate: usize, now: Duration) {
        if self.turn[gate] && self.lacks[gate] == 0 {
            self.lacks[gate] = usize::MAX;
            let takes = match &self.plan.steps[gate].kind {
                // What stands already needs no time to come up.
                StepKind::ControlPlaneGate { .. }
                    if self.cause[gate].is_some_and(|at| self.back[at].is_some()) =>
                {
                    self.typical.control_plane
                }
                StepKind::ControlPlaneGate { .. }
                | StepKind::ServingGate { .. }
                | StepKind::KubeletsGate { .. }
                | StepKind::ReleaseKubelet { .. }
                | StepKind::HoldManifest { .. }
                | StepKind::ReleaseManifest { .. }
                | StepKind::VerifyCluster { .. } => Duration::ZERO,
            };
            self.come(now + takes, Happening::Ends(gate));
        }
    }

    /// A step whose node is there.
    fn begin(&mut self, at: usize, now: Duration) {
        if self.plan.steps[at].kind.releases().is_none() {
            // A file is moved in no time that counts.
            return self.come(now, Happening::Ends(at));
        }
        match self.lane_of[at] {
            None => self.come(now + self.typical.kubelet, Happening::Ends(at)),
            Some(lane) => {
                self.lanes[lane].queue.push_back(at);
                self.fill(lane, now);
            }
        }
    }

    /// Lets as many of a lane begin as it has room for.
    fn fill(&mut self, lane: usize, now: Duration) {
        loop {
            let it = &mut self.lanes[lane];
            if it.in_flight >= it.window {
                break;
            }
            let Some(at) = it.queue.pop_front() else { break };
            it.in_flight += 1;
            if let Some(room) = it.room {
                self.cause[at] = Some(room);
            }
            self.come(now + self.typical.kubelet, Happening::Ends(at));
        }
        let it = &mut self.lanes[lane];
        if it.in_flight >= it.window && it.window < it.max && !it.timed {
            it.timed = true;
            self.come(now + self.wave.interval, Happening::Interval(lane));
        }
    }

    fn interval(&mut self, lane: usize, now: Duration) {
        let it = &mut self.lanes[lane];
        it.timed = false;
        if it.in_flight >= it.window {
            it.window = it.window.saturating_add(self.wave.increase).min(it.max);
            // Room that a window makes follows from nothing that ended just now.
            self.fill(lane, now);
        }
    }

    fn end(&mut self, at: usize, now: Duration) {
        if self.ended[at].is_some() {
            return;
        }
        self.ended[at] = Some(now);
        for gate in std::mem::take(&mut self.counted[at]) {
            if self.lacks[gate] != usize::MAX && self.lacks[gate] > 0 {
                self.lacks[gate] -= 1;
                if self.lacks[gate] == 0 {
                    self.cause[gate] = Some(at);
                }
                self.perhaps_pass(gate, now);
            }
        }
        for next in std::mem::take(&mut self.behind[at]) {
            self.waits[next] -= 1;
            if self.waits[next] == 0 {
                // The evidence of a gate may have been there before its turn.
                self.cause[next] = Some(at);
                self.its_turn(next, now);
            }
        }
        if let Some(lane) = self.lane_of[at].filter(|_| self.back[at].is_some()) {
            let it = &mut self.lanes[lane];
            it.in_flight = it.in_flight.saturating_sub(1);
            it.room = Some(at);
            self.fill(lane, now);
        }
    }

    fn dark(&self) -> Vec<(ClusterName, Duration)> {
        let mut up = HashMap::new();
        let mut last: Vec<(LaneId, Duration)> = Vec::new();
        for (at, step) in self.plan.steps.iter().enumerate() {
            let Some(ended) = self.ended[at] else { continue };
            match &step.kind {
                StepKind::ControlPlaneGate { cluster, .. } => {
                    up.entry(LaneId::workers(cluster)).or_insert((cluster, ended));
                }
                // Behind it the controllers come back, and at its deadline in any case.
                StepKind::KubeletsGate { cluster, .. } => {
                    if let Some((_, acts)) = up.get_mut(&LaneId::workers(cluster)) {
                        *acts = ended.min(*acts + step.deadline);
                    }
                }
                StepKind::ReleaseKubelet { .. }
                | StepKind::HoldManifest { .. }
                | StepKind::ReleaseManifest { .. }
                | StepKind::ServingGate { .. }
                | StepKind::VerifyCluster { .. } => {}
            }
            let Some(lane) = &step.lane else { continue };
            match last.iter_mut().find(|(known, _)| known == lane) {
                Some((_, latest)) => *latest = (*latest).max(ended),
                None => last.push((lane.clone(), ended)),
            }
        }
        last.iter()
            .filter_map(|(lane, ended)| {
                let (cluster, began) = up.get(lane)?;
                Some(((*cluster).clone(), ended.saturating_sub(*began)))
            })
            .collect()
    }

    fn told(&self) -> Estimate {
        let last = (0..self.plan.steps.len()).max_by_key(|at| self.ended[*at]);
        let makespan = last.and_then(|at| self.ended[at]).unwrap_or_default();
        let mut critical_path = Vec::new();
        let mut next = last;
        while let Some(at) = next.filter(|_| critical_path.len() < self.plan.steps.len()) {
            critical_path.push(self.plan.steps[at].id.clone());
            next = self.cause[at];
        }
        critical_path.reverse();
        Estimate {
            makespan,
            critical_path,
            dark: self.dark(),
        }
    }
}

#[cfg(test)]
mod tests;
