//! The node as the rest of the agent sees it: [`RealHost`](real::RealHost) is systemd, HTTP and statvfs;
//! [`SimHost`](sim::SimHost) is a simulated machine for drills and simulation.
//!
//! Only what differs between the two stands here. Logs, the ledger and the boot gate are real files in both.

pub mod real;
pub mod sim;

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::privilege::Leave;
use crate::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};
use crate::watch::clock::Clocks;
use crate::watch::{cgroup, kernel, memory, mounts, network};

/// What can be asked of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitAction {
    /// `RestartUnit(unit, "replace")`.
    Restart,
    /// `StopUnit(unit, "replace")`.
    Stop,
    /// `KillUnit(unit, "all", SIGKILL)`.
    Kill,
    /// `KillUnit(unit, "main", SIGKILL)`: of a container runtime, whose unit also has what keeps the containers.
    KillMain,
    /// `ResetFailedUnit(unit)`.
    ResetFailed,
    /// `SetUnitProperties(unit, runtime, weights)`, read back.
    Weigh(Weights),
}

/// What a unit gets of processors and disks, measured against its siblings; 100 is what others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Of processor time, 1 to 10000.
    pub cpu: u16,
    /// Of I/O, 1 to 10000.
    pub io: u16,
    /// Which of the kernel's interfaces has them: systemd has other properties for each.
    pub version: cgroup::Version,
}

impl Weights {
    /// As systemd's properties. Version 1 counts processor time from 2 to 262144 with 1024 for others, I/O from 10 to 1000 with 500.
    pub fn properties(self) -> [(&'static str, u64); 2] {
        let (cpu, io) = (u64::from(self.cpu), u64::from(self.io));
        match self.version {
            cgroup::Version::One => [
                ("CPUShares", (cpu * 1024 / 100).clamp(2, 262_144)),
                ("BlockIOWeight", (io * 5).clamp(10, 1000)),
            ],
            cgroup::Version::Two => [("CPUWeight", cpu), ("IOWeight", io)],
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(cpu, of_cpu), (io, of_io)] = self.properties();
        write!(f, "{cpu}={of_cpu} {io}={of_io}")
    }
}

/// Why the host did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// systemd's D-Bus could not be reached.
    #[error("systemd cannot be reached: {0}")]
    Unreachable(String),
    /// systemd refused, or its job did not end with `done`.
    #[error("{action} {unit}: {why}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// systemd's answer.
        why: String,
    },
}

/// Where a machine's kernel tells of itself.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The kernel's log.
    pub kmsg: PathBuf,
    /// Memory and its pressure.
    pub memory: memory::Sources,
    /// `/proc`, for the load.
    pub proc: PathBuf,
    /// What is mounted.
    pub mounts: mounts::Sources,
    /// Its control groups.
    pub cgroups: cgroup::Root,
    /// Reads the clocks.
    pub clocks: fn() -> Clocks,
    /// The network.
    pub network: network::Sources,
}

impl Default for Machine {
    /// The one that the agent runs on.
    fn default() -> Self {
        Self {
            kmsg: kernel::KMSG.into(),
            memory: memory::Sources::default(),
            proc: "/proc".into(),
            mounts: mounts::Sources::default(),
            cgroups: cgroup::Root::default(),
            clocks: Clocks::read,
            network: network::Sources::default(),
        }
    }
}

/// A node.
pub trait Host: Send + Sync + 'static {
    /// Sends the present state of each unit, then its state at every change, until `stop`. Reconnects by
    /// itself (bus or systemd restarted), sends [`Signal::UnitsUnobservable`] meanwhile and everything
    /// anew afterwards. Never ends by an error.
    fn watch_units(
        &self,
        units: Vec<String>,
        signals: mpsc::Sender<Signal>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send;

    /// The unit's state now.
    fn unit_state(&self, unit: &str) -> impl Future<Output = Result<UnitSignal, HostError>> + Send;

    /// Asks systemd, and returns when its job has ended with `done` (at once for actions without a job).
    fn unit_action(
        &self,
        unit: &str,
        action: UnitAction,
    ) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Does systemd do what the agent asks of this unit? Changes nothing. A machine that is simulated always does.
    fn may_manage(&self, _unit: &str) -> impl Future<Output = Leave> + Send {
        ready(Leave::Given)
    }

    /// One probe of a health endpoint.
    fn probe(&self, target: ProbeTarget, deadline: Duration) -> impl Future<Output = ProbeOutcome> + Send;

    /// Usage of the file system at `mount_point` (`time_to_full` is left `None`: the watcher works it out).
    fn disk_usage(&self, mount_point: &Path) -> io::Result<DiskSignal>;

    /// [`Host::disk_usage`], and whether it is answered from memory there, whatever the device does: then it needs no thread of its own.
    fn disk_look(&self, mount_point: &Path) -> io::Result<(DiskSignal, bool)> {
        Ok((self.disk_usage(mount_point)?, false))
    }

    /// Where the machine's kernel tells of itself; `None` for a machine that has no kernel of its own (simulated).
    fn machine(&self) -> Option<Machine> {
        None
    }

    /// The machine is on its way down in order (`SystemState` is `stopping`).
    fn shutting_down(&self) -> impl Future<Output = bool> + Send;
}
