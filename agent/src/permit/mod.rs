//! The coordinator's permit for what the rest of a cluster feels.
//!
//! ```text
//!  decide ──wishes──► Desk ──what is to be said──► link ══ PermitRequest, PermitReturn ═► coordinator
//!  decide ◄─Permits── Desk ◄─────Answer─────────── link ◄════════ PermitAnswer ══════════
//! ```
//! A wish is said in each session for as long as it is one, and for as long as what was permitted is under way; then it is given back, with how that
//! ended, until the coordinator has taken that in. A permit is used within the time that it was given for, by the epoch that it was given in,
//! or not at all.

mod desk;

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{GateRole, Settings};
use crate::remedy::Remedy;

pub use desk::Desk;

/// What a permit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PermitKind {
    /// A component of the control plane is stopped and started.
    ControlPlaneRepair,
    /// The container runtime of a master is killed and restarted.
    RuntimeRestart,
}

impl fmt::Display for PermitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlaneRepair => "control-plane-repair",
            Self::RuntimeRestart => "runtime-restart",
        })
    }
}

/// The permit that a remedy needs where there is a coordinator. `None`: the rest of the cluster does not feel it.
pub fn needed(remedy: &Remedy, settings: &Settings) -> Option<PermitKind> {
    match remedy {
        Remedy::BounceStaticPod { pod } => {
            let component = settings.static_pods.component(pod);
            component
                .is_none_or(|component| component.permit)
                .then_some(PermitKind::ControlPlaneRepair)
        }
        // A plain restart is of what does not run.
        Remedy::RestartRuntime { unit }
        | Remedy::KillRestartUnit { unit }
        | Remedy::RelieveMemory { unit } => {
            let runtime = &settings.runtime;
            let is_runtime = [&runtime.docker.unit, &runtime.containerd.unit].contains(&unit);
            let master = settings.gate.role == GateRole::ControlPlane;
            (is_runtime && master).then_some(PermitKind::RuntimeRestart)
        }
        // The last four are the coordinator's own commands, in an order that it has thought of.
        Remedy::RestartUnit { .. }
        | Remedy::ReclaimLog { .. }
        | Remedy::Prune { .. }
        | Remedy::VacuumJournal { .. }
        | Remedy::RestartContainer { .. }
        | Remedy::ProtectUnits
        | Remedy::HoldManifest { .. }
        | Remedy::ReleaseManifest { .. }
        | Remedy::ReleaseKubelet { .. }
        | Remedy::StopKubelet { .. }
        | Remedy::StartKubelet { .. }
        | Remedy::Etcd(_)
        | Remedy::ControlPlane(_) => None,
    }
}

/// Something that needs a permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What for.
    pub kind: PermitKind,
    /// What it is to be done to.
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// How what was wished for ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// It was done.
    Succeeded {
        /// What came of it.
        detail: String,
    },
    /// It was tried, and failed.
    Failed {
        /// Why.
        detail: String,
    },
    /// It was not needed any more, or not begun in time.
    Unused,
}

/// What the coordinator is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The name of the request.
    pub id: String,
    /// What of it.
    pub what: Saying,
}

/// What is said of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    /// It is wished for, or had.
    Ask(Wish),
    /// It is over.
    Return(Use),
}

/// What the coordinator says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub id: String,
    /// The coordinator's epoch.
    pub epoch: u64,
    /// What it says.
    pub verdict: Verdict,
}

/// See [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done, if it is begun by then.
    Granted {
        /// Until when.
        until: Instant,
    },
    /// Not yet.
    Wait {
        /// What for.
        on: String,
    },
    /// Not so.
    Refused {
        /// Why.
        why: String,
    },
    /// That it is over was taken in.
    Returned,
}

/// After a refusal it is asked for anew.
pub const ASK_ANEW: Duration = Duration::from_mins(1);
