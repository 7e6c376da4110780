//! What the agent knows of its node at one instant: made by [`crate::run`], told to the coordinator by [`crate::link`].

use std::time::Duration;

use tokio::time::Instant;

use crate::brakes::Standing;
use crate::condition::Condition;
use crate::decide::Waiting;
use crate::gate::GateState;
use crate::signal::{DiskSignal, UnitSignal};

/// What the agent vouches for, observed in this boot.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// The boot gate.
    pub gate: GateState,
    /// The kubelet's unit is active.
    pub kubelet_active: bool,
    /// The kubelet's `/healthz` answered 200 at the last probe.
    pub kubelet_healthy: bool,
    /// The API server's `/readyz` on this node answered 200 at the last probe; `false` on workers.
    pub apiserver_ready: bool,
    /// How the API server answered the last probe; `None` on workers, and when the answer says nothing of its load.
    pub api_server: Option<ApiServerAnswer>,
    /// When the oldest of the observations behind these was made.
    pub observed_at: Instant,
    /// What the node waits for, for people; empty when nothing.
    pub waiting_on: String,
}

/// How an API server answered: what the coordinator paces its waves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiServerAnswer {
    /// 200, after so long.
    Ready(Duration),
    /// 429.
    Overloaded,
    /// 5xx: it runs, and what it needs does not.
    Unavailable,
    /// Nothing within the probe's deadline.
    TimedOut,
    /// Nobody listens, or the connection was cut.
    Refused,
}

/// Everything that a report tells: each replaces the one before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// What the agent vouches for.
    pub attestation: Attestation,
    /// What stands, also what the agent itself found out of its own remedies.
    pub conditions: Vec<Condition>,
    /// The watched units, as last seen.
    pub units: Vec<UnitSignal>,
    /// Units that may be restarted for what they serve (the clock, the CNI configuration), of those that are installed.
    pub helpers: Vec<String>,
    /// The watched file systems, as last seen.
    pub disks: Vec<DiskSignal>,
    /// What people and the coordinator hold back.
    pub brakes: Standing,
    /// Why nothing is done at present about conditions that have remedies.
    pub waiting: Vec<Waiting>,
}

/// Answers within this are alike: the coordinator calls up to half a second good.
const PROMPT: Duration = Duration::from_millis(100);

impl Attestation {
    /// The same was seen, only later.
    fn is_like(&self, other: &Self) -> bool {
        let alike = match (self.api_server, other.api_server) {
            (Some(ApiServerAnswer::Ready(one)), Some(ApiServerAnswer::Ready(other))) => {
                one == other || one.max(other) < PROMPT
            }
            (one, other) => one == other,
        };
        alike
            && Self {
                observed_at: other.observed_at,
                api_server: other.api_server,
                ..self.clone()
            } == *other
    }
}

impl Picture {
    /// It says what `other` says, only later: nobody has to hear of it at once.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self {
            attestation,
            conditions,
            units,
            disks,
            brakes,
            waiting,
            // Told on the node alone.
            helpers: _,
        } = self;
        attestation.is_like(&other.attestation)
            && *conditions == other.conditions
            && *units == other.units
            && *disks == other.disks
            && *brakes == other.brakes
            && *waiting == other.waiting
    }

    /// Why nothing is done about a condition at present; `None` when something is, or when nothing can be.
    pub fn waiting_on(&self, condition: &Condition) -> Option<&Waiting> {
        let key = &condition.key;
        self.waiting
            .iter()
            .find(|waiting| waiting.kind == key.kind && waiting.subject == key.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_only_seen_again_is_alike_and_every_other_change_is_news() {
        let attested = |millis, healthy| Attestation {
            gate: GateState::Passed,
            kubelet_active: true,
            kubelet_healthy: healthy,
            apiserver_ready: true,
            api_server: Some(ApiServerAnswer::Ready(Duration::from_millis(millis))),
            observed_at: Instant::now(),
            waiting_on: String::new(),
        };
        let first = attested(3, true);
        let later = Attestation {
            observed_at: first.observed_at + Duration::from_secs(2),
            ..attested(9, true)
        };
        assert!(later.is_like(&first));
        for news in [
            attested(3, false),
            attested(600, true),
            Attestation {
                api_server: Some(ApiServerAnswer::Overloaded),
                ..attested(3, true)
            },
            Attestation {
                waiting_on: "clock".to_owned(),
                ..attested(3, true)
            },
        ] {
            assert!(!news.is_like(&first), "{news:?}");
        }
    }
}
