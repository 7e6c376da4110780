//! What systemd says of a unit.

use std::fmt;

/// A unit's state, from the properties of `org.freedesktop.systemd1.Unit` and `.Service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSignal {
    /// Full unit name, for example `kubelet.service`.
    pub unit: String,
    /// `ActiveState`, or [`ActiveState::NotFound`] where `LoadState` says so.
    pub active: ActiveState,
    /// `SubState`, for people; with the reason in parentheses where [`Self::active`] is not systemd's own word.
    pub sub: String,
    /// `MainPID`; 0 when there is none.
    pub main_pid: u32,
    /// `NRestarts`.
    pub restarts: u32,
    /// `Result` of the service: `success`, `signal`, `start-limit-hit`, …
    pub result: String,
    /// What systemd is at with it.
    pub detail: UnitDetail,
}

/// What there is to know of a unit beyond its state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnitDetail {
    /// `LoadState` is `masked`: somebody does not want it started.
    pub masked: bool,
    /// Its file has systemd restart it (`Restart=`).
    pub restarts_itself: bool,
    /// What systemd is doing with it.
    pub phase: UnitPhase,
    /// How its main process ended the last time; `None` while one runs, and before one ever did.
    pub last_exit: Option<Exit>,
}

/// What systemd is doing with a unit, from its sub-state and its job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnitPhase {
    /// Nothing: it runs, or it does not.
    #[default]
    Settled,
    /// Its job waits, for what it is ordered after (the boot gate, too).
    Waiting,
    /// A start is under way.
    Starting,
    /// A stop is under way.
    Stopping,
    /// It died, and systemd starts it again after `RestartSec=`.
    RestartDelay,
}

/// How a process ended (`ExecMainCode`, `ExecMainStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// systemd's `ActiveState`, closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActiveState {
    /// Running.
    Active,
    /// Running, reading its configuration anew.
    Reloading,
    /// Not running, without failure.
    Inactive,
    /// Not running after a failure.
    Failed,
    /// Between inactive and active (also systemd's own auto-restart delay, and a start that waits).
    Activating,
    /// Between active and inactive.
    Deactivating,
    /// Nobody wants the unit on this node: it is not installed, or masked or disabled and does not run.
    NotFound,
    /// A word that this version does not know; treated as unobservable.
    Unknown,
}
