//! The coordinator's typed commands, as the agent's loop takes them from [`crate::link`].

use tokio::time::Instant;

use crate::ledger::{Outcome, Record, Sequence};
use crate::remedy::Remedy;

/// One command of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Names it for ever: done at most once, a repeated one is answered from the ledger.
    pub command_id: String,
    /// The executor's epoch.
    pub epoch: u64,
    /// Not to be begun after this.
    pub expires_at: Instant,
    /// What to do.
    pub remedy: Remedy,
    /// Why, for people.
    pub reason: String,
}

/// How an [`Order`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStatus {
    /// Done and verified, now or before.
    Done,
    /// Tried, and failed.
    Failed,
    /// Its epoch is lower than one already obeyed.
    RefusedEpoch,
    /// Not a command that this agent allows, or it has expired.
    Refused,
}

/// The answer to an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderAnswer {
    /// Which.
    pub command_id: String,
    /// How it ended.
    pub status: OrderStatus,
    /// For people.
    pub detail: String,
}

/// What the ledger makes of an [`Order`]. Which remedies are allowed here is asked of those alone that are to [begin](Rule::Begin).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A higher epoch than the order's was obeyed: answered, and nothing is written.
    RefuseEpoch,
    /// It was done here, with this outcome: that is the answer.
    Told(Outcome),
    /// It was begun here and nobody knows how it ended: what became of it is looked at first.
    LookAfter(Sequence),
    /// It came too late to be begun.
    Expired,
    /// New, of an epoch to be obeyed, and in time: its intent is written, then it is done.
    Begin,
}

/// The rules of obedience. Pure: `highest_epoch` and `record` (of this very command) are what the ledger knows.
///
/// Whatever the answer, if it is not [`Rule::RefuseEpoch`] the order's epoch has to be durable before it is acted on.
pub fn rule(order: &Order, highest_epoch: u64, record: Option<&Record>, now: Instant) -> Rule {
    if order.epoch < highest_epoch {
        return Rule::RefuseEpoch;
    }
    match record {
        Some(record) => match &record.outcome {
            Some(outcome) => Rule::Told(outcome.clone()),
            None => Rule::LookAfter(record.sequence),
        },
        None if order.expires_at <= now => Rule::Expired,
        None => Rule::Begin,
    }
}
