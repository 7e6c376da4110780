//! The remedies that an agent may use of its own accord, by name: what an operator can hold.
//!
//! A release from the boot gate is none of them: it is the coordinator's word, and a kubelet that nobody lets go helps nobody.

use std::fmt;

/// A kind of remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemedyKind {
    /// A unit is restarted.
    RestartUnit,
    /// A unit is killed and restarted.
    KillRestartUnit,
    /// A log gives back its head.
    ReclaimLog,
    /// A hung container runtime is killed and restarted, its stacks kept.
    RestartRuntime,
    /// Stopped containers and unused images go.
    Prune,
    /// Archived journal files go.
    VacuumJournal,
    /// An unhealthy container is restarted.
    RestartContainer,
    /// A component of the control plane is stopped and started by its manifest.
    BounceStaticPod,
    /// The largest unit that may be is restarted, for its memory.
    RelieveMemory,
    /// The kubelet and the runtimes get more weight.
    ProtectUnits,
}

impl RemedyKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::RestartUnit,
        Self::KillRestartUnit,
        Self::ReclaimLog,
        Self::RestartRuntime,
        Self::Prune,
        Self::VacuumJournal,
        Self::RestartContainer,
        Self::BounceStaticPod,
        Self::RelieveMemory,
        Self::ProtectUnits,
    ];

    /// Its name in ledger, wire and terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RestartUnit => "restart-unit",
            Self::KillRestartUnit => "kill-restart-unit",
            Self::ReclaimLog => "reclaim-log",
            Self::RestartRuntime => "restart-runtime",
            Self::Prune => "prune",
            Self::VacuumJournal => "vacuum-journal",
            Self::RestartContainer => "restart-container",
            Self::BounceStaticPod => "bounce-static-pod",
            Self::RelieveMemory => "relieve-memory",
            Self::ProtectUnits => "protect-units",
        }
    }

    /// The remedy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Every name, for people who typed another.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for RemedyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
