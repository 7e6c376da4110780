//! A run as its journal tells it. Pure: [`Record::apply`] is a total function of (record, entry); an entry that does not fit is an
//! error, never a panic.

use std::time::Duration;

use super::journal::{Entry, Event, Memo};
use super::plan::{Action, RunbookPlan, Step};
use super::status::{PROPOSAL, STORM};

/// So long it is tried at least to put something back.
const PUT_BACK: Duration = Duration::from_mins(30);

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// At work, or waiting for something.
    Running,
    /// A step failed: an operator's approval tries again, an abort puts back.
    Halted,
    /// Aborted: puts back what it changed.
    Undoing,
    /// Every step is done.
    Succeeded,
    /// Aborted, and put back as far as possible.
    Aborted,
}

impl RunState {
    /// Something may still come of it.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Running | Self::Halted | Self::Undoing => true,
            Self::Succeeded | Self::Aborted => false,
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing was done for it.
    Open,
    /// Something was done for it, or is about to be.
    Begun,
    /// It is as it should be.
    Done,
    /// It could not be done.
    Failed,
    /// The run was aborted before its turn.
    Cancelled,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// What it is.
    pub step: Step,
    /// It puts back what a step of this kind changed.
    pub undo: Option<Action>,
    /// It puts back a change of which nobody knows whether it was made.
    pub unsure: bool,
    /// How it stands.
    pub phase: Phase,
    /// Its intent is durable: it may have changed something.
    pub begun: bool,
    /// What it rests on, or why it failed.
    pub evidence: String,
    /// The operator who approved of it.
    pub approved: Option<String>,
    /// The command of the last attempt.
    pub command: Option<super::journal::Command>,
    /// So many attempts are not held against it: an operator had them tried again.
    pub forgiven: u32,
    /// What was done for it, one after the other.
    pub notes: Vec<Memo>,
}

impl StepRecord {
    fn new(step: Step, undo: Option<Action>, unsure: bool) -> Self {
        Self {
            step,
            undo,
            unsure,
            phase: Phase::Open,
            begun: false,
            evidence: String::new(),
            approved: None,
            command: None,
            forgiven: 0,
            notes: Vec::new(),
        }
    }

    /// Its name within its run.
    pub fn id(&self) -> String {
        match self.undo {
            Some(of) => format!("undo-{of}"),
            None => self.step.id(),
        }
    }
}

/// An entry that cannot happen as its run stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot happen to step {step:?} of a run that is {state:?}")]
pub struct IllegalEvent {
    /// The event.
    pub event: &'static str,
    /// The step's place, if it is about one.
    pub step: Option<usize>,
    /// How the run stands.
    pub state: RunState,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// What it carries out.
    pub plan: RunbookPlan,
    /// The epoch that it began in; part of its commands' names.
    pub epoch: u64,
    /// How it stands.
    pub state: RunState,
    /// Its steps, and after an abort those that put back.
    pub steps: Vec<StepRecord>,
    /// Wall clock at its beginning, milliseconds since the Unix epoch; for people.
    pub started_unix_ms: u64,
    /// Wall clock at its last entry.
    pub changed_unix_ms: u64,
    /// Who aborted it.
    pub aborted_by: Option<String>,
    /// So many entries its journal has.
    pub entries: u64,
    /// Who let it be done, if the coordinator proposed it.
    pub accepted_by: Option<String>,
    /// Who had it go on although much of its cluster was not well.
    pub overrode_by: Option<String>,
}

impl Record {
    /// A run by the first entry of its journal; `None`: that is none.
    pub fn begin(id: String, entry: Entry) -> Option<Self> {
        let Event::RunbookStarted { plan, epoch } = entry.event else {
            return None;
        };
        Some(Self {
            id,
            epoch,
            state: RunState::Running,
            steps: plan
                .steps
                .iter()
                .map(|step| StepRecord::new(step.clone(), None, false))
                .collect(),
            plan: *plan,
            started_unix_ms: entry.at_unix_ms,
            changed_unix_ms: entry.at_unix_ms,
            aborted_by: None,
            entries: 1,
            accepted_by: None,
            overrode_by: None,
        })
    }

    /// A run by its whole journal.
    ///
    /// # Errors
    /// An entry cannot be understood or does not fit; which, and why.
    pub fn replay(id: &str, journal: &[Vec<u8>]) -> Result<Self, (u64, String)> {
        let mut entries = (0_u64..).zip(journal).map(|(index, bytes)| {
            let entry: Result<Entry, _> = serde_json::from_slice(bytes);
            entry
                .map(|entry| (index, entry))
                .map_err(|error| (index, error.to_string()))
        });
        let no_start = || {
            (
                0,
                "it does not begin with the start of a runbook's run".to_owned(),
            )
        };
        let (_, first) = entries.next().ok_or_else(no_start)??;
        let mut run = Self::begin(id.to_owned(), first).ok_or_else(no_start)?;
        for entry in entries {
            let (index, entry) = entry?;
            run.apply(&entry).map_err(|error| (index, error.to_string()))?;
        }
        Ok(run)
    }

    /// The step whose turn it is.
    pub fn current(&self) -> Option<usize> {
        let undoing = self.state == RunState::Undoing;
        self.steps
            .iter()
            .position(|step| {
                step.undo.is_some() == undoing && matches!(step.phase, Phase::Open | Phase::Begun)
            })
            .filter(|_| matches!(self.state, RunState::Running | RunState::Undoing))
    }

    /// It was proposed, and nobody has let it be done.
    pub fn is_proposal(&self) -> bool {
        self.plan.request.options.proposed.is_some()
            && self.accepted_by.is_none()
            && self.state == RunState::Running
    }

    /// The step that failed, of a halted run.
    pub fn failed(&self) -> Option<usize> {
        self.steps
            .iter()
            .position(|step| step.undo.is_none() && step.phase == Phase::Failed)
            .filter(|_| self.state == RunState::Halted)
    }

    /// They approved of something of it.
    pub fn has_word_of(&self, operator: &str) -> bool {
        let is = |by: &Option<String>| by.as_deref() == Some(operator);
        is(&self.accepted_by) || is(&self.overrode_by) || self.steps.iter().any(|step| is(&step.approved))
    }

    /// Whether this operator has approved of this, as approvals name it.
    pub(super) fn has_word_of_on(&self, operator: &str, asks: &str) -> bool {
        let is = |by: &Option<String>| by.as_deref() == Some(operator);
        match asks {
            PROPOSAL => is(&self.accepted_by),
            STORM => is(&self.overrode_by),
            id => self
                .steps
                .iter()
                .any(|step| step.id() == id && is(&step.approved)),
        }
    }

    /// What an abort leaves, or has left, behind.
    pub fn left(&self) -> Vec<String> {
        let lasting = self
            .steps
            .iter()
            .filter(|step| step.begun && step.undo.is_none())
            .filter_map(|step| step.step.action.leaves().map(str::to_owned));
        let failed = self
            .steps
            .iter()
            .filter(|step| step.undo.is_some() && step.phase == Phase::Failed)
            .map(|step| format!("{} was not done: {}", step.id(), step.evidence));
        lasting.chain(failed).collect()
    }

    /// Takes an entry in. The run is as it was if the entry does not fit.
    ///
    /// # Errors
    /// It does not fit how the run stands.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        let illegal = |step| IllegalEvent {
            event: entry.event.name(),
            step,
            state: self.state,
        };
        let now = self.current();
        match &entry.event {
            Event::Resumed { .. } if self.state.is_active() => {}
            Event::Intent { step, command } if now == Some(*step) => {
                let step = &mut self.steps[*step];
                step.phase = Phase::Begun;
                step.begun = true;
                if command.is_some() {
                    step.command.clone_from(command);
                }
            }
            Event::Done { step, evidence } if now == Some(*step) => {
                let step = &mut self.steps[*step];
                step.phase = Phase::Done;
                step.evidence.clone_from(evidence);
            }
            Event::Failed { step, why } if now == Some(*step) => {
                let step = &mut self.steps[*step];
                step.phase = Phase::Failed;
                step.evidence.clone_from(why);
                // What cannot be put back is told; the rest still is.
                if step.undo.is_none() {
                    self.state = RunState::Halted;
                }
            }
            Event::Approved { step, by } if now == Some(*step) => {
                self.steps[*step].approved = Some(by.clone());
            }
            Event::Approved { step, .. } if self.failed() == Some(*step) => {
                let step = &mut self.steps[*step];
                step.phase = if step.begun { Phase::Begun } else { Phase::Open };
                step.forgiven = step.command.as_ref().map_or(0, |command| command.attempt);
                self.state = RunState::Running;
            }
            Event::Noted { step, memo } if now == Some(*step) => self.steps[*step].notes.push(memo.clone()),
            Event::Accepted { by } if self.is_proposal() => self.accepted_by = Some(by.clone()),
            Event::Overrode { by, .. } if self.state == RunState::Running => {
                self.overrode_by = Some(by.clone());
            }
            Event::Aborted { by } if matches!(self.state, RunState::Running | RunState::Halted) => {
                self.abort(by.clone());
            }
            Event::Ended if self.state == RunState::Running && now.is_none() => {
                self.state = RunState::Succeeded;
            }
            Event::Ended if self.state == RunState::Undoing && now.is_none() => {
                self.state = RunState::Aborted;
            }
            Event::Intent { step, .. }
            | Event::Done { step, .. }
            | Event::Failed { step, .. }
            | Event::Noted { step, .. }
            | Event::Approved { step, .. } => return Err(illegal(Some(*step))),
            Event::RunbookStarted { .. }
            | Event::Resumed { .. }
            | Event::Aborted { .. }
            | Event::Accepted { .. }
            | Event::Overrode { .. }
            | Event::Ended => {
                return Err(illegal(None));
            }
        }
        self.changed_unix_ms = entry.at_unix_ms;
        self.entries += 1;
        Ok(())
    }

    /// Puts back, last change first.
    fn abort(&mut self, by: String) {
        self.state = RunState::Undoing;
        self.aborted_by = Some(by);
        let undo = |step: &StepRecord| {
            let action: Action = step.step.action.undo().filter(|_| step.begun)?;
            let step_back = Step {
                action,
                evidence: format!("puts back what {} changed", step.id()),
                deadline: step.step.deadline.max(PUT_BACK),
                approval: None,
                on: None,
                part: step.step.part,
            };
            Some(StepRecord::new(
                step_back,
                Some(step.step.action),
                step.phase != Phase::Done,
            ))
        };
        let back: Vec<_> = self.steps.iter().rev().filter_map(undo).collect();
        for step in &mut self.steps {
            if step.phase == Phase::Open {
                step.phase = Phase::Cancelled;
            }
        }
        self.steps.extend(back);
    }

    /// The name of the next command of a step.
    pub fn command(&self, step: usize, attempt: u32) -> super::journal::Command {
        super::journal::Command {
            attempt,
            id: format!("{}/{}/{attempt}@{}", self.id, self.steps[step].id(), self.epoch),
        }
    }
}
