//! The units of a simulated machine.

use tokio::time::Instant;

use crate::signal::{ActiveState, UnitDetail, UnitSignal};

/// What can happen to a unit of a simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// Its process is killed; nothing but the agent starts it again.
    Kill(&'static str),
    /// It stays active, answers nobody, and ignores a polite stop.
    Hang(&'static str),
    /// It fails to start, so many times.
    RefuseStart(&'static str, u32),
}

impl SimFault {
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Kill(unit) | Self::Hang(unit) | Self::RefuseStart(unit, _) => unit,
        }
    }
}

/// What came of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Began,
    AlreadyUp,
    Refused,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Unit {
    run: Run,
    hung: bool,
    refusals: u32,
    restarts: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Run {
    #[default]
    Inactive,
    Up {
        pid: u32,
        healthy_at: Instant,
    },
    Failed {
        result: &'static str,
    },
}

impl Unit {
    pub(super) fn start(&mut self, pid: u32, healthy_at: Instant) -> Start {
        match self.run {
            Run::Up { .. } => Start::AlreadyUp,
            Run::Inactive | Run::Failed { .. } if self.refusals > 0 => {
                self.refusals -= 1;
                self.run = Run::Failed { result: "exit-code" };
                Start::Refused
            }
            Run::Inactive | Run::Failed { .. } => {
                self.restarts += 1;
                self.run = Run::Up { pid, healthy_at };
                Start::Began
            }
        }
    }

    /// A polite stop that was heard.
    pub(super) fn stop(&mut self) {
        if self.is_up() {
            self.run = Run::Inactive;
        }
    }

    pub(super) fn die(&mut self, result: &'static str) {
        if self.is_up() {
            self.run = Run::Failed { result };
        }
        self.hung = false;
    }

    pub(super) fn suffer(&mut self, fault: SimFault) {
        match fault {
            SimFault::Kill(_) => self.die("signal"),
            SimFault::Hang(_) => self.hung = self.is_up(),
            SimFault::RefuseStart(_, times) => self.refusals = times,
        }
    }

    pub(super) fn reset_failed(&mut self) {
        if matches!(self.run, Run::Failed { .. }) {
            self.run = Run::Inactive;
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.run, Run::Up { .. })
    }

    pub(super) const fn is_hung(&self) -> bool {
        self.hung && self.is_up()
    }

    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        !self.hung && matches!(self.run, Run::Up { healthy_at, .. } if now >= healthy_at)
    }

    pub(super) fn not_found(name: &str) -> UnitSignal {
        UnitSignal {
            unit: name.to_owned(),
            active: ActiveState::NotFound,
            sub: "dead".to_owned(),
            main_pid: 0,
            restarts: 0,
            result: "success".to_owned(),
            detail: UnitDetail::default(),
        }
    }

    pub(super) fn signal(&self, name: &str) -> UnitSignal {
        let (active, sub, main_pid, result) = match self.run {
            Run::Inactive => (ActiveState::Inactive, "dead", 0, "success"),
            Run::Up { pid, .. } => (ActiveState::Active, "running", pid, "success"),
            Run::Failed { result } => (ActiveState::Failed, "failed", 0, result),
        };
        UnitSignal {
            unit: name.to_owned(),
            active,
            sub: sub.to_owned(),
            main_pid,
            // systemd counts those after the first.
            restarts: self.restarts.saturating_sub(1),
            result: result.to_owned(),
            detail: UnitDetail::default(),
        }
    }
}
