//! Memory → [`Signal::Memory`]: how much is available, and how long tasks wait for it.
//!
//! A kernel trigger on `/proc/pressure/memory` wakes the watcher within a window of tasks waiting (PSI); without PSI or the right to set a trigger, and
//! between events, it looks every few seconds. Looks come closer while memory is short, and then the largest processes and control groups
//! are told too, so that an operator sees who took it. Short is at least whatever the configuration raises a condition at: what the agent
//! restarts, it chooses from those groups.

pub(crate) mod files;
mod trigger;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::trigger::Trigger;
use super::beat::Beat;
use super::cgroup::{self, Cgroups};
use super::proc_file;
use super::psi::{self, Over};
use crate::config::MemorySettings;
use crate::signal::{CgroupUse, MemorySignal, ProcessUse, Signal};

/// Between looks when nothing happens.
const CALM: Duration = Duration::from_secs(5);
/// Between looks while memory is short.
const TENSE: Duration = Duration::from_secs(1);
/// Memory counts as short, for the pace and the depth of the looks, below so many percent available…
const TENSE_PERCENT: u64 = 15;
/// … or when tasks wait for so many percent of the time. Where a condition is raised earlier, it is short earlier.
const TENSE_PRESSURE: u16 = 5;
/// So many processes are named.
const LARGEST: usize = 3;
/// So many control groups are told, of each kind.
const LARGEST_GROUPS: usize = 8;

/// Where the kernel tells of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// PSI: `/proc/pressure/memory`, or `memory.pressure` of a cgroup (version 2).
    pub pressure: PathBuf,
    /// `/proc/meminfo`.
    pub meminfo: PathBuf,
    /// `/proc`, for the largest processes.
    pub proc: PathBuf,
    /// Control groups, for the largest of those.
    pub cgroups: cgroup::Root,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            pressure: "/proc/pressure/memory".into(),
            meminfo: "/proc/meminfo".into(),
            proc: "/proc".into(),
            cgroups: cgroup::Root::default(),
        }
    }
}

/// When memory counts as short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tense {
    /// Less than so many percent are available…
    below_percent: u64,
    /// … or some task waits for so many percent of the time.
    waiting_percent: u16,
}

impl Tense {
    /// Never later than these settings raise a condition, and until they clear it.
    pub fn of(settings: &MemorySettings) -> Self {
        Self {
            below_percent: settings.clear_available_percent.max(TENSE_PERCENT),
            waiting_percent: settings.raise_waiting_percent.min(TENSE_PRESSURE),
        }
    }

    fn is(self, seen: &MemorySignal) -> bool {
        u128::from(seen.available) * 100 < u128::from(seen.total) * u128::from(self.below_percent)
            || seen.some_percent >= f32::from(self.waiting_percent)
    }
}

/// Watches until `stop`. What cannot be read is told once in the log and raises nothing.
pub async fn watch(
    sources: Sources,
    tense: Tense,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut trigger = Trigger::set(&sources.pressure);
    let mut observable = true;
    loop {
        let begun = Instant::now();
        // Neither of the kernel's two files waits for anything; those of every process and group may take their time.
        let seen = match look(&sources) {
            Ok(mut seen) if tense.is(&seen) => {
                let from = sources.clone();
                let named = tokio::task::spawn_blocking(move || {
                    name_largest(&mut seen, &from);
                    seen
                });
                named.await.map_err(io::Error::other)
            }
            seen => seen,
        };
        let pace = match seen {
            Ok(seen) => {
                observable = true;
                let pace = if tense.is(&seen) { TENSE } else { CALM };
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = signals.send(Signal::Memory(seen)) => if sent.is_err() { return },
                }
                pace
            }
            Err(error) => {
                if observable {
                    warn!(%error, "memory cannot be looked at");
                }
                observable = false;
                CALM
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = trigger.event() => {}
            () = beat.pause(begun, pace) => {}
        }
    }
}

/// Bytes that are available now.
///
/// # Errors
/// The kernel's file cannot be read, or says something else.
pub fn available(sources: &Sources) -> io::Result<u64> {
    let text = proc_file::read(&sources.meminfo)?;
    files::meminfo(&text)
        .map(|(_, available)| available)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn look(sources: &Sources) -> io::Result<MemorySignal> {
    let text = proc_file::read(&sources.meminfo)?;
    let (total, available) = files::meminfo(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "meminfo has no MemTotal or MemAvailable",
        )
    })?;
    // Kernels without PSI are judged by what is available alone.
    let pressure = proc_file::read(&sources.pressure)
        .ok()
        .and_then(|text| psi::parse(&text, Over::TenSeconds))
        .unwrap_or_default();
    Ok(MemorySignal {
        total,
        available,
        some_percent: pressure.some,
        full_percent: pressure.full,
        largest: Vec::new(),
        cgroups: None,
    })
}

fn name_largest(seen: &mut MemorySignal, sources: &Sources) {
    seen.largest = largest(&sources.proc);
    seen.cgroups = Some(largest_groups(&sources.cgroups));
}

/// The largest control groups of each kind, the largest first.
fn largest_groups(root: &cgroup::Root) -> Vec<CgroupUse> {
    let mut counts = BTreeMap::new();
    let mut largest = Cgroups::mounted(root).memory();
    largest.retain(|group| {
        let count: &mut usize = counts.entry(group.cgroup.kind).or_default();
        *count += 1;
        *count <= LARGEST_GROUPS
    });
    cgroup::name_pods(largest.iter_mut().map(|group| &mut group.cgroup));
    largest
}

/// The largest processes by resident memory; those that cannot be read are passed over.
fn largest(proc: &Path) -> Vec<ProcessUse> {
    let page = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096);
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let mut found: Vec<(u64, u32)> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let statm = fs::read_to_string(proc.join(pid.to_string()).join("statm")).ok()?;
            Some((files::resident_pages(&statm)?.checked_mul(page)?, pid))
        })
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(LARGEST);
    found
        .into_iter()
        .map(|(resident, pid)| {
            let name = fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
            ProcessUse {
                pid,
                name: name.trim_end().to_owned(),
                resident,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_it_runs_on_is_read() {
        let seen = look(&Sources::default()).unwrap();
        assert!(seen.total > 0 && seen.available <= seen.total, "{seen:?}");
        let us = largest(Path::new("/proc"));
        assert_eq!(us.len(), LARGEST);
        assert!(
            us.is_sorted_by(|one, other| one.resident >= other.resident),
            "{us:?}"
        );
    }

    #[test]
    fn whatever_raises_a_condition_has_its_control_groups_looked_at() {
        let seen = |available, full_percent| MemorySignal {
            total: 1000,
            available,
            some_percent: full_percent,
            full_percent,
            largest: Vec::new(),
            cgroups: None,
        };
        let settings = MemorySettings::default();
        let early = MemorySettings {
            raise_available_percent: 50,
            clear_available_percent: 60,
            raise_waiting_percent: 2,
            ..settings.clone()
        };
        for (settings, available, waiting, expected) in [
            (&settings, 149, 0.0, true),
            (&settings, 150, 0.0, false),
            (&settings, 900, 5.0, true),
            (&settings, 900, 4.9, false),
            (&early, 499, 0.0, true),
            // It stands until then.
            (&early, 599, 0.0, true),
            (&early, 600, 0.0, false),
            (&early, 900, 2.0, true),
        ] {
            let tense = Tense::of(settings);
            assert_eq!(
                tense.is(&seen(available, waiting)),
                expected,
                "{tense:?} {available} {waiting}"
            );
        }
    }
}
