//! What is written of a run: one entry for each thing that happened, durable before anything that follows from it.
//!
//! Entries are JSON, so that a person can read a journal without this program. A field may be added with a default; nothing that was
//! ever written may change its meaning.

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, StepId};

/// One entry of the journal of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Wall clock, milliseconds since the Unix epoch; for people only.
    pub at_unix_ms: u64,
    /// Milliseconds that the run was at work before this; times when no coordinator was alive are not counted.
    pub elapsed_ms: u64,
    /// What happened.
    pub event: Event,
}

/// What happened to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// It began. The first entry of every journal, and of no other place.
    RunStarted {
        /// What it carries out.
        plan: Plan,
        /// Why.
        reason: String,
        /// The executor's epoch.
        epoch: u64,
        /// The name of the command that began it: given again, it begins nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// Another process of the coordinator took it up.
    Resumed {
        /// That executor's epoch.
        epoch: u64,
    },
    /// Intent: the step's command is going to be sent.
    StepStarted {
        /// Which step.
        step: StepId,
        /// The command's name, for ever.
        command_id: String,
        /// Counted from 1.
        attempt: u32,
    },
    /// The command did not do what it should; the step waits for another attempt.
    AttemptFailed {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Why.
        why: String,
    },
    /// Verified.
    StepDone {
        /// Which step.
        step: StepId,
        /// On what evidence.
        evidence: String,
    },
    /// Given up; its node is residue and holds nobody.
    StepResidue {
        /// Which step.
        step: StepId,
        /// Why.
        why: String,
    },
    /// Given up; what comes after it waits for an operator's word.
    StepFailed {
        /// Which step.
        step: StepId,
        /// Why.
        why: String,
    },
    /// What was done (or given up) is not so any longer: a node is back and held, or a gate's evidence is gone.
    StepReopened {
        /// Which step.
        step: StepId,
        /// Why.
        why: String,
    },
    /// By an operator: begin nothing new.
    Paused,
    /// By an operator: go on, and try again what failed.
    Unpaused,
    /// Ended before its end.
    Aborted {
        /// By whom or what.
        why: String,
    },
    /// Every step is done or residue.
    RunEnded,
}

impl Event {
    /// Its name, for people and the transition table.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "RunStarted",
            Self::Resumed { .. } => "Resumed",
            Self::StepStarted { .. } => "StepStarted",
            Self::AttemptFailed { .. } => "AttemptFailed",
            Self::StepDone { .. } => "StepDone",
            Self::StepResidue { .. } => "StepResidue",
            Self::StepFailed { .. } => "StepFailed",
            Self::StepReopened { .. } => "StepReopened",
            Self::Paused => "Paused",
            Self::Unpaused => "Unpaused",
            Self::Aborted { .. } => "Aborted",
            Self::RunEnded => "RunEnded",
        }
    }

    /// The step it is about; `None`: it is about the run, and so about every step.
    pub const fn step(&self) -> Option<&StepId> {
        match self {
            Self::StepStarted { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::StepDone { step, .. }
            | Self::StepResidue { step, .. }
            | Self::StepFailed { step, .. }
            | Self::StepReopened { step, .. } => Some(step),
            Self::RunStarted { .. }
            | Self::Resumed { .. }
            | Self::Paused
            | Self::Unpaused
            | Self::Aborted { .. }
            | Self::RunEnded => None,
        }
    }
}
