//! Runbooks as they stand in JSON.

use blackstart_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::Resource;
use super::convert::{at, given};
use super::run::{Run, RunState};

/// A runbook that there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Runbook {
    pub(crate) name: String,
    pub(crate) description: String,
    /// The chapter of the operators' plan.
    pub(crate) chapter: String,
}

/// What a runbook is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunbookPlan {
    pub(crate) runbook: String,
    /// Empty for what is about pods or a workload.
    pub(crate) node: String,
    /// Pods or a workload: `pods of biz`.
    pub(crate) subject: Option<String>,
    pub(crate) cluster: String,
    pub(crate) steps: Vec<RunbookStep>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) notes: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunbookStep {
    pub(crate) id: String,
    /// `open`, `begun`, `done`, `failed`, `cancelled`.
    pub(crate) phase: &'static str,
    pub(crate) evidence: Option<String>,
    pub(crate) deadline_ms: u64,
    /// Why an operator has to approve of it; `null`: nobody has to.
    pub(crate) approval: Option<String>,
    pub(crate) approved_by: Option<String>,
}

/// Something that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    pub(crate) what: String,
    /// What would be needed for it.
    pub(crate) missing: String,
}

/// A run of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunbookRun {
    pub(crate) id: String,
    pub(crate) runbook: String,
    /// Empty for what is about pods or a workload.
    pub(crate) node: String,
    /// Pods or a workload: `pods of biz`.
    pub(crate) subject: Option<String>,
    pub(crate) cluster: String,
    /// `running`, `halted`, `undoing`, `succeeded`, `aborted`.
    pub(crate) state: &'static str,
    pub(crate) by: String,
    pub(crate) reason: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) changed_at: Option<Timestamp>,
    /// The step whose turn it is.
    pub(crate) current: Option<String>,
    pub(crate) waiting_on: Option<String>,
    pub(crate) wants_approval: bool,
    /// What an approval would be of: the id of a step, `proposal` or `storm`; `null`: nothing waits for one.
    pub(crate) asks: Option<String>,
    pub(crate) steps: Vec<RunbookStep>,
    /// What an abort leaves behind for good.
    pub(crate) leaves: Vec<String>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) notes: Vec<String>,
    /// The coordinator proposes it, and nobody has let it be done.
    pub(crate) proposal: bool,
}

impl RunbookRun {
    /// In a line beside cold starts, as of `now`.
    pub(crate) fn in_a_line(&self, now: Timestamp) -> Run {
        let count = |steps: usize| u32::try_from(steps).unwrap_or(u32::MAX);
        let until = self.changed_at.filter(|_| self.has_ended()).unwrap_or(now);
        let elapsed = self.started_at.map_or(0, |started| {
            u64::try_from(until.as_millisecond() - started.as_millisecond()).unwrap_or_default()
        });
        let about = match &self.subject {
            Some(subject) => subject.clone(),
            None if self.node.is_empty() => format!("cluster {}", self.cluster),
            None => self.node.clone(),
        };
        Run {
            id: self.id.clone(),
            runbook: self.runbook.clone(),
            about: Some(about),
            state: match self.state {
                "running" => RunState::Running,
                "halted" => RunState::Halted,
                "undoing" => RunState::Undoing,
                "succeeded" => RunState::Succeeded,
                "aborted" => RunState::Aborted,
                _ => RunState::Unknown,
            },
            started_at: self.started_at,
            elapsed_ms: elapsed,
            steps_total: count(self.steps.len()),
            steps_done: count(self.steps.iter().filter(|step| step.phase == "done").count()),
            residue: Vec::new(),
            reason: self.reason.clone().unwrap_or_default(),
            waiting_on: self.waiting_on.iter().cloned().collect(),
        }
    }

    /// It needs nobody any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, "succeeded" | "aborted")
    }
}

impl Resource for Runbook {
    const KIND: &'static str = "Runbook";
    const NOUN: &'static str = "runbook";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

impl Resource for RunbookRun {
    const KIND: &'static str = "RunbookRun";
    const NOUN: &'static str = "run";

    fn key(&self) -> String {
        self.id.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

impl From<v1::RunbookInfo> for Runbook {
    fn from(wire: v1::RunbookInfo) -> Self {
        Self {
            name: wire.name,
            description: wire.description,
            chapter: wire.chapter,
        }
    }
}

impl From<v1::RunbookPlan> for RunbookPlan {
    fn from(wire: v1::RunbookPlan) -> Self {
        Self {
            runbook: wire.runbook,
            node: wire.node,
            subject: given(wire.subject),
            cluster: wire.cluster,
            steps: wire.steps.into_iter().map(RunbookStep::from).collect(),
            refusals: wire.refusals.into_iter().map(Refusal::from).collect(),
            notes: wire.notes,
        }
    }
}

impl From<v1::RunbookRefusal> for Refusal {
    fn from(wire: v1::RunbookRefusal) -> Self {
        Self {
            what: wire.what,
            missing: wire.missing,
        }
    }
}

impl From<v1::RunbookStep> for RunbookStep {
    fn from(wire: v1::RunbookStep) -> Self {
        Self {
            phase: match wire.phase() {
                v1::RunbookPhase::Unspecified => "unknown",
                v1::RunbookPhase::Open => "open",
                v1::RunbookPhase::Begun => "begun",
                v1::RunbookPhase::Done => "done",
                v1::RunbookPhase::Failed => "failed",
                v1::RunbookPhase::Cancelled => "cancelled",
            },
            id: wire.id,
            evidence: given(wire.evidence),
            deadline_ms: wire.deadline_ms,
            approval: given(wire.approval),
            approved_by: given(wire.approved_by),
        }
    }
}

impl From<v1::RunbookRun> for RunbookRun {
    fn from(wire: v1::RunbookRun) -> Self {
        Self {
            state: match wire.state() {
                v1::RunbookState::Unspecified => "unknown",
                v1::RunbookState::Running => "running",
                v1::RunbookState::Halted => "halted",
                v1::RunbookState::Undoing => "undoing",
                v1::RunbookState::Succeeded => "succeeded",
                v1::RunbookState::Aborted => "aborted",
            },
            id: wire.id,
            runbook: wire.runbook,
            node: wire.node,
            subject: given(wire.subject),
            cluster: wire.cluster,
            by: wire.by,
            reason: given(wire.reason),
            started_at: at(wire.started_unix_ms),
            changed_at: at(wire.changed_unix_ms),
            current: given(wire.current),
            waiting_on: given(wire.waiting_on),
            wants_approval: wire.wants_approval,
            asks: given(wire.asks),
            steps: wire.steps.into_iter().map(RunbookStep::from).collect(),
            leaves: wire.leaves,
            refusals: wire.refusals.into_iter().map(Refusal::from).collect(),
            notes: wire.notes,
            proposal: wire.proposal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_runbook_stands_in_a_line_like_any_other() {
        let step = |phase: v1::RunbookPhase| v1::RunbookStep {
            phase: phase.into(),
            ..v1::RunbookStep::default()
        };
        let wire = |state: v1::RunbookState, node: &str| v1::RunbookRun {
            id: "drain-3".into(),
            runbook: "drain".into(),
            node: node.into(),
            cluster: "biz".into(),
            state: state.into(),
            started_unix_ms: 1_000,
            changed_unix_ms: 4_000,
            waiting_on: "a budget".into(),
            steps: vec![step(v1::RunbookPhase::Done), step(v1::RunbookPhase::Begun)],
            ..v1::RunbookRun::default()
        };
        let now = Timestamp::from_millisecond(9_000).unwrap();
        let line = |wire| RunbookRun::from(wire).in_a_line(now);
        let run = line(wire(v1::RunbookState::Undoing, "biz-4"));
        assert_eq!((run.state, run.elapsed_ms), (RunState::Undoing, 8_000));
        assert_eq!((run.steps_done, run.steps_total), (1, 2));
        assert_eq!(run.about.as_deref(), Some("biz-4"));
        assert_eq!(run.waiting_on, ["a budget"]);
        let ended = line(wire(v1::RunbookState::Succeeded, ""));
        assert_eq!(ended.elapsed_ms, 3_000);
        assert_eq!(ended.about.as_deref(), Some("cluster biz"));
    }
}
