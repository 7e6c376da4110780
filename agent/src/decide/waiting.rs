//! Why nothing is done about a condition at present.

use std::fmt;

use tokio::time::Instant;

use crate::condition::ConditionKind;
use crate::privilege::Lack;

/// Why nothing is done about a condition at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// A remedy for this subject runs.
    Running,
    /// The pause before the next attempt.
    BackOff {
        /// Its end.
        until: Instant,
    },
    /// What the last attempt brings.
    Settling {
        /// Its end.
        until: Instant,
    },
    /// Other logs are being reclaimed.
    Turn,
    /// [`super::Brakes::gate_held`].
    BootGate,
    /// [`super::Brakes::systemd_away`].
    Systemd,
    /// [`super::Brakes::ledger_until`].
    Ledger {
        /// When it is tried again.
        until: Instant,
    },
    /// Logs on this disk give way first.
    Logs {
        /// Until when.
        until: Instant,
    },
    /// The unit is watched, but not on the list of those that may be restarted.
    NotAllowed,
    /// The agent may not do it here. The condition counts as escalated.
    Privilege(Lack),
    /// An operator, who holds it.
    Held {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When the hold ends by itself.
        until: Option<Instant>,
    },
    /// What many nodes have in common: it is not this node.
    Frozen {
        /// What was seen.
        why: String,
        /// When the freeze ends, unless it is renewed.
        until: Instant,
    },
    /// An operator, who is at work on the node.
    Silenced {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When the silence ends by itself.
        until: Option<Instant>,
    },
    /// Somebody: it is on the protect list.
    Protected {
        /// Its line.
        by: String,
    },
    /// The static pod is not among the components that may be bounced.
    NotAComponent,
    /// The coordinator's permit. With what it said, the condition counts as escalated.
    Permit {
        /// What it said; `None`: nothing yet.
        on: Option<String>,
        /// It is not waited for any longer then.
        until: Option<Instant>,
    },
    /// Another component of this node is being bounced.
    OtherBounce,
    /// Something else that it needs is to be mended first.
    First {
        /// What.
        subject: String,
    },
    /// What stands has to hold for longer.
    Hold {
        /// Until when.
        until: Instant,
    },
    /// A unit that it needs is ill too, and comes first.
    Dependency {
        /// Which.
        unit: String,
        /// It is looked at again then.
        until: Instant,
    },
    /// What stands may come right by itself.
    Recovery {
        /// It is not waited for any longer then.
        until: Instant,
    },
    /// A process that is no time service of the configuration keeps the clock.
    AnotherKeeper,
    /// No time service of the configuration is installed and enabled.
    TimeService,
    /// A look at the control groups: memory has been critically short, and who holds it has not been told.
    MemoryHolders,
}

impl WaitingOn {
    /// When it ends by itself.
    pub(super) const fn ends(&self) -> Option<Instant> {
        match self {
            Self::BackOff { until }
            | Self::Settling { until }
            | Self::Logs { until }
            | Self::Hold { until }
            | Self::Ledger { until }
            | Self::Dependency { until, .. }
            | Self::Recovery { until }
            | Self::Frozen { until, .. } => Some(*until),
            Self::Held { until, .. } | Self::Silenced { until, .. } | Self::Permit { until, .. } => *until,
            // Each of these ends with a signal, with a remedy, or by somebody's word.
            Self::Running
            | Self::Turn
            | Self::BootGate
            | Self::Systemd
            | Self::NotAllowed
            | Self::NotAComponent
            | Self::OtherBounce
            | Self::First { .. }
            | Self::AnotherKeeper
            | Self::TimeService
            | Self::MemoryHolders
            | Self::Privilege(_)
            | Self::Protected { .. } => None,
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::First { subject } = self {
            return write!(f, "{subject}, which comes first");
        }
        if let Self::Privilege(lack) = self {
            return write!(f, "somebody, since the agent cannot {lack}");
        }
        f.write_str(match self {
            Self::Dependency { unit, .. } => return write!(f, "{unit}, which it needs"),
            Self::Recovery { .. } => "the container runtime, to come right by itself",
            Self::Running => "a remedy is under way",
            Self::BackOff { .. } => "the pause before the next attempt",
            Self::Settling { .. } => "what the last attempt brings",
            Self::Turn => "other logs to be reclaimed first",
            Self::Logs { .. } => "its logs, which give way first",
            Self::BootGate => "the boot gate",
            Self::Systemd => "systemd, which cannot be reached",
            Self::Ledger { .. } => "the ledger, which cannot be written",
            Self::NotAllowed => "somebody: it is not on the list of units that may be restarted",
            Self::Privilege(_) => "somebody",
            Self::Held { by, reason, .. } => return write!(f, "a hold to be lifted ({by}: {reason})"),
            Self::Frozen { why, .. } => return write!(f, "a storm to pass ({why})"),
            Self::Silenced { by, reason, .. } => {
                return write!(f, "the end of the node's silence ({by}: {reason})");
            }
            Self::Protected { by } => return write!(f, "somebody: it is protected ({by})"),
            Self::NotAComponent => "somebody: it is not among static_pods.components",
            Self::Permit { on: Some(on), .. } => return write!(f, "the coordinator's permit: {on}"),
            Self::Permit { on: None, .. } => "the coordinator's permit",
            Self::OtherBounce => "another component, which is being bounced",
            Self::First { .. } => "what comes first",
            Self::Hold { .. } => "it to hold for longer",
            Self::AnotherKeeper => "another process, which keeps the clock",
            Self::TimeService => "somebody: none of clock.services is installed and enabled",
            Self::MemoryHolders => "a look at who holds memory",
        })
    }
}

/// A condition about which nothing is done at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What the condition is.
    pub kind: ConditionKind,
    /// What the condition is about.
    pub subject: String,
    /// What it waits for.
    pub on: WaitingOn,
}
