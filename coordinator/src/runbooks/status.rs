//! A run as others see it.

use std::fmt::{self, Display, Formatter};

use super::plan::RunbookPlan;
use super::record::{Record, RunState, StepRecord};
use super::waiting::WaitingOn;

/// What an approval would be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// That what is proposed is done.
    Proposal,
    /// That it goes on although much of its cluster is not well.
    Storm {
        /// What is not well.
        why: String,
    },
    /// That a step is done, or tried again.
    Step {
        /// Its place.
        at: usize,
        /// Its id: `cordon`.
        id: String,
    },
}

/// As an approval names it.
pub(super) const PROPOSAL: &str = "proposal";
/// As an approval names it.
pub(super) const STORM: &str = "storm";

impl Asks {
    /// Also before its turn was looked at.
    pub(super) fn of(run: &Record, waiting: Option<&WaitingOn>) -> Option<Self> {
        if run.is_proposal() {
            return Some(Self::Proposal);
        }
        if let Some(WaitingOn::Storm(why)) = waiting {
            return Some(Self::Storm { why: why.clone() });
        }
        let asked = run.current().filter(|at| {
            let step = &run.steps[*at];
            step.step.approval.is_some() && step.approved.is_none()
        });
        let at = run.failed().or(asked)?;
        let id = run.steps[at].id();
        Some(Self::Step { at, id })
    }
}

impl Display for Asks {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proposal => PROPOSAL,
            Self::Storm { .. } => STORM,
            Self::Step { id, .. } => id,
        })
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunbookStatus {
    /// Its id: `drain-3`.
    pub id: String,
    /// How it stands.
    pub state: RunState,
    /// What it carries out.
    pub plan: RunbookPlan,
    /// Its steps; after an abort those that put back as well.
    pub steps: Vec<StepRecord>,
    /// The place of the step whose turn it is.
    pub current: Option<usize>,
    /// What that waits for.
    pub waiting: Option<WaitingOn>,
    /// What an abort leaves behind, or would.
    pub leaves: Vec<String>,
    /// Wall clock at its beginning, milliseconds since the Unix epoch; for people.
    pub started_unix_ms: u64,
    /// Wall clock at its last change.
    pub changed_unix_ms: u64,
    /// Who aborted it.
    pub aborted_by: Option<String>,
    /// The coordinator proposes it, and nobody has let it be done: it is not at work.
    pub is_proposal: bool,
    /// Who let a proposal be done.
    pub accepted_by: Option<String>,
    /// What an approval would be of; `None`: nothing waits for one.
    pub asks: Option<Asks>,
}

impl RunbookStatus {
    pub(super) fn new(record: &Record, waiting: Option<WaitingOn>) -> Self {
        let failed = record.failed();
        let waiting = waiting.filter(|_| record.state.is_active());
        let asks =
            Asks::of(record, waiting.as_ref()).filter(|_| is_an_operators(record.state, waiting.as_ref()));
        Self {
            id: record.id.clone(),
            state: record.state,
            plan: record.plan.clone(),
            steps: record.steps.clone(),
            current: record.current().or(failed),
            waiting,
            asks,
            leaves: record.left(),
            started_unix_ms: record.started_unix_ms,
            changed_unix_ms: record.changed_unix_ms,
            aborted_by: record.aborted_by.clone(),
            is_proposal: record.is_proposal(),
            accepted_by: record.accepted_by.clone(),
        }
    }

    /// Its turn is an operator's: to approve, or to have a failed step tried again.
    pub const fn wants_approval(&self) -> bool {
        is_an_operators(self.state, self.waiting.as_ref())
    }
}

const fn is_an_operators(state: RunState, waiting: Option<&WaitingOn>) -> bool {
    matches!(
        waiting,
        Some(WaitingOn::Approval(_) | WaitingOn::Proposal(_) | WaitingOn::Storm(_))
    ) || matches!(state, RunState::Halted)
}
