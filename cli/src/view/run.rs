//! A plan, and a run of it.

use jiff::Timestamp;
use serde::Serialize;

use super::Resource;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunState {
    Unknown,
    Running,
    Paused,
    /// A step failed that asks for a person.
    Halted,
    /// It was aborted, and puts back what it changed.
    Undoing,
    Succeeded,
    Aborted,
}

impl RunState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Halted => "Halted",
            Self::Undoing => "Undoing",
            Self::Succeeded => "Succeeded",
            Self::Aborted => "Aborted",
        }
    }

    pub(crate) const fn is_active(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Halted | Self::Undoing => true,
            Self::Unknown | Self::Succeeded | Self::Aborted => false,
        }
    }
}

/// One run, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) runbook: String,
    /// Node, pods, workload or cluster that it is about; `null`: all that its steps name.
    pub(crate) about: Option<String>,
    pub(crate) state: RunState,
    pub(crate) started_at: Option<Timestamp>,
    /// Until its end, or until now.
    pub(crate) elapsed_ms: u64,
    pub(crate) steps_total: u32,
    pub(crate) steps_done: u32,
    /// Nodes that did not come back.
    pub(crate) residue: Vec<String>,
    pub(crate) reason: String,
    /// What holds it up now.
    pub(crate) waiting_on: Vec<String>,
}

impl Resource for Run {
    const KIND: &'static str = "Run";
    const NOUN: &'static str = "run";

    fn key(&self) -> String {
        self.id.clone()
    }

    fn settled(&self) -> Self {
        Self {
            elapsed_ms: 0,
            ..self.clone()
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StepState {
    Unknown,
    Pending,
    /// What it depends on is done; its gate is not passed.
    Waiting,
    Started,
    Done,
    /// Given up within the plan's tolerance.
    Residue,
    Failed,
    Cancelled,
}

impl StepState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Pending => "Pending",
            Self::Waiting => "Waiting",
            Self::Started => "Started",
            Self::Done => "Done",
            Self::Residue => "Residue",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlanStep {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) cluster: Option<String>,
    pub(crate) node: Option<String>,
    /// What is set aside or put back.
    pub(crate) component: Option<&'static str>,
    pub(crate) after: Vec<String>,
    pub(crate) description: String,
    /// After what it depends on is done; `null`: none.
    pub(crate) deadline_ms: Option<u64>,
}

/// What a runbook would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    pub(crate) runbook: String,
    /// In an order in which each comes after those it depends on.
    pub(crate) steps: Vec<PlanStep>,
    pub(crate) notes: Vec<String>,
    /// If nothing goes wrong; `null`: not estimated.
    pub(crate) estimated_ms: Option<u64>,
    /// The steps that make it take so long, first to last.
    pub(crate) critical_path: Vec<String>,
}

/// A step of a run: what was planned, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    #[serde(flatten)]
    pub(crate) plan: PlanStep,
    pub(crate) state: StepState,
    pub(crate) waiting_on: Option<String>,
    pub(crate) evidence: Option<String>,
    pub(crate) attempts: u32,
    /// After the beginning of the run.
    pub(crate) started_ms: Option<u64>,
    /// After the beginning of the run.
    pub(crate) ended_ms: Option<u64>,
}

/// A run, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    pub(crate) run: Run,
    pub(crate) steps: Vec<Step>,
    pub(crate) notes: Vec<String>,
    /// The budgets of a run at work.
    pub(crate) lanes: Vec<Lane>,
}

/// How many nodes of a cluster may be starting at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lane {
    pub(crate) id: String,
    pub(crate) window: u32,
    pub(crate) in_flight: u32,
    /// How long the cluster's API server takes to answer; `null`: it fails, or nobody tells.
    pub(crate) apiserver_latency_ms: Option<u64>,
    /// How it fails: `overloaded`, `unavailable`, `timed-out`, `refused`.
    pub(crate) apiserver_error: Option<&'static str>,
}
