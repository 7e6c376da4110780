//! A unit's properties as systemd tells them → [`UnitSignal`]. Pure.

use std::collections::HashMap;

use zbus::Variant;

use crate::signal::{ActiveState, Exit, UnitDetail, UnitPhase, UnitSignal};

/// What is kept of a unit: from `GetAll`, then overwritten by each `PropertiesChanged`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Properties {
    /// The unit's own name, where the one that was asked for is an alias.
    pub(super) id: String,
    load: String,
    unit_file: String,
    active: String,
    sub: String,
    main_pid: u32,
    restarts: u32,
    result: String,
    /// `Restart=` of the service.
    policy: String,
    /// `ExecMainCode`: a `CLD_` of `waitid`; 0 while its main process runs.
    exit_code: i32,
    /// `ExecMainStatus`: a status or a signal, by [`Self::exit_code`].
    exit_status: i32,
    /// A job of the unit waits or runs: somebody is at it.
    job: bool,
}

impl Properties {
    /// Takes over what is named in `changed`; everything else stays. A value of another type than documented is
    /// passed over.
    pub(super) fn apply(&mut self, changed: &HashMap<&str, Variant<'_>>) {
        let text = |to: &mut String, name| {
            if let Some(value) = changed.get(name).and_then(|value| <&str>::try_from(value).ok()) {
                value.clone_into(to);
            }
        };
        text(&mut self.id, "Id");
        text(&mut self.load, "LoadState");
        text(&mut self.unit_file, "UnitFileState");
        text(&mut self.active, "ActiveState");
        text(&mut self.sub, "SubState");
        text(&mut self.result, "Result");
        text(&mut self.policy, "Restart");
        let number = |to: &mut u32, name| {
            if let Some(value) = changed.get(name).and_then(|value| u32::try_from(value).ok()) {
                *to = value;
            }
        };
        number(&mut self.main_pid, "MainPID");
        number(&mut self.restarts, "NRestarts");
        let signed = |to: &mut i32, name| {
            if let Some(value) = changed.get(name).and_then(|value| i32::try_from(value).ok()) {
                *to = value;
            }
        };
        signed(&mut self.exit_code, "ExecMainCode");
        signed(&mut self.exit_status, "ExecMainStatus");
        if let Some(Variant::Structure(job)) = changed.get("Job")
            && let Some(Variant::U32(id)) = job.fields().first()
        {
            self.job = *id != 0;
        }
    }

    /// Takes over what no `PropertiesChanged` tells, from a reading that is otherwise older than this.
    pub(super) fn take_file(&mut self, read: Self) {
        self.id = read.id;
        self.load = read.load;
        self.unit_file = read.unit_file;
        self.policy = read.policy;
    }

    /// systemd may be about to restart the unit by itself. Before its restart delay it lets the end show for a moment as
    /// if it were final; those since 254 name that moment, see [`Self::signal`].
    pub(super) fn may_be_passing(&self) -> bool {
        !self.job
            && matches!(self.active.as_str(), "inactive" | "failed")
            && !matches!(self.policy.as_str(), "" | "no")
    }

    /// What was read of the unit's file may be out of date: the unit is not loaded from one, and yet it runs.
    pub(super) fn outdated(&self) -> bool {
        self.load != "loaded" && !matches!(self.active.as_str(), "inactive" | "failed")
    }

    pub(super) fn signal(&self, unit: &str) -> UnitSignal {
        let (active, why) = self.state();
        UnitSignal {
            unit: unit.to_owned(),
            active,
            sub: why.map_or_else(|| self.sub.clone(), |why| format!("{} ({why})", self.sub)),
            main_pid: self.main_pid,
            restarts: self.restarts,
            result: self.result.clone(),
            detail: UnitDetail {
                masked: self.load == "masked",
                restarts_itself: !matches!(self.policy.as_str(), "" | "no"),
                phase: self.phase(),
                last_exit: self.last_exit(),
            },
        }
    }

    fn phase(&self) -> UnitPhase {
        let restarts = self.sub.starts_with("auto-restart") || self.sub.ends_with("-before-auto-restart");
        match self.active.as_str() {
            "activating" | "inactive" | "failed" if restarts => UnitPhase::RestartDelay,
            "inactive" | "failed" if self.job => UnitPhase::Waiting,
            "activating" => UnitPhase::Starting,
            "deactivating" => UnitPhase::Stopping,
            _ => UnitPhase::Settled,
        }
    }

    fn last_exit(&self) -> Option<Exit> {
        /// `CLD_EXITED`, `CLD_KILLED` and `CLD_DUMPED` of `siginfo.h`.
        const EXITED: i32 = 1;
        const KILLED: i32 = 2;
        const DUMPED: i32 = 3;
        match self.exit_code {
            EXITED => Some(Exit::Status(self.exit_status)),
            KILLED | DUMPED => Some(Exit::Signal(self.exit_status)),
            _ => None,
        }
    }

    /// A unit that nobody wants on this node must not be started: not installed, masked, or disabled and not
    /// running (a docker beside the containerd that is used). One that failed was started by somebody.
    ///
    /// A unit that does not run but has a job is on its way: its start waits (for the boot gate, too), or has begun.
    /// systemd calls it `failed` until its new process has been made, which must not look like a new failure.
    fn state(&self) -> (ActiveState, Option<&str>) {
        let active = match self.active.as_str() {
            "active" => ActiveState::Active,
            "reloading" | "refreshing" => ActiveState::Reloading,
            "inactive" | "maintenance" => ActiveState::Inactive,
            "failed" => ActiveState::Failed,
            "activating" => ActiveState::Activating,
            "deactivating" => ActiveState::Deactivating,
            _ => return (ActiveState::Unknown, Some(&self.active)),
        };
        match (active, self.load.as_str(), self.unit_file.as_str()) {
            (ActiveState::Inactive | ActiveState::Failed, ..) if self.job => {
                (ActiveState::Activating, Some("job"))
            }
            (ActiveState::Inactive | ActiveState::Failed, ..)
                if self.sub.ends_with("-before-auto-restart") =>
            {
                (ActiveState::Activating, None)
            }
            (ActiveState::Inactive | ActiveState::Failed, load @ ("not-found" | "masked"), _) => {
                (ActiveState::NotFound, Some(load))
            }
            (ActiveState::Inactive, "loaded", file @ "disabled") => (ActiveState::NotFound, Some(file)),
            (_, "loaded", _) => (active, None),
            (_, load, _) => (active, Some(load)),
        }
    }
}

#[cfg(test)]
mod tests {
    use zbus::ObjectPath;

    use super::*;

    fn properties(load: &str, file: &str, active: &str) -> Properties {
        let mut properties = Properties::default();
        properties.apply(&HashMap::from([
            ("LoadState", Variant::from(load)),
            ("UnitFileState", Variant::from(file)),
            ("ActiveState", Variant::from(active)),
            ("SubState", Variant::from("dead")),
        ]));
        properties
    }

    #[test]
    fn what_nobody_wants_here_is_not_found() {
        for (load, file, active, expected, sub) in [
            ("loaded", "enabled", "inactive", ActiveState::Inactive, "dead"),
            ("loaded", "static", "inactive", ActiveState::Inactive, "dead"),
            (
                "loaded",
                "disabled",
                "inactive",
                ActiveState::NotFound,
                "dead (disabled)",
            ),
            ("loaded", "disabled", "failed", ActiveState::Failed, "dead"),
            ("loaded", "disabled", "active", ActiveState::Active, "dead"),
            (
                "not-found",
                "",
                "inactive",
                ActiveState::NotFound,
                "dead (not-found)",
            ),
            (
                "masked",
                "masked",
                "failed",
                ActiveState::NotFound,
                "dead (masked)",
            ),
            ("masked", "masked", "active", ActiveState::Active, "dead (masked)"),
            (
                "bad-setting",
                "enabled",
                "inactive",
                ActiveState::Inactive,
                "dead (bad-setting)",
            ),
            (
                "loaded",
                "enabled",
                "sleeping",
                ActiveState::Unknown,
                "dead (sleeping)",
            ),
        ] {
            let signal = properties(load, file, active).signal("a.service");
            assert_eq!(
                (signal.active, signal.sub.as_str()),
                (expected, sub),
                "{load} {file} {active}"
            );
        }
    }

    #[test]
    fn a_unit_with_a_job_is_on_its_way() {
        let job = |id: u32| {
            let path = ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/job/7");
            HashMap::from([("Job", Variant::new((id, path)))])
        };
        for (active, file, waiting, idle) in [
            ("failed", "enabled", ActiveState::Activating, ActiveState::Failed),
            (
                "inactive",
                "enabled",
                ActiveState::Activating,
                ActiveState::Inactive,
            ),
            (
                "inactive",
                "disabled",
                ActiveState::Activating,
                ActiveState::NotFound,
            ),
            ("active", "enabled", ActiveState::Active, ActiveState::Active),
        ] {
            let mut properties = properties("loaded", file, active);
            properties.apply(&job(7));
            assert_eq!(properties.signal("a.service").active, waiting, "{active} {file}");
            properties.apply(&job(0));
            assert_eq!(properties.signal("a.service").active, idle, "{active} {file}");
        }
    }

    #[test]
    fn an_end_before_an_automatic_restart_is_told_from_a_final_one() {
        let ended = |policy: &str, sub: &str| {
            let mut properties = properties("loaded", "enabled", "failed");
            properties.apply(&HashMap::from([
                ("Restart", Variant::from(policy)),
                ("SubState", Variant::from(sub)),
            ]));
            properties
        };
        assert!(ended("always", "failed").may_be_passing());
        assert!(!ended("no", "failed").may_be_passing());
        let named = ended("always", "failed-before-auto-restart");
        assert_eq!(named.signal("a.service").active, ActiveState::Activating);
    }

    #[test]
    fn what_systemd_is_at_is_told_from_its_words() {
        let told = |load: &str, active: &str, sub: &str, code: i32, status: i32| {
            let mut properties = properties(load, "enabled", active);
            properties.apply(&HashMap::from([
                ("SubState", Variant::from(sub)),
                ("ExecMainCode", Variant::from(code)),
                ("ExecMainStatus", Variant::from(status)),
            ]));
            properties.signal("a.service").detail
        };
        for (active, sub, phase) in [
            ("active", "running", UnitPhase::Settled),
            ("failed", "failed", UnitPhase::Settled),
            ("activating", "start-pre", UnitPhase::Starting),
            ("activating", "auto-restart", UnitPhase::RestartDelay),
            ("activating", "auto-restart-queued", UnitPhase::RestartDelay),
            ("failed", "failed-before-auto-restart", UnitPhase::RestartDelay),
            ("deactivating", "stop-sigterm", UnitPhase::Stopping),
        ] {
            assert_eq!(told("loaded", active, sub, 0, 0).phase, phase, "{active} {sub}");
        }
        assert!(told("masked", "inactive", "dead", 0, 0).masked);
        let ended = |code, status| told("loaded", "failed", "failed", code, status).last_exit;
        assert_eq!(ended(0, 0), None);
        assert_eq!(ended(1, 7), Some(Exit::Status(7)));
        assert_eq!(ended(2, 9), Some(Exit::Signal(9)));
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut properties = properties("loaded", "enabled", "active");
        properties.apply(&HashMap::from([
            ("MainPID", Variant::from(17_u32)),
            ("NRestarts", Variant::from(2_u32)),
            ("Result", Variant::from("signal")),
            ("SubState", Variant::from(1_u32)),
        ]));
        assert_eq!(
            properties.signal("a.service"),
            UnitSignal {
                unit: "a.service".to_owned(),
                active: ActiveState::Active,
                sub: "dead".to_owned(),
                main_pid: 17,
                restarts: 2,
                result: "signal".to_owned(),
                detail: UnitDetail::default(),
            }
        );
    }
}
