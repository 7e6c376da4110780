//! A standing finding about the node: what [`crate::diagnose`] makes of signals.

use std::fmt;

use tokio::time::Instant;

/// Writes the list once: a kind is its documentation and its name.
macro_rules! condition_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident,)+) => {
        /// The closed list of conditions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ConditionKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ConditionKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: [Self; [$(Self::$kind),+].len()] = [$(Self::$kind),+];

            /// Its name on the wire and in the terminal.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)+
                }
            }
        }
    };
}

condition_kinds! {
    /// A watched unit is in state `failed`.
    UnitFailed,
    /// A watched unit is installed but not running, without failure.
    UnitInactive,
    /// The kubelet's unit is active and its `/healthz` does not answer 200.
    KubeletUnhealthy,
    /// A file system is short of bytes.
    DiskPressure,
    /// A log grows so fast, or has grown so large, that it endangers its file system.
    LogRunaway,
    /// A file system that ought to be writable is read-only: the kernel gave it up after an error, or somebody mounted it so.
    FilesystemReadOnly,
    /// The kernel found a file system damaged.
    FilesystemCorrupt,
    /// A disk does not read or write.
    DiskFailing,
    /// Memory is short: little is available, or tasks wait for it.
    MemoryPressure,
    /// The OOM killer is at work again and again, or because the whole machine ran out of memory.
    OomStorm,
    /// Tasks or processors hang in the kernel.
    KernelHang,
    /// A machine check, or memory errors that could not be corrected.
    HardwareFault,
    /// A network device is reset by the kernel.
    NicFailing,
    /// The connection-tracking table is full: new connections fail.
    ConntrackFull,
    /// More tasks want a processor or a disk than the node can serve.
    Overload,
    /// The wall clock is behind a time that this node has already trusted.
    ClockBehind,
    /// No time service keeps the wall clock.
    ClockUnsynchronised,
    /// The wall clock jumped.
    ClockJumped,
    /// A container runtime's unit is active and a real call of it is not answered.
    RuntimeHung,
    /// A container dies and is started again, over and over.
    ContainerFlapping,
    /// A container ran out of its memory.
    ContainerOomKilled,
    /// A container that is to stay up ended with an error.
    ContainerDied,
    /// A container's own health check fails.
    ContainerUnhealthy,
    /// A certificate expires soon.
    CertificateExpiring,
    /// A certificate has expired: whatever needs it fails, at the latest when it is started anew.
    CertificateExpired,
    /// A remedy's budget is spent and its condition stands: somebody has to look.
    RemedyExhausted,
    /// The agent's ledger cannot be written: what needs a durable intent is not done.
    LedgerUnwritable,
    /// A file system is short of inodes: no file can be made, whatever space is left.
    InodePressure,
    /// A file system will be full soon at the present rate.
    DiskFilling,
    /// A static pod's manifest is there, the kubelet is well, and the pod does not run or does not answer.
    ControlPlaneComponentDown,
    /// A manifest that is to be there is gone: the kubelet has stopped its pod.
    StaticPodManifestMissing,
    /// A file among the manifests that is none: the kubelet passes it over.
    StaticPodManifestInvalid,
    /// A system daemon's memory only ever grows.
    MemoryLeak,
    /// A unit dies and is started again, over and over, or was given up by systemd for it.
    UnitFlapping,
    /// A watched unit is masked: nobody can start it.
    UnitMasked,
    /// A start or stop of a unit does not end.
    UnitJobHung,
    /// The kubelet answers, and its pod lifecycle event generator does not see its containers: no pod is started or stopped.
    KubeletPlegUnhealthy,
    /// The node has no way out, or reaches nobody.
    NetworkIsolated,
    /// There is no network configuration for pods that can be used.
    CniMissing,
    /// No name server knows a name that is always there.
    DnsFailing,
    /// The machine's own clock is behind a time that this node has already trusted.
    RtcBehind,
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt if it stays.
    Warning,
    /// Hurts now.
    Critical,
}

/// What identifies a condition: at most one stands for each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditionKey {
    /// What is wrong.
    pub kind: ConditionKind,
    /// With what: a unit, a mount point, a path.
    pub subject: String,
}

/// A standing finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is wrong, and with what.
    pub key: ConditionKey,
    /// How bad.
    pub severity: Severity,
    /// Since when, by the monotonic clock.
    pub since: Instant,
    /// What was seen, for people.
    pub evidence: String,
    /// Its remedies are spent.
    pub escalated: bool,
    /// For [`ConditionKind::LogRunaway`]: the log, so that the remedy finds it again.
    pub log: Option<crate::signal::LogId>,
    /// For [`ConditionKind::Overload`]: who weighs most, for whoever moves pods away.
    pub heaviest: Vec<crate::signal::CgroupCpu>,
}
