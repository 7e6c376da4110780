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

use crate::inventory::NodeName;

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
