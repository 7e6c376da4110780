//! [`Signal::Pleg`] → `KubeletPlegUnhealthy`. Pure.
//!
//! One look that finds the message raises it: the kubelet says so only when it has not seen its containers for three minutes. What each
//! kubelet says while it starts has to be found in [`STARTING_LOOKS`] looks in a row. A look that finds nothing clears it. A look that could not
//! be made neither raises nor clears, and does not count as one in a row.

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::signal::{PlegSignal, Signal};

/// A kubelet that has not seen its containers by then is not only starting. The messages of one start may lie in two looks.
pub const STARTING_LOOKS: u32 = 3;

/// What the kubelet said.
#[derive(Debug, Clone)]
pub struct Pleg {
    unit: String,
    /// `None` after a look that found nothing.
    found: Option<Found>,
}

#[derive(Debug, Clone)]
struct Found {
    since: Instant,
    /// Looks in a row that found something.
    looks: u32,
    /// One of them found more than a start.
    ill: bool,
    message: String,
}

impl Pleg {
    /// Nothing seen yet.
    pub fn new(kubelet_unit: &str) -> Self {
        Self {
            unit: kubelet_unit.to_owned(),
            found: None,
        }
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Pleg(seen) = signal else { return };
        let (message, ill) = match seen {
            PlegSignal::Quiet => {
                self.found = None;
                return;
            }
            PlegSignal::Starting { message } => (message, false),
            PlegSignal::Unhealthy { message } => (message, true),
            PlegSignal::Unobservable { .. } => return,
        };
        let found = self.found.get_or_insert_with(|| Found {
            since: now,
            looks: 0,
            ill: false,
            message: String::new(),
        });
        found.looks = found.looks.saturating_add(1);
        found.ill |= ill;
        found.message.clone_from(message);
    }

    /// What stands.
    pub fn condition(&self) -> Option<Condition> {
        let found = self.found.as_ref()?;
        if !found.ill && found.looks < STARTING_LOOKS {
            return None;
        }
        Some(Condition {
            key: ConditionKey {
                kind: ConditionKind::KubeletPlegUnhealthy,
                subject: self.unit.clone(),
            },
            severity: Severity::Critical,
            since: found.since,
            evidence: format!("its journal says: {}", found.message),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[PlegSignal]) -> Option<Condition> {
        let mut pleg = Pleg::new("kubelet.service");
        for look in looks {
            pleg.observe(&Signal::Pleg(look.clone()), Instant::now());
        }
        pleg.condition()
    }

    fn ill() -> PlegSignal {
        PlegSignal::Unhealthy {
            message: "PLEG is not healthy".to_owned(),
        }
    }

    fn starting() -> PlegSignal {
        PlegSignal::Starting {
            message: "pleg has yet to be successful".to_owned(),
        }
    }

    fn blind() -> PlegSignal {
        PlegSignal::Unobservable { why: String::new() }
    }

    #[test]
    fn one_message_raises_and_a_whole_look_without_one_clears() {
        assert_eq!(after(&[]), None);
        let condition = after(&[ill()]).unwrap();
        assert_eq!(condition.evidence, "its journal says: PLEG is not healthy");
        assert_eq!(after(&[ill(), PlegSignal::Quiet]), None);
    }

    #[test]
    fn a_start_is_an_illness_only_when_it_goes_on() {
        assert_eq!(after(&[starting(), starting()]), None);
        assert_eq!(
            after(&[starting(), starting(), PlegSignal::Quiet, starting()]),
            None
        );
        assert!(after(&[starting(), starting(), starting()]).is_some());
        // Restarted while it was ill: not well before it says no more.
        assert!(after(&[ill(), starting()]).is_some());
    }

    #[test]
    fn a_journal_that_cannot_be_read_neither_raises_nor_clears() {
        assert_eq!(after(&[blind(), blind(), blind()]), None);
        assert!(after(&[ill(), blind(), blind()]).is_some());
        assert_eq!(after(&[starting(), blind(), starting()]), None);
    }
}
