//! The live fleet: who is in session, in which boot, and what each agent vouches for.
//!
//! ```text
//! api::session ──Hello, Report, CommandResult──► Fleet ──FleetView──► outage, plan, executor, queries
//!              ◄──Ack, Command────────────────── Fleet ◄──Order────── executor
//! ```

pub mod boots;
mod handle;
pub mod message;
mod node;
mod state;
pub mod view;

pub use handle::{Acknowledgement, Delivery, Fleet, FleetParts, Holds, SessionLine, SessionOver};
pub use node::{NodeState, SessionId};
pub use state::State;

use std::time::Duration;

use blackstart_proto::component::Component;
use blackstart_proto::part::Part;

use crate::inventory::NodeName;
use crate::quorum::newcomer::{Invitation, NewManifest, Prepared, Template};
use crate::quorum::sources::{OutOf, Source};
use crate::quorum::told::{Snapshot, Told};

/// What an agent is told to do. The closed list: there is no way to send a string to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the boot gate.
    ReleaseKubelet {
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
    },
    /// Move the manifest of a component out.
    HoldManifest {
        /// Which.
        component: Component,
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
    },
    /// Restart a unit on the agent's allow-list; refused where it is held.
    RestartUnit {
        /// Which.
        unit: String,
        /// Why, for people.
        reason: String,
    },
    /// Stop the kubelet's unit.
    StopKubelet {
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
    },
    /// Move it back.
    ReleaseManifest {
        /// Which.
        component: Component,
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
    },
    /// Start the kubelet's unit, if it does not run.
    StartKubelet {
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
    },
    /// Something with the etcd member there, or through it.
    Etcd {
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
        /// Of which cluster; another one refuses.
        cluster_id: u64,
        /// What.
        act: EtcdAct,
    },
    /// Something with another static pod of the control plane there.
    ControlPlane {
        /// The run that asks.
        run: String,
        /// Why, for people.
        reason: String,
        /// Which.
        part: Part,
        /// What.
        act: PartAct,
    },
}

/// What is done with a static pod of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartAct {
    /// Move its manifest out and back.
    Bounce,
    /// The same, and what an API server is told of etcd (`--etcd-servers`) is another when it comes back.
    EtcdServers {
        /// What it is now, or nothing is done.
        from: String,
        /// What it is to be.
        to: String,
    },
}

/// What is done with an etcd member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdAct {
    /// Take a snapshot of the member there.
    TakeSnapshot,
    /// Move its manifest out and back.
    Bounce,
    /// Take another member out of the cluster.
    RemoveMember {
        /// Which.
        id: u64,
    },
    /// Add one that is still to be started.
    AddMember {
        /// Where it will be.
        peer_urls: Vec<String>,
        /// It does not vote before it is promoted.
        learner: bool,
    },
    /// Have a learner vote.
    PromoteMember {
        /// Which.
        id: u64,
    },
    /// Set the data of the member there aside, and have it join anew.
    Rebuild {
        /// What its manifest is to say of the members.
        initial_cluster: String,
        /// So many bytes have to be free.
        needs_bytes: u64,
        /// What is to be its manifest, on a node that has none.
        manifest: Option<NewManifest>,
    },
    /// Write what its manifest says of the members anew, and bounce it.
    SetInitialCluster {
        /// As it is, or nothing is done.
        from: String,
        /// As it is to be.
        to: String,
    },
    /// Take its manifest out of the kubelet's sight, and be sure that it has ended.
    Fence,
    /// The same of the API server, the controller manager and the scheduler.
    StopControlPlane,
    /// Put those back.
    StartControlPlane,
    /// Make a cluster of one out of the data there.
    Restore {
        /// The member's version.
        version: String,
        /// `None`: the member's data as it is once it has ended.
        out_of: Option<OutOf>,
    },
}

/// What is on its way to one node.
#[derive(Debug, PartialEq, Eq)]
pub enum ToNode {
    /// To be done once.
    Order(Order),
    /// To be answered, if it can be.
    Ask(Question),
    /// The same, about the rest of its control plane.
    LookAtControlPlane {
        /// Tells its answer from others.
        id: u64,
        /// Nobody waits for longer.
        within: Duration,
    },
}

/// What was answered to either question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// About etcd.
    Etcd(EtcdAnswer),
    /// About the rest of the control plane.
    ControlPlane(Box<crate::control_plane::told::Told>),
}

/// A question about the etcd member of one node. It changes nothing, and what is lost is asked anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Tells its answer from others.
    pub id: u64,
    /// Nobody waits for longer.
    pub within: Duration,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// How the member is.
    Look,
    /// Whether the snapshots there are what was taken.
    Verify,
    /// Out of what the cluster could be restored there.
    Search,
    /// A piece of a snapshot.
    Read {
        /// Its file.
        file: String,
        /// From here on.
        offset: u64,
        /// No more than this, bytes.
        at_most: u32,
    },
    /// The manifest there, for a member on another node.
    Template,
    /// Whether a member may be there, and with which manifest.
    Newcomer(Box<Invitation>),
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdAnswer {
    /// How the member is.
    Told(Box<Told>),
    /// Each snapshot, and what is wrong with it.
    Verified(Vec<(Snapshot, Option<String>)>),
    /// What there is to restore, and why no more is known.
    Found(Vec<Source>, Option<String>),
    /// A piece, and the size of the whole file; or why there is none.
    Piece(Result<(Vec<u8>, u64), String>),
    /// The manifest; or why there is none.
    Template(Result<Template, String>),
    /// Whether a member may be there.
    Newcomer(Prepared),
}

/// One command to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// For whom.
    pub node: NodeName,
    /// Names the command for ever: an agent does each at most once and answers a repeated one from its ledger.
    pub command_id: String,
    /// The executor's epoch.
    pub epoch: u64,
    /// Not to be begun later than this after it arrived.
    pub expires_in: Duration,
    /// What.
    pub action: Action,
}

/// How a command ended on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done and verified, now or before.
    Done,
    /// Tried, and failed.
    Failed,
    /// The agent has obeyed a higher epoch: another executor is at work.
    RefusedEpoch,
    /// Not a command that this agent knows or allows, or it has expired.
    Refused,
}

/// An agent's answer to an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderResult {
    /// Who answers.
    pub node: NodeName,
    /// Which command.
    pub command_id: String,
    /// How it ended.
    pub answer: Answer,
    /// For people.
    pub detail: String,
}
