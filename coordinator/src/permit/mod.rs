//! Permits: one lane for each kind of node of a cluster, on which everything that takes a node away for a while goes in turn.
//!
//! ```text
//!  agents ──ask, give back──► api/session ──┐
//!  reboot tools ──FleetLock─► fleetlock ────┼─► keeper   one task, one writer
//!  operators ──release──────► fleet_service ┘     │
//!                                                 ├─► look     fleet, brakes, runs → what each cluster is like
//!                                                 ├─► decide   pure: (requests, permits that stand, clusters) → grant, wait, refuse
//!                                                 ├─► expire   pure: what becomes of a permit that nobody gave back
//!  store ◄── permits, durable before they are told│
//!  each session, queries ◄── watch<Book> ─────────┘
//! ```
//!
//! A permit is durable before it is answered, carries the epoch that it was granted in, and counts until its holder gives it back, until
//! its node is seen to be well without it, or until its term has passed and its node has been silent for long. A coordinator that
//! restarts, or that takes the lead, finds it in the store; its term begins anew, since monotonic clocks do not survive.

pub mod decide;
pub mod expire;
mod handle;
mod keeper;
pub(crate) mod kept;
mod look;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::inventory::{ClusterName, NodeName, Role};

pub use handle::{PermitsHandle, Stopping, Ticket};
pub use keeper::{Keeper, KeeperParts};

/// What a permit is for, in the order of their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PermitKind {
    /// A component of the control plane is stopped and started: it is down, and nothing waits for it in vain for longer.
    ControlPlaneRepair,
    /// A container runtime is killed and restarted.
    RuntimeRestart,
    /// The machine boots anew.
    Reboot,
}

impl PermitKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ControlPlaneRepair, Self::RuntimeRestart, Self::Reboot];

    /// Its name in the store and in the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlaneRepair => "control-plane-repair",
            Self::RuntimeRestart => "runtime-restart",
            Self::Reboot => "reboot",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The node's agent, which says by itself when it is done.
    Agent,
    /// A reboot tool by the `FleetLock` protocol, which is gone while its machine boots.
    FleetLock,
}

impl Asker {
    /// Its name in the store and in the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::FleetLock => "fleetlock",
        }
    }
}

/// A request, on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId {
    /// Whose.
    pub node: NodeName,
    /// The asker's name for it: the same name is the same request.
    pub request: String,
}

impl fmt::Display for PermitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.request)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which request.
    pub id: PermitId,
    /// What for.
    pub kind: PermitKind,
    /// Who asks.
    pub asker: Asker,
    /// What it is to be done to, for people.
    pub subject: String,
    /// Why, for people.
    pub reason: String,
}

/// Whether whoever asks can use a permit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there to be told.
    Here,
    /// It asks again and again, and is between two times: its place is kept.
    Between,
    /// Its session is gone: it is passed over.
    Gone,
}

/// A wish that was not granted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub wish: Wish,
    /// Since when.
    pub since: Instant,
    /// Can it be told now?
    pub presence: Presence,
}

/// A permit that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What was asked for.
    pub wish: Wish,
    /// The executor's epoch when it was granted.
    pub epoch: u64,
    /// Wall clock when it was granted, milliseconds since the Unix epoch; for people only.
    pub granted_unix_ms: u64,
    /// Since when this process knows it.
    pub since: Instant,
    /// It is looked into when it has stood for longer.
    pub term: Duration,
}

impl Grant {
    /// Its line in the book, when it was asked for so often.
    fn line(&self, asked: u64) -> Line {
        Line {
            wish: self.wish.clone(),
            since: self.since,
            standing: Standing::Granted {
                epoch: self.epoch,
                until: self.since + self.term,
            },
            asked,
        }
    }
}

/// What a node is like, as far as a permit cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It attests, in this session and freshly, that it serves.
    Up,
    /// It attests that it does not.
    Down,
    /// Nobody knows.
    Unknown,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// What it is like.
    pub health: Health,
    /// Somebody is at work on it: among workers it counts for nobody.
    pub silenced: bool,
    /// What is held on it, and by whom.
    pub held: BTreeMap<PermitKind, String>,
}

/// A cluster, as far as a permit cares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    /// Its nodes.
    pub members: BTreeMap<NodeName, Member>,
    /// It is in a power event.
    pub power_event: bool,
    /// The run that brings it back.
    pub run: Option<String>,
    /// What is frozen in it.
    pub storm: Option<String>,
}

/// Every cluster.
pub type FleetState = BTreeMap<ClusterName, ClusterState>;

/// How many workers of a cluster may be away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many.
    Nodes(usize),
    /// So many percent of them, and one at least.
    Percent(u32),
}

impl Budget {
    /// For a cluster of so many workers.
    pub fn of(self, workers: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Percent(percent) => {
                let share = workers.saturating_mul(usize::try_from(percent).unwrap_or(usize::MAX)) / 100;
                share.max(1)
            }
        }
    }
}

/// What goes in turn with each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Masters and external etcd members of a cluster: one at a time.
    ControlPlane(ClusterName),
    /// Its workers: as many as the budget has.
    Workers(ClusterName),
}

impl Lane {
    /// The lane of a node.
    pub fn of(cluster: &ClusterName, role: Role) -> Self {
        match role {
            Role::ControlPlane | Role::Etcd => Self::ControlPlane(cluster.clone()),
            Role::Worker => Self::Workers(cluster.clone()),
        }
    }

    /// Its name within its cluster.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ControlPlane(_) => "control-plane",
            Self::Workers(_) => "workers",
        }
    }
}

/// How a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was granted.
    Granted {
        /// In this epoch.
        epoch: u64,
        /// When it is looked into.
        until: Instant,
    },
    /// It waits, for this.
    Waiting(String),
    /// It never will be granted, for this reason.
    Refused(String),
}

/// One line of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is asked for.
    pub wish: Wish,
    /// Since when it has stood so.
    pub since: Instant,
    /// How it stands.
    pub standing: Standing,
    /// How often it was asked: each time is answered.
    pub asked: u64,
}

/// Permits that stand, then requests in the order of their turns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    /// Its lines.
    pub lines: Vec<Line>,
}
