//! What a step does to the world: the closed list.

use blackstart_proto::part::Part;

use super::journal::Memo;
use crate::fleet::{EtcdAct, PartAct};
use crate::kubernetes::calls::ApiCall;

/// What is done to the world. Each may be done again without harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Asked of the cluster's API.
    Api(ApiCall),
    /// The node is silenced, in the run's name.
    Silence,
    /// The node's silence is lifted.
    LiftSilence,
    /// A command to its agent, under a new name if `attempt` is.
    Order {
        /// Counted from 1.
        attempt: u32,
        /// What.
        order: KubeletOrder,
    },
    /// Its management controller is asked to cut its power, if it is the machine of this UUID.
    PowerOff {
        /// As the node's kubelet has told it; empty: it has not.
        uuid: String,
    },
    /// A command about etcd, to the agent of the step's node.
    Etcd {
        /// Counted from 1.
        attempt: u32,
        /// What.
        act: EtcdAct,
    },
    /// A command about a static pod of the control plane, to the agent of the step's node.
    ControlPlane {
        /// Counted from 1.
        attempt: u32,
        /// Which.
        part: Part,
        /// What.
        act: PartAct,
    },
    /// Written down before what comes after it.
    Note(Memo),
}

/// What an agent is told to do with its kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeletOrder {
    /// Stop it.
    Stop,
    /// Start it, if it does not run.
    Start,
    /// Restart it.
    Restart,
}

impl KubeletOrder {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop kubelet",
            Self::Start => "start kubelet",
            Self::Restart => "restart kubelet",
        }
    }
}
