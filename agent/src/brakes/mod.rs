//! What people and the coordinator hold back on this node.
//!
//! ```text
//!  blackstart-agent hold, silence ──► the node's own ─┐
//!                                                     ├─► Book ──► Standing ──► decide, orders, status, report
//!  coordinator ──Word (whole, with its epoch)──► told ┘    └► state_dir/brakes.json
//! ```
//!
//! | what | ends |
//! |---|---|
//! | a hold, or silence | when it is lifted, or when its time is over: by `CLOCK_BOOTTIME` within a boot, across a reboot by the wall clock; one that fell back lengthens it, never past its whole length anew |
//! | a freeze | when it was not renewed for its term, by the monotonic clock: a dead coordinator freezes nobody for ever. Survives the agent, not a reboot |
//!
//! The node's own holds are durable before they are answered. The coordinator's are in force at once and written then: it
//! says them again in each session.

pub mod book;
mod file;
mod shared;

use std::fmt;

use blackstart_proto::remedy::RemedyKind;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::condition::ConditionKind;

pub use shared::{BrakesError, SharedBrakes, keep};

/// What a hold is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// This remedy. A ladder does not climb past it.
    Remedy(RemedyKind),
    /// Every remedy.
    Every,
    /// Every remedy, and the node counts neither for a storm nor for an outage.
    Silence,
}

impl Held {
    /// Whether it holds this remedy.
    pub fn covers(self, remedy: RemedyKind) -> bool {
        match self {
            Self::Remedy(held) => held == remedy,
            Self::Every | Self::Silence => true,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remedy(kind) => kind.fmt(f),
            Self::Every => f.write_str("every remedy"),
            Self::Silence => f.write_str("silence"),
        }
    }
}

/// Whom a hold is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// This node, made on it.
    Local,
    /// This node, by the coordinator.
    Node,
    /// Its cluster.
    Cluster,
    /// The fleet.
    Fleet,
}

impl Scope {
    /// Its name in JSON and the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Node => "node",
            Self::Cluster => "cluster",
            Self::Fleet => "fleet",
        }
    }
}

/// An operator's word that remedies are not to be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// For whom.
    pub scope: Scope,
    /// Of what.
    pub what: Held,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it ends by itself; `None`: it does not.
    pub until: Option<Instant>,
}

/// Many nodes have this condition at once, and none mends it by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Which condition.
    pub kind: ConditionKind,
    /// What was seen.
    pub why: String,
    /// When it ends, unless it is renewed.
    pub until: Instant,
}

/// All that the coordinator says of this node at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The executor's epoch.
    pub epoch: u64,
    /// Its holds.
    pub holds: Vec<Hold>,
    /// Its freezes.
    pub freezes: Vec<Freeze>,
}

/// What is in force; what has ended since is left out by [`Standing::at`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Holds and silence, the node's own first.
    pub holds: Vec<Hold>,
    /// Freezes.
    pub freezes: Vec<Freeze>,
}

impl Standing {
    /// Without what has ended by `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> Self {
        let stands = |hold: &&Hold| hold.until.is_none_or(|until| until > now);
        Self {
            holds: self.holds.iter().filter(stands).cloned().collect(),
            freezes: self
                .freezes
                .iter()
                .filter(|freeze| freeze.until > now)
                .cloned()
                .collect(),
        }
    }

    /// When the next of it ends by itself.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        let holds = self.holds.iter().filter_map(|hold| hold.until);
        holds
            .chain(self.freezes.iter().map(|freeze| freeze.until))
            .filter(|until| *until > now)
            .min()
    }

    /// The node is silenced.
    pub fn silence(&self, now: Instant) -> Option<&Hold> {
        self.holds(now).find(|hold| hold.what == Held::Silence)
    }

    /// What holds this remedy; what is of every remedy comes first. `None` of a remedy: what holds every one.
    pub fn hold(&self, remedy: Option<RemedyKind>, now: Instant) -> Option<&Hold> {
        let every = self.holds(now).find(|hold| hold.what == Held::Every);
        let this = || {
            self.holds(now)
                .find(|hold| remedy.is_some_and(|remedy| hold.what.covers(remedy)))
        };
        every.or_else(this)
    }

    /// What freezes this condition.
    pub fn freeze(&self, kind: ConditionKind, now: Instant) -> Option<&Freeze> {
        self.freezes
            .iter()
            .find(|freeze| freeze.kind == kind && freeze.until > now)
    }

    fn holds(&self, now: Instant) -> impl Iterator<Item = &Hold> {
        self.holds
            .iter()
            .filter(move |hold| hold.until.is_none_or(|until| until > now))
    }
}
