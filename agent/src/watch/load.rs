//! Load → [`Signal::Load`]: how many tasks want a processor or hang in I/O, and for how long they wait.
//!
//! A node under too much load stops renewing its lease, and is taken for dead. Load average counts the tasks that wait for a disk too, so both
//! pressures are read beside it. While a limit is passed it is looked who takes the processors, and now and then who hangs in the kernel
//! (state D) and where: that reads files of every control group and every process, which a calm node is spared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::beat::Beat;
use super::cgroup::{Cgroups, Root, name_pods};
use super::proc_file;
use super::psi::{self, Over, Pressure};
use crate::config::LoadSettings;
use crate::diagnose::load::share;
use crate::signal::{Cgroup, CgroupCpu, CgroupKind, Hanging, LoadSignal, Signal};

/// The kernel itself averages anew every 5 s (`LOAD_FREQ`, `include/linux/sched/loadavg.h`).
const PERIOD: Duration = Duration::from_secs(5);
/// Processors come and go seldom.
const COUNT_AGAIN: Duration = Duration::from_mins(1);
/// Control groups that are told: more than a run of the coordinator moves away.
const HEAVIEST: usize = 16;
/// Processes in state D that are told.
const HANGING: usize = 5;
/// Between two looks for those.
const HANGING_EVERY: Duration = Duration::from_secs(30);

/// Where the kernel tells of load.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `/proc`.
    pub proc: PathBuf,
    /// Control groups, for the heaviest.
    pub cgroups: Root,
}

/// What has to be remembered between two looks at a busy node.
#[derive(Debug, Default)]
struct Busy {
    /// The processor time that each group had taken, and when.
    taken: Option<(BTreeMap<Cgroup, Duration>, Instant)>,
    /// The last look for processes in state D.
    hanging: Option<Instant>,
}

/// Watches until `stop`. What cannot be read is told once in the log and raises nothing.
pub async fn watch(
    sources: Sources,
    settings: LoadSettings,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut observable = true;
    let mut busy = Busy::default();
    let (mut counted, mut count) = (Instant::now(), processors());
    loop {
        let begun = Instant::now();
        if begun.duration_since(counted) >= COUNT_AGAIN {
            (counted, count) = (begun, processors());
        }
        // The kernel's few files of the whole machine wait for nothing; those of every process and group may take their time.
        let seen = match look(&sources.proc, count) {
            Ok(mut seen) if share(&seen, &settings) >= 1.0 => {
                let (from, mut before) = (sources.clone(), std::mem::take(&mut busy));
                let closer = tokio::task::spawn_blocking(move || {
                    before.look(&from, &mut seen, Instant::now());
                    (seen, before)
                });
                closer.await.map_err(io::Error::other).map(|(seen, after)| {
                    busy = after;
                    seen
                })
            }
            calm => {
                busy = Busy::default();
                calm
            }
        };
        match seen {
            Ok(seen) => {
                observable = true;
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = signals.send(Signal::Load(seen)) => if sent.is_err() { return },
                }
            }
            Err(error) => {
                if observable {
                    warn!(%error, "load cannot be looked at");
                }
                observable = false;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = beat.pause(begun, PERIOD) => {}
        }
    }
}

fn look(proc: &Path, processors: u16) -> io::Result<LoadSignal> {
    let text = proc_file::read(&proc.join("loadavg"))?;
    let (one, five) = loadavg(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "loadavg does not begin with numbers"))?;
    let pressure = |what: &str| -> Pressure {
        proc_file::read(&proc.join("pressure").join(what))
            .ok()
            .and_then(|text| psi::parse(&text, Over::OneMinute))
            .unwrap_or_default()
    };
    let (cpu, io) = (pressure("cpu"), pressure("io"));
    Ok(LoadSignal {
        one_minute: one,
        five_minutes: five,
        processors,
        cpu_some_percent: cpu.some,
        io_some_percent: io.some,
        io_full_percent: io.full,
        blocked: None,
        hanging: Vec::new(),
        heaviest: Vec::new(),
    })
}

/// Those that this process may use. Asking reads the control groups' quotas.
fn processors() -> u16 {
    let count = available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(count).unwrap_or(u16::MAX)
}

impl Busy {
    fn look(&mut self, sources: &Sources, seen: &mut LoadSignal, now: Instant) {
        let stat = fs::read_to_string(sources.proc.join("stat")).unwrap_or_default();
        seen.blocked = blocked(&stat);
        let taken = Cgroups::mounted(&sources.cgroups).cpu();
        if let Some((before, at)) = &self.taken {
            seen.heaviest = heaviest(before, &taken, now.saturating_duration_since(*at));
            weigh(&mut seen.heaviest, &Cgroups::mounted(&sources.cgroups));
            name_pods(seen.heaviest.iter_mut().map(|group| &mut group.cgroup));
        }
        self.taken = Some((taken, now));
        let due = self
            .hanging
            .is_none_or(|last| now.saturating_duration_since(last) >= HANGING_EVERY);
        if due {
            self.hanging = Some(now);
            seen.hanging = hanging(&sources.proc);
        }
    }
}

/// What those that were chosen hold in memory.
fn weigh(heaviest: &mut [CgroupCpu], cgroups: &Cgroups) {
    let wanted = |cgroup: &Cgroup| heaviest.iter().any(|heavy| heavy.cgroup == *cgroup);
    let held: BTreeMap<_, _> = cgroups
        .memory_of(wanted)
        .into_iter()
        .map(|held| (held.cgroup, held.bytes))
        .collect();
    for heavy in heaviest {
        heavy.bytes = held.get(&heavy.cgroup).copied();
    }
}

/// Who took most processor time between two looks; those that took next to none are left out.
fn heaviest(
    before: &BTreeMap<Cgroup, Duration>,
    after: &BTreeMap<Cgroup, Duration>,
    between: Duration,
) -> Vec<CgroupCpu> {
    let mut each: Vec<_> = after
        .iter()
        .filter_map(|(cgroup, taken)| {
            let took = taken.saturating_sub(*before.get(cgroup)?);
            let percent = (took.as_micros() * 100).checked_div(between.as_micros())?;
            (percent > 0).then(|| CgroupCpu {
                uid: (cgroup.kind == CgroupKind::Pod).then(|| cgroup.name.clone()),
                cgroup: cgroup.clone(),
                percent: u64::try_from(percent).unwrap_or(u64::MAX),
                bytes: None,
            })
        })
        .collect();
    each.sort_by(|one, other| {
        other
            .percent
            .cmp(&one.percent)
            .then_with(|| one.cgroup.cmp(&other.cgroup))
    });
    each.truncate(HEAVIEST);
    each
}

/// `procs_blocked` of `/proc/stat`.
fn blocked(stat: &str) -> Option<u32> {
    let count = stat
        .lines()
        .find_map(|line| line.strip_prefix("procs_blocked "))?;
    count.trim().parse().ok()
}

/// Some of the processes whose main thread is in state D, and where they wait.
fn hanging(proc: &Path) -> Vec<Hanging> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
            if state(&read("stat")?) != Some('D') {
                return None;
            }
            Some(Hanging {
                pid,
                name: read("comm")?.trim_end().to_owned(),
                // "0" where the kernel does not tell.
                waits_in: read("wchan").filter(|at| at != "0").unwrap_or_default(),
                cgroup: read("cgroup").map(|text| group_of(&text)).unwrap_or_default(),
            })
        })
        .take(HANGING)
        .collect()
}

/// The last part of the path in `/proc/PID/cgroup`: systemd's hierarchy in version 1, the only one in version 2.
fn group_of(text: &str) -> String {
    let path_of = |begins: &str| {
        text.lines()
            .find(|line| {
                line.split_once(':')
                    .is_some_and(|(_, rest)| rest.starts_with(begins))
            })
            .and_then(|line| line.splitn(3, ':').nth(2))
            .and_then(|path| path.rsplit('/').next())
            .filter(|last| !last.is_empty())
    };
    let found = path_of("name=systemd:").or_else(|| path_of(":"));
    found.unwrap_or_default().to_owned()
}

/// The first two numbers of `/proc/loadavg`.
pub(crate) fn loadavg(text: &str) -> Option<(f32, f32)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<f32>);
    let (one, five) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (one.is_finite() && five.is_finite()).then_some((one, five))
}

/// The state in `/proc/PID/stat`: after the name, which may hold anything, also parentheses.
pub(crate) fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_machine_it_runs_on_is_read() {
        let sources = Sources {
            proc: "/proc".into(),
            cgroups: Root::default(),
        };
        let mut seen = look(&sources.proc, processors()).unwrap();
        assert!(seen.processors > 0 && seen.one_minute >= 0.0, "{seen:?}");
        Busy::default().look(&sources, &mut seen, Instant::now());
        assert!(seen.blocked.is_some(), "{seen:?}");
    }

    #[test]
    fn the_heaviest_are_those_that_took_most_between_two_looks() {
        let group = |name: &str| Cgroup {
            kind: crate::signal::CgroupKind::Unit,
            name: name.into(),
        };
        let at = |times: &[(&str, u64)]| {
            times
                .iter()
                .map(|(name, millis)| (group(name), Duration::from_millis(*millis)))
                .collect()
        };
        let before = at(&[("a", 90_000), ("b", 0), ("c", 5), ("gone", 7)]);
        let after = at(&[("a", 91_000), ("b", 4000), ("c", 5), ("new", 60_000)]);
        let told: Vec<_> = heaviest(&before, &after, Duration::from_secs(5))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, ["b 80%", "a 20%"]);
    }

    #[test]
    fn what_the_kernel_says_of_blocked_tasks_and_groups_is_read() {
        assert_eq!(blocked("cpu 1 2\nprocs_running 3\nprocs_blocked 4\n"), Some(4));
        assert_eq!(blocked("cpu 1 2\n"), None);
        let one = "4:memory:/a\n1:name=systemd:/system.slice/docker.service\n0::/\n";
        assert_eq!(group_of(one), "docker.service");
        assert_eq!(group_of("0::/system.slice/ssh.service\n"), "ssh.service");
        assert_eq!(group_of("0::/\n"), "");
    }

    #[test]
    fn a_name_with_parentheses_hides_no_state() {
        assert_eq!(state("12 (a) S (b)) D 1 2 3"), Some('D'));
        assert_eq!(state("12 (sh) S 1 2 3"), Some('S'));
        assert_eq!(state("12"), None);
    }

    #[test]
    fn what_is_no_load_is_refused() {
        assert_eq!(loadavg("0.50 1.25 0.75 1/200 3\n"), Some((0.5, 1.25)));
        assert_eq!(loadavg("0.50"), None);
        assert_eq!(loadavg("nan 1.0"), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,100}") {
            let _ = (loadavg(&text), state(&text), blocked(&text), group_of(&text));
        }
    }
}
