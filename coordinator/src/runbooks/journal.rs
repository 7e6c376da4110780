//! What is written of a runbook's run: intent durable before the act, outcome before the next step.
//!
//! Entries are JSON, so that a person can read a journal without this program. A field may be added with a default; nothing that was
//! ever written may change its meaning. They lie in the same store as cold starts', under ids of their own (`drain-3`).

use serde::{Deserialize, Serialize};

use super::plan::RunbookPlan;
use crate::kubernetes::objects::Key;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Wall clock, milliseconds since the Unix epoch; for people only.
    pub at_unix_ms: u64,
    /// What happened.
    pub event: Event,
}

/// What happened to a run. Steps are told by their place: those of the plan first, then, once it was aborted, those that put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// It began. The first entry of every journal, and of no other place.
    RunbookStarted {
        /// What it carries out.
        plan: Box<RunbookPlan>,
        /// The coordinator's epoch.
        epoch: u64,
    },
    /// Another process of the coordinator took it up.
    Resumed {
        /// Its epoch.
        epoch: u64,
    },
    /// Something is going to be done for this step.
    Intent {
        /// Which step.
        step: usize,
        /// The command to the agent that is going to be sent, if it is one.
        #[serde(default)]
        command: Option<Command>,
    },
    /// It is as it should be.
    Done {
        /// Which step.
        step: usize,
        /// On what evidence.
        evidence: String,
    },
    /// It could not be done.
    Failed {
        /// Which step.
        step: usize,
        /// Why.
        why: String,
    },
    /// By an operator: the step may be done; or, after a failure, try again.
    Approved {
        /// Which step.
        step: usize,
        /// Who.
        by: String,
    },
    /// By an operator: put back what was changed, and end.
    Aborted {
        /// Who.
        by: String,
    },
    /// Nothing is left to do.
    Ended,
    /// Something is going to be done for this step that has to be remembered: before each of several that are alike.
    Noted {
        /// Which step.
        step: usize,
        /// What.
        memo: Memo,
    },
    /// By an operator: what the coordinator proposed may be done.
    Accepted {
        /// Who.
        by: String,
    },
    /// By an operator: it goes on although much of its cluster is not well.
    Overrode {
        /// Who.
        by: String,
        /// What was not well then.
        why: String,
    },
}

/// A pod that is going to be evicted, and what is to be as before once it runs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// Which.
    pub pod: Key,
    /// This one and no later one of its name.
    pub uid: String,
    /// Who makes another in its place.
    pub controller: String,
    /// So many pods of that were ready.
    pub ready: usize,
}

/// A command to an agent: its name for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Counted from 1.
    pub attempt: u32,
    /// An agent does each at most once.
    pub id: String,
}

impl Event {
    /// Its name, for people and the transition table.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RunbookStarted { .. } => "RunbookStarted",
            Self::Resumed { .. } => "Resumed",
            Self::Intent { .. } => "Intent",
            Self::Done { .. } => "Done",
            Self::Failed { .. } => "Failed",
            Self::Approved { .. } => "Approved",
            Self::Aborted { .. } => "Aborted",
            Self::Ended => "Ended",
            Self::Noted { .. } => "Noted",
            Self::Accepted { .. } => "Accepted",
            Self::Overrode { .. } => "Overrode",
        }
    }
}
