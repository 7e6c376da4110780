//! [`Signal::Clock`] → what is wrong with the node's time. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::ClockSettings;
use crate::signal::{ClockSignal, Keeper, Signal};

/// A jump is told for so long.
pub const JUMP_TOLD: Duration = Duration::from_mins(10);
/// Less is within what two servers differ by.
pub(crate) const BEHIND: Duration = Duration::from_secs(2);

/// The node's wall clock.
#[derive(Debug, Clone)]
pub struct Clock {
    settings: ClockSettings,
    other_keeper: Option<Keeper>,
    rtc_behind: Option<(Instant, Duration)>,
    unkept_since: Option<Instant>,
    behind: Option<(Instant, Duration)>,
    jump: Option<(Instant, i64)>,
}

impl Clock {
    /// Nothing seen yet.
    pub const fn new(settings: ClockSettings) -> Self {
        Self {
            settings,
            other_keeper: None,
            rtc_behind: None,
            unkept_since: None,
            behind: None,
            jump: None,
        }
    }

    /// Judges by other settings from now on.
    pub fn retune(&mut self, settings: ClockSettings) {
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Clock(seen) = signal else { return };
        let ClockSignal {
            synchronised,
            jump_ms,
            behind,
            rtc_behind,
            ref other_keeper,
        } = *seen;
        self.other_keeper.clone_from(other_keeper);
        match synchronised {
            Some(true) => self.unkept_since = None,
            Some(false) => self.unkept_since = self.unkept_since.or(Some(now)),
            // What cannot be told neither raises nor clears.
            None => {}
        }
        self.behind = (behind >= BEHIND).then(|| (self.behind.map_or(now, |(since, _)| since), behind));
        if let Some(by) = rtc_behind {
            let since = self.rtc_behind.map_or(now, |(since, _)| since);
            self.rtc_behind = (by >= self.settings.rtc_behind).then_some((since, by));
        }
        if jump_ms != 0 {
            self.jump = Some((now, jump_ms));
        }
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let age = |since: Instant| now.saturating_duration_since(since);
        let behind = self.behind.map(|(since, by)| {
            let evidence = format!(
                "the wall clock is {}s behind a time that this node has already trusted; certificates may look not yet valid",
                by.as_secs()
            );
            finding(ConditionKind::ClockBehind, Severity::Critical, since, evidence)
        });
        let unkept = self
            .unkept_since
            .filter(|since| age(*since) >= self.settings.unsynchronised_hold)
            .map(|since| {
                let mut evidence =
                    "no time service keeps the wall clock (adjtimex: unsynchronised)".to_owned();
                if let Some(Keeper { pid, name }) = &self.other_keeper {
                    let _infallible = write!(
                        evidence,
                        "; {name} (pid {pid}) runs and is none of clock.services: it is left to keep it"
                    );
                }
                let kind = ConditionKind::ClockUnsynchronised;
                Condition {
                    escalated: false,
                    ..finding(kind, Severity::Warning, since, evidence)
                }
            });
        let rtc = self.rtc_behind.map(|(since, by)| {
            let evidence = format!(
                "the machine's own clock (RTC) is {}s behind a time that this node has already trusted: after the next power loss so is the node",
                by.as_secs()
            );
            finding(ConditionKind::RtcBehind, Severity::Warning, since, evidence)
        });
        let jumped = self.jump.filter(|(at, _)| age(*at) < JUMP_TOLD).map(|(at, by)| {
            let direction = if by > 0 { "ahead" } else { "back" };
            let evidence = format!("the wall clock jumped {direction} by {}ms", by.unsigned_abs());
            finding(ConditionKind::ClockJumped, Severity::Warning, at, evidence)
        });
        behind
            .into_iter()
            .chain(unkept)
            .chain(jumped)
            .chain(rtc)
            .collect()
    }

    /// When something changes with no signal coming.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let told = self.jump.map(|(at, _)| at + JUMP_TOLD);
        let unkept = self
            .unkept_since
            .map(|since| since + self.settings.unsynchronised_hold);
        told.into_iter().chain(unkept).filter(|at| *at > now).min()
    }
}

fn finding(kind: ConditionKind, severity: Severity, since: Instant, evidence: String) -> Condition {
    Condition {
        key: ConditionKey {
            kind,
            subject: "clock".to_owned(),
        },
        severity,
        since,
        evidence,
        escalated: true,
        log: None,
        heaviest: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(synchronised: Option<bool>, jump_ms: i64, behind: u64) -> Signal {
        Signal::Clock(ClockSignal {
            synchronised,
            jump_ms,
            behind: Duration::from_secs(behind),
            ..ClockSignal::default()
        })
    }

    fn kinds(clock: &Clock, now: Instant) -> Vec<ConditionKind> {
        clock
            .conditions(now)
            .into_iter()
            .map(|condition| condition.key.kind)
            .collect()
    }

    fn unkept() -> Duration {
        ClockSettings::default().unsynchronised_hold
    }

    #[test]
    fn a_dead_battery_is_told_and_a_time_zone_is_none() {
        let now = Instant::now();
        let mut clock = Clock::new(ClockSettings::default());
        let rtc = |behind: Option<u64>| {
            Signal::Clock(ClockSignal {
                synchronised: Some(true),
                rtc_behind: behind.map(Duration::from_hours),
                ..ClockSignal::default()
            })
        };
        for (behind, expected) in [
            (Some(14), false),
            (Some(24 * 365), true),
            // It cannot be read any more.
            (None, true),
            (Some(0), false),
        ] {
            clock.observe(&rtc(behind), now);
            let told = kinds(&clock, now) == [ConditionKind::RtcBehind];
            assert_eq!(told, expected, "{behind:?}");
        }
    }

    #[test]
    fn a_process_that_keeps_the_clock_is_named() {
        let now = Instant::now();
        let mut clock = Clock::new(ClockSettings::default());
        let seen = ClockSignal {
            synchronised: Some(false),
            other_keeper: Some(Keeper {
                pid: 9,
                name: "chronyd".to_owned(),
            }),
            ..ClockSignal::default()
        };
        clock.observe(&Signal::Clock(seen), now);
        let told = clock.conditions(now + unkept());
        assert!(
            told[0].evidence.contains("chronyd (pid 9) runs"),
            "{}",
            told[0].evidence
        );
    }

    #[test]
    fn a_clock_behind_is_told_at_once_and_cleared_when_it_is_right() {
        let now = Instant::now();
        let mut clock = Clock::new(ClockSettings::default());
        clock.observe(&seen(Some(false), 0, 86400), now);
        assert_eq!(kinds(&clock, now), [ConditionKind::ClockBehind]);
        clock.observe(&seen(Some(true), 0, 0), now);
        assert!(kinds(&clock, now).is_empty());
    }

    #[test]
    fn an_unkept_clock_is_told_when_it_lasts_and_not_while_it_cannot_be_seen() {
        let now = Instant::now();
        let mut clock = Clock::new(ClockSettings::default());
        clock.observe(&seen(None, 0, 0), now);
        assert_eq!(clock.next_change(now), None);
        clock.observe(&seen(Some(false), 0, 0), now);
        assert_eq!(clock.next_change(now), Some(now + unkept()));
        clock.observe(&seen(None, 0, 0), now + unkept());
        assert_eq!(
            kinds(&clock, now + unkept()),
            [ConditionKind::ClockUnsynchronised]
        );
    }

    #[test]
    fn a_jump_is_told_for_a_while() {
        let now = Instant::now();
        let mut clock = Clock::new(ClockSettings::default());
        clock.observe(&seen(Some(true), -40_000, 0), now);
        let told = clock.conditions(now);
        assert_eq!(told[0].evidence, "the wall clock jumped back by 40000ms");
        assert!(kinds(&clock, now + JUMP_TOLD).is_empty());
    }
}
