//! Do many nodes have one condition at once? Then it is not the nodes, and none is to mend it by itself. Pure.
//!
//! | power event | exempt | frozen | raised at `threshold` | standing below half | for `hold` | → |
//! |---|---|---|---|---|---|---|
//! | yes | | no | | | | calm: the cold start owns the fleet |
//! | yes | | yes | | | | thaw |
//! | no | yes | no | | | | calm |
//! | no | yes | yes | | | | thaw |
//! | no | no | no | no | | | calm |
//! | no | no | no | yes | | | freeze |
//! | no | no | yes | | no | | frozen, the hold begins anew |
//! | no | no | yes | | yes | no | frozen, the hold goes on |
//! | no | no | yes | | yes | yes | thaw |
//!
//! `threshold` is the larger of `nodes` and of `share_percent` of the cluster's nodes that are not silenced. What was raised before an
//! operator thawed it, or before a power event was over, does not count again.

pub mod guard;

use tokio::time::Instant;

use crate::policy::StormPolicy;

/// A condition that is frozen across a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Since when.
    pub since: Instant,
    /// At so many nodes; it thaws below half of that.
    pub threshold: usize,
    /// What was seen then.
    pub evidence: String,
    /// Since when it stands on fewer than half.
    pub below_since: Option<Instant>,
}

/// What is seen of one condition in one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Nodes that count: declared, and not silenced.
    pub nodes: usize,
    /// Those on which it was raised within the window, and since the last thaw.
    pub raised: usize,
    /// Those in session on which it stands.
    pub standing: usize,
    /// The cluster is in a power event, or a cold start brings it back.
    pub power_event: bool,
    /// Its remedies are never frozen.
    pub exempt: bool,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is frozen.
    Calm,
    /// It is to be frozen.
    Freeze {
        /// [`Frozen::threshold`].
        threshold: usize,
    },
    /// It stays frozen.
    Frozen {
        /// [`Frozen::below_since`].
        below_since: Option<Instant>,
    },
    /// It is over.
    Thaw(Thaw),
}

/// Why a storm is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// It stood on few enough nodes for long enough.
    Passed,
    /// A power event: the cold start owns the fleet.
    PowerEvent,
    /// It is not frozen by these settings.
    Exempt,
}

impl Thaw {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "it stands on less than half of the nodes that it was frozen at",
            Self::PowerEvent => "a power event: the cold start owns the cluster",
            Self::Exempt => "it is exempt by the settings in force",
        }
    }
}

/// So many nodes make a storm of a cluster of so many.
pub fn threshold(nodes: usize, policy: &StormPolicy) -> usize {
    let share = (nodes * policy.share_percent as usize).div_ceil(100);
    share.max(policy.nodes)
}

/// The verdict on one condition of one cluster.
pub fn judge(frozen: Option<&Frozen>, seen: &Seen, policy: &StormPolicy, now: Instant) -> Verdict {
    let ends = if seen.power_event {
        Some(Thaw::PowerEvent)
    } else if seen.exempt {
        Some(Thaw::Exempt)
    } else {
        None
    };
    match (frozen, ends) {
        (None, Some(_)) => Verdict::Calm,
        (Some(_), Some(why)) => Verdict::Thaw(why),
        (None, None) => {
            let threshold = threshold(seen.nodes, policy);
            if seen.raised >= threshold {
                Verdict::Freeze { threshold }
            } else {
                Verdict::Calm
            }
        }
        (Some(frozen), None) if seen.standing * 2 >= frozen.threshold => {
            Verdict::Frozen { below_since: None }
        }
        (Some(frozen), None) => {
            let since = frozen.below_since.unwrap_or(now);
            if now.saturating_duration_since(since) >= policy.hold {
                Verdict::Thaw(Thaw::Passed)
            } else {
                Verdict::Frozen {
                    below_since: Some(since),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frozen(below_since: Option<Instant>) -> Frozen {
        Frozen {
            since: Instant::now(),
            threshold: 3,
            evidence: String::new(),
            below_since,
        }
    }

    #[test]
    fn the_truth_table() {
        let policy = StormPolicy::default();
        let now = Instant::now();
        let long = now.checked_sub(policy.hold).unwrap();
        let just = now.checked_sub(policy.hold / 2).unwrap();
        let (calm, below) = (None, Some(frozen(None)));
        let seen = |power_event, exempt, raised, standing| Seen {
            nodes: 4,
            raised,
            standing,
            power_event,
            exempt,
        };
        let stays = |below_since| Verdict::Frozen { below_since };
        for (state, seen, expected) in [
            (&calm, seen(true, false, 4, 4), Verdict::Calm),
            (&below, seen(true, false, 4, 4), Verdict::Thaw(Thaw::PowerEvent)),
            (&calm, seen(false, true, 4, 4), Verdict::Calm),
            (&below, seen(false, true, 4, 4), Verdict::Thaw(Thaw::Exempt)),
            (&calm, seen(false, false, 2, 4), Verdict::Calm),
            (&calm, seen(false, false, 3, 0), Verdict::Freeze { threshold: 3 }),
            (&below, seen(false, false, 0, 2), stays(None)),
            (&Some(frozen(Some(long))), seen(false, false, 0, 2), stays(None)),
            (&below, seen(false, false, 0, 1), stays(Some(now))),
            (
                &Some(frozen(Some(just))),
                seen(false, false, 0, 1),
                stays(Some(just)),
            ),
            (
                &Some(frozen(Some(long))),
                seen(false, false, 4, 1),
                Verdict::Thaw(Thaw::Passed),
            ),
        ] {
            let verdict = judge(state.as_ref(), &seen, &policy, now);
            assert_eq!(verdict, expected, "{state:?} {seen:?}");
        }
    }

    #[test]
    fn a_large_cluster_takes_its_share_and_a_small_one_three() {
        let policy = StormPolicy::default();
        let of = |nodes| threshold(nodes, &policy);
        assert_eq!([of(1), of(4), of(15), of(16), of(100)], [3, 3, 3, 4, 20]);
        assert_eq!(policy.window, Duration::from_mins(1));
    }
}
