//! The one place that changes the node.
//!
//! ```text
//!  Remedy ──► allowed? ──► dry run? say what would be done
//!                 │
//!                 ▼ act, by a deadline ──► verify: active and stays so, gate open, bytes freed ──► Outcome
//! ```
//!
//! Every remedy may be done twice without harm. Dropping the future breaks it off between two requests to systemd; the
//! ledger then has an intent without outcome, and [`Hands::verify`] finds out what became of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::bounce_static_pod::{BounceRules, bounce_static_pod, recover};
use super::protect::{ProtectRules, protect};
use super::prune::{PruneRules, prune};
use super::reclaim_log::reclaim_log;
use super::relieve_memory::{self, RelieveRules};
use super::restart_container::{ContainerRules, restart_container};
use super::restart_runtime::{RuntimeRules, restart_runtime};
use super::set_flag::{set_flag, write_flag};
use super::vacuum_journal::{VacuumRules, vacuum_journal};
use super::{Remedy, release, set_aside};
use crate::config::{ProtectSettings, Settings, StaticPodSettings};
use crate::control_plane;
use crate::decide::held::protected_unit;
use crate::etcd;
use crate::etcd::act::{Act, EtcdRules};
use crate::host::{Host, HostError, UnitAction};
use crate::ledger::Outcome;
use crate::reclaim::Rules;
use crate::set_aside::SetAside;
use crate::signal::{ActiveState, UnitSignal};

/// A restarted unit has to live for this long to count as restarted: what cannot start often dies at once.
const STAYS: Duration = Duration::from_secs(1);
/// systemd is asked for a unit's state for so long.
const STATE_DEADLINE: Duration = Duration::from_secs(5);

/// What remedies are done with.
#[derive(Debug)]
pub struct Hands<H> {
    host: Arc<H>,
    units: Vec<String>,
    kubelet: String,
    spared: ProtectSettings,
    runtime_dir: PathBuf,
    job_deadline: Duration,
    /// `None` when the logs' globs cannot be used.
    rules: Option<Arc<Rules>>,
    runtime: RuntimeRules,
    /// `None` when the patterns of protected images cannot be used.
    prune: Option<PruneRules>,
    vacuum: VacuumRules,
    containers: ContainerRules,
    bounce: BounceRules,
    static_pods: StaticPodSettings,
    aside: SetAside,
    relieve: RelieveRules,
    protect: ProtectRules,
    etcd: EtcdRules,
    dry_run: bool,
}

impl<H: Host> Hands<H> {
    /// For the node behind `host`.
    pub fn new(host: Arc<H>, settings: &Settings, rules: Option<Arc<Rules>>, aside: SetAside) -> Self {
        Self {
            host,
            units: settings.units.iter().chain(settings.helpers()).cloned().collect(),
            kubelet: settings.kubelet_unit.clone(),
            spared: settings.protect.clone(),
            runtime_dir: settings.runtime_dir.clone(),
            job_deadline: settings.restart.job_deadline,
            rules,
            runtime: RuntimeRules::new(settings),
            prune: PruneRules::new(settings).ok(),
            vacuum: VacuumRules::new(settings),
            containers: ContainerRules::new(settings),
            bounce: BounceRules::new(settings, aside.clone()),
            static_pods: settings.static_pods.clone(),
            aside,
            relieve: RelieveRules::new(settings),
            protect: ProtectRules::new(settings),
            etcd: EtcdRules::new(settings),
            dry_run: settings.dry_run,
        }
    }

    /// Does it, verifies it, and says what came of it; in a dry run says what would be done.
    pub async fn perform(&self, remedy: &Remedy) -> Outcome {
        let done = match remedy {
            Remedy::RestartUnit { unit } => self.restart(unit).await,
            Remedy::KillRestartUnit { unit } => self.kill_restart(unit).await,
            Remedy::ReclaimLog { log } => match &self.rules {
                Some(rules) => return reclaim_log(log.clone(), Arc::clone(rules), self.dry_run).await,
                None => Err("logs are not reclaimed: their globs cannot be used".to_owned()),
            },
            Remedy::RestartRuntime { unit } => match self.allowed(unit) {
                Ok(()) => return restart_runtime(&*self.host, unit, &self.runtime, self.dry_run).await,
                Err(why) => Err(why),
            },
            Remedy::Prune { .. } | Remedy::VacuumJournal { .. } if self.host.machine().is_none() => {
                Err("the node's disks are not this machine's".to_owned())
            }
            Remedy::BounceStaticPod { .. }
            | Remedy::HoldManifest { .. }
            | Remedy::ReleaseManifest { .. }
            | Remedy::ControlPlane(_)
                if self.host.machine().is_none() =>
            {
                Err("the node's static pods are not this machine's".to_owned())
            }
            Remedy::BounceStaticPod { pod } => {
                return bounce_static_pod(pod, &self.bounce, self.dry_run).await;
            }
            Remedy::Prune { mount_point } => match &self.prune {
                Some(rules) => return prune(&*self.host, mount_point, rules, self.dry_run).await,
                None => Err("nothing is pruned: `prune.protect` cannot be used".to_owned()),
            },
            Remedy::VacuumJournal { mount_point } => {
                return vacuum_journal(mount_point.clone(), self.vacuum.clone(), self.dry_run).await;
            }
            Remedy::RestartContainer { name } => {
                return restart_container(name, &self.containers, self.dry_run).await;
            }
            Remedy::RelieveMemory { unit } => self.relieve(unit).await,
            Remedy::ProtectUnits => return protect(&*self.host, &self.protect, self.dry_run).await,
            Remedy::ReleaseKubelet { run_id } if self.dry_run => Ok(format!(
                "dry run: would open the boot gate for run {run_id}; nothing was changed"
            )),
            Remedy::ReleaseKubelet { run_id } => release::open(&self.runtime_dir, run_id).await,
            Remedy::HoldManifest { component, .. } if self.dry_run => Ok(format!(
                "dry run: would move the manifest of {component} out; nothing was changed"
            )),
            Remedy::HoldManifest {
                component,
                run_id,
                reason,
            } => set_aside::hold(&self.aside, *component, run_id, reason, &self.static_pods).await,
            // Also in a dry run: that it is out is the agent's own doing.
            Remedy::ReleaseManifest { component } => {
                set_aside::release(&self.aside, *component, &self.static_pods).await
            }
            Remedy::ControlPlane(change) => match change.act {
                control_plane::Act::Bounce => {
                    return bounce_static_pod(change.part.pod(), &self.bounce, self.dry_run).await;
                }
                control_plane::Act::SetFlag { .. } => set_flag(change, &self.bounce).await,
            },
            Remedy::Etcd(_) if self.host.machine().is_none() => {
                Err("the node's etcd is not this machine's".to_owned())
            }
            Remedy::Etcd(change) if change.act == Act::Bounce => {
                return bounce_static_pod(&remedy.subject(), &self.bounce, self.dry_run).await;
            }
            Remedy::Etcd(change) => {
                if let Act::SetInitialCluster { from, to } = &change.act {
                    let flag = ("initial-cluster", from.as_str(), to.as_str());
                    match etcd::act::of_cluster(change.cluster_id, &self.etcd).await {
                        Ok(()) => write_flag(&change.run_id, &remedy.subject(), flag, &self.bounce).await,
                        Err(why) => Err(why),
                    }
                } else {
                    etcd::act::act(change, &self.etcd).await
                }
            }
            Remedy::StopKubelet { .. } => self.stop(&self.kubelet).await,
            Remedy::StartKubelet { .. } => self.start(&self.kubelet).await,
        };
        outcome(done)
    }

    /// What became of a remedy whose outcome was lost with the agent that did it, by the name and subject that its
    /// ledger record has. `None` when it was not done, and may be done now. Changes nothing but this: a manifest that is out
    /// is moved back.
    pub async fn verify(&self, name: &str, subject: &str) -> Option<Outcome> {
        const LOST: &str = "the agent ended before this remedy's outcome was written";
        let found = match name {
            "restart-unit" | "kill-restart-unit" | "restart-runtime" | "relieve-memory" => {
                match self.state(subject).await {
                    Ok(seen) if active(&seen) => Ok(format!("{LOST}; {subject} was found active")),
                    Ok(seen) => Err(format!("{LOST}; {} was found", described(&seen))),
                    Err(why) => Err(format!("{LOST}; {why}")),
                }
            }
            // Either may be done again without harm: the answer is what is found, or that it may be done now.
            "stop-kubelet" => match self.state(&self.kubelet).await {
                Ok(seen) if !active(&seen) => Ok(format!("{LOST}; {}", described(&seen))),
                Ok(_) | Err(_) => return None,
            },
            "start-kubelet" => match self.state(&self.kubelet).await {
                Ok(seen) if active(&seen) => Ok(format!("{LOST}; {}", described(&seen))),
                Ok(_) | Err(_) => return None,
            },
            "release-kubelet" => Ok(format!("{LOST}; {}", release::found_open(&self.runtime_dir)?)),
            "hold-manifest" => {
                self.aside.holds(subject).then_some(())?;
                Ok(format!("{LOST}; the manifest was found out"))
            }
            "release-manifest" => {
                (!self.aside.holds(subject)).then_some(())?;
                Ok(format!("{LOST}; the manifest was not found out"))
            }
            // The others look before they change anything, and go on where they were.
            name if name.starts_with("etcd-")
                && name != "etcd-bounce"
                && name != "etcd-set-initial-cluster" =>
            {
                return None;
            }
            "bounce-static-pod"
            | "etcd-bounce"
            | "etcd-set-initial-cluster"
            | "control-plane-bounce"
            | "control-plane-set-flag"
                if self.host.machine().is_some() =>
            {
                Err(format!("{LOST}; {}", recover(subject, &self.bounce).await?))
            }
            _ => Err(LOST.to_owned()),
        };
        Some(outcome(found))
    }

    async fn restart(&self, unit: &str) -> Result<String, String> {
        self.allowed(unit)?;
        if self.dry_run {
            return Ok(format!("dry run: would restart {unit}; nothing was changed"));
        }
        self.prepared(unit, UnitAction::ResetFailed).await?;
        self.ask(unit, UnitAction::Restart)
            .await
            .map_err(|error| error.to_string())?;
        self.stays_active(unit).await
    }

    async fn stop(&self, unit: &str) -> Result<String, String> {
        self.spared(unit)?;
        let before = self.state(unit).await?;
        if before.active != ActiveState::Inactive {
            self.ask(unit, UnitAction::Stop)
                .await
                .map_err(|error| error.to_string())?;
        }
        let seen = self.state(unit).await?;
        if active(&seen) {
            return Err(format!("after the stop {}", described(&seen)));
        }
        Ok(format!("{unit} is stopped"))
    }

    /// One that runs is left as it is: whoever hangs is restarted by another word.
    async fn start(&self, unit: &str) -> Result<String, String> {
        self.spared(unit)?;
        let before = self.state(unit).await?;
        if active(&before) {
            return Ok(format!("active with process {}", before.main_pid));
        }
        self.prepared(unit, UnitAction::ResetFailed).await?;
        self.ask(unit, UnitAction::Restart)
            .await
            .map_err(|error| error.to_string())?;
        self.stays_active(unit).await
    }

    async fn kill_restart(&self, unit: &str) -> Result<String, String> {
        self.allowed(unit)?;
        if self.dry_run {
            return Ok(format!(
                "dry run: would kill and restart {unit}; nothing was changed"
            ));
        }
        // A runtime's unit has the shims of every container beside its main process.
        let kill = if self.runtime.is_runtime(unit) {
            UnitAction::KillMain
        } else {
            UnitAction::Kill
        };
        self.prepared(unit, kill).await?;
        self.prepared(unit, UnitAction::ResetFailed).await?;
        self.ask(unit, UnitAction::Restart)
            .await
            .map_err(|error| error.to_string())?;
        self.stays_active(unit).await
    }

    async fn relieve(&self, unit: &str) -> Result<String, String> {
        self.spared(unit)?;
        if !self.relieve.allow(unit) {
            return Err(format!(
                "{unit} is not one that may be restarted for its memory (`memory.may_restart`)"
            ));
        }
        let machine = self
            .host
            .machine()
            .ok_or("the node's memory is not this machine's")?;
        let before = relieve_memory::look(&machine, unit).await?;
        if self.dry_run {
            return Ok(format!("dry run: would restart {unit}; nothing was changed"));
        }
        self.ask(unit, UnitAction::Restart)
            .await
            .map_err(|error| error.to_string())?;
        let alive = self.stays_active(unit).await?;
        let recovered = relieve_memory::recovered(&machine, unit, before).await?;
        Ok(format!("{alive}; {recovered}"))
    }

    /// What comes before a restart. systemd refuses when there is nothing to kill or to reset, which is no reason not to restart.
    ///
    /// systemd's count of starts is reset with the failure: else `StartLimitBurst=` would refuse the restart, and its
    /// `StartLimitAction=` may be to reboot. The agent has a budget of its own.
    async fn prepared(&self, unit: &str, action: UnitAction) -> Result<(), String> {
        match self.ask(unit, action).await {
            Ok(()) | Err(NotDone::Host(HostError::Refused { .. })) => Ok(()),
            Err(error @ (NotDone::Host(HostError::Unreachable(_)) | NotDone::Late { .. })) => {
                Err(error.to_string())
            }
        }
    }

    /// Not on the protect list.
    fn spared(&self, unit: &str) -> Result<(), String> {
        match protected_unit(unit, &self.spared) {
            Some(by) => Err(format!("{unit} is protected ({by})")),
            None => Ok(()),
        }
    }

    fn allowed(&self, unit: &str) -> Result<(), String> {
        self.spared(unit)?;
        if self.units.iter().any(|allowed| allowed == unit) {
            return Ok(());
        }
        Err(format!(
            "{unit} is not on the list of units that may be restarted (`units` in the configuration)"
        ))
    }

    async fn ask(&self, unit: &str, action: UnitAction) -> Result<(), NotDone> {
        match timeout(self.job_deadline, self.host.unit_action(unit, action)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(NotDone::Late {
                action: match action {
                    UnitAction::Restart => "restart",
                    UnitAction::Stop => "stop",
                    UnitAction::Kill | UnitAction::KillMain => "kill",
                    UnitAction::ResetFailed => "reset",
                    UnitAction::Weigh(_) => "weigh",
                },
                unit: unit.to_owned(),
                deadline: self.job_deadline,
            }),
        }
    }

    /// Active, and the same life of it a moment later.
    async fn stays_active(&self, unit: &str) -> Result<String, String> {
        let first = self.state(unit).await?;
        if !active(&first) {
            return Err(format!("after the restart {}", described(&first)));
        }
        sleep(STAYS).await;
        let then = self.state(unit).await?;
        let life = |seen: &UnitSignal| (seen.main_pid, seen.restarts);
        if !active(&then) || life(&first) != life(&then) {
            return Err(format!(
                "active after the restart, and within {STAYS:?} {}",
                described(&then)
            ));
        }
        Ok(format!("active with process {}", then.main_pid))
    }

    async fn state(&self, unit: &str) -> Result<UnitSignal, String> {
        match timeout(STATE_DEADLINE, self.host.unit_state(unit)).await {
            Ok(seen) => seen.map_err(|error| error.to_string()),
            Err(_) => Err(format!("systemd did not tell the state of {unit}")),
        }
    }
}

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("{action} {unit}: not done within {deadline:?}")]
    Late {
        action: &'static str,
        unit: String,
        deadline: Duration,
    },
}

fn outcome(done: Result<String, String>) -> Outcome {
    match done {
        Ok(detail) => Outcome::Succeeded { detail },
        Err(detail) => Outcome::Failed { detail },
    }
}

fn active(seen: &UnitSignal) -> bool {
    matches!(seen.active, ActiveState::Active | ActiveState::Reloading)
}

fn described(seen: &UnitSignal) -> String {
    format!(
        "{} is {:?} ({}, result {}, process {}, restarted {} times by systemd)",
        seen.unit, seen.active, seen.sub, seen.result, seen.main_pid, seen.restarts
    )
}
