//! `RestartRuntime`: a hung dockerd or containerd is asked for its stacks, killed and restarted.
//!
//! ```text
//!  SIGUSR1 ──► stacks kept ──► kill the main process ──► restart ──► what needs it runs again ──► it answers a real call
//! ```
//! Only the main process is killed: containerd's unit also holds the shims that keep every container, docker's the proxies
//! of published ports, and both units are made to leave them alone. Without stacks it goes on; they are for people.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::dumps::Dumps;
use crate::config::{RuntimeEndpoint, RuntimeSettings, Settings};
use crate::host::{Host, HostError, UnitAction};
use crate::ledger::Outcome;
use crate::signal::{ActiveState, Runtime, RuntimeAnswer, UnitSignal};
use crate::watch::runtime::call;

/// Stacks of ten thousand goroutines take a second or two; what is deadlocked in the runtime of Go writes none.
const STACKS_DEADLINE: Duration = Duration::from_secs(5);
/// A dockerd that looks over hundreds of containers takes so long until it answers.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);
/// Between two calls while it starts.
const ANSWER_EVERY: Duration = Duration::from_millis(500);
/// systemd is asked for a unit's state for so long.
const STATE_DEADLINE: Duration = Duration::from_secs(5);

/// What it is done by.
#[derive(Debug, Clone)]
pub struct RuntimeRules {
    settings: RuntimeSettings,
    order: Vec<String>,
    dumps: Dumps,
    job_deadline: Duration,
}

impl RuntimeRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.runtime.clone(),
            order: settings.restart.order.clone(),
            dumps: Dumps::new(&settings.state_dir),
            job_deadline: settings.restart.job_deadline,
        }
    }

    /// Is `unit` that of a container runtime?
    pub(super) fn is_runtime(&self, unit: &str) -> bool {
        self.runtime(unit).is_some()
    }

    fn runtime(&self, unit: &str) -> Option<(Runtime, &RuntimeEndpoint)> {
        [
            (Runtime::Containerd, &self.settings.containerd),
            (Runtime::Docker, &self.settings.docker),
        ]
        .into_iter()
        .find(|(_, endpoint)| endpoint.unit == unit)
    }

    /// The units that need `unit`, in the order in which they are started.
    fn after(&self, unit: &str) -> impl Iterator<Item = &str> {
        let mut order = self.order.iter();
        // Up to the unit itself; without it, all of them.
        order.find(|at| *at == unit);
        order.map(String::as_str)
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    /// The runtime's unit.
    pub unit: String,
    /// Where its stacks are; or why there are none.
    pub stacks: Result<PathBuf, String>,
    /// Units that had gone down with it and were started again.
    pub also: Vec<String>,
    /// Its new main process.
    pub main_pid: u32,
}

impl fmt::Display for Restarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "killed and restarted; answers with process {}", self.main_pid)?;
        for unit in &self.also {
            write!(f, "; {unit} had gone down with it and was started again")?;
        }
        match &self.stacks {
            Ok(path) => write!(f, "; its stacks are in {}", path.display()),
            Err(why) => write!(f, "; no stacks were kept: {why}"),
        }
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// Not a container runtime of this node.
    #[error("{0} is not the unit of a container runtime (`runtime` in the configuration)")]
    NotARuntime(String),
    /// systemd did not do it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// systemd did not do it in time.
    #[error("{action} {unit}: not done within {within:?}")]
    Late {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// The deadline.
        within: Duration,
    },
    /// It does not run.
    #[error("after the restart {unit} is {state:?} ({sub})")]
    NotActive {
        /// Which.
        unit: String,
        /// What it is.
        state: ActiveState,
        /// systemd's word for it.
        sub: String,
    },
    /// It runs and does not answer.
    #[error("after the restart {unit} still does not answer: {why}")]
    Silent {
        /// Which.
        unit: String,
        /// What the last call came to.
        why: String,
    },
}

/// Does it and verifies it; with `dry_run` says what would be done.
pub async fn restart_runtime<H: Host>(host: &H, unit: &str, rules: &RuntimeRules, dry_run: bool) -> Outcome {
    if dry_run && let Some((runtime, _)) = rules.runtime(unit) {
        let detail = format!(
            "would keep the stacks of {} in {}, kill it and restart {unit}; nothing was changed",
            runtime.as_str(),
            rules.dumps.dir().display()
        );
        return Outcome::Succeeded { detail };
    }
    match restart(host, unit, rules).await {
        Ok(restarted) => Outcome::Succeeded {
            detail: restarted.to_string(),
        },
        Err(error) => Outcome::Failed {
            detail: error.to_string(),
        },
    }
}

/// Does it, and verifies it.
///
/// # Errors
/// systemd does not do it, or the runtime does not answer afterwards.
pub async fn restart<H: Host>(host: &H, unit: &str, rules: &RuntimeRules) -> Result<Restarted, RestartError> {
    let (runtime, endpoint) = rules
        .runtime(unit)
        .ok_or_else(|| RestartError::NotARuntime(unit.to_owned()))?;
    let mut needing = Vec::new();
    for after in rules.after(unit) {
        if state(host, after).await.is_ok_and(|seen| active(&seen)) {
            needing.push(after);
        }
    }
    let before = state(host, unit).await?;
    let stacks = if host.machine().is_none() {
        Err("its processes are not this machine's".to_owned())
    } else if before.main_pid == 0 {
        Err("it has no process".to_owned())
    } else {
        let taken = rules
            .dumps
            .take(runtime, endpoint, before.main_pid, STACKS_DEADLINE);
        taken.await.map_err(|error| error.to_string())
    };
    // Refused when there is nothing to kill or to reset, which is no reason not to restart.
    for (action, name) in [(UnitAction::KillMain, "kill"), (UnitAction::ResetFailed, "reset")] {
        match ask(host, unit, action, name, rules.job_deadline).await {
            Ok(()) | Err(RestartError::Host(HostError::Refused { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    ask(host, unit, UnitAction::Restart, "restart", rules.job_deadline).await?;
    let after = running(host, unit).await?;
    if host.machine().is_some() {
        answers(runtime, endpoint, rules.settings.deadline).await?;
    }
    let mut also = Vec::new();
    for unit in needing {
        if !state(host, unit).await.is_ok_and(|seen| active(&seen)) {
            ask(host, unit, UnitAction::Restart, "restart", rules.job_deadline).await?;
            running(host, unit).await?;
            also.push(unit.to_owned());
        }
    }
    Ok(Restarted {
        unit: unit.to_owned(),
        stacks,
        also,
        main_pid: after.main_pid,
    })
}

async fn ask<H: Host>(
    host: &H,
    unit: &str,
    action: UnitAction,
    name: &'static str,
    within: Duration,
) -> Result<(), RestartError> {
    match timeout(within, host.unit_action(unit, action)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(RestartError::Late {
            action: name,
            unit: unit.to_owned(),
            within,
        }),
    }
}

async fn state<H: Host>(host: &H, unit: &str) -> Result<UnitSignal, RestartError> {
    match timeout(STATE_DEADLINE, host.unit_state(unit)).await {
        Ok(seen) => Ok(seen?),
        Err(_) => Err(RestartError::Late {
            action: "tell the state of",
            unit: unit.to_owned(),
            within: STATE_DEADLINE,
        }),
    }
}

async fn running<H: Host>(host: &H, unit: &str) -> Result<UnitSignal, RestartError> {
    let seen = state(host, unit).await?;
    if active(&seen) {
        return Ok(seen);
    }
    Err(RestartError::NotActive {
        unit: seen.unit,
        state: seen.active,
        sub: seen.sub,
    })
}

/// A real call of it is answered. A socket that is not there yet is waited for as well.
async fn answers(
    runtime: Runtime,
    endpoint: &RuntimeEndpoint,
    deadline: Duration,
) -> Result<(), RestartError> {
    let until = Instant::now() + ANSWER_DEADLINE;
    loop {
        let why = match call(runtime, &endpoint.socket, deadline).await {
            Some(RuntimeAnswer::Answered) => return Ok(()),
            Some(RuntimeAnswer::TimedOut { after }) => format!("no answer within {after:?}"),
            Some(RuntimeAnswer::Failed { why } | RuntimeAnswer::Unobservable { why }) => why,
            None => format!("{} is not there", endpoint.socket.display()),
        };
        if Instant::now() >= until {
            return Err(RestartError::Silent {
                unit: endpoint.unit.clone(),
                why,
            });
        }
        sleep(ANSWER_EVERY).await;
    }
}

fn active(seen: &UnitSignal) -> bool {
    matches!(seen.active, ActiveState::Active | ActiveState::Reloading)
}
