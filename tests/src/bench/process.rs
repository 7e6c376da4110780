//! What a process takes: memory, processor, threads, descriptors; from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tokio::time::Instant;

use crate::node::Node;

/// One look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Its share of memory, KiB: shared pages count by the part of each that is its own (`smaps_rollup`).
    pub pss: u64,
    /// Pages in memory, KiB (`smaps_rollup`).
    pub rss: u64,
    /// Of the pages, those that no other process has and that were written to, KiB.
    pub dirty: u64,
    /// Threads.
    pub threads: usize,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// It has gone, or may not be looked at.
    pub fn of(pid: Pid) -> anyhow::Result<Self> {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let count = |what: &str| -> anyhow::Result<usize> {
            let directory = format!("/proc/{pid}/{what}");
            Ok(fs::read_dir(&directory)
                .with_context(|| format!("list {directory}"))?
                .count())
        };
        Ok(Self {
            pss: field(&text, "Pss")?,
            rss: field(&text, "Rss")?,
            dirty: field(&text, "Private_Dirty")?,
            threads: count("task")?,
            descriptors: count("fd")?,
        })
    }
}

/// Processor time of a unit's main process, and of its control group, between two looks.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    unit: String,
    pid: Pid,
    begun: Instant,
    /// User and system time, milliseconds.
    parts: (u64, u64),
    /// All of its time.
    process: Duration,
    /// Nanoseconds, as systemd reads them from the control group; `None` where the node's systemd does not count.
    group: Option<u64>,
    /// How often its threads have gone to sleep.
    sleeps: u64,
}

/// What went by between two looks.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Between the looks.
    pub wall: Duration,
    /// User and system time together, percent of one core: the process's own clock, to the nanosecond, of all threads, those that
    /// have ended too.
    pub process: f64,
    /// In user mode, percent of one core (`utime` of `/proc/PID/stat`, by the kernel's tick).
    pub user: f64,
    /// In the kernel for it, percent of one core (`stime`).
    pub system: f64,
    /// Of the unit's control group, percent of one core (`CPUUsageNSec`).
    pub group: Option<f64>,
    /// How often a second a thread of it went to sleep (`voluntary_ctxt_switches` of the threads that there are).
    pub sleeps: f64,
}

impl Stopwatch {
    /// Begins now, with the main process of `unit`.
    ///
    /// # Errors
    /// The unit does not run.
    pub async fn start(node: &Node, unit: &str) -> anyhow::Result<Self> {
        // Without it the unit has no group where the kernel counts.
        node.exec(&[
            "systemctl",
            "set-property",
            "--runtime",
            unit,
            "CPUAccounting=yes",
        ])
        .await?;
        let pid = node
            .main_pid(unit)
            .await?
            .with_context(|| format!("{unit} does not run"))?;
        let group = node.property(unit, "CPUUsageNSec").await?.parse().ok();
        Ok(Self {
            unit: unit.to_owned(),
            pid,
            begun: Instant::now(),
            parts: times(pid)?,
            process: taken(pid)?,
            group,
            sleeps: sleeps(pid),
        })
    }

    /// The process that is timed.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What went by since the start.
    ///
    /// # Errors
    /// It is another process by now.
    pub async fn stop(&self, node: &Node) -> anyhow::Result<Spent> {
        let (process, wall, sleeps) = (taken(self.pid)?, self.begun.elapsed(), sleeps(self.pid));
        let (user, system) = times(self.pid)?;
        let group: Option<u64> = node.property(&self.unit, "CPUUsageNSec").await?.parse().ok();
        let pid = node.main_pid(&self.unit).await?;
        ensure!(
            pid == Some(self.pid),
            "{} was restarted while it was measured",
            self.unit
        );
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / wall.as_secs_f64();
        let millis = |now: u64, then: u64| percent(Duration::from_millis(now.saturating_sub(then)));
        Ok(Spent {
            wall,
            process: percent(process.saturating_sub(self.process)),
            user: millis(user, self.parts.0),
            system: millis(system, self.parts.1),
            group: self
                .group
                .zip(group)
                .map(|(then, now)| percent(Duration::from_nanos(now.saturating_sub(then)))),
            sleeps: Duration::from_secs(sleeps.saturating_sub(self.sleeps)).as_secs_f64()
                / wall.as_secs_f64(),
        })
    }
}

/// The processor time that a process has taken so far. `/proc/PID/stat` rounds it to ticks of 10 ms, as much as an idle minute takes.
fn taken(pid: Pid) -> anyhow::Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(pid).with_context(|| format!("find the clock of process {pid}"))?;
    Ok(clock_gettime(clock)
        .with_context(|| format!("read the clock of process {pid}"))?
        .into())
}

/// User and system time, milliseconds.
fn times(pid: Pid) -> anyhow::Result<(u64, u64)> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let ticks = sysconf(SysconfVar::CLK_TCK)?
        .and_then(|ticks| u64::try_from(ticks).ok())
        .context("ask how long a tick is")?;
    // After the name, which may hold anything: the third field is the first.
    let mut fields = text
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split(' ').skip(11))
        .with_context(|| format!("read {file}"))?;
    let mut next = || -> anyhow::Result<u64> {
        let ticked: u64 = fields.next().with_context(|| format!("read {file}"))?.parse()?;
        Ok(ticked * 1000 / ticks)
    };
    Ok((next()?, next()?))
}

fn sleeps(pid: Pid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|text| {
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            count.trim().parse::<u64>().ok()
        })
        .sum()
}

/// A field of `smaps_rollup`, KiB.
fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .with_context(|| format!("find {name} in smaps_rollup"))?
        .parse()
        .with_context(|| format!("read {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_looked_at() {
        let seen = Usage::of(Pid::this()).unwrap();
        assert!(seen.pss > 0 && seen.rss >= seen.pss, "{seen:?}");
        assert!(seen.threads >= 1 && seen.descriptors >= 1, "{seen:?}");
        assert!(times(Pid::this()).is_ok());
        assert!(taken(Pid::this()).unwrap() > Duration::ZERO);
    }
}
