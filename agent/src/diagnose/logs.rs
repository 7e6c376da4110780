//! [`Signal::Log`] and [`Signal::Disk`] → `LogRunaway`. Pure.
//!
//! A log is named only while its disk is under pressure, and only when giving back its head is worth it. What counts
//! as worth it follows the disk, so that reclaims are few while there is room and come sooner as it gets tight:
//!
//! | disk | log | its head (what it takes beyond the tail) is at least |
//! |---|---|---|
//! | fills | grows by `runaway_rate` or more | half of what is available |
//! | short of bytes | any | half of what is available, or 1/256 of the disk and 1 s of the log's growth |
//!
//! With 100 MB/s into an empty 512 MiB that is a reclaim each 1.4 s, with 2.8 s to spare; with 1 GB/s into 4 GiB the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::{Disks, Pressure, bytes_percent};
use crate::bytes::Bytes;
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::{DiskSettings, LogSettings};
use crate::signal::{DiskSignal, LogId, LogSignal, Signal};

/// A head smaller than this is never worth it, bytes.
const MIN_HEAD: u64 = 1 << 20;

/// On a disk that is short of bytes, a head of this share of it is worth it.
const SHARE: u64 = 256;

/// What was seen of a log before it was reclaimed may still be on its way for so long after its end was told.
const SETTLE: Duration = Duration::from_millis(200);

/// No more logs than this are remembered.
const MAX_LOGS: usize = 1024;

/// All logs that the watcher follows.
#[derive(Debug, Clone)]
pub struct Logs {
    settings: LogSettings,
    disks: Disks,
    followed: BTreeMap<LogId, Log>,
    ended: BTreeMap<LogId, Instant>,
}

#[derive(Debug, Clone)]
struct Log {
    signal: LogSignal,
    raised: Option<Instant>,
}

impl Logs {
    /// Nothing seen yet.
    pub fn new(settings: LogSettings, disks: Vec<DiskSettings>) -> Self {
        Self {
            settings,
            disks: Disks::new(disks),
            followed: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Judges by other settings from now on. Which logs there are is told anew.
    pub fn retune(&mut self, settings: LogSettings, disks: Vec<DiskSettings>) {
        self.settings = settings;
        self.disks.retune(disks);
        self.followed.clear();
        self.ended.clear();
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        match signal {
            Signal::Disk(_) => {
                self.disks.observe(signal, now);
                let ids: Vec<_> = self.followed.keys().cloned().collect();
                for id in ids {
                    self.judge(&id, now);
                }
            }
            Signal::Log(seen) => {
                if self.ended.get(&seen.log).is_some_and(|at| !settled(*at, now)) {
                    return;
                }
                if let Some(log) = self.followed.get_mut(&seen.log) {
                    log.signal = seen.clone();
                } else if self.followed.len() < MAX_LOGS {
                    self.followed.insert(
                        seen.log.clone(),
                        Log {
                            signal: seen.clone(),
                            raised: None,
                        },
                    );
                }
                self.judge(&seen.log, now);
            }
            Signal::LogGone(id) => {
                self.ended.retain(|_, at| !settled(*at, now));
                if self.followed.remove(id).is_some() {
                    self.ended.insert(id.clone(), now);
                }
            }
            Signal::Unit(_)
            | Signal::UnitsUnobservable { .. }
            | Signal::Probe(_)
            | Signal::Kernel(_)
            | Signal::Memory(_)
            | Signal::Clock(_)
            | Signal::Runtime(_)
            | Signal::Container(_)
            | Signal::Load(_)
            | Signal::Certificates(_)
            | Signal::Mounts(_)
            | Signal::Holders(_)
            | Signal::StaticPods(_)
            | Signal::UnitMemory(_)
            | Signal::Pleg(_)
            | Signal::Network(_) => {}
        }
    }

    /// What stands at `now`, the largest head first.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let mut standing: Vec<_> = self
            .followed
            .values()
            .filter_map(|log| {
                let since = log.raised?;
                let pressure = self.disks.pressure(&log.signal.mount_point, now)?;
                let disk = self.disks.usage(&log.signal.mount_point)?;
                Some((self.head(&log.signal), since, pressure, disk, &log.signal))
            })
            .collect();
        standing.sort_by_key(|(head, ..)| std::cmp::Reverse(*head));
        standing
            .into_iter()
            .map(|(head, since, pressure, disk, signal)| Condition {
                key: ConditionKey {
                    kind: ConditionKind::LogRunaway,
                    subject: subject(&signal.log),
                },
                severity: if pressure.filling {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                since,
                evidence: evidence(signal, head, pressure, disk),
                escalated: false,
                log: Some(signal.log.clone()),
                heaviest: Vec::new(),
            })
            .collect()
    }

    /// What it takes beyond its tail.
    fn head(&self, signal: &LogSignal) -> u64 {
        signal.allocated.saturating_sub(self.settings.keep_tail)
    }

    fn judge(&mut self, id: &LogId, now: Instant) {
        let Some(log) = self.followed.get(id) else { return };
        let least = self
            .disks
            .pressure(&log.signal.mount_point, now)
            .zip(self.disks.usage(&log.signal.mount_point))
            .and_then(|(pressure, disk)| least_head(&self.settings, &log.signal, pressure, disk));
        let (head, allocated) = (self.head(&log.signal), log.signal.allocated);
        let min_size = self.settings.min_size;
        let Some(log) = self.followed.get_mut(id) else {
            return;
        };
        let stands = match (least, log.raised) {
            (None, _) => false,
            (Some(least), None) => allocated >= min_size && head >= least,
            (Some(least), Some(_)) => head >= MIN_HEAD.max(least / 2),
        };
        log.raised = stands.then(|| log.raised.unwrap_or(now));
    }
}

fn settled(ended: Instant, now: Instant) -> bool {
    now.saturating_duration_since(ended) >= SETTLE
}

/// The smallest head that is worth a reclaim; `None` when this log is not the cause.
fn least_head(settings: &LogSettings, log: &LogSignal, pressure: Pressure, disk: &DiskSignal) -> Option<u64> {
    let half = disk.bytes_available / 2;
    let share = (disk.bytes_total / SHARE).max(log.growth_per_second);
    let filling = (pressure.filling && log.growth_per_second >= settings.runaway_rate).then_some(half);
    let short = pressure.bytes.then_some(half.min(share));
    let least = match (filling, short) {
        (Some(filling), Some(short)) => Some(filling.min(short)),
        (filling, short) => filling.or(short),
    };
    least.map(|least| least.max(MIN_HEAD))
}

/// Deleted files may have had the same name.
fn subject(log: &LogId) -> String {
    if log.deleted {
        format!("{} (deleted, inode {})", log.path.display(), log.ino)
    } else {
        log.path.display().to_string()
    }
}

fn evidence(signal: &LogSignal, head: u64, pressure: Pressure, disk: &DiskSignal) -> String {
    let mut text = format!(
        "takes {}, {} beyond its tail, and grows by {}/s; {} is at {}%, {} left",
        Bytes(signal.allocated),
        Bytes(head),
        Bytes(signal.growth_per_second),
        signal.mount_point.display(),
        bytes_percent(disk),
        Bytes(disk.bytes_available)
    );
    if let Some(time) = disk.time_to_full.filter(|_| pressure.filling) {
        let _infallible = write!(text, ", full in {time:.1?}");
    }
    if signal.log.deleted {
        text.push_str("; it was deleted and is held open");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(name: &str) -> LogId {
        LogId {
            dev: 1,
            ino: 2,
            path: format!("/var/log/{name}").into(),
            deleted: false,
        }
    }

    fn log(name: &str, allocated: u64, growth: u64) -> Signal {
        Signal::Log(LogSignal {
            log: id(name),
            mount_point: "/var".into(),
            allocated: allocated * MIB,
            growth_per_second: growth * MIB,
        })
    }

    fn disk(available: u64, time_to_full: Option<u64>) -> Signal {
        Signal::Disk(DiskSignal {
            mount_point: "/var".into(),
            bytes_total: 512 * MIB,
            bytes_available: available * MIB,
            inodes_total: 0,
            inodes_free: 0,
            time_to_full: time_to_full.map(Duration::from_secs),
        })
    }

    fn logs() -> Logs {
        let settings = LogSettings {
            keep_tail: 16 * MIB,
            ..LogSettings::default()
        };
        Logs::new(settings, vec![DiskSettings::at("/var")])
    }

    fn names(signals: &[Signal]) -> Vec<String> {
        let now = Instant::now();
        let mut logs = logs();
        for signal in signals {
            logs.observe(signal, now);
        }
        logs.conditions(now)
            .into_iter()
            .map(|condition| condition.key.subject)
            .collect()
    }

    #[test]
    fn the_log_that_fills_the_disk_is_named_when_it_has_taken_a_good_part() {
        assert!(names(&[disk(400, Some(4)), log("app", 100, 100)]).is_empty());
        assert_eq!(
            names(&[disk(280, Some(3)), log("app", 190, 100)]),
            ["/var/log/app"]
        );
        // Large, but not what fills it.
        assert!(names(&[disk(280, Some(3)), log("app", 190, 0)]).is_empty());
    }

    #[test]
    fn a_disk_that_is_short_takes_what_it_can_get_the_largest_first() {
        let logs = [log("a", 40, 0), log("b", 90, 0), log("c", 17, 0)];
        let with = |disk| names(&[&logs[..], &[disk]].concat());
        assert!(with(disk(400, None)).is_empty());
        assert_eq!(with(disk(50, None)), ["/var/log/b", "/var/log/a"]);
        // Full to the last byte: even the smallest head.
        assert_eq!(with(disk(0, None)), ["/var/log/b", "/var/log/a", "/var/log/c"]);
    }

    #[test]
    fn is_cleared_by_the_reclaim_by_its_end_and_by_a_calm_disk() {
        let now = Instant::now();
        let raised = || {
            let mut logs = logs();
            logs.observe(&disk(40, None), now);
            logs.observe(&log("app", 300, 0), now);
            assert_eq!(logs.conditions(now).len(), 1);
            logs
        };
        for signal in [log("app", 16, 0), Signal::LogGone(id("app")), disk(400, None)] {
            let mut logs = raised();
            logs.observe(&signal, now);
            assert!(logs.conditions(now).is_empty(), "{signal:?}");
        }
    }

    #[test]
    fn what_was_seen_before_a_reclaim_does_not_bring_a_second_one() {
        let start = Instant::now();
        let mut logs = logs();
        for signal in [
            disk(40, None),
            log("app", 300, 0),
            Signal::LogGone(id("app")),
            log("app", 300, 0),
        ] {
            logs.observe(&signal, start);
        }
        assert!(logs.conditions(start).is_empty());
        logs.observe(&log("app", 300, 0), start + SETTLE);
        assert_eq!(logs.conditions(start + SETTLE).len(), 1);
    }

    #[test]
    fn tells_its_numbers_and_keeps_deleted_logs_apart() {
        let now = Instant::now();
        let mut logs = logs();
        logs.observe(&disk(40, Some(2)), now);
        for ino in [7, 8] {
            let Signal::Log(mut seen) = log("app", 300, 20) else {
                panic!()
            };
            seen.log = LogId {
                ino,
                deleted: true,
                ..seen.log
            };
            logs.observe(&Signal::Log(seen), now);
        }
        let conditions = logs.conditions(now);
        assert_ne!(conditions[0].key, conditions[1].key);
        assert_eq!(conditions[0].severity, Severity::Critical);
        let evidence = &conditions[0].evidence;
        for part in [
            "takes 300.0 MiB",
            "284.0 MiB beyond",
            "20.0 MiB/s",
            "92%",
            "full in 2.0s",
            "deleted",
        ] {
            assert!(evidence.contains(part), "{part}: {evidence}");
        }
    }

    proptest! {
        #[test]
        fn never_names_a_log_without_a_head_or_on_a_calm_disk(
            allocated in 0_u64..600, growth in 0_u64..2000, available in 0_u64..512, time in prop::option::of(0_u64..400),
        ) {
            let named = !names(&[disk(available, time), log("app", allocated, growth)]).is_empty();
            let calm = available > 512 * 16 / 100 && time.is_none_or(|time| time > 60);
            if named {
                prop_assert!(allocated > 16);
                prop_assert!(!calm);
            }
            // However tight it gets, a runaway's head is named at last.
            if allocated >= 32 && available == 0 {
                prop_assert!(named);
            }
        }
    }
}
