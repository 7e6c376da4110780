//! (state, event) → state. Pure and total: an event that does not fit is an error, never a panic.
//!
//! A [`State`] is how the run and one of its steps stand. An event about a step moves that step, and perhaps the run; an event about
//! the run moves all steps. `transitions.txt` is the table of all pairs, held true by a test.

use super::journal::Event;
use super::status::RunState;

/// How a step stands, as the journal has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not begun, or to be begun again.
    Open,
    /// Its command may have been sent.
    Started,
    /// Verified.
    Done,
    /// Given up, and holds nobody.
    Residue,
    /// Given up, and what comes after it waits for an operator.
    Failed,
    /// The run was aborted before it was begun.
    Cancelled,
}

impl Phase {
    /// Lets through what comes after it.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Done | Self::Residue => true,
            Self::Open | Self::Started | Self::Failed | Self::Cancelled => false,
        }
    }
}

/// How a run and one of its steps stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// The run.
    pub run: RunState,
    /// The step.
    pub step: Phase,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot happen to a step that is {:?} in a run that is {:?}", state.step, state.run)]
pub struct IllegalEvent {
    /// The state.
    pub state: State,
    /// The event.
    pub event: &'static str,
}

/// What an event makes of a state.
///
/// # Errors
/// It cannot happen in this state.
pub fn next_status(state: State, event: &Event) -> Result<State, IllegalEvent> {
    let State { run, step } = state;
    let illegal = IllegalEvent {
        state,
        event: event.name(),
    };
    if !run.is_active() {
        return Err(illegal);
    }
    let paused = run == RunState::Paused;
    let (run, step) = match event {
        Event::Resumed { .. } => (run, step),
        // What was begun is followed to its end also while the run is paused; nothing else moves then.
        Event::StepStarted { .. } if step == Phase::Open && !paused => (run, Phase::Started),
        Event::AttemptFailed { .. } if step == Phase::Started => (run, Phase::Open),
        Event::StepDone { .. } if step == Phase::Open && !paused => (run, Phase::Done),
        Event::StepDone { .. } if matches!(step, Phase::Started | Phase::Residue) => (run, Phase::Done),
        Event::StepResidue { .. } if step == Phase::Open && !paused => (run, Phase::Residue),
        Event::StepResidue { .. } if step == Phase::Started => (run, Phase::Residue),
        Event::StepFailed { .. } if step == Phase::Open && !paused => (RunState::Halted, Phase::Failed),
        Event::StepFailed { .. } if step == Phase::Started && paused => (run, Phase::Failed),
        Event::StepFailed { .. } if step == Phase::Started => (RunState::Halted, Phase::Failed),
        Event::StepReopened { .. } if step.is_settled() && !paused => (run, Phase::Open),
        Event::Paused if !paused => (RunState::Paused, step),
        Event::Unpaused if run != RunState::Running && step == Phase::Failed => {
            (RunState::Running, Phase::Open)
        }
        Event::Unpaused if run != RunState::Running => (RunState::Running, step),
        Event::Aborted { .. } if step == Phase::Open => (RunState::Aborted, Phase::Cancelled),
        Event::Aborted { .. } => (RunState::Aborted, step),
        Event::RunEnded if run == RunState::Running && step.is_settled() => (RunState::Succeeded, step),
        Event::RunStarted { .. }
        | Event::StepStarted { .. }
        | Event::AttemptFailed { .. }
        | Event::StepDone { .. }
        | Event::StepResidue { .. }
        | Event::StepFailed { .. }
        | Event::StepReopened { .. }
        | Event::Paused
        | Event::Unpaused
        | Event::RunEnded => return Err(illegal),
    };
    Ok(State { run, step })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::plan::{Plan, StepId};

    fn events() -> Vec<Event> {
        let step = StepId("s".to_owned());
        let why = String::new();
        let plan = Plan {
            runbook: String::new(),
            steps: Vec::new(),
            lanes: Vec::new(),
            notes: Vec::new(),
        };
        vec![
            Event::RunStarted {
                plan,
                reason: why.clone(),
                epoch: 1,
                request: None,
            },
            Event::Resumed { epoch: 2 },
            Event::StepStarted {
                step: step.clone(),
                command_id: why.clone(),
                attempt: 1,
            },
            Event::AttemptFailed {
                step: step.clone(),
                attempt: 1,
                why: why.clone(),
            },
            Event::StepDone {
                step: step.clone(),
                evidence: why.clone(),
            },
            Event::StepResidue {
                step: step.clone(),
                why: why.clone(),
            },
            Event::StepFailed {
                step: step.clone(),
                why: why.clone(),
            },
            Event::StepReopened {
                step,
                why: why.clone(),
            },
            Event::Paused,
            Event::Unpaused,
            Event::Aborted { why },
            Event::RunEnded,
        ]
    }

    /// Every pair of state and event: what is not listed is illegal, `=` changes nothing.
    const TABLE: &str = include_str!("transitions.txt");

    #[test]
    fn every_pair_of_state_and_event() {
        let runs = [
            RunState::Running,
            RunState::Paused,
            RunState::Halted,
            RunState::Succeeded,
            RunState::Aborted,
        ];
        let steps = [
            Phase::Open,
            Phase::Started,
            Phase::Done,
            Phase::Residue,
            Phase::Failed,
            Phase::Cancelled,
        ];
        let mut table = String::new();
        for run in runs {
            for step in steps {
                let state = State { run, step };
                write!(table, "{run:?}/{step:?}:").unwrap();
                for event in events() {
                    match next_status(state, &event) {
                        Err(error) => assert_eq!((error.state, error.event), (state, event.name())),
                        Ok(next) if next == state => write!(table, " {}=", event.name()).unwrap(),
                        Ok(next) => {
                            write!(table, " {}>{:?}/{:?}", event.name(), next.run, next.step).unwrap();
                        }
                    }
                }
                table += "\n";
            }
        }
        assert_eq!(table, TABLE, "{table}");
    }
}
