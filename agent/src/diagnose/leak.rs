//! [`Signal::UnitMemory`] → `MemoryLeak`: a system daemon whose memory only ever grows. Pure.
//!
//! A pod that leaks meets its limit; a kubelet or a dockerd that does takes the node with it, after days. It is told hours or days before:
//! the growth has to be steady ([`super::trend`]) over a minimum time, and large both in bytes and in proportion. There is no remedy: a restart
//! at a time of somebody's choosing is. Another process begins anew, and so does another control group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::trend::{Growth, Trend};
use crate::bytes::Bytes;
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::LeakSettings;
use crate::signal::{Signal, UnitMemory};

/// It is critical when memory would be full within this.
pub const SOON: Duration = Duration::from_hours(1);
/// A unit that has not been seen for so long does not run any more.
const GONE: Duration = Duration::from_mins(5);

/// The memory of system daemons.
#[derive(Debug, Clone)]
pub struct Leaks {
    settings: LeakSettings,
    units: BTreeMap<String, Life>,
    /// Main processes, of those units that are watched.
    pids: BTreeMap<String, u32>,
    /// Bytes that are available on the node.
    available: Option<u64>,
}

/// One life of a unit.
#[derive(Debug, Clone)]
struct Life {
    number: u64,
    trend: Trend,
    seen: Instant,
    raised: Option<(Instant, Growth)>,
}

impl Leaks {
    /// Nothing seen yet.
    pub const fn new(settings: LeakSettings) -> Self {
        Self {
            settings,
            units: BTreeMap::new(),
            pids: BTreeMap::new(),
            available: None,
        }
    }

    /// Judges by other settings from the next look on. Another window begins anew.
    pub fn retune(&mut self, settings: LeakSettings) {
        if settings.window != self.settings.window {
            self.units.clear();
        }
        if !settings.units.is_empty() {
            self.units.retain(|unit, _| settings.units.contains(unit));
        }
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        if let Signal::Memory(memory) = signal {
            self.available = Some(memory.available);
        } else if let Signal::Unit(unit) = signal {
            let known = self.pids.insert(unit.unit.clone(), unit.main_pid);
            if known.is_some_and(|known| known != unit.main_pid) {
                self.units.remove(&unit.unit);
            }
        } else if let Signal::UnitMemory(memory) = signal {
            for unit in &memory.units {
                self.sample(unit, now);
            }
            self.units
                .retain(|_, life| now.saturating_duration_since(life.seen) < GONE);
        }
    }

    fn sample(&mut self, unit: &UnitMemory, now: Instant) {
        let new = || Life {
            number: unit.life,
            trend: Trend::new(self.settings.window),
            seen: now,
            raised: None,
        };
        let life = self.units.entry(unit.unit.clone()).or_insert_with(new);
        if life.number != unit.life {
            *life = new();
        }
        life.seen = now;
        #[expect(clippy::cast_precision_loss, reason = "a byte in a petabyte is no matter")]
        life.trend.add(unit.bytes as f64, now);
        let growth = life.trend.growth();
        life.raised = match (life.raised, growth) {
            (Some((since, _)), Some(growth)) if growth.goes_on() => Some((since, growth)),
            (None, Some(growth)) if growth.is_steady() && enough(&self.settings, &growth) => {
                Some((now, growth))
            }
            _ => None,
        };
    }

    /// What stands.
    pub fn conditions(&self) -> Vec<Condition> {
        let standing = self.units.iter().filter_map(|(unit, life)| {
            let (since, growth) = life.raised.as_ref()?;
            let full = self
                .available
                .and_then(|available| time_to_full(available, growth));
            Some(Condition {
                key: ConditionKey {
                    kind: ConditionKind::MemoryLeak,
                    subject: unit.clone(),
                },
                severity: match full {
                    Some(full) if full < SOON => Severity::Critical,
                    Some(_) | None => Severity::Warning,
                },
                since: *since,
                evidence: evidence(growth, full),
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            })
        });
        standing.collect()
    }
}

fn enough(settings: &LeakSettings, growth: &Growth) -> bool {
    let grown = bytes(growth.to - growth.from);
    let least = u128::from(bytes(growth.from)) * u128::from(settings.min_growth_percent) / 100;
    growth.span >= settings.min_span && grown >= settings.min_growth && u128::from(grown) >= least
}

fn time_to_full(available: u64, growth: &Growth) -> Option<Duration> {
    #[expect(clippy::cast_precision_loss, reason = "a byte in a petabyte is no matter")]
    let seconds = available as f64 / growth.per_second;
    Duration::try_from_secs_f64(seconds).ok()
}

fn evidence(growth: &Growth, full: Option<Duration>) -> String {
    let mut text = format!(
        "its memory grew from {} to {} within {}, {} an hour",
        Bytes(bytes(growth.from)),
        Bytes(bytes(growth.to)),
        long(growth.span),
        Bytes(bytes(growth.per_second * 3600.0)),
    );
    if let Some(full) = full {
        let _infallible = write!(text, "; the node's memory would be full in {}", long(full));
    }
    text
}

/// A long time, in the unit that people would use.
fn long(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, and what is below zero is nothing"
)]
fn bytes(level: f64) -> u64 {
    level as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{ActiveState, MemorySignal, UnitMemorySignal, UnitSignal};

    const MIB: u64 = 1 << 20;

    struct World {
        leaks: Leaks,
        start: Instant,
        minute: u64,
    }

    impl World {
        fn new() -> Self {
            let (mut leaks, start) = (Leaks::new(LeakSettings::default()), Instant::now());
            leaks.observe(&pid(100), start);
            let memory = MemorySignal {
                total: 64 << 30,
                available: 48 << 30,
                some_percent: 0.0,
                full_percent: 0.0,
                largest: Vec::new(),
                cgroups: None,
            };
            leaks.observe(&Signal::Memory(memory), start);
            Self {
                leaks,
                start,
                minute: 0,
            }
        }

        /// So many minutes go by in which the unit grows by so many MiB each.
        fn grows(&mut self, minutes: u64, from: u64, each: u64, life: u64) -> Vec<Condition> {
            for minute in 0..minutes {
                let now = self.start + Duration::from_mins(self.minute);
                let unit = UnitMemory {
                    unit: "docker.service".into(),
                    bytes: (from + each * minute) * MIB,
                    life,
                };
                let seen = UnitMemorySignal { units: vec![unit] };
                self.leaks.observe(&Signal::UnitMemory(seen), now);
                self.minute += 1;
            }
            self.leaks.conditions()
        }
    }

    fn pid(main_pid: u32) -> Signal {
        Signal::Unit(UnitSignal {
            unit: "docker.service".into(),
            active: ActiveState::Active,
            sub: "running".into(),
            main_pid,
            restarts: 0,
            result: "success".into(),
            detail: crate::signal::UnitDetail::default(),
        })
    }

    #[test]
    fn a_leak_is_told_with_its_pace_and_when_memory_is_full() {
        let mut world = World::new();
        assert!(world.grows(170, 1000, 4, 1).is_empty(), "too short a time");
        let told = world.grows(100, 1680, 4, 1);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].key.subject.as_str(), told[0].severity),
            ("docker.service", Severity::Warning)
        );
        let evidence = &told[0].evidence;
        for part in [
            "from 1000.0 MiB to 1.9 GiB within 4 hours",
            "240.0 MiB an hour",
            "full in 8 days",
        ] {
            assert!(evidence.contains(part), "{evidence}");
        }
    }

    #[test]
    fn growth_that_is_small_in_bytes_or_in_proportion_is_none() {
        assert!(World::new().grows(360, 10, 0, 1).is_empty());
        // 250 MiB in six hours, and 360 MiB on top of 4 GiB.
        assert!(World::new().grows(250, 10, 1, 1).is_empty());
        assert!(World::new().grows(360, 4096, 1, 1).is_empty());
    }

    #[test]
    fn it_is_cleared_by_another_process_another_group_or_the_end_of_the_growth() {
        let mut world = World::new();
        assert_eq!(world.grows(300, 1000, 4, 1).len(), 1);
        world
            .leaks
            .observe(&pid(101), world.start + Duration::from_mins(world.minute));
        assert!(world.leaks.conditions().is_empty());

        let mut world = World::new();
        assert_eq!(world.grows(300, 1000, 4, 1).len(), 1);
        assert!(world.grows(1, 1000, 0, 2).is_empty());

        let mut world = World::new();
        assert_eq!(world.grows(300, 1000, 4, 1).len(), 1);
        assert!(world.grows(180, 2200, 0, 1).is_empty());
    }

    #[test]
    fn what_fills_memory_within_the_hour_is_critical() {
        let mut world = World::new();
        let told = world.grows(300, 1000, 1000, 1);
        assert_eq!(told[0].severity, Severity::Critical, "{told:?}");
    }

    #[test]
    fn a_unit_that_is_gone_is_told_no_more() {
        let mut world = World::new();
        assert_eq!(world.grows(300, 1000, 4, 1).len(), 1);
        let later = world.start + Duration::from_mins(world.minute) + GONE;
        let none = UnitMemorySignal { units: Vec::new() };
        world.leaks.observe(&Signal::UnitMemory(none), later);
        assert!(world.leaks.conditions().is_empty());
    }
}
