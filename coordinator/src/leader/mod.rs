//! Which of several coordinators leads.
//!
//! ```text
//!                 ┌────────────────────────── etcd ──────────────────────────┐
//!                 │ PREFIX/leader   bound to the leader's lease               │
//!                 │ PREFIX/members/LEASE   who there is                       │
//!                 └──▲───────────────────▲──────────────────────────────▲─────┘
//!   campaign: nobody leads? then I do    │ keeper: renew, every third   │ every write: only while I lead
//!                    │                   │ of the lease                 │
//!  Candidate ──Won──►│ Tenure ◄──────────┘        dispatch ◄── holds? ──┤
//!  (serves as        └── ends: lease too old by our own clock,          └ store::etcd
//!   follower)                  or somebody else leads
//! ```
//!
//! A leader acts only while its [`Tenure`] holds. It is over *before* the lease can have ended, by a clock that goes on while the
//! process is stopped and the machine sleeps; so of two coordinators at most one acts. What slips through between that look and
//! the wire is refused by the agents: the epoch of the next leader is higher.

mod candidate;
mod mirror;
pub(crate) mod tenure;

pub(crate) use candidate::{Candidate, Card, Seen, Won, keep_until};
#[cfg(test)]
pub(crate) use mirror::Copied;
pub(crate) use mirror::Mirror;
pub use tenure::Tenure;

/// The keys that leadership is made of, below the configured prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` ends with a slash.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(crate) fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }

    /// Who leads; its create revision names the tenure.
    pub(crate) fn leader(&self) -> Vec<u8> {
        self.key("leader")
    }

    /// Written with every write of a leader, so that each is done at most once and in order.
    pub(crate) fn turn(&self) -> Vec<u8> {
        self.key("turn")
    }

    pub(crate) fn members(&self) -> Vec<u8> {
        self.key("members/")
    }

    fn member(&self, lease: i64) -> Vec<u8> {
        self.key(&format!("members/{lease:016x}"))
    }
}
