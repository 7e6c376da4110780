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
    /// An operator's word on what the coordinator proposes.
    Proposal(String),
    /// Too much of its cluster is not well at once.
    Storm(String),
    /// The load of the node to fall.
    Load(String),
    /// Space to be given back.
    Space(String),
    /// The word of a management controller.
    Power(String),
    /// etcd to be as it should, by the agents' word.
    Etcd(String),
    /// A static pod of a control plane, by the agents' word.
    ControlPlane(String),
    /// Something that the store does not tell.
    Leader,
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(why) => write!(f, "the API: {why}"),
            Self::Agent(why) => write!(f, "its agent: {why}"),
            Self::Leader => f.write_str("something that only the coordinator that leads knows"),
            Self::Answer(what) => write!(f, "its agent's answer to {what}"),
            Self::Kubelet(why)
            | Self::Ready(why)
            | Self::Pods(why)
            | Self::Load(why)
            | Self::Space(why)
            | Self::ControlPlane(why)
            | Self::Etcd(why) => f.write_str(why),
            Self::Power(why) => write!(f, "its management controller: {why}"),
            Self::Change(what) => write!(f, "{what} to be seen in the API"),
            Self::Approval(why) => write!(f, "approval (blackstart runbook approve): {why}"),
            Self::Operator(why) => write!(
                f,
                "an operator: {why}; `blackstart runbook approve` tries again, `abort` puts back what was changed"
            ),
            Self::Journal(why) => write!(f, "the journal, which cannot be written: {why}"),
            Self::Proposal(why) => write!(
                f,
                "your word (blackstart runbook approve) on what is proposed because {why}"
            ),
            Self::Storm(why) => write!(
                f,
                "its cluster to be better: {why}; it is not the node. A power event that is declared lifts this, and so does \
                 blackstart runbook approve"
            ),
        }
    }
}
