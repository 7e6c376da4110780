//! What a step waits for, as a value: shown alike by the CLI, events and logs.

use std::fmt;

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// The API, or a fresh word of it.
    Api(String),
    /// The node's agent.
    Agent(String),
    /// The agent's answer to a command.
    Answer(&'static str),
    /// The kubelet to be as it should, by the agent's word.
    Kubelet(String),
    /// `Ready`, and a lease renewed since.
    Ready(String),
    /// Pods that are on their way out, or whose budgets hold them.
    Pods(String),
    /// The API server's answer to a change.
    Change(&'static str),
    /// The approval of an operator.
    Approval(String),
    /// An operator, after a failure.
    Operator(String),
    /// The journal, which cannot be written.
    Journal(String),
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(why) => write!(f, "the API: {why}"),
            Self::Agent(why) => write!(f, "its agent: {why}"),
            Self::Answer(what) => write!(f, "its agent's answer to {what}"),
            Self::Kubelet(why) | Self::Ready(why) | Self::Pods(why) => f.write_str(why),
            Self::Change(what) => write!(f, "{what} to be seen in the API"),
            Self::Approval(why) => write!(f, "approval (blackstart runbook approve): {why}"),
            Self::Operator(why) => write!(
                f,
                "an operator: {why}; `blackstart runbook approve` tries again, `abort` puts back what was changed"
            ),
            Self::Journal(why) => write!(f, "the journal, which cannot be written: {why}"),
        }
    }
}
