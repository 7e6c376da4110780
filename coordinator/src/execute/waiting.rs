//! What a step waits on, as a value: shown alike by the command, the events, and the held node's own status.

use std::fmt;

use blackstart_proto::component::Component;

use crate::fleet::view::{GateState, Phase};
use crate::inventory::{ClusterName, NodeName};
use crate::plan::{LaneId, StepId};

/// So many nodes are named; the others are counted.
pub(super) const NAMED: usize = 5;

/// How a node stands, by its own fresh word in its present boot. Nothing older counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stand {
    /// No session, or a session without a word yet.
    NotBack(Phase),
    /// In session, but its last word is too old to count.
    Stale,
    /// Its boot gate holds the kubelet.
    Held,
    /// Its gate is open; its kubelet is not healthy.
    KubeletNotHealthy(GateState),
    /// Its kubelet is healthy; its API server (on control planes) is not ready.
    KubeletHealthy(GateState),
    /// Both are.
    ApiServerReady(GateState),
}

impl Stand {
    /// Neither a session nor a fresh word.
    pub const fn is_away(self) -> bool {
        match self {
            Self::NotBack(_) | Self::Stale => true,
            Self::Held | Self::KubeletNotHealthy(_) | Self::KubeletHealthy(_) | Self::ApiServerReady(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBack(Phase::Unknown) => f.write_str("never heard of"),
            Self::NotBack(Phase::Stopped) => f.write_str("not back: said goodbye"),
            Self::NotBack(Phase::Silent) => f.write_str("not back: silent"),
            Self::NotBack(Phase::Ready | Phase::NotReady | Phase::Held) => {
                f.write_str("back, and has not reported yet")
            }
            Self::Stale => f.write_str("its last word is too old"),
            Self::Held => f.write_str("held at its boot gate"),
            Self::KubeletNotHealthy(_) => f.write_str("kubelet not healthy"),
            Self::KubeletHealthy(_) => f.write_str("API server not ready"),
            Self::ApiServerReady(_) => f.write_str("ready"),
        }
    }
}

/// What a step waits on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// A step that comes before it.
    Step(StepId),
    /// A control plane has no quorum.
    ControlPlane {
        /// Whose.
        cluster: ClusterName,
        /// So many masters attest health.
        have: usize,
        /// So many it takes.
        need: usize,
        /// The others, and how they stand.
        missing: Vec<(NodeName, Stand)>,
        /// What is wrong with its etcd, once somebody has looked.
        etcd: Option<String>,
    },
    /// A cluster does not serve yet.
    Serving {
        /// Which.
        cluster: ClusterName,
        /// So many workers attest health.
        have: usize,
        /// So many it takes.
        need: usize,
        /// The others, and how they stand.
        missing: Vec<(NodeName, Stand)>,
    },
    /// Too few kubelets of a cluster run for its controllers to act.
    Kubelets {
        /// Which.
        cluster: ClusterName,
        /// So many nodes attest health.
        have: usize,
        /// So many it takes.
        need: usize,
        /// The others, and how they stand.
        missing: Vec<(NodeName, Stand)>,
    },
    /// A component that was to be set aside is where the kubelet looks.
    InPlace {
        /// On which node.
        node: NodeName,
        /// Which.
        component: Component,
    },
    /// The node has not come back.
    NodeNotBack {
        /// Which.
        node: NodeName,
        /// How it stands.
        stand: Stand,
    },
    /// The node's kubelet may run and is not healthy.
    KubeletNotHealthy {
        /// Which.
        node: NodeName,
    },
    /// The node has its command and has not answered.
    Answer {
        /// Which.
        node: NodeName,
        /// The command.
        command_id: String,
    },
    /// The budget is used up.
    LaneFull {
        /// Which.
        lane: LaneId,
        /// So many are between dispatch and verification.
        in_flight: usize,
        /// So many may be.
        window: usize,
    },
    /// An attempt failed, and the next one is not due.
    BackOff {
        /// How many failed.
        attempts: u32,
        /// Why the last one did.
        why: String,
    },
    /// An operator paused the run.
    Paused,
    /// It failed; an operator has to say how to go on.
    Operator,
    /// Another executor is at work.
    Superseded(String),
    /// The journal cannot be written, so nothing can be begun.
    Journal(String),
}

impl WaitingOn {
    /// The same, with what is known of the reason.
    #[must_use]
    pub fn because(self, words: &str) -> Self {
        match self {
            Self::ControlPlane {
                cluster,
                have,
                need,
                missing,
                ..
            } => Self::ControlPlane {
                cluster,
                have,
                need,
                missing,
                etcd: Some(words.to_owned()),
            },
            other @ (Self::Step(_)
            | Self::Serving { .. }
            | Self::Kubelets { .. }
            | Self::InPlace { .. }
            | Self::NodeNotBack { .. }
            | Self::KubeletNotHealthy { .. }
            | Self::Answer { .. }
            | Self::LaneFull { .. }
            | Self::BackOff { .. }
            | Self::Paused
            | Self::Operator
            | Self::Superseded(_)
            | Self::Journal(_)) => other,
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => write!(f, "{step}"),
            Self::ControlPlane {
                cluster,
                have,
                need,
                missing,
                etcd,
            } => {
                write!(f, "control plane of {cluster}: {have} ready, {need} needed")?;
                list(f, missing)?;
                etcd.as_ref().map_or(Ok(()), |words| write!(f, "; {words}"))
            }
            Self::Serving {
                cluster,
                have,
                need,
                missing,
            } => {
                write!(f, "workers of {cluster}: {have} healthy, {need} needed")?;
                list(f, missing)
            }
            Self::Kubelets {
                cluster,
                have,
                need,
                missing,
            } => {
                write!(f, "kubelets of {cluster}: {have} healthy, {need} needed")?;
                list(f, missing)
            }
            Self::InPlace { node, component } => write!(f, "{node}: {component} is not set aside yet"),
            Self::NodeNotBack { node, stand } => write!(f, "{node}: {stand}"),
            Self::KubeletNotHealthy { node } => write!(f, "{node}: kubelet not healthy"),
            Self::Answer { node, command_id } => {
                write!(f, "{node}: has not answered command {command_id}")
            }
            Self::LaneFull {
                lane,
                in_flight,
                window,
            } => write!(f, "lane {lane}: {in_flight} of {window} at once are under way"),
            Self::BackOff { attempts, why } => {
                write!(f, "the next attempt; {attempts} failed, the last: {why}")
            }
            Self::Paused => f.write_str("the run is paused; resume or abort it"),
            Self::Operator => f.write_str("an operator: resume tries again, abort ends the run"),
            Self::Superseded(why) => write!(f, "another executor is at work: {why}"),
            Self::Journal(why) => write!(f, "the journal: {why}"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, missing: &[(NodeName, Stand)]) -> fmt::Result {
    for (at, (node, stand)) in missing.iter().take(NAMED).enumerate() {
        let before = if at == 0 { "; " } else { ", " };
        write!(f, "{before}{node}: {stand}")?;
    }
    match missing.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}
