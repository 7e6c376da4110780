//! One rhythm for everything that is looked at now and then: what is due within the same quarter of a second or so is looked at together, so that an
//! idle agent wakes its processor seldom, and looks at what came of it all at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What is due within so long falls on one beat. Shorter periods keep their own time: they are those of a node in trouble.
///
/// tokio keeps timers in slots of 64 ms until they are near, and wakes at the beginning of a slot to see which are: a timer that is due just then
/// wakes once, any other twice.
const STEP: Duration = Duration::from_millis(4 * 64);
/// A runtime begins to count this long, at most, before the first thing that it runs.
const STARTED: Duration = Duration::from_millis(1);

/// The rhythm of one agent. Agents of a fleet that came back together keep out of step by the jitter of what they ask over the network.
#[derive(Debug, Clone, Copy)]
pub struct Beat(Instant);

impl Beat {
    /// In step with the timers of a runtime that has just begun: to be called before anything else on it.
    pub fn of_new_runtime() -> Self {
        let now = Instant::now();
        Self(now.checked_sub(STARTED).unwrap_or(now))
    }

    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Waits for the next look: about `period` after the last one `begun`, half a step more or less. A look that took longer than that
    /// is followed by a whole period without one.
    pub async fn pause(self, begun: Instant, period: Duration) {
        sleep_until(self.next(begun, period, Instant::now())).await;
    }

    /// The beat that is nearest to `period` after `begun`.
    pub fn due(self, begun: Instant, period: Duration) -> Instant {
        let due = begun + period;
        if period < STEP { due } else { self.nearest(due) }
    }

    fn next(self, begun: Instant, period: Duration, now: Instant) -> Instant {
        let due = self.due(begun, period);
        if due > now { due } else { now + period }
    }

    fn nearest(self, due: Instant) -> Instant {
        let since = due.saturating_duration_since(self.0) + STEP / 2;
        let over = since.as_nanos() % STEP.as_nanos();
        self.0 + since - Duration::from_nanos(u64::try_from(over).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Watchers that began within a moment of each other, with whatever periods.
        #[test]
        fn what_is_due_together_falls_together_and_no_period_grows_or_shrinks(
            late in 0_u64..20, period in 1_u64..100, looks in 1_u32..200,
        ) {
            let start = Instant::now();
            let beat = Beat(start);
            let period = STEP * u32::try_from(period).unwrap();
            let mut at = start + Duration::from_millis(late);
            for look in 1..=looks {
                // A timer is some time late, and the look takes some.
                at = beat.next(at + Duration::from_millis(2), period, at + Duration::from_millis(5));
                prop_assert_eq!(at, start + period * look);
            }
        }

        #[test]
        fn the_next_look_is_never_past_nor_far(begun in 0_u64..10_000, period in 1_u64..60_000, took in 0_u64..100_000) {
            let start = Instant::now();
            let (begun, period) = (start + Duration::from_millis(begun), Duration::from_millis(period));
            let now = begun + Duration::from_millis(took);
            let next = Beat(start).next(begun, period, now);
            prop_assert!(next > now && next <= now + period + STEP / 2);
        }
    }
}
