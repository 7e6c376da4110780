//! [`Signal::Memory`] → `MemoryPressure`. Pure.
//!
//! Two ways to be short: little is available, or every task waits for memory for a good part of the time (which a leak with swap, or a cgroup that
//! thrashes, shows long before nothing is left). It is raised when either has held for [`HOLD`], and cleared when both have been calm for [`CALM`]:
//! one burst of a starting JVM is not pressure, and the OOM killer's relief is not its end.
//!
//! The largest processes and control groups are named, so that a person, or the coordinator, moves work. What the agent itself
//! may do is [`Stress`]'s to say: which units hold memory, and since when it has been critical.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::bytes::Bytes;
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::MemorySettings;
use crate::signal::{CgroupKind, CgroupUse, MemorySignal, Signal, listed};

/// So long it has to hold.
pub const HOLD: Duration = Duration::from_secs(5);
/// So long it has to be calm.
pub const CALM: Duration = Duration::from_secs(15);
/// So many control groups are named.
const NAMED: usize = 5;

/// What is known of memory that is critically short.
#[derive(Debug, Clone, Copy)]
pub struct Stress<'a> {
    /// Since when, without a break.
    pub since: Instant,
    /// Bytes in all.
    pub total: u64,
    /// The largest units, pods and containers when they were last told, the largest first; `None` before that.
    pub largest: Option<&'a [CgroupUse]>,
}

/// The node's memory.
#[derive(Debug, Clone)]
pub struct Memory {
    settings: MemorySettings,
    last: Option<MemorySignal>,
    /// The largest processes when they were last told.
    largest: String,
    /// The same of control groups.
    groups: Option<Vec<CgroupUse>>,
    critical_since: Option<Instant>,
    short_since: Option<Instant>,
    calm_since: Option<Instant>,
    raised: Option<Instant>,
}

impl Memory {
    /// Nothing seen yet.
    pub const fn new(settings: MemorySettings) -> Self {
        Self {
            settings,
            last: None,
            largest: String::new(),
            groups: None,
            critical_since: None,
            short_since: None,
            calm_since: None,
            raised: None,
        }
    }

    /// Judges by other settings from the next look on.
    pub fn retune(&mut self, settings: MemorySettings) {
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Memory(seen) = signal else { return };
        if !seen.largest.is_empty() {
            self.largest = named(seen);
        }
        if seen.cgroups.is_some() {
            self.groups.clone_from(&seen.cgroups);
        }
        let (raise, clear) = (
            self.settings.raise_available_percent,
            self.settings.clear_available_percent,
        );
        let waiting = f32::from(self.settings.raise_waiting_percent);
        let short = percent(seen) < raise || seen.full_percent >= waiting;
        let calm = percent(seen) >= clear && seen.full_percent < waiting / 2.0;
        self.short_since = short.then(|| self.short_since.unwrap_or(now));
        self.calm_since = calm.then(|| self.calm_since.unwrap_or(now));
        if self.raised.is_some() && held(self.calm_since, now, CALM) {
            self.raised = None;
        } else if held(self.short_since, now, HOLD) {
            self.raised = self.raised.or(Some(now));
        }
        let critical = self.raised.is_some() && self.is_critical(seen);
        self.critical_since = critical.then(|| self.critical_since.unwrap_or(now));
        self.last = Some(seen.clone());
    }

    /// Memory that is critically short; `None` while it is not.
    pub fn stress(&self) -> Option<Stress<'_>> {
        Some(Stress {
            since: self.critical_since?,
            total: self.last.as_ref()?.total,
            largest: self.groups.as_deref(),
        })
    }

    fn is_critical(&self, seen: &MemorySignal) -> bool {
        percent(seen) < self.settings.critical_available_percent
    }

    /// What stands.
    pub fn conditions(&self) -> Vec<Condition> {
        let (Some(since), Some(seen)) = (self.raised, &self.last) else {
            return Vec::new();
        };
        let critical = self.is_critical(seen);
        vec![Condition {
            key: ConditionKey {
                kind: ConditionKind::MemoryPressure,
                subject: "memory".to_owned(),
            },
            severity: if critical {
                Severity::Critical
            } else {
                Severity::Warning
            },
            since,
            evidence: self.evidence(seen),
            // Nothing may be restarted: it is somebody's to look.
            escalated: self.settings.may_restart.is_empty(),
            log: None,
            heaviest: Vec::new(),
        }]
    }

    fn evidence(&self, seen: &MemorySignal) -> String {
        let mut text = format!(
            "{} of {} available ({}%); all tasks wait for memory {:.0}% of the time",
            Bytes(seen.available),
            Bytes(seen.total),
            percent(seen),
            seen.full_percent
        );
        if let Some(groups) = self.groups.as_ref().filter(|groups| !groups.is_empty()) {
            let _infallible = write!(text, "; {}", largest_groups(groups));
        }
        if !self.largest.is_empty() {
            let _infallible = write!(text, "; largest: {}", self.largest);
        }
        text
    }
}

/// Units, and pods with containers, for people: what is the node's own and what is its guests'.
pub(super) fn largest_groups(groups: &[CgroupUse]) -> String {
    let (units, guests): (Vec<_>, Vec<_>) = groups
        .iter()
        .cloned()
        .partition(|group| group.cgroup.kind == CgroupKind::Unit);
    let part = |head: &str, groups: &[CgroupUse]| {
        let named = &groups[..groups.len().min(NAMED)];
        (!named.is_empty()).then(|| format!("{head}: {}", listed(named)))
    };
    let parts: Vec<_> = [part("largest pods", &guests), part("largest units", &units)]
        .into_iter()
        .flatten()
        .collect();
    parts.join("; ")
}

fn held(since: Option<Instant>, now: Instant, long: Duration) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= long)
}

fn percent(seen: &MemorySignal) -> u64 {
    (u128::from(seen.available) * 100)
        .checked_div(u128::from(seen.total))
        .and_then(|percent| u64::try_from(percent).ok())
        .unwrap_or(100)
}

fn named(seen: &MemorySignal) -> String {
    let each: Vec<_> = seen
        .largest
        .iter()
        .map(|process| {
            format!(
                "{} (pid {}) {}",
                process.name,
                process.pid,
                Bytes(process.resident)
            )
        })
        .collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::{Cgroup, ProcessUse};

    const GIB: u64 = 1 << 30;

    fn seen(available_percent: u64, full_percent: f32) -> Signal {
        Signal::Memory(MemorySignal {
            total: 100 * GIB,
            available: available_percent * GIB,
            some_percent: full_percent,
            full_percent,
            largest: vec![ProcessUse {
                pid: 7,
                name: "java".into(),
                resident: 60 * GIB,
            }],
            cgroups: Some(
                [
                    (CgroupKind::Unit, "docker.service"),
                    (CgroupKind::Pod, "shop/cart-1"),
                ]
                .map(|(kind, name)| CgroupUse {
                    cgroup: Cgroup {
                        kind,
                        name: name.to_owned(),
                    },
                    bytes: 30 * GIB,
                })
                .into(),
            ),
        })
    }

    fn after(looks: &[(u64, Signal)]) -> Vec<Condition> {
        let start = Instant::now();
        let mut memory = Memory::new(MemorySettings::default());
        for (second, signal) in looks {
            memory.observe(signal, start + Duration::from_secs(*second));
        }
        memory.conditions()
    }

    #[test]
    fn a_burst_is_not_pressure_and_what_holds_is() {
        assert!(after(&[(0, seen(1, 0.0)), (4, seen(50, 0.0)), (9, seen(1, 0.0))]).is_empty());
        let standing = after(&[(0, seen(1, 0.0)), (5, seen(1, 0.0))]);
        assert_eq!(standing[0].severity, Severity::Critical);
        let evidence = &standing[0].evidence;
        for named in [
            "largest: java (pid 7) 60.0 GiB",
            "largest pods: pod shop/cart-1 30.0 GiB; largest units: docker.service 30.0 GiB",
        ] {
            assert!(evidence.contains(named), "{evidence}");
        }
    }

    #[test]
    fn tasks_that_wait_are_pressure_even_with_memory_left() {
        assert_eq!(after(&[(0, seen(40, 60.0)), (5, seen(40, 60.0))]).len(), 1);
    }

    #[test]
    fn is_cleared_by_calm_that_lasts() {
        let raised = [(0, seen(1, 0.0)), (5, seen(1, 0.0))];
        let still = [&raised[..], &[(6, seen(50, 0.0)), (20, seen(50, 0.0))]].concat();
        assert_eq!(after(&still).len(), 1);
        let calm = [&still[..], &[(21, seen(50, 0.0))]].concat();
        assert!(after(&calm).is_empty());
        // Between the thresholds nothing changes.
        let between = [&raised[..], &[(6, seen(6, 0.0)), (60, seen(6, 0.0))]].concat();
        assert_eq!(after(&between).len(), 1);
    }

    proptest! {
        #[test]
        fn never_changes_faster_than_its_holds(looks in prop::collection::vec((0_u64..3, 0_u64..20, 0_u8..40), 1..200)) {
            let start = Instant::now();
            let mut memory = Memory::new(MemorySettings::default());
            let (mut at, mut changed, mut stood) = (start, start, false);
            for (gap, available, full) in looks {
                at += Duration::from_secs(gap);
                memory.observe(&seen(available, f32::from(full)), at);
                let stands = !memory.conditions().is_empty();
                if stands != stood {
                    let least = if stands { HOLD } else { CALM };
                    prop_assert!(at - changed >= least.min(at - start));
                    prop_assert!(at - start >= least);
                    (changed, stood) = (at, stands);
                }
            }
        }
    }
}
