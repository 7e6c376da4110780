//! Does a level grow, all the time? Pure.
//!
//! ```text
//!  samples ──► the lowest of each of 48 buckets ─┬─► Theil–Sen slope: from, to
//!                                                └─► the lowest of each quarter: does each bring its share of that?
//! ```
//!
//! The median of all slopes between two buckets (Theil–Sen) does not mind outliers, and tells how much. Whether it is a trend at all the
//! quarters tell: their lowest points are what is left after garbage collections, so that a sawtooth with teeth shorter than a
//! quarter is flat. Teeth that nearly keep time with the samples move through them slowly, by no more than half their height: a growth of less
//! than that is none. A step, or two, grows in one quarter and not in the others, and so does a cache that fills up; a leak grows in all.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Buckets in a window.
const BUCKETS: u32 = 48;
/// Fewer tell nothing.
const LEAST: usize = 12;
/// Each quarter of the time has to bring at least this share of the growth; an even growth brings a quarter of it.
const SHARE: f64 = 1.0 / 8.0;
/// The same for a growth that goes on, once it was found.
const SHARE_STILL: f64 = 1.0 / 16.0;

/// How a level has grown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    /// At the beginning of the time.
    pub(super) from: f64,
    /// At its end.
    pub(super) to: f64,
    /// Over how long.
    pub(super) span: Duration,
    /// By the median of slopes, a second.
    pub(super) per_second: f64,
    /// The smallest gain of a quarter over the one before, as a share of what slope and span make.
    share: f64,
    /// How far the level goes up and down within a bucket, mostly.
    swing: f64,
}

impl Growth {
    /// It grew all the time.
    pub(super) fn is_steady(&self) -> bool {
        let grown = self.to - self.from;
        self.per_second > 0.0 && grown >= self.swing / 2.0 && self.share >= SHARE
    }

    /// It has not come to an end, if it was steady before.
    pub(super) fn goes_on(&self) -> bool {
        self.per_second > 0.0 && self.to > self.from && self.share >= SHARE_STILL
    }
}

/// A level over time.
#[derive(Debug, Clone)]
pub(super) struct Trend {
    window: Duration,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    begun: Instant,
    lowest: f64,
    highest: f64,
}

impl Trend {
    pub(super) const fn new(window: Duration) -> Self {
        Self {
            window,
            buckets: VecDeque::new(),
        }
    }

    /// Takes in the level at `now`.
    pub(super) fn add(&mut self, level: f64, now: Instant) {
        match self.buckets.back_mut() {
            Some(last) if now.saturating_duration_since(last.begun) < self.window / BUCKETS => {
                last.lowest = last.lowest.min(level);
                last.highest = last.highest.max(level);
            }
            Some(_) | None => self.buckets.push_back(Bucket {
                begun: now,
                lowest: level,
                highest: level,
            }),
        }
        while self
            .buckets
            .front()
            .is_some_and(|first| now.saturating_duration_since(first.begun) > self.window)
        {
            self.buckets.pop_front();
        }
    }

    /// How it has grown; `None` while too little is known.
    pub(super) fn growth(&self) -> Option<Growth> {
        // The last bucket may still fall.
        let whole = self.buckets.len().checked_sub(1)?;
        if whole < LEAST {
            return None;
        }
        let begun = self.buckets.front()?.begun;
        let points: Vec<(f64, f64)> = self
            .buckets
            .iter()
            .take(whole)
            .map(|bucket| {
                let at = bucket.begun.saturating_duration_since(begun);
                (at.as_secs_f64(), bucket.lowest)
            })
            .collect();
        let mut swings: Vec<f64> = self
            .buckets
            .iter()
            .take(whole)
            .map(|bucket| bucket.highest - bucket.lowest)
            .collect();
        let mut slopes: Vec<f64> = points
            .iter()
            .enumerate()
            .flat_map(|(index, (x, y))| {
                points[index + 1..]
                    .iter()
                    .map(move |(later, level)| (level - y) / (later - x))
            })
            .collect();
        let per_second = median(&mut slopes)?;
        let quarters: Vec<f64> = (0..4)
            .map(|quarter| {
                points[whole * quarter / 4..whole * (quarter + 1) / 4]
                    .iter()
                    .map(|(_, level)| *level)
                    .fold(f64::INFINITY, f64::min)
            })
            .collect();
        let least = quarters
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(f64::INFINITY, f64::min);
        let (end, _) = *points.last()?;
        let grown = per_second * end;
        // Where the middle of the levels is on the middle of the time.
        let mut rests: Vec<f64> = points.iter().map(|(x, y)| y - per_second * x).collect();
        let from = median(&mut rests)?;
        Some(Growth {
            from,
            to: from + grown,
            span: Duration::from_secs_f64(end),
            per_second,
            swing: median(&mut swings)?,
            share: if grown > 0.0 { least / grown } else { 0.0 },
        })
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_hours(6);
    const MINUTES: u32 = 6 * 60;
    const MIB: f64 = 1_048_576.0;

    /// The growth of a level that is told by the minute.
    fn grown(level: impl Fn(f64) -> f64) -> Option<Growth> {
        let start = Instant::now();
        let mut trend = Trend::new(WINDOW);
        for minute in 0..MINUTES {
            trend.add(
                level(f64::from(minute)),
                start + Duration::from_mins(minute.into()),
            );
        }
        trend.growth()
    }

    /// A leak that matters: steady, and by at least 256 MiB.
    fn leaks(growth: Option<Growth>) -> bool {
        growth.is_some_and(|growth| growth.is_steady() && growth.to - growth.from >= 256.0 * MIB)
    }

    /// A noise that is the same for the same minute, between 0 and 1.
    fn noise(seed: u64, minute: f64) -> f64 {
        let mixed = (minute.to_bits() ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        f64::from(u32::try_from((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32).unwrap())
            / f64::from(u32::MAX)
    }

    #[test]
    fn a_short_time_tells_nothing() {
        let start = Instant::now();
        let mut trend = Trend::new(WINDOW);
        for minute in 0..60_u32 {
            trend.add(f64::from(minute), start + Duration::from_mins(minute.into()));
        }
        assert_eq!(trend.growth(), None);
    }

    #[test]
    fn the_window_bounds_what_is_kept() {
        let start = Instant::now();
        let mut trend = Trend::new(WINDOW);
        for minute in 0..10 * u64::from(MINUTES) {
            trend.add(1.0, start + Duration::from_mins(minute));
        }
        assert!(trend.buckets.len() <= 50, "{}", trend.buckets.len());
    }

    #[test]
    fn two_steps_and_a_cache_that_fills_are_no_leak() {
        let two = |minute: f64| match minute {
            ..100.0 => 0.0,
            100.0..220.0 => 1000.0 * MIB,
            _ => 2000.0 * MIB,
        };
        assert!(!leaks(grown(two)));
        assert!(!leaks(grown(|minute| 4000.0
            * MIB
            * (1.0 - (-minute / 60.0).exp()))));
    }

    proptest! {
        #[test]
        fn noise_is_no_leak(seed in any::<u64>(), level in 50.0..4000.0, wide in 0.0..1.0) {
            let growth = grown(|minute| level * MIB * (1.0 + wide * noise(seed, minute)));
            prop_assert!(!leaks(growth), "{growth:?}");
        }

        /// Garbage is collected at the latest every hour; memory rises in between.
        #[test]
        fn a_sawtooth_is_no_leak(
            seed in any::<u64>(),
            level in 50.0..2000.0,
            tooth in 0.0..4000.0,
            period in 2.0..60.0,
        ) {
            let growth = grown(|minute| MIB * (level + tooth * (minute % period) / period + 20.0 * noise(seed, minute)));
            prop_assert!(!leaks(growth), "{growth:?}");
        }

        #[test]
        fn a_step_is_no_leak(seed in any::<u64>(), at in 0.0..360.0, high in 0.0..8000.0, wide in 0.0..100.0) {
            let growth = grown(|minute| {
                MIB * (500.0 + wide * noise(seed, minute) + if minute >= at { high } else { 0.0 })
            });
            prop_assert!(!leaks(growth), "{growth:?}");
        }

        /// What is left after each collection grows; the garbage in between is many times that.
        #[test]
        fn a_slow_leak_under_garbage_is_found(
            seed in any::<u64>(),
            hourly in 100.0..2000.0_f64,
            tooth in 0.0..1000.0,
            period in 1.0..6.0,
        ) {
            let growth = grown(|minute| {
                let garbage = tooth * (minute % period) / period * noise(seed, minute);
                MIB * (300.0 + hourly * minute / 60.0 + garbage)
            });
            prop_assert!(leaks(growth), "{growth:?}");
            let told = growth.unwrap().per_second * 3600.0 / MIB;
            prop_assert!((told / hourly - 1.0).abs() < 0.25, "{told} MiB an hour, and it is {hourly}");
        }
    }
}
