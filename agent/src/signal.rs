//! What the watchers saw: the only input of [`crate::diagnose`].
//!
//! A signal says what *is*, never what changed, so a lost or repeated one does no harm.

mod cgroup;
mod network;
mod runtime;
mod static_pods;
mod storage;
mod unit;

use std::path::PathBuf;
use std::time::Duration;

pub use cgroup::{Cgroup, CgroupCpu, CgroupKind, CgroupUse, Hanging, UnitMemory, UnitMemorySignal, listed};
pub use network::{
    CniFound, CniSignal, DefaultRoute, DnsSignal, Link, LinkState, NetworkSignal, PathSignal, ReachSignal,
};
pub use runtime::{ContainerSignal, Runtime, RuntimeAnswer, RuntimeSignal};
pub use static_pods::{MissingManifest, PodContainers, StaticPod, StaticPodsSignal};
pub use storage::{
    Crowd, DiskSignal, HeldOpen, HoldersSignal, LogId, LogSignal, MountState, MountsSignal, Writable,
};
pub use unit::{ActiveState, Exit, UnitDetail, UnitPhase, UnitSignal};

/// One observation of the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// A systemd unit as systemd describes it now.
    Unit(UnitSignal),
    /// systemd cannot be asked at present. Neither raises nor clears a condition.
    UnitsUnobservable {
        /// What failed, for people.
        why: String,
    },
    /// A health endpoint answered, or did not.
    Probe(ProbeSignal),
    /// How full a watched file system is.
    Disk(DiskSignal),
    /// How large a log is and how fast it grows.
    Log(LogSignal),
    /// A log that was reported before is gone: its space is free.
    LogGone(LogId),
    /// The kernel said something that concerns the node's health.
    Kernel(KernelEvent),
    /// How much memory there is, and how long tasks wait for it.
    Memory(MemorySignal),
    /// How far the wall clock can be trusted.
    Clock(ClockSignal),
    /// A container runtime answered a real call, or did not.
    Runtime(RuntimeSignal),
    /// A container that is to stay up, as its runtime tells of it now.
    Container(ContainerSignal),
    /// How many tasks want a processor, and how long they wait.
    Load(LoadSignal),
    /// All certificates under the configured paths.
    Certificates(CertificatesSignal),
    /// Whether the watched file systems can be written.
    Mounts(MountsSignal),
    /// What takes a disk that is short.
    Holders(HoldersSignal),
    /// All static pods of this node.
    StaticPods(StaticPodsSignal),
    /// How much memory system daemons hold.
    UnitMemory(UnitMemorySignal),
    /// What the kubelet has said of its pod lifecycle event generator since the last look.
    Pleg(PlegSignal),
    /// The node's network.
    Network(NetworkSignal),
}

impl Signal {
    /// Its name in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unit(_) => "unit",
            Self::UnitsUnobservable { .. } => "units-unobservable",
            Self::Probe(_) => "probe",
            Self::Disk(_) => "disk",
            Self::Log(_) => "log",
            Self::LogGone(_) => "log-gone",
            Self::Kernel(_) => "kernel",
            Self::Memory(_) => "memory",
            Self::Clock(_) => "clock",
            Self::Load(_) => "load",
            Self::Runtime(_) => "runtime",
            Self::Container(_) => "container",
            Self::Certificates(_) => "certificates",
            Self::Mounts(_) => "mounts",
            Self::Holders(_) => "holders",
            Self::StaticPods(_) => "static-pods",
            Self::UnitMemory(_) => "unit-memory",
            Self::Pleg(_) => "pleg",
            Self::Network(_) => "network",
        }
    }
}

/// What one look at the kubelet's journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlegSignal {
    /// Nothing of it.
    Quiet,
    /// A kubelet that has just started says that it has not seen its containers yet, as each does. It is ill only if it goes on.
    Starting {
        /// The newest such message.
        message: String,
    },
    /// It does not see its containers, or its container runtime is down.
    Unhealthy {
        /// The newest such message.
        message: String,
    },
    /// The journal cannot be read; says nothing about the kubelet.
    Unobservable {
        /// What failed, for people.
        why: String,
    },
}

/// Every certificate that was found in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatesSignal {
    /// What they are judged by, since the Unix epoch: the later of the wall clock and of what this node has already trusted.
    pub now: Duration,
    /// A time service keeps the wall clock.
    pub kept: bool,
    /// The files, in the order of their paths.
    pub files: Vec<CertificateFile>,
    /// Directories that could not be read: nothing is known of what is below them.
    pub unseen: Vec<PathBuf>,
}

/// One file with certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// Which.
    pub path: PathBuf,
    /// Its certificates, none for a file of keys; or why it cannot be read, for people.
    pub content: Result<Vec<Certificate>, String>,
}

/// What matters of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its holder.
    pub subject: String,
    /// Valid from, seconds since the Unix epoch.
    pub not_before: i64,
    /// Valid until, seconds since the Unix epoch.
    pub not_after: i64,
}

/// Load of the whole node.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSignal {
    /// Tasks that want a processor or hang in I/O, averaged over a minute.
    pub one_minute: f32,
    /// The same over five.
    pub five_minutes: f32,
    /// Processors.
    pub processors: u16,
    /// Percent of the last minute in which some task waited for a processor (PSI); 0 on kernels without PSI.
    pub cpu_some_percent: f32,
    /// Percent of the last minute in which some task waited for I/O.
    pub io_some_percent: f32,
    /// Percent of the last minute in which all tasks that could run waited for I/O.
    pub io_full_percent: f32,
    /// Tasks that wait for I/O (`procs_blocked`); told only while the load is high, as all that follows.
    pub blocked: Option<u32>,
    /// Some of the processes that hang in the kernel (state D).
    pub hanging: Vec<Hanging>,
    /// The control groups that take most of the processors, the heaviest first.
    pub heaviest: Vec<CgroupCpu>,
}

/// The node's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClockSignal {
    /// A time service keeps it; `None` when that cannot be told.
    pub synchronised: Option<bool>,
    /// It jumped by so many milliseconds since the last look; 0 when it did not.
    pub jump_ms: i64,
    /// It is so far behind a time that this node has already trusted.
    pub behind: Duration,
    /// The machine's own clock (RTC) is so far behind that time; `None` where there is none, or it cannot be read.
    pub rtc_behind: Option<Duration>,
    /// A process that keeps clocks and is no configured time service's; looked for only while the clock is unsynchronised.
    pub other_keeper: Option<Keeper>,
}

/// A process that keeps the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Which.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
}

/// Memory of the whole node.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorySignal {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that new work can have without swapping (`MemAvailable`).
    pub available: u64,
    /// Percent of the last 10 s in which some task waited for memory (PSI); 0 on kernels without PSI.
    pub some_percent: f32,
    /// Percent of the last 10 s in which all tasks that could run waited for memory.
    pub full_percent: f32,
    /// The largest processes, told only while memory is short.
    pub largest: Vec<ProcessUse>,
    /// The largest control groups; `None` while memory is not short, when nobody looks at them.
    pub cgroups: Option<Vec<CgroupUse>>,
}

/// What one process takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUse {
    /// Which.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// Resident bytes.
    pub resident: u64,
}

/// What the kernel says on `/dev/kmsg` of the node's health, closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KernelEvent {
    /// The OOM killer killed a process.
    OomKill {
        /// Which.
        pid: u32,
        /// Its name (`comm`).
        task: String,
        /// The machine ran out of memory, not only a cgroup.
        whole_machine: bool,
    },
    /// A file system was remounted read-only after an error.
    ReadOnly {
        /// Its block device.
        device: String,
    },
    /// A file system is damaged.
    FilesystemError {
        /// Its block device.
        device: String,
        /// The kernel's words.
        why: String,
    },
    /// A disk did not read or write.
    IoError {
        /// The block device.
        device: String,
    },
    /// A task hangs in the kernel (D state).
    HungTask {
        /// Which.
        pid: u32,
        /// Its name.
        task: String,
    },
    /// A processor hangs in the kernel.
    Lockup {
        /// The kernel's words.
        why: String,
    },
    /// A machine check, or memory errors that could not be corrected.
    Hardware {
        /// The kernel's words.
        why: String,
    },
    /// A network device had to be reset.
    NicReset {
        /// The device.
        device: String,
    },
    /// The connection-tracking table is full and packets are dropped.
    ConntrackFull,
    /// More was said than is read under a flood, or than the kernel keeps: so many records are lost.
    Lost {
        /// Records.
        count: u64,
    },
}

/// Which endpoint was probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeTarget {
    /// The kubelet's `/healthz`.
    Kubelet,
    /// The API server's `/readyz` on this node.
    ApiServer,
}

/// One probe of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSignal {
    /// What was probed.
    pub target: ProbeTarget,
    /// What came of it.
    pub outcome: ProbeOutcome,
    /// How long that took.
    pub took: Duration,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// Status 200 within the deadline.
    Healthy,
    /// Any other status.
    Unhealthy {
        /// The HTTP status code.
        status: u16,
    },
    /// Connected, but no answer within the deadline: hung.
    TimedOut,
    /// Nobody listens, or the connection was cut before an answer.
    Refused,
    /// The probe itself could not be made; says nothing about the target.
    Unobservable {
        /// What failed, for people.
        why: String,
    },
}
