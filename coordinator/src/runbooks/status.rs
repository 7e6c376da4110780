//! A run as others see it.

use super::plan::RunbookPlan;
use super::record::{Record, RunState, StepRecord};
use super::waiting::WaitingOn;

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
}

impl RunbookStatus {
    pub(super) fn new(record: &Record, waiting: Option<WaitingOn>) -> Self {
        let failed = record.failed();
        Self {
            id: record.id.clone(),
            state: record.state,
            plan: record.plan.clone(),
            steps: record.steps.clone(),
            current: record.current().or(failed),
            waiting: waiting.filter(|_| record.state.is_active()),
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
        matches!(
            self.waiting,
            Some(WaitingOn::Approval(_) | WaitingOn::Proposal(_) | WaitingOn::Storm(_))
        ) || matches!(self.state, RunState::Halted)
    }
}
