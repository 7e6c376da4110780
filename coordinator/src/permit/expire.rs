//! What becomes of a permit that nobody gave back. Pure.
//!
//! | asked by | its node | within its term | after it |
//! |---|---|---|---|
//! | agent | in session, and its agent has it | stands | stands, and is told: it takes longer than it should |
//! | agent | in session for 10 s, and its agent does not claim it | over once the node is well | over |
//! | agent | not in session | stands | over once the node has been silent for `silent_for` |
//! | FleetLock | in session and well | stands: it may boot any moment | over |
//! | FleetLock | in session and not well | stands | stands, and is told |
//! | FleetLock | not in session | stands | over once the node has been silent for `silent_for` |

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{Asker, Grant};

/// An agent that connects says within this what it has.
pub const CLAIM: Duration = Duration::from_secs(10);

/// What is known of the node of a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its agent's session stands since then; `None`: there is none.
    pub session: Option<Instant>,
    /// It is up by its own word, which is as old as this.
    pub well: Option<Instant>,
    /// Its agent said in this session that it has the permit.
    pub claimed: bool,
    /// Nothing was heard of it since.
    pub silent_since: Instant,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Stands,
    /// It goes on, and somebody should look.
    Overdue,
    /// It is over.
    Over(Why),
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The node is well, and its agent has no such permit any more.
    Well,
    /// Its agent is there and has no such permit any more, and its term has passed.
    Unclaimed,
    /// Its term has passed, and the node was not heard of for long.
    Silent,
}

/// Judges one.
pub fn fate(grant: &Grant, holder: &Holder, silent_for: Duration, now: Instant) -> Fate {
    let due = now >= grant.since + grant.term;
    let Some(session) = holder.session else {
        let silent = now.saturating_duration_since(holder.silent_since) >= silent_for;
        return if due && silent {
            Fate::Over(Why::Silent)
        } else {
            Fate::Stands
        };
    };
    // Its word on how it is has to be of this session, and of a time when it already had the permit.
    let well = holder.well.is_some_and(|at| at > session && at > grant.since);
    match grant.wish.asker {
        Asker::Agent if holder.claimed => {
            if due {
                Fate::Overdue
            } else {
                Fate::Stands
            }
        }
        Asker::Agent if now < session + CLAIM => Fate::Stands,
        Asker::Agent if well => Fate::Over(Why::Well),
        Asker::Agent if due => Fate::Over(Why::Unclaimed),
        Asker::FleetLock if due && well => Fate::Over(Why::Well),
        Asker::FleetLock if due => Fate::Overdue,
        Asker::Agent | Asker::FleetLock => Fate::Stands,
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Well => "the node is well",
            Self::Unclaimed => "its agent has it no more, and its term has passed",
            Self::Silent => "its term has passed, and its node has been silent for long",
        })
    }
}
