//! What is left of every budget, counted as the decisions count. Pure.
//!
//! | remedy | of what | counts |
//! |---|---|---|
//! | `restart-unit`, `kill-restart-unit` | each of `units` | until health refills it |
//! | `restart-unit` | the time services and the unit that writes the CNI configuration, where they are installed | until what they serve refills it |
//! | `relieve-memory` | units that `memory.may_restart` names in full, or that were restarted | within `memory.restart_window` |
//! | `restart-container` | the same of `runtime.may_restart_containers` | within `runtime.container_restart_window` |
//! | `bounce-static-pod` | the components of a master, or that were bounced | until health refills it |
//! | `reclaim-log` | logs that were reclaimed | within the window of `reclaim` |
//! | `vacuum-journal`, `prune` | each disk | within [`DISK_AGAIN`] |

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::history::{History, Rung};
use super::{DISK_AGAIN, ladder};
use crate::config::{GateRole, Settings, full_names};

/// What is left of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Of what: a remedy's subject.
    pub subject: String,
    /// A remedy's name.
    pub remedy: &'static str,
    /// So many in all.
    pub limit: u32,
    /// So many are left.
    pub left: u32,
}

/// Every budget, each pair of subject and remedy once. `installed` says of a unit whether systemd has it.
pub fn budgets(
    settings: &Settings,
    history: &History,
    installed: impl Fn(&str) -> bool,
    now: Instant,
) -> Vec<Budget> {
    let Settings {
        units,
        restart,
        memory,
        runtime,
        reclaim,
        static_pods,
        disks,
        ..
    } = settings;
    let book = Book { history, now };
    let (restarts, kills) = (restart.restarts, restart.kill_restarts);
    let mut all = Vec::new();
    for unit in units {
        all.push(book.refilled(unit, "restart-unit", Rung::Restart, restarts));
        all.push(book.refilled(unit, "kill-restart-unit", Rung::KillRestart, kills));
    }
    let helpers: BTreeSet<_> = settings.helpers().filter(|unit| !units.contains(unit)).collect();
    for unit in helpers {
        let writes_cni = settings.network.cni.unit.as_ref() == Some(unit);
        let ladder = if writes_cni { ladder::WRITES } else { ladder::ONCE };
        if installed(unit) || history.count(unit, Rung::Restart) > 0 {
            let limit = ladder.budget(Rung::Restart, restart);
            all.push(book.refilled(unit, "restart-unit", Rung::Restart, limit));
        }
    }
    let window = memory.restart_window;
    for unit in book.tried_or(Rung::Relieve, window, full_names(&memory.may_restart)) {
        all.push(book.windowed(unit, "relieve-memory", Rung::Relieve, memory.restarts, window));
    }
    let (window, limit) = (runtime.container_restart_window, runtime.container_restarts);
    let named = full_names(&runtime.may_restart_containers);
    for container in book.tried_or(Rung::RestartContainer, window, named) {
        all.push(book.windowed(
            container,
            "restart-container",
            Rung::RestartContainer,
            limit,
            window,
        ));
    }
    let master = settings.gate.role == GateRole::ControlPlane;
    for component in &static_pods.components {
        let pod = &component.name;
        if master || history.count(pod, Rung::Bounce) > 0 {
            all.push(book.refilled(pod, "bounce-static-pod", Rung::Bounce, static_pods.bounces));
        }
    }
    for log in book.tried_or(Rung::Reclaim, reclaim.window, std::iter::empty()) {
        all.push(book.windowed(log, "reclaim-log", Rung::Reclaim, reclaim.budget, reclaim.window));
    }
    for disk in disks {
        let mount_point = disk.mount_point.display().to_string();
        all.push(book.windowed(&mount_point, "vacuum-journal", Rung::Vacuum, 1, DISK_AGAIN));
        all.push(book.windowed(&mount_point, "prune", Rung::Prune, 1, DISK_AGAIN));
    }
    all
}

struct Book<'a> {
    history: &'a History,
    now: Instant,
}

impl<'a> Book<'a> {
    fn refilled(&self, subject: &str, remedy: &'static str, rung: Rung, limit: u32) -> Budget {
        left(subject, remedy, limit, self.history.count(subject, rung))
    }

    fn windowed(
        &self,
        subject: &str,
        remedy: &'static str,
        rung: Rung,
        limit: u32,
        window: Duration,
    ) -> Budget {
        let made = self.history.count_within(subject, rung, window, self.now);
        left(subject, remedy, limit, made)
    }

    /// What has attempts on its account, and those `named`.
    fn tried_or(
        &self,
        rung: Rung,
        window: Duration,
        named: impl Iterator<Item = &'a String>,
    ) -> BTreeSet<&'a str> {
        self.history
            .subjects()
            .filter(|subject| self.history.count_within(subject, rung, window, self.now) > 0)
            .chain(named.map(String::as_str))
            .collect()
    }
}

fn left(subject: &str, remedy: &'static str, limit: u32, made: u32) -> Budget {
    Budget {
        subject: subject.to_owned(),
        remedy,
        limit,
        left: limit.saturating_sub(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Remedy;
    use crate::signal::LogId;

    /// A master with one component, one disk, and no `ntpd`.
    fn told(history: &History, now: Instant) -> Vec<String> {
        let mut settings = Settings::for_node("n");
        settings.units = vec!["kubelet.service".into()];
        settings.clock.services = vec!["chronyd.service".into(), "ntpd.service".into()];
        settings.network.cni.unit = Some("flanneld.service".into());
        settings.memory.may_restart = vec!["app.service".into(), "batch-*.service".into()];
        settings.runtime.may_restart_containers = vec!["web".into(), "job-*".into()];
        settings.gate.role = GateRole::ControlPlane;
        settings.static_pods.components.truncate(1);
        settings.disks.truncate(1);
        budgets(&settings, history, |unit| unit != "ntpd.service", now)
            .into_iter()
            .map(|one| format!("{} {} {}/{}", one.remedy, one.subject, one.left, one.limit))
            .collect()
    }

    fn log() -> LogId {
        LogId {
            dev: 1,
            ino: 1,
            path: "/var/log/a.log".into(),
            deleted: false,
        }
    }

    /// Every kind of budget is drawn on.
    fn tried(now: Instant) -> History {
        let unit = str::to_owned;
        let mount_point = || "/".into();
        let mut history = History::default();
        for name in ["kubelet.service", "chronyd.service", "flanneld.service"] {
            history.begun(&Remedy::RestartUnit { unit: unit(name) }, now);
        }
        for name in ["app.service", "batch-1.service"] {
            history.begun(&Remedy::RelieveMemory { unit: unit(name) }, now);
        }
        for name in ["web", "job-1"] {
            history.begun(&Remedy::RestartContainer { name: unit(name) }, now);
        }
        let kubelet = unit("kubelet.service");
        for remedy in [
            Remedy::KillRestartUnit { unit: kubelet },
            Remedy::BounceStaticPod { pod: unit("etcd") },
            Remedy::ReclaimLog { log: log() },
            Remedy::VacuumJournal {
                mount_point: mount_point(),
            },
            Remedy::Prune {
                mount_point: mount_point(),
            },
        ] {
            history.begun(&remedy, now);
        }
        history
    }

    #[test]
    fn every_budget_is_there_before_anything_was_tried() {
        assert_eq!(
            told(&History::default(), Instant::now()),
            [
                "restart-unit kubelet.service 3/3",
                "kill-restart-unit kubelet.service 2/2",
                "restart-unit chronyd.service 1/1",
                "restart-unit flanneld.service 3/3",
                "relieve-memory app.service 2/2",
                "restart-container web 3/3",
                "bounce-static-pod etcd 1/1",
                "vacuum-journal / 1/1",
                "prune / 1/1",
            ]
        );
    }

    #[test]
    fn an_attempt_draws_on_its_own_and_what_a_window_forgets_comes_back() {
        let now = Instant::now();
        let history = tried(now);
        let log = Remedy::ReclaimLog { log: log() }.subject();
        assert_eq!(
            told(&history, now),
            [
                "restart-unit kubelet.service 2/3",
                "kill-restart-unit kubelet.service 1/2",
                "restart-unit chronyd.service 0/1",
                "restart-unit flanneld.service 2/3",
                "relieve-memory app.service 1/2",
                "relieve-memory batch-1.service 1/2",
                "restart-container job-1 2/3",
                "restart-container web 2/3",
                "bounce-static-pod etcd 0/1",
                &format!("reclaim-log {log} 599/600"),
                "vacuum-journal / 0/1",
                "prune / 0/1",
            ]
        );
        // The others wait for health.
        assert_eq!(
            told(&history, now + Duration::from_hours(24)),
            [
                "restart-unit kubelet.service 2/3",
                "kill-restart-unit kubelet.service 1/2",
                "restart-unit chronyd.service 0/1",
                "restart-unit flanneld.service 2/3",
                "relieve-memory app.service 2/2",
                "restart-container web 3/3",
                "bounce-static-pod etcd 0/1",
                "vacuum-journal / 1/1",
                "prune / 1/1",
            ]
        );
    }
}
