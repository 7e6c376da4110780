//! Manifests of control-plane components that lie out of the kubelet's sight by the coordinator's word, and how they come back.
//!
//! In a cold start the controller manager and the scheduler would act on leases that are old, and evict the pods of nodes that are
//! only not back yet. So their manifests are moved out before the kubelet starts, and moved back once enough nodes are there.
//!
//! ```text
//!  hold-manifest ──► marker, durable ──► manifest out ┐
//!                                                     ├─► held ──► diagnose: not missed; attestation; status
//!  release-manifest, or nobody speaks ──► manifest back ──► marker
//! ```
//!
//! What is out is told from the directory, why it is out from the marker `state_dir/set-aside.json`. The order of the two makes that a crash
//! leaves nothing that is not found: what the marker names and is not out was never moved, or is back; what is out and is not named is put
//! back by the next agent.
//!
//! They come back by themselves ([`comes_back`]): when nobody has spoken to this node for a worker's dead-man time, since it is the workers'
//! leases that they wait for, and soon when a coordinator answers and does not claim them, as after an abort. A new boot keeps them
//! out, and its dead-man time begins with its agent.

mod all_back;
mod shared;

use std::time::Duration;

use blackstart_proto::component::Component;
use serde::{Deserialize, Serialize};

pub use all_back::{PutBack, all_back};
pub use shared::{HoldError, SetAside};

/// A coordinator that answers may take so long to claim what it has set aside: one that has just begun does not know its nodes yet.
pub const LET_GO: Duration = Duration::from_secs(30);

/// A component whose manifest is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub component: Component,
    /// The run that asked.
    pub run_id: String,
    /// Why, for people.
    pub reason: String,
    /// `CLOCK_BOOTTIME` when it was moved out; in a later boot, when that boot's agent began.
    pub since: Duration,
}

/// When what is held comes back by itself, by `CLOCK_BOOTTIME`; `None`: nothing is held. Pure.
///
/// `heard`: the coordinator's last word that it works on this node. `unclaimed`: since when a coordinator has answered without it.
pub fn comes_back(
    held: &[Held],
    heard: Option<Duration>,
    unclaimed: Option<Duration>,
    dead_man: Duration,
    now: Duration,
) -> Option<Duration> {
    let since = held.iter().map(|held| held.since).max()?;
    // A word of the future is none.
    let spoken = heard
        .filter(|heard| *heard <= now)
        .map_or(since, |heard| heard.max(since));
    let silent = spoken.saturating_add(dead_man);
    let let_go = unclaimed.map_or(Duration::MAX, |unclaimed| {
        unclaimed.max(spoken).saturating_add(LET_GO)
    });
    Some(silent.min(let_go))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_MAN: Duration = Duration::from_mins(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(since: u64) -> Held {
        Held {
            component: Component::Scheduler,
            run_id: "cold-start-1".to_owned(),
            reason: String::new(),
            since: seconds(since),
        }
    }

    #[test]
    fn what_is_held_comes_back_when_nobody_speaks_or_nobody_claims_it() {
        let now = seconds(1000);
        let at = |heard, unclaimed| comes_back(&[held(100), held(40)], heard, unclaimed, DEAD_MAN, now);
        assert_eq!(comes_back(&[], None, None, DEAD_MAN, now), None);
        assert_eq!(at(None, None), Some(seconds(700)), "since the last was moved out");
        assert_eq!(
            at(Some(seconds(300)), None),
            Some(seconds(900)),
            "since the last word"
        );
        assert_eq!(
            at(Some(seconds(2000)), None),
            Some(seconds(700)),
            "a word of the future"
        );
        assert_eq!(at(Some(seconds(300)), Some(seconds(400))), Some(seconds(430)));
        assert_eq!(
            at(Some(seconds(420)), Some(seconds(400))),
            Some(seconds(450)),
            "the word counts from when it was said"
        );
    }
}
