//! A run as its journal tells it, and the times and answers that only this process knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::journal::{Entry, Event};
use super::pace::Pace;
use super::state::{IllegalEvent, Phase, State, next_status};
use super::status::RunState;
use crate::fleet::Answer;
use crate::inventory::{ClusterName, NodeName};
use crate::plan::{LaneId, Plan, StepId, StepKind};

/// Why a journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[error(
    "replay entry {index} of the journal of run {run}: {why}; it was written by another version or is damaged: \
     start the version that wrote it, or restore the store from a backup"
)]
pub struct JournalError {
    /// Whose journal.
    pub run: String,
    /// Which entry, counted from 0.
    pub index: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What it carries out.
    pub plan: Arc<Plan>,
    /// Why it was begun.
    pub reason: String,
    /// The epoch of the executor that began it.
    pub epoch: u64,
    /// The name of the command that began it.
    pub request: Option<String>,
    /// How it stands.
    pub state: RunState,
    /// Wall clock at its beginning, milliseconds since the Unix epoch; for people.
    pub started_unix_ms: u64,
    /// So many entries its journal has.
    pub entries: u64,
    /// How far each step of the plan is.
    pub steps: Vec<Progress>,
    /// For each step the places of those it comes after.
    pub after: Vec<Vec<usize>>,
    /// The budgets, in the plan's order.
    pub lanes: Vec<Window>,
    /// For each step the place of its budget.
    pub lane_of: Vec<Option<usize>>,
    /// Where each cluster's control-plane gate is.
    pub control_planes: HashMap<ClusterName, usize>,
    index: HashMap<StepId, usize>,
    nodes: HashMap<NodeName, usize>,
    /// At work before `since`.
    worked: Duration,
    since: Instant,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How it stands.
    pub phase: Phase,
    /// How often it was dispatched.
    pub attempts: u32,
    /// How many of these were before it was last opened: they are not held against it.
    pub forgiven: u32,
    /// The command of the last attempt.
    pub command_id: Option<String>,
    /// What it passed on, or why it ended or failed.
    pub evidence: String,
    /// When it was first dispatched, in milliseconds of the run.
    pub started_ms: Option<u64>,
    /// When it ended, in milliseconds of the run.
    pub ended_ms: Option<u64>,
    /// Times that only this process knows.
    pub clock: Clock,
    /// The answer to the last attempt, if this process heard one.
    pub heard: Option<Heard>,
}

/// Times of a step. Forgotten when it changes, when its run is paused or resumed, and in a crash: deadlines start anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// A gate: since when it is looked at.
    pub turn: Option<Instant>,
    /// A gate that passed: since when its evidence is gone while something behind it needs it.
    pub lapsed_since: Option<Instant>,
    /// Since when the node's return is waited for. Runs on while the node comes and goes without ever being well.
    pub away_since: Option<Instant>,
    /// Since when the kubelet, which may run, is not healthy.
    pub unwell_since: Option<Instant>,
    /// The node was away since its last command, or so much may have happened since: residue that is held is taken up again.
    pub seen_away: bool,
    /// When this process first saw the command as dispatched.
    pub dispatched: Option<Instant>,
    /// When this process last sent the command.
    pub sent: Option<Instant>,
    /// Not to be tried again before this.
    pub retry_at: Option<Instant>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What.
    pub answer: Answer,
    /// For people.
    pub detail: String,
    /// When.
    pub at: Instant,
}

/// A budget as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its name.
    pub lane: LaneId,
    /// How many at once, and why.
    pub pace: Pace,
    /// How many at most.
    pub max: usize,
    /// Where the gate is of the control plane that all in this lane lean on.
    pub gate: Option<usize>,
    initial: usize,
}

impl Run {
    /// A run as its first entry tells it; `None` if that is not the beginning of one.
    pub fn begin(id: String, entry: Entry, now: Instant) -> Option<Self> {
        let Event::RunStarted {
            plan,
            reason,
            epoch,
            request,
        } = entry.event
        else {
            return None;
        };
        let index: HashMap<_, _> = plan
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| (step.id.clone(), at))
            .collect();
        let place = |id: &StepId| index.get(id).copied();
        let after: Vec<Vec<usize>> = plan
            .steps
            .iter()
            .map(|step| step.after.iter().filter_map(place).collect())
            .collect();
        let lane_of: Vec<Option<usize>> = plan
            .steps
            .iter()
            .map(|step| {
                plan.lanes
                    .iter()
                    .position(|lane| Some(&lane.id) == step.lane.as_ref())
            })
            .collect();
        let mut lanes: Vec<_> = plan
            .lanes
            .iter()
            .map(|lane| Window {
                lane: lane.id.clone(),
                pace: Pace::new(lane.initial),
                max: lane.max,
                gate: None,
                initial: lane.initial,
            })
            .collect();
        for (before, lane) in after.iter().zip(&lane_of) {
            let gate = |at: &&usize| matches!(plan.steps[**at].kind, StepKind::ControlPlaneGate { .. });
            if let Some(lane) = lane.and_then(|lane: usize| lanes.get_mut(lane)) {
                lane.gate = lane.gate.or_else(|| before.iter().find(gate).copied());
            }
        }
        let nodes = plan.steps.iter().enumerate();
        let nodes = nodes
            .filter_map(|(at, step)| Some((step.kind.node()?.clone(), at)))
            .collect();
        let mut control_planes = HashMap::new();
        for (at, step) in plan.steps.iter().enumerate() {
            if let StepKind::ControlPlaneGate { cluster, .. } = &step.kind {
                control_planes.insert(cluster.clone(), at);
            }
        }
        let step = Progress {
            phase: Phase::Open,
            attempts: 0,
            forgiven: 0,
            command_id: None,
            evidence: String::new(),
            started_ms: None,
            ended_ms: None,
            clock: Clock::default(),
            heard: None,
        };
        Some(Self {
            id,
            steps: vec![step; plan.steps.len()],
            plan: Arc::new(plan),
            reason,
            epoch,
            request,
            state: RunState::Running,
            started_unix_ms: entry.at_unix_ms,
            entries: 1,
            after,
            lanes,
            lane_of,
            control_planes,
            index,
            nodes,
            worked: Duration::ZERO,
            since: now,
        })
    }

    /// A run as its whole journal tells it.
    ///
    /// # Errors
    /// An entry cannot be understood, or does not fit those before it.
    pub fn replay(id: &str, journal: &[Vec<u8>], now: Instant) -> Result<Self, JournalError> {
        let failed = |index: usize, why: String| JournalError {
            run: id.to_owned(),
            index: index as u64,
            why,
        };
        let mut run: Option<Self> = None;
        for (index, entry) in journal.iter().enumerate() {
            let entry: Entry =
                serde_json::from_slice(entry).map_err(|error| failed(index, error.to_string()))?;
            let elapsed = Duration::from_millis(entry.elapsed_ms);
            match &mut run {
                None => run = Self::begin(id.to_owned(), entry, now),
                Some(run) => run
                    .apply(&entry, now)
                    .map_err(|error| failed(index, error.to_string()))?,
            }
            if let Some(run) = &mut run {
                run.worked = elapsed;
            }
        }
        let mut run = run.ok_or_else(|| failed(0, "it does not begin with the start of a run".to_owned()))?;
        for step in &mut run.steps {
            step.clock = Clock {
                // Nobody knows what happened meanwhile, so residue that is back and held gets another chance.
                seen_away: true,
                ..Clock::default()
            };
            step.heard = None;
        }
        // How the API servers answered those that were released then says nothing of now.
        for lane in &mut run.lanes {
            lane.pace = Pace::new(lane.initial);
        }
        Ok(run)
    }

    /// Would these events fit, one after the other?
    ///
    /// # Errors
    /// The first that would not.
    pub fn check<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Result<(), IllegalEvent> {
        let mut run = self.state;
        let mut moved = HashMap::new();
        for event in events {
            let next = self.next(event, run, &moved)?;
            for (at, next) in next {
                run = next.run;
                moved.insert(at, next.step);
            }
        }
        Ok(())
    }

    /// Takes an entry in. The run is as it was if the entry does not fit.
    ///
    /// # Errors
    /// It does not fit how the run stands.
    pub fn apply(&mut self, entry: &Entry, now: Instant) -> Result<(), IllegalEvent> {
        for (at, next) in self.next(&entry.event, self.state, &HashMap::new())? {
            let before = self.steps[at].phase;
            self.state = next.run;
            self.move_step(at, next.step, entry, now);
            if entry.event.step().is_some() {
                self.move_window(at, before, &entry.event);
            }
        }
        if !self.state.is_active() {
            self.worked = Duration::from_millis(entry.elapsed_ms);
        }
        self.entries += 1;
        Ok(())
    }

    /// Where an event moves which steps of a run that is in state `run`, and some steps of which have `moved` already.
    fn next(
        &self,
        event: &Event,
        run: RunState,
        moved: &HashMap<usize, Phase>,
    ) -> Result<Vec<(usize, State)>, IllegalEvent> {
        let state = |at: usize| State {
            run,
            step: moved.get(&at).copied().unwrap_or(self.steps[at].phase),
        };
        let Some(id) = event.step() else {
            let all = 0..self.steps.len();
            return all.map(|at| Ok((at, next_status(state(at), event)?))).collect();
        };
        let at = self.place(id).ok_or(IllegalEvent {
            state: State {
                run,
                step: Phase::Cancelled,
            },
            event: event.name(),
        })?;
        Ok(vec![(at, next_status(state(at), event)?)])
    }

    fn move_step(&mut self, at: usize, next: Phase, entry: &Entry, now: Instant) {
        let step = &mut self.steps[at];
        let before = std::mem::replace(&mut step.phase, next);
        match &entry.event {
            Event::StepStarted {
                command_id, attempt, ..
            } => {
                step.attempts = *attempt;
                step.command_id = Some(command_id.clone());
                step.started_ms.get_or_insert(entry.elapsed_ms);
                step.heard = None;
                step.clock = Clock {
                    dispatched: Some(now),
                    ..Clock::default()
                };
            }
            Event::AttemptFailed { why, .. } => {
                step.evidence.clone_from(why);
                step.heard = None;
                step.clock = Clock::default();
            }
            Event::StepDone { evidence: why, .. }
            | Event::StepResidue { why, .. }
            | Event::StepFailed { why, .. } => {
                step.evidence.clone_from(why);
                step.ended_ms = Some(entry.elapsed_ms);
                step.heard = None;
                step.clock = Clock {
                    seen_away: step.clock.seen_away,
                    ..Clock::default()
                };
            }
            Event::StepReopened { why, .. } => {
                step.evidence.clone_from(why);
                step.ended_ms = None;
                step.forgiven = step.attempts;
                step.clock = Clock::default();
            }
            Event::Paused | Event::Unpaused if next == Phase::Open => {
                if before == Phase::Failed {
                    step.ended_ms = None;
                }
                if matches!(entry.event, Event::Unpaused) {
                    step.forgiven = step.attempts;
                }
                step.clock = Clock::default();
            }
            // An operator's word gives residue that is back and held another chance.
            Event::Unpaused if next == Phase::Residue => step.clock.seen_away = true,
            Event::RunStarted { .. }
            | Event::Resumed { .. }
            | Event::Paused
            | Event::Unpaused
            | Event::Aborted { .. }
            | Event::RunEnded => {}
        }
    }

    fn move_window(&mut self, at: usize, before: Phase, event: &Event) {
        if matches!(event, Event::StepReopened { .. }) {
            for lane in self.lanes.iter_mut().filter(|lane| lane.gate == Some(at)) {
                lane.pace = Pace::new(lane.initial);
            }
        }
        let Some(lane) = self.lane_of[at].filter(|_| before == Phase::Started) else {
            return;
        };
        let window = &mut self.lanes[lane];
        match event {
            Event::StepDone { .. } => window.pace.came_up(window.max),
            Event::AttemptFailed { .. } | Event::StepResidue { .. } | Event::StepFailed { .. } => {
                window.pace.failed();
            }
            Event::RunStarted { .. }
            | Event::Resumed { .. }
            | Event::StepStarted { .. }
            | Event::StepReopened { .. }
            | Event::Paused
            | Event::Unpaused
            | Event::Aborted { .. }
            | Event::RunEnded => {}
        }
    }

    /// Where a step is in the plan.
    pub fn place(&self, step: &StepId) -> Option<usize> {
        self.index.get(step).copied()
    }

    /// Where the release of a node is in the plan.
    pub fn place_of(&self, node: &NodeName) -> Option<usize> {
        self.nodes.get(node).copied()
    }

    /// How long it was at work, until now or its end. Times when no coordinator was alive are not counted.
    pub fn elapsed(&self, now: Instant) -> Duration {
        if self.state.is_active() {
            self.worked + now.saturating_duration_since(self.since)
        } else {
            self.worked
        }
    }

    /// The name of a step's next command. It carries the epoch that the run began in: a coordinator whose store was lost or
    /// restored counts its runs anew, and an agent answers a name that it knows from its ledger instead of obeying.
    pub fn next_command(&self, at: usize) -> (String, u32) {
        let attempt = self.steps[at].attempts + 1;
        (
            format!("{}/{}/{attempt}@{}", self.id, self.plan.steps[at].id, self.epoch),
            attempt,
        )
    }
}
