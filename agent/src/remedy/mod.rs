//! The closed list of what the agent may do to its node, and the one place that does it.
//!
//! A remedy is idempotent, has a verify and a dry-run, and never becomes a shell string.

pub mod bounce_static_pod;
pub mod dumps;
pub mod perform;
pub mod protect;
pub mod prune;
pub mod reclaim_log;
mod release;
pub mod relieve_memory;
pub mod restart_container;
pub mod restart_runtime;
mod set_aside;
mod set_flag;
pub mod vacuum_journal;

use std::fmt;
use std::path::PathBuf;

use blackstart_proto::component::Component;
use blackstart_proto::remedy::RemedyKind;

use crate::control_plane;
use crate::etcd::Change;
use crate::signal::LogId;

/// The static pod of etcd, as kubeadm calls it.
const ETCD_POD: &str = "etcd";

/// One act on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// `ResetFailedUnit`, so that no start limit refuses it, then `RestartUnit`, through D-Bus.
    RestartUnit {
        /// Full unit name, on the allow-list.
        unit: String,
    },
    /// `KillUnit` with SIGKILL (of a container runtime's unit its main process alone), then `ResetFailedUnit`, then `RestartUnit`: for what hangs or will not stop.
    KillRestartUnit {
        /// Full unit name, on the allow-list.
        unit: String,
    },
    /// Gives back the head of a log, never its tail.
    ReclaimLog {
        /// Which log.
        log: LogId,
    },
    /// Keeps a hung container runtime's stacks for whoever looks for the cause, then kills and restarts it.
    RestartRuntime {
        /// Full unit name of the runtime, on the allow-list.
        unit: String,
    },
    /// Removes stopped containers and unused images from docker, no more than the disk needs.
    Prune {
        /// The disk that is short.
        mount_point: PathBuf,
    },
    /// Removes archived journal files, the oldest first.
    VacuumJournal {
        /// The disk that is short.
        mount_point: PathBuf,
    },
    /// Restarts a container that fails its own health check.
    RestartContainer {
        /// Its name, on the allow-list.
        name: String,
    },
    /// Moves a static pod's manifest out until its containers are gone, and back.
    BounceStaticPod {
        /// The pod's name in its manifest, among the components that may be bounced.
        pod: String,
    },
    /// Restarts a unit that holds much of the node's memory, which is critically short.
    RelieveMemory {
        /// Full unit name, one of `memory.may_restart`.
        unit: String,
    },
    /// Gives the kubelet and the container runtimes more weight until the next boot.
    ProtectUnits,
    /// Opens the boot gate. Only by the coordinator's word.
    ReleaseKubelet {
        /// The run that asked.
        run_id: String,
    },
    /// Moves the manifest of a component out, so that the kubelet does not run it. Only by the coordinator's word.
    HoldManifest {
        /// Which.
        component: Component,
        /// The run that asked.
        run_id: String,
        /// Why, for people.
        reason: String,
    },
    /// Moves it back: by the coordinator's word, or when nobody speaks.
    ReleaseManifest {
        /// Which.
        component: Component,
    },
    /// `StopUnit` of the kubelet. Only by the coordinator's word, also while the node is silenced.
    StopKubelet {
        /// The run that asked.
        run_id: String,
    },
    /// Starts the kubelet if it does not run. Only by the coordinator's word, also while the node is silenced.
    StartKubelet {
        /// The run that asked.
        run_id: String,
    },
    /// What is done to the etcd member on this node, or through it. Only by the coordinator's word.
    Etcd(Change),
    /// What is done to another static pod of the control plane on this node. Only by the coordinator's word.
    ControlPlane(control_plane::Change),
}

/// By what a remedy is known.
enum Named {
    /// One that can be held.
    Kind(RemedyKind),
    /// One that cannot.
    OfRun(&'static str),
}

impl Remedy {
    /// What kind of remedy it is, for whoever holds some; `None` of what only the coordinator's runs ask for, which nobody can.
    pub const fn kind(&self) -> Option<RemedyKind> {
        match self.named() {
            Named::Kind(kind) => Some(kind),
            Named::OfRun(_) => None,
        }
    }

    /// Its name in ledger, wire and terminal.
    pub const fn name(&self) -> &'static str {
        match self.named() {
            Named::Kind(kind) => kind.as_str(),
            Named::OfRun(name) => name,
        }
    }

    const fn named(&self) -> Named {
        match self {
            Self::RestartUnit { .. } => Named::Kind(RemedyKind::RestartUnit),
            Self::KillRestartUnit { .. } => Named::Kind(RemedyKind::KillRestartUnit),
            Self::ReclaimLog { .. } => Named::Kind(RemedyKind::ReclaimLog),
            Self::RestartRuntime { .. } => Named::Kind(RemedyKind::RestartRuntime),
            Self::Prune { .. } => Named::Kind(RemedyKind::Prune),
            Self::VacuumJournal { .. } => Named::Kind(RemedyKind::VacuumJournal),
            Self::RestartContainer { .. } => Named::Kind(RemedyKind::RestartContainer),
            Self::BounceStaticPod { .. } => Named::Kind(RemedyKind::BounceStaticPod),
            Self::RelieveMemory { .. } => Named::Kind(RemedyKind::RelieveMemory),
            Self::ProtectUnits => Named::Kind(RemedyKind::ProtectUnits),
            Self::ReleaseKubelet { .. } => Named::OfRun("release-kubelet"),
            Self::HoldManifest { .. } => Named::OfRun("hold-manifest"),
            Self::ReleaseManifest { .. } => Named::OfRun("release-manifest"),
            Self::StopKubelet { .. } => Named::OfRun("stop-kubelet"),
            Self::StartKubelet { .. } => Named::OfRun("start-kubelet"),
            Self::Etcd(change) => Named::OfRun(change.act.name()),
            Self::ControlPlane(change) => Named::OfRun(change.act.name()),
        }
    }

    /// What it is done to.
    pub fn subject(&self) -> String {
        match self {
            Self::RestartUnit { unit }
            | Self::KillRestartUnit { unit }
            | Self::RestartRuntime { unit }
            | Self::RelieveMemory { unit } => unit.clone(),
            Self::ProtectUnits => "load".to_owned(),
            Self::Prune { mount_point } | Self::VacuumJournal { mount_point } => {
                mount_point.display().to_string()
            }
            Self::BounceStaticPod { pod } => pod.clone(),
            Self::ReclaimLog { log } => log.path.display().to_string(),
            Self::RestartContainer { name } => name.clone(),
            Self::ReleaseKubelet { .. } | Self::StopKubelet { .. } | Self::StartKubelet { .. } => {
                "kubelet".to_owned()
            }
            Self::HoldManifest { component, .. } | Self::ReleaseManifest { component } => {
                component.pod().to_owned()
            }
            // As a bounce of its pod, so that one waits for the other.
            Self::Etcd(_) => ETCD_POD.to_owned(),
            Self::ControlPlane(change) => change.part.pod().to_owned(),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.subject())
    }
}
