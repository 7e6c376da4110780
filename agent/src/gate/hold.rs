//! The gate's process: decides, holds, opens.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::boot::{self, BootIdentity, PreviousShutdown};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::causes::causes;
use crate::config::Settings;
use crate::preflight::{Finding, State};

use super::files::{self, Record, Words};
use super::judge::{self, Terms, Verdict};
use super::wake::Wake;
use super::{GateError, GateState, GateStatus, boottime};

/// A state directory that does not answer in this time is broken, and a broken gate holds nobody.
const STATE_DEADLINE: Duration = Duration::from_secs(20);
/// A reader of the status has the gate's lock for microseconds: so often is it tried again…
const LOCK_TRIES: u32 = 5;
/// …after so long.
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// Looks at the node, as [`crate::preflight::check`] does; on a thread that may block.
pub type Look = Arc<dyn Fn() -> Vec<Finding> + Send + Sync>;

/// The pre-flight is asked again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Returns when the kubelet may start, with why: at once after a clean stop, on a first boot, or if the gate has opened in
/// this boot before; otherwise when it is released, when the dead-man time is over, or on `stop`.
///
/// # Errors
/// None: whatever goes wrong is logged and opens the gate.
pub async fn hold(settings: &Settings, stop: CancellationToken) -> Result<GateState, GateError> {
    Ok(hold_with(settings, stop, |_| {}).await)
}

/// [`hold`], and tells `on_status` what it does: at each look at its files, at least every five seconds, and when it opens.
pub async fn hold_with(
    settings: &Settings,
    stop: CancellationToken,
    on_status: impl FnMut(&GateStatus) + Send,
) -> GateState {
    hold_by(settings, None, stop, on_status, boottime).await
}

/// [`hold_with`], and holds for what `look` finds in the way.
pub async fn hold_looking(
    settings: &Settings,
    look: Look,
    stop: CancellationToken,
    on_status: impl FnMut(&GateStatus) + Send,
) -> GateState {
    hold_by(settings, Some(look), stop, on_status, boottime).await
}

/// [`hold_looking`] by any clock.
pub(super) async fn hold_by(
    settings: &Settings,
    look: Option<Look>,
    stop: CancellationToken,
    on_status: impl FnMut(&GateStatus) + Send,
    clock: impl Fn() -> Duration + Send + Sync,
) -> GateState {
    let preflight_hold = match look {
        Some(_) => settings.gate.preflight_hold,
        None => Duration::ZERO,
    };
    let mut gate = Gate {
        dir: settings.runtime_dir.clone(),
        boot: None,
        dead_man: settings.gate.dead_man(&settings.node),
        preflight_hold,
        look: look.filter(|_| !preflight_hold.is_zero()),
        looking: None,
        look_at: None,
        blockers: None,
        clock,
        on_status,
    };
    let identity = match establish(settings).await {
        Ok(identity) => identity,
        Err(why) => {
            error!(why, "the gate fails open");
            gate.boot = boot::known(&settings.runtime_dir).map(|known| known.nonce);
            return gate.open(GateState::Passed, format!("it failed open: {why}"));
        }
    };
    gate.boot = Some(identity.nonce.clone());
    gate.run(identity.previous_shutdown, settings.dry_run, stop).await
}

/// Which boot this is. Bounded: a disk that hangs must not hold the kubelet for ever.
async fn establish(settings: &Settings) -> Result<BootIdentity, String> {
    let files = (
        settings.boot_id_file.clone(),
        settings.state_dir.clone(),
        settings.runtime_dir.clone(),
    );
    let asked = tokio::task::spawn_blocking(move || boot::establish(&files.0, &files.1, &files.2));
    match tokio::time::timeout(STATE_DEADLINE, asked).await {
        Ok(Ok(Ok(identity))) => Ok(identity),
        Ok(Ok(Err(error))) => Err(causes(&error)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "{} did not answer within {} s",
            settings.state_dir.display(),
            STATE_DEADLINE.as_secs()
        )),
    }
}

struct Gate<S, C> {
    dir: PathBuf,
    /// This boot's nonce; `None` if it could not be learned.
    boot: Option<String>,
    dead_man: Duration,
    preflight_hold: Duration,
    look: Option<Look>,
    /// A look that is under way.
    looking: Option<JoinHandle<Vec<Finding>>>,
    /// When the next one is due.
    look_at: Option<Instant>,
    /// What the last one found in the way.
    blockers: Option<Vec<String>>,
    clock: C,
    on_status: S,
}

impl<S: FnMut(&GateStatus) + Send, C: Fn() -> Duration + Send + Sync> Gate<S, C> {
    async fn run(
        &mut self,
        previous_shutdown: PreviousShutdown,
        dry_run: bool,
        stop: CancellationToken,
    ) -> GateState {
        let terms = Terms {
            previous_shutdown,
            dead_man: self.dead_man,
            dry_run,
            preflight_hold: self.preflight_hold,
        };
        let mut holding: Option<(Wake, Option<File>)> = None;
        let mut complaints = Vec::new();
        loop {
            // Watched before they are read, or a word in between would wait for the poll.
            let words = Words::read(&self.dir, self.boot.as_deref());
            if words.complaints() != complaints {
                complaints = words.complaints();
                warn!(?complaints, "files for the gate cannot be read and are ignored");
            }
            let now = (self.clock)();
            let (since, opens_at) = match judge::judge(&words, terms, now) {
                Verdict::Open { state, why } => return self.open(state, why),
                Verdict::Hold { since, opens_at } => (since, opens_at),
            };
            let Some((wake, _lock)) = &mut holding else {
                match self.begin(since, &words).await {
                    Ok(lock) => holding = Some((Wake::on(&self.dir), lock)),
                    Err(error) => {
                        let why = causes(&error);
                        error!(why, "the gate fails open");
                        return self.open(GateState::Passed, format!("it failed open: {why}"));
                    }
                }
                continue;
            };
            (self.on_status)(&judge::status(&words, true, now));
            self.begin_look();
            tokio::select! {
                () = stop.cancelled() => {
                    return self.open(GateState::Passed, "the gate was stopped".to_owned());
                }
                found = ends(&mut self.looking) => self.looked(found, since),
                () = wake.wait(opens_at.saturating_sub(now)) => {}
            }
        }
    }

    /// Begins to hold, or goes on where a killed gate's process stopped.
    async fn begin(&mut self, since: Duration, words: &Words) -> Result<Option<File>, GateError> {
        self.blockers = words.record.get().and_then(|record| record.blockers.clone());
        let mut lock = files::lock(&self.dir)?;
        for _ in 0..LOCK_TRIES {
            if lock.is_some() {
                break;
            }
            tokio::time::sleep(LOCK_WAIT).await;
            lock = files::lock(&self.dir)?;
        }
        self.write(GateState::Held, since, "the last boot did not end in order")?;
        info!(dead_man_seconds = self.dead_man.as_secs(), "holding the kubelet");
        Ok(lock)
    }

    fn begin_look(&mut self) {
        let due = self.look_at.is_none_or(|at| at <= Instant::now());
        if let (Some(look), None, true) = (&self.look, &self.looking, due) {
            let look = Arc::clone(look);
            self.looking = Some(tokio::task::spawn_blocking(move || look()));
        }
    }

    /// A look that broke is one that found nothing: an error of the gate's own holds nobody.
    fn looked(&mut self, found: Option<Vec<Finding>>, since: Duration) {
        self.look_at = Some(Instant::now() + LOOK_AGAIN);
        let blockers = found
            .unwrap_or_default()
            .into_iter()
            .filter_map(blocker)
            .collect();
        if self.blockers.as_ref() == Some(&blockers) {
            return;
        }
        info!(?blockers, "pre-flight");
        self.blockers = Some(blockers);
        if let Err(error) = self.write(GateState::Held, since, "the last boot did not end in order") {
            warn!(
                error = causes(&error),
                "what the pre-flight found could not be written down"
            );
            // Read back from the file, it would hold for what nobody can see.
            self.look = None;
            self.preflight_hold = Duration::ZERO;
        }
    }

    fn write(&self, state: GateState, since: Duration, why: &str) -> Result<(), GateError> {
        let record = Record {
            state,
            since,
            dead_man: self.dead_man,
            why: why.to_owned(),
            preflight_hold: self.preflight_hold,
            blockers: self.blockers.clone(),
        };
        files::write(&self.dir, files::RECORD, self.boot.as_deref(), &record)
    }

    fn open(&mut self, state: GateState, why: String) -> GateState {
        info!(?state, why, "the kubelet may start");
        if let Err(error) = self.write(state, (self.clock)(), &why) {
            warn!(
                error = causes(&error),
                "that the gate is open could not be written down"
            );
        }
        let status = GateStatus {
            state,
            waiting_on: String::new(),
            opens_by_itself_in: None,
            why,
        };
        (self.on_status)(&status);
        state
    }
}

/// Waits for the look that is under way, for ever if there is none.
async fn ends(looking: &mut Option<JoinHandle<Vec<Finding>>>) -> Option<Vec<Finding>> {
    match looking {
        Some(running) => {
            let found = running.await.ok();
            *looking = None;
            found
        }
        None => std::future::pending().await,
    }
}

/// A finding that stands in a kubelet's way, in words.
fn blocker(finding: Finding) -> Option<String> {
    let Finding {
        check,
        subject,
        state,
        detail,
        advice: _,
    } = finding;
    match state {
        State::Blocker if subject.is_empty() => Some(format!("{check}: {detail}")),
        State::Blocker => Some(format!("{check} {subject}: {detail}")),
        State::Ok | State::Warning => None,
    }
}
