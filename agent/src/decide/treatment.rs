//! What the agent itself does about a condition.

use crate::condition::ConditionKind;

/// What the agent itself does about a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// The ladder of its unit.
    Ladder,
    /// The ladder of the kubelet's unit, from kill and restart on.
    KillKubelet,
    /// The ladder of the runtime's unit, from kill and restart on, its stacks kept first.
    RestartRuntime,
    /// The ladder of its unit, from kill and restart on.
    KillUnit,
    /// Tells people first; after a while the ladder of the kubelet's unit.
    RestartKubelet,
    /// One restart of the time service.
    RestartTimeService,
    /// The ladder of the unit that writes the CNI configuration, if there is one.
    RestartCni,
    /// Its log gives its head back.
    Reclaim,
    /// After its logs, the disk gives back the journal's archives, then what docker does not need.
    FreeDisk,
    /// It is restarted, where the configuration names it.
    RestartContainer,
    /// The disk gives back what docker does not need, which has most of the files.
    FreeInodes,
    /// Its manifest goes out and comes back.
    Bounce,
    /// The largest unit that may be is restarted.
    RelieveMemory,
    /// The kubelet and the runtimes get more weight.
    Protect,
    /// Tells people; there is nothing that the agent can mend.
    Tell,
}

impl Treatment {
    pub(crate) const fn of(kind: ConditionKind) -> Self {
        match kind {
            ConditionKind::UnitFailed | ConditionKind::UnitInactive => Self::Ladder,
            ConditionKind::KubeletUnhealthy => Self::KillKubelet,
            ConditionKind::RuntimeHung => Self::RestartRuntime,
            ConditionKind::UnitJobHung => Self::KillUnit,
            ConditionKind::KubeletPlegUnhealthy => Self::RestartKubelet,
            ConditionKind::ClockUnsynchronised => Self::RestartTimeService,
            ConditionKind::CniMissing => Self::RestartCni,
            ConditionKind::LogRunaway => Self::Reclaim,
            ConditionKind::DiskPressure | ConditionKind::DiskFilling => Self::FreeDisk,
            ConditionKind::InodePressure => Self::FreeInodes,
            ConditionKind::ContainerUnhealthy => Self::RestartContainer,
            ConditionKind::ControlPlaneComponentDown => Self::Bounce,
            ConditionKind::MemoryPressure => Self::RelieveMemory,
            ConditionKind::Overload => Self::Protect,
            ConditionKind::FilesystemReadOnly
            | ConditionKind::FilesystemCorrupt
            | ConditionKind::DiskFailing
            | ConditionKind::OomStorm
            | ConditionKind::KernelHang
            | ConditionKind::HardwareFault
            | ConditionKind::NicFailing
            | ConditionKind::ConntrackFull
            | ConditionKind::ClockBehind
            | ConditionKind::ClockJumped
            | ConditionKind::ContainerFlapping
            | ConditionKind::ContainerOomKilled
            | ConditionKind::ContainerDied
            | ConditionKind::CertificateExpiring
            | ConditionKind::CertificateExpired
            | ConditionKind::UnitFlapping
            | ConditionKind::UnitMasked
            | ConditionKind::RemedyExhausted
            | ConditionKind::LedgerUnwritable
            | ConditionKind::StaticPodManifestMissing
            | ConditionKind::StaticPodManifestInvalid
            | ConditionKind::MemoryLeak
            // A node that is cut off must not restart anything because of it.
            | ConditionKind::NetworkIsolated
            | ConditionKind::DnsFailing
            | ConditionKind::RtcBehind => Self::Tell,
        }
    }
}
