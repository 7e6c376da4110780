//! [`Signal::Load`] → `Overload`. Pure.
//!
//! Raised when more tasks than `raise_per_processor` for each processor have wanted one, over a minute's average, or when tasks have waited for
//! processors or disks for too large a part of a minute (PSI), for `hold`; cleared below half of all of that for [`CALM`]. Kernels without PSI
//! are judged by the load average alone. What the agent does about it protects the kubelet ([`crate::remedy::protect`]); what is too much for this
//! node has to be moved, by the coordinator or a person.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::LoadSettings;
use crate::signal::{LoadSignal, Signal, listed};

/// So long it has to be calm.
pub const CALM: Duration = Duration::from_mins(1);

/// So many of the heaviest are named in the evidence.
const NAMED: usize = 5;

/// How far the load is up its limits: 1 at the one that it has come nearest to.
pub fn share(seen: &LoadSignal, settings: &LoadSettings) -> f32 {
    let per_processor = seen.one_minute / f32::from(seen.processors.max(1));
    [
        (per_processor, settings.raise_per_processor),
        (seen.cpu_some_percent, settings.raise_cpu_some_percent),
        (seen.io_some_percent, settings.raise_io_some_percent),
        (seen.io_full_percent, settings.raise_io_full_percent),
    ]
    .into_iter()
    .map(|(level, limit)| level / f32::from(limit.max(1)))
    .fold(0.0, f32::max)
}

/// The node's load.
#[derive(Debug, Clone)]
pub struct Load {
    settings: LoadSettings,
    last: Option<LoadSignal>,
    high_since: Option<Instant>,
    calm_since: Option<Instant>,
    raised: Option<Instant>,
}

impl Load {
    /// Nothing seen yet.
    pub const fn new(settings: LoadSettings) -> Self {
        Self {
            settings,
            last: None,
            high_since: None,
            calm_since: None,
            raised: None,
        }
    }

    /// Judges by other settings from the next look on.
    pub fn retune(&mut self, settings: LoadSettings) {
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Load(seen) = signal else { return };
        let share = share(seen, &self.settings);
        let (high, calm) = (share >= 1.0, share < 0.5);
        self.high_since = high.then(|| self.high_since.unwrap_or(now));
        self.calm_since = calm.then(|| self.calm_since.unwrap_or(now));
        if self.raised.is_some() && held(self.calm_since, now, CALM) {
            self.raised = None;
        } else if held(self.high_since, now, self.settings.hold) {
            self.raised = self.raised.or(Some(now));
        }
        let mut seen = seen.clone();
        // Looked for now and then only.
        if let Some(last) = self.last.take().filter(|_| high) {
            if seen.hanging.is_empty() && seen.blocked.is_some_and(|blocked| blocked > 0) {
                seen.hanging = last.hanging;
            }
            if seen.heaviest.is_empty() {
                seen.heaviest = last.heaviest;
            }
        }
        self.last = Some(seen);
    }

    /// What stands.
    pub fn conditions(&self) -> Vec<Condition> {
        let (Some(since), Some(seen)) = (self.raised, &self.last) else {
            return Vec::new();
        };
        vec![Condition {
            key: ConditionKey {
                kind: ConditionKind::Overload,
                subject: "load".to_owned(),
            },
            severity: Severity::Warning,
            since,
            evidence: evidence(seen),
            escalated: true,
            log: None,
            heaviest: seen.heaviest.clone(),
        }]
    }
}

fn held(since: Option<Instant>, now: Instant, long: Duration) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= long)
}

fn evidence(seen: &LoadSignal) -> String {
    let mut text = format!(
        "load {:.1} over a minute, {:.1} over five, on {} processors; within a minute some task waited for a processor {:.0}% of the \
         time, some for a disk {:.0}%, all for a disk {:.0}%",
        seen.one_minute,
        seen.five_minutes,
        seen.processors,
        seen.cpu_some_percent,
        seen.io_some_percent,
        seen.io_full_percent
    );
    let named = seen.heaviest.get(..NAMED).unwrap_or(&seen.heaviest);
    if !named.is_empty() {
        let _infallible = write!(text, "; heaviest: {}", listed(named));
    }
    if let Some(count) = seen.blocked.filter(|count| *count > 0) {
        let _infallible = write!(text, "; {count} tasks are blocked on disks");
    }
    if !seen.hanging.is_empty() {
        let _infallible = write!(text, "; in the kernel (state D): {}", listed(&seen.hanging));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Cgroup, CgroupCpu, CgroupKind, Hanging};

    fn calm() -> LoadSignal {
        LoadSignal {
            one_minute: 1.0,
            five_minutes: 1.0,
            processors: 2,
            cpu_some_percent: 0.0,
            io_some_percent: 0.0,
            io_full_percent: 0.0,
            blocked: None,
            hanging: Vec::new(),
            heaviest: Vec::new(),
        }
    }

    fn busy(one_minute: f32) -> LoadSignal {
        LoadSignal {
            one_minute,
            blocked: Some(3),
            hanging: vec![Hanging {
                pid: 7,
                name: "dd".into(),
                waits_in: "balance_dirty_pages".into(),
                cgroup: "backup.service".into(),
            }],
            heaviest: vec![CgroupCpu {
                cgroup: Cgroup {
                    kind: CgroupKind::Pod,
                    name: "shop/cart-1".into(),
                },
                percent: 190,
                bytes: Some(1 << 30),
                uid: Some("4c1c".into()),
            }],
            ..calm()
        }
    }

    #[test]
    fn a_burst_is_no_overload_and_what_lasts_is_until_it_is_calm() {
        let start = Instant::now();
        let mut load = Load::new(LoadSettings::default());
        let mut at = |second: u64, one: f32| {
            load.observe(&Signal::Load(busy(one)), start + Duration::from_secs(second));
            load.conditions()
        };
        assert!(at(0, 9.0).is_empty());
        assert!(at(30, 1.0).is_empty());
        assert!(at(40, 9.0).is_empty());
        let raised = at(100, 8.0);
        assert_eq!(raised.len(), 1);
        let evidence = &raised[0].evidence;
        for part in [
            "3 tasks are blocked",
            "heaviest: pod shop/cart-1 190%",
            "dd (pid 7) in balance_dirty_pages of backup.service",
        ] {
            assert!(evidence.contains(part), "{evidence}");
        }
        // Between the thresholds nothing changes, and calm has to last.
        assert_eq!(at(400, 5.0).len(), 1);
        assert_eq!(at(410, 3.0).len(), 1);
        assert!(at(470, 3.0).is_empty());
    }

    #[test]
    fn each_kind_of_waiting_is_overload_by_itself() {
        let waits: [fn(&mut LoadSignal); 3] = [
            |seen| seen.cpu_some_percent = 96.0,
            |seen| seen.io_some_percent = 96.0,
            |seen| seen.io_full_percent = 61.0,
        ];
        for wait in waits {
            let (start, mut seen) = (Instant::now(), calm());
            wait(&mut seen);
            let mut load = Load::new(LoadSettings::default());
            for second in [0, 60] {
                load.observe(&Signal::Load(seen.clone()), start + Duration::from_secs(second));
            }
            assert_eq!(load.conditions().len(), 1, "{seen:?}");
        }
    }

    #[test]
    fn who_is_heavy_is_remembered_between_two_looks_at_them() {
        let start = Instant::now();
        let mut load = Load::new(LoadSettings::default());
        load.observe(&Signal::Load(busy(9.0)), start);
        let bare = LoadSignal {
            hanging: Vec::new(),
            heaviest: Vec::new(),
            ..busy(9.0)
        };
        load.observe(&Signal::Load(bare), start + Duration::from_mins(1));
        let evidence = &load.conditions()[0].evidence;
        assert!(
            evidence.contains("dd (pid 7)") && evidence.contains("cart-1"),
            "{evidence}"
        );
    }
}
