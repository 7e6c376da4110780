//! Looks at a level → how fast it rises. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The rate is that of about so long: long enough that one burst is not a trend, short enough that a trend shows
/// half its rate after a second.
const WINDOW: Duration = Duration::from_secs(2);

/// A gap between two looks that says nothing about what was in between.
const GAP: Duration = Duration::from_secs(5);

/// The last looks at one level.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    slack: u64,
    looks: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// A fall by more than `slack` (a reclaim, a rotation) begins anew; one by less is part of the trend.
    pub(super) fn new(slack: u64) -> Self {
        Self {
            slack,
            looks: VecDeque::new(),
        }
    }

    /// Takes a look in.
    pub(super) fn observe(&mut self, now: Instant, level: u64) {
        if let Some((at, last)) = self.looks.back() {
            let fell = last.saturating_sub(level) > self.slack;
            if fell || now.saturating_duration_since(*at) > GAP {
                self.looks.clear();
            }
        }
        self.looks.push_back((now, level));
        // The newest look that is old enough stays as the beginning.
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.looks.pop_front();
        }
    }

    /// How much it rises in a second; 0 when it does not, or after a single look.
    pub(super) fn per_second(&self) -> u64 {
        let (Some((from, low)), Some((to, high))) = (self.looks.front(), self.looks.back()) else {
            return 0;
        };
        let nanos = to.saturating_duration_since(*from).as_nanos();
        (u128::from(high.saturating_sub(*low)) * 1_000_000_000)
            .checked_div(nanos)
            .and_then(|rate| u64::try_from(rate).ok())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(looks: &[(u64, u64)]) -> u64 {
        let start = Instant::now();
        let mut rate = Rate::new(10);
        for (millis, level) in looks {
            rate.observe(start + Duration::from_millis(*millis), *level);
        }
        rate.per_second()
    }

    #[test]
    fn follows_the_last_two_seconds() {
        assert_eq!(rate(&[]), 0);
        assert_eq!(rate(&[(0, 500)]), 0);
        assert_eq!(rate(&[(0, 500), (1000, 600)]), 100);
        assert_eq!(
            rate(&[(0, 0), (1000, 1000), (2000, 1000), (3000, 1000), (4000, 1000)]),
            0
        );
        assert_eq!(rate(&[(0, 100), (1000, 50)]), 0);
    }

    #[test]
    fn a_reclaim_begins_anew_and_a_small_fall_does_not() {
        assert_eq!(rate(&[(0, 0), (1000, 1000), (1100, 100), (1200, 200)]), 1000);
        assert_eq!(rate(&[(0, 0), (500, 105), (1000, 100)]), 100);
    }

    #[test]
    fn looks_far_apart_say_nothing() {
        assert_eq!(rate(&[(0, 0), (60_000, 60_000), (60_100, 61_000)]), 10_000);
    }

    proptest! {
        #[test]
        fn a_steady_rise_is_found_whatever_the_looks(
            per_milli in 0_u64..1_000_000, gaps in prop::collection::vec(1_u64..2000, 2..40),
        ) {
            let mut at = 0;
            let looks: Vec<_> = gaps.into_iter().map(|gap| { at += gap; (at, at * per_milli) }).collect();
            prop_assert_eq!(rate(&looks), per_milli * 1000);
        }
    }
}
