//! [`Signal::Disk`] → `DiskPressure` (bytes), `InodePressure`, `DiskFilling` (time until it is full). Pure.
//!
//! Each of the three has its own hysteresis. Percentages hold between `clear_percent` and `raise_percent`; the time
//! to full has to be three times as long as what raised it, for [`CALM`], before it counts as calm: after each
//! reclaim the rate is unknown for a moment, and the condition must not flap with it. What is
//! both short and filling has both conditions: they end at different times, and are mended differently.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::bytes::Bytes;
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::DiskSettings;
use crate::signal::{DiskSignal, HoldersSignal, Signal};

/// So long a disk has to be calm before it no longer counts as filling.
pub const CALM: Duration = Duration::from_secs(5);

/// Percent used that hurts: the kubelet's hard eviction on the node's file systems is not far.
pub(crate) const CRITICAL_PERCENT: u64 = 95;

/// What a disk is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes.
    pub bytes: bool,
    /// Inodes.
    pub inodes: bool,
    /// Time: it will be full soon.
    pub filling: bool,
}

impl Pressure {
    fn any(self) -> bool {
        self.bytes || self.inodes || self.filling
    }
}

/// All watched disks.
#[derive(Debug, Clone)]
pub struct Disks {
    settings: Vec<DiskSettings>,
    watched: BTreeMap<PathBuf, Disk>,
    /// What takes each, for people; as old as the last look.
    holders: BTreeMap<PathBuf, HoldersSignal>,
}

#[derive(Debug, Clone)]
struct Disk {
    signal: DiskSignal,
    /// Since when it is short of each.
    bytes: Option<Instant>,
    inodes: Option<Instant>,
    filling: Option<Instant>,
    calm_since: Option<Instant>,
}

impl Disks {
    /// Nothing seen yet.
    pub fn new(settings: Vec<DiskSettings>) -> Self {
        Self {
            settings,
            watched: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// Judges by other settings from the next look on, and forgets what is not watched any more.
    pub fn retune(&mut self, settings: Vec<DiskSettings>) {
        self.watched
            .retain(|mount_point, _| settings.iter().any(|disk| disk.mount_point == *mount_point));
        self.holders
            .retain(|mount_point, _| self.watched.contains_key(mount_point));
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        if let Signal::Holders(seen) = signal {
            self.holders.insert(seen.mount_point.clone(), seen.clone());
        }
        let Signal::Disk(signal) = signal else { return };
        let Some(settings) = self
            .settings
            .iter()
            .find(|settings| settings.mount_point == signal.mount_point)
        else {
            return;
        };
        let disk = self
            .watched
            .entry(signal.mount_point.clone())
            .or_insert_with(|| Disk {
                signal: signal.clone(),
                bytes: None,
                inodes: None,
                filling: None,
                calm_since: None,
            });
        disk.observe(settings, signal, now);
        if disk.bytes.is_none() && disk.inodes.is_none() {
            self.holders.remove(&signal.mount_point);
        }
    }

    /// What the disk at `mount_point` is short of.
    pub fn pressure(&self, mount_point: &Path, now: Instant) -> Option<Pressure> {
        self.watched
            .get(mount_point)
            .map(|disk| disk.pressure(now))
            .filter(|pressure| pressure.any())
    }

    /// How full it was when last seen.
    pub fn usage(&self, mount_point: &Path) -> Option<&DiskSignal> {
        self.watched.get(mount_point).map(|disk| &disk.signal)
    }

    /// When a disk will count as calm though no signal comes.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.watched
            .values()
            .filter(|disk| disk.filling.is_some())
            .filter_map(|disk| disk.calm_since.map(|since| since + CALM))
            .filter(|at| *at > now)
            .min()
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        self.settings
            .iter()
            .filter_map(|settings| Some((settings, self.watched.get(&settings.mount_point)?)))
            .flat_map(|(settings, disk)| {
                let holders = self.holders.get(&settings.mount_point);
                disk.conditions(settings, holders, now)
            })
            .collect()
    }
}

impl Disk {
    fn observe(&mut self, settings: &DiskSettings, signal: &DiskSignal, now: Instant) {
        let hold = |since: Option<Instant>, percent: u64| {
            let least = if since.is_some() {
                settings.clear_percent
            } else {
                settings.raise_percent
            };
            (percent >= least).then(|| since.unwrap_or(now))
        };
        // Judged first, so that a disk that was calm for long enough and fills anew is a new case.
        self.filling = self.filling.filter(|_| !self.calm(now));
        self.bytes = hold(self.bytes, bytes_percent(signal));
        self.inodes = hold(self.inodes, inodes_percent(signal));
        let within = |limit: Duration| signal.time_to_full.is_some_and(|time| time <= limit);
        if within(settings.raise_time_to_full) {
            self.filling.get_or_insert(now);
        }
        if within(settings.raise_time_to_full * 3) {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        self.signal = signal.clone();
    }

    fn calm(&self, now: Instant) -> bool {
        self.calm_since
            .is_some_and(|since| now.saturating_duration_since(since) >= CALM)
    }

    fn pressure(&self, now: Instant) -> Pressure {
        Pressure {
            bytes: self.bytes.is_some(),
            inodes: self.inodes.is_some(),
            filling: self.filling.is_some() && !self.calm(now),
        }
    }

    fn conditions(
        &self,
        settings: &DiskSettings,
        holders: Option<&HoldersSignal>,
        now: Instant,
    ) -> impl Iterator<Item = Condition> {
        let seen = &self.signal;
        let soon = settings.raise_time_to_full / 6;
        let fills_soon = seen.time_to_full.is_some_and(|time| time <= soon);
        let full = bytes_percent(seen) >= CRITICAL_PERCENT;
        let filling = self.filling.filter(|_| !self.calm(now));
        [
            (ConditionKind::DiskPressure, self.bytes, full || fills_soon),
            (
                ConditionKind::InodePressure,
                self.inodes,
                inodes_percent(seen) >= CRITICAL_PERCENT,
            ),
            (ConditionKind::DiskFilling, filling, full || fills_soon),
        ]
        .into_iter()
        .filter_map(move |(kind, since, critical)| {
            Some(Condition {
                key: ConditionKey {
                    kind,
                    subject: settings.mount_point.display().to_string(),
                },
                severity: if critical {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                since: since?,
                evidence: if kind == ConditionKind::InodePressure {
                    self.inodes_evidence(settings) + &holders.map(crowds).unwrap_or_default()
                } else {
                    self.evidence(settings, filling.is_some()) + &holders.map(held_open).unwrap_or_default()
                },
                escalated: false,
                log: None,
                heaviest: Vec::new(),
            })
        })
    }

    fn inodes_evidence(&self, settings: &DiskSettings) -> String {
        let seen = &self.signal;
        format!(
            "{}% of its {} inodes used, {} left; raised at {}%",
            inodes_percent(seen),
            seen.inodes_total,
            seen.inodes_free,
            settings.raise_percent
        )
    }

    fn evidence(&self, settings: &DiskSettings, filling: bool) -> String {
        let seen = &self.signal;
        let mut text = format!(
            "{}% used, {} of {} left",
            bytes_percent(seen),
            Bytes(seen.bytes_available),
            Bytes(seen.bytes_total)
        );
        if let Some(time) = seen.time_to_full {
            let _infallible = write!(text, "; full in {time:.1?} at the present rate");
        } else if filling {
            text.push_str("; was filling a moment ago");
        }
        let _infallible = write!(
            text,
            "; raised at {}% or {:?} to full",
            settings.raise_percent, settings.raise_time_to_full
        );
        text
    }
}

fn crowds(holders: &HoldersSignal) -> String {
    let mut text = String::new();
    for crowd in &holders.crowded {
        let _infallible = write!(text, "; {} files in {}", crowd.entries, crowd.directory.display());
    }
    text
}

fn held_open(holders: &HoldersSignal) -> String {
    let mut text = String::new();
    for file in &holders.deleted {
        let _infallible = write!(
            text,
            "; {} deleted and held open by process {}{}: {}",
            Bytes(file.allocated),
            file.pid,
            file.unit
                .as_ref()
                .map(|unit| format!(" of {unit}"))
                .unwrap_or_default(),
            file.path.display()
        );
    }
    text
}

/// Percent of the bytes that are not available to writers, rounded down.
pub(crate) fn bytes_percent(disk: &DiskSignal) -> u64 {
    percent(disk.bytes_total, disk.bytes_available)
}

pub(crate) fn inodes_percent(disk: &DiskSignal) -> u64 {
    percent(disk.inodes_total, disk.inodes_free)
}

/// 0 where the total is unknown.
fn percent(total: u64, free: u64) -> u64 {
    let used = u128::from(total.saturating_sub(free)) * 100;
    used.checked_div(u128::from(total))
        .and_then(|percent| u64::try_from(percent).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(used_percent: u64, inodes_percent: u64, time_to_full: Option<u64>) -> Signal {
        Signal::Disk(DiskSignal {
            mount_point: "/var".into(),
            bytes_total: 1 << 30,
            bytes_available: ((100 - used_percent) << 30) / 100,
            inodes_total: 1000,
            inodes_free: 1000 - inodes_percent * 10,
            time_to_full: time_to_full.map(Duration::from_secs),
        })
    }

    fn disks() -> Disks {
        Disks::new(vec![DiskSettings::at("/var")])
    }

    fn raised(disks: &Disks, now: Instant) -> bool {
        !disks.conditions(now).is_empty()
    }

    #[test]
    fn holds_between_the_two_percentages() {
        let now = Instant::now();
        let mut disks = disks();
        for (used, inodes, expected) in [
            (84, 0, false),
            (86, 0, true),
            (81, 0, true),
            (79, 0, false),
            (81, 0, false),
            (10, 85, true),
            (10, 80, true),
            (10, 79, false),
        ] {
            disks.observe(&disk(used, inodes, None), now);
            assert_eq!(raised(&disks, now), expected, "{used}% {inodes}%");
        }
    }

    #[test]
    fn a_disk_that_fills_fast_is_raised_long_before_it_is_full() {
        let start = Instant::now();
        let mut disks = disks();
        disks.observe(&disk(10, 0, Some(50)), start);
        let condition = &disks.conditions(start)[0];
        assert_eq!(condition.severity, Severity::Warning);
        assert!(
            condition.evidence.contains("full in 50.0s"),
            "{}",
            condition.evidence
        );
        disks.observe(&disk(10, 0, Some(9)), start);
        assert_eq!(disks.conditions(start)[0].severity, Severity::Critical);

        // A reclaim makes the rate unknown for a moment: not yet calm.
        let reclaimed = start + Duration::from_secs(1);
        disks.observe(&disk(5, 0, None), reclaimed);
        assert!(raised(&disks, reclaimed + Duration::from_secs(4)));
        assert_eq!(disks.conditions(reclaimed)[0].since, start);
        // Calm without any further signal.
        assert!(!raised(&disks, reclaimed + CALM));
    }

    #[test]
    fn each_shortage_has_a_condition_of_its_own() {
        let start = Instant::now();
        let mut disks = disks();
        let stand = |disks: &Disks, now| -> Vec<_> {
            let conditions = disks.conditions(now);
            conditions
                .into_iter()
                .map(|condition| (condition.key.kind, condition.severity))
                .collect()
        };
        disks.observe(&disk(10, 96, None), start);
        assert_eq!(
            stand(&disks, start),
            [(ConditionKind::InodePressure, Severity::Critical)]
        );
        disks.observe(&disk(90, 10, Some(50)), start);
        let both = [ConditionKind::DiskPressure, ConditionKind::DiskFilling];
        assert_eq!(stand(&disks, start), both.map(|kind| (kind, Severity::Warning)));
        // It fills no more, and stays short.
        disks.observe(&disk(90, 10, None), start);
        assert_eq!(
            stand(&disks, start + CALM),
            [(ConditionKind::DiskPressure, Severity::Warning)]
        );
    }

    #[test]
    fn filling_again_soon_after_a_reclaim_is_the_same_case() {
        let start = Instant::now();
        let mut disks = disks();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            disks.observe(&disk(10, 0, (second % 3 > 0).then_some(4)), now);
            if second > 0 {
                assert_eq!(disks.conditions(now)[0].since, start + Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn other_signals_and_unknown_disks_change_nothing() {
        let now = Instant::now();
        let mut disks = disks();
        disks.observe(&disk(90, 0, None), now);
        let before = disks.conditions(now);
        disks.observe(&Signal::UnitsUnobservable { why: String::new() }, now);
        let Signal::Disk(mut other) = disk(10, 0, None) else {
            panic!()
        };
        other.mount_point = "/".into();
        disks.observe(&Signal::Disk(other), now);
        assert_eq!(disks.conditions(now), before);
    }

    proptest! {
        #[test]
        fn inside_the_hysteresis_nothing_changes(
            first in any::<bool>(),
            steps in prop::collection::vec((80_u64..85, 61_u64..180), 1..50),
        ) {
            let start = Instant::now();
            let mut disks = disks();
            disks.observe(&if first { disk(90, 0, Some(30)) } else { disk(10, 0, None) }, start);
            let since = start + CALM;
            for (at, (used, time)) in steps.into_iter().enumerate() {
                let now = since + Duration::from_millis(at as u64 * 700);
                disks.observe(&disk(used, 0, Some(time)), now);
                prop_assert_eq!(raised(&disks, now), first);
            }
        }
    }
}
