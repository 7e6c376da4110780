//! A fleet of agents that are nothing but their sessions: thousands of them in one process, over real mutual TLS, against a real
//! coordinator.
//!
//! ```text
//!  bench-fleet, tests ──stage──► a directory: authority, inventory, configuration ──► blackstart-coordinator
//!        │                                                                                  ▲ mTLS, a certificate a node
//!        └──generator: orders as lines ──► `bench-fleet sessions` (crowd) ── node ── line ──┘
//! ```
//!
//! A node's session says hello, reports what a healthy agent reports, and comes back after a loss with the agent's own back-off and
//! deadlines. What it never does is watch or mend anything.

pub mod crowd;
pub mod generator;
mod node;
pub mod stage;
mod wire;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a generator is told, one to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Tell how it stands.
    Look,
    /// Every connection breaks at once; every node comes back.
    Cut,
    /// The first so many nodes lose their power: their connections stay open, and nothing is said on them.
    Dark(usize),
    /// The first so many of them have power again: each is in a new boot after an unclean end, held at its gate.
    Back(usize),
}

/// How it stands with the sessions of a generator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Sessions whose first report was acknowledged, since all were cut the last time.
    pub registered: usize,
    /// Connections that were tried, ever.
    pub dials: usize,
    /// Of them those that came to no session.
    pub failures: usize,
    /// What the last of those said.
    pub trouble: String,
    /// Since a node that is dark now said its last word; meaningless if none is.
    pub quiet: Duration,
}

/// Name of a node of such a fleet.
pub fn name(number: usize) -> String {
    format!("n{number:05}")
}

/// Nodes of one cluster.
const CLUSTER: usize = 500;
/// Control planes of each.
const MASTERS: usize = 3;

fn is_master(number: usize) -> bool {
    number % CLUSTER < MASTERS
}
