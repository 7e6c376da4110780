//! What the coordinator of a drill was seen to do, look by look, and when there is no more to see.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::history::{RunHistory, StepHistory, UnnamedWait};
use crate::view::{RunDetail, RunState, StepState};

/// The view is looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// What a run leaves undone at its end is waited for this long: somebody may still be at it.
const SETTLE: Duration = Duration::from_secs(3);
/// Nothing begins any more so long after everything has ended well.
const SETTLED: Duration = Duration::from_millis(500);

pub(super) fn ticker() -> tokio::time::Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Is it over? A run that ended, with everything that is back healthy; or one that nobody will bring further.
#[derive(Debug, Default)]
pub(super) struct Settling {
    ended: Option<Instant>,
}

impl Settling {
    pub(super) fn look(&mut self, runs: &[RunDetail], healthy: bool) -> bool {
        let is = |run: &RunDetail, states: &[RunState]| states.contains(&run.run.state);
        let goes_on = |run: &RunDetail| is(run, &[RunState::Running, RunState::Unknown]);
        if runs.is_empty() || runs.iter().any(goes_on) {
            self.ended = None;
            return false;
        }
        let ended = *self.ended.get_or_insert_with(Instant::now);
        // One that halted asks for a person, and there is none.
        let asks = |run: &RunDetail| is(run, &[RunState::Halted, RunState::Paused]);
        let over = healthy || runs.iter().any(asks);
        // Another may begin when one has ended.
        ended.elapsed() > if over { SETTLED } else { SETTLE }
    }
}

/// What the coordinator was seen to do.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Each run as it was last seen, in the order of their beginnings.
    pub(super) runs: Vec<RunDetail>,
    unnamed: BTreeMap<String, Vec<UnnamedWait>>,
    /// When a step of a run was first seen to have ended as it did.
    ended: BTreeMap<(String, String), (StepState, u64)>,
}

impl Seen {
    pub(super) fn take(&mut self, look: RunDetail, at_ms: u64) {
        let unnamed = self.unnamed.entry(look.run.id.clone()).or_default();
        for step in &look.steps {
            let waits = step.state == StepState::Waiting && step.waiting_on.is_none();
            if waits && unnamed.iter().all(|known| known.step != step.plan.id) {
                unnamed.push(UnnamedWait {
                    step: step.plan.id.clone(),
                    at_ms,
                });
            }
        }
        for step in &look.steps {
            let key = (look.run.id.clone(), step.plan.id.clone());
            if !has_ended(step.state) {
                self.ended.remove(&key);
            } else if self.ended.get(&key).is_none_or(|(known, _)| *known != step.state) {
                self.ended.insert(key, (step.state, at_ms));
            }
        }
        match self.runs.iter_mut().find(|run| run.run.id == look.run.id) {
            Some(known) => *known = look,
            None => self.runs.push(look),
        }
    }

    pub(super) fn into_runs(mut self, cut_at: SystemTime) -> Vec<RunHistory> {
        let cut = Timestamp::try_from(cut_at).unwrap_or_default();
        let runs = self.runs.into_iter();
        runs.map(|look| {
            let run = look.run;
            // Both by the wall clock of this one machine.
            let began = run.started_at.unwrap_or(cut).as_millisecond() - cut.as_millisecond();
            let started_ms = u64::try_from(began).unwrap_or(0);
            let ended = &self.ended;
            let steps = look.steps.into_iter().map(|step| StepHistory {
                ended_ms: ended
                    .get(&(run.id.clone(), step.plan.id.clone()))
                    .map(|(_, at)| *at),
                id: step.plan.id,
                node: step.plan.node,
                state: step.state.word().to_owned(),
                said: step.evidence.or(step.waiting_on).unwrap_or_default(),
                is_residue: step.state == StepState::Residue,
            });
            RunHistory {
                succeeded: run.state == RunState::Succeeded,
                aborted: run.state == RunState::Aborted,
                state: run.state.word().to_owned(),
                started_ms,
                took_ms: run.elapsed_ms,
                residue: run.residue,
                steps: steps.collect(),
                waiting_on: run.waiting_on,
                unnamed: self.unnamed.remove(&run.id).unwrap_or_default(),
                id: run.id,
            }
        })
        .collect()
    }
}

const fn has_ended(state: StepState) -> bool {
    match state {
        StepState::Done | StepState::Residue | StepState::Failed | StepState::Cancelled => true,
        StepState::Unknown | StepState::Pending | StepState::Waiting | StepState::Started => false,
    }
}
