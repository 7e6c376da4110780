//! What the service manager is told: that we are ready, what we are doing, and that we are alive.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::execute::Runs;
use crate::fleet::view::{FleetView, Phase};
use crate::leader::Seen;

/// How often the status line is looked at.
const STATUS: Duration = Duration::from_secs(1);
/// The live picture is published every second: one that is older than this is not kept up any more.
const STALE: Duration = Duration::from_secs(10);

/// The way to the service manager, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    watchdog: Option<Duration>,
    on: bool,
}

impl Notify {
    /// Tells nobody: for a coordinator inside another program.
    pub const fn none() -> Self {
        Self {
            watchdog: None,
            on: false,
        }
    }

    /// Tells systemd, as the environment of this process says. Without one it is as [`Notify::none`].
    pub fn from_environment() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            on: true,
        }
    }

    /// It serves.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Keeps the line of `systemctl status`, and says that we are alive as long as the live picture is kept up, until it is
    /// told to stop.
    pub async fn report(
        self,
        view: watch::Receiver<Arc<FleetView>>,
        runs: watch::Receiver<Runs>,
        stop: CancellationToken,
    ) {
        let every = self.watchdog.map_or(STATUS, |patience| STATUS.min(patience / 3));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let view = Arc::clone(&view.borrow());
            if self.watchdog.is_some() && view.at.elapsed() < STALE {
                self.send(&[NotifyState::Watchdog]);
            }
            let line = status(&view, &runs.borrow());
            if line != said {
                self.send(&[NotifyState::Status(&line)]);
                said = line;
            }
        }
    }

    /// The same for a coordinator that follows. Ends only if nobody looks for the leader any more.
    pub(crate) async fn report_following(&self, mut seen: watch::Receiver<Seen>) {
        let every = self.watchdog.map_or(STATUS, |patience| STATUS.min(patience / 3));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let line = match &*seen.borrow_and_update() {
                Seen {
                    leader: Some(leader), ..
                } => format!("follows {}", leader.name),
                Seen {
                    trouble: Some(trouble),
                    ..
                } => format!("follows nobody: {trouble}"),
                Seen { .. } => "looks for the leader".to_owned(),
            };
            self.send(&[NotifyState::Status(&line.replace(char::is_control, " "))]);
            loop {
                tokio::select! {
                    changed = seen.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = ticks.tick() => if self.watchdog.is_some() {
                        self.send(&[NotifyState::Watchdog]);
                    },
                }
            }
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.on
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// `12 of 14 nodes ready, 2 held; cold-start-1 running, waits on: …`
fn status(view: &FleetView, runs: &Runs) -> String {
    let count = |phase| view.nodes.values().filter(|node| node.phase == phase).count();
    let mut nodes = vec![format!(
        "{} of {} nodes ready",
        count(Phase::Ready),
        view.nodes.len()
    )];
    for (phase, what) in [
        (Phase::Held, "held"),
        (Phase::NotReady, "not ready"),
        (Phase::Silent, "silent"),
    ] {
        match count(phase) {
            0 => {}
            some => nodes.push(format!("{some} {what}")),
        }
    }
    let mut parts = vec![nodes.join(", ")];
    for run in runs.iter().filter(|run| run.state.is_active()) {
        let state = format!("{:?}", run.state).to_lowercase();
        let waits = run.waiting_on.first().map(|first| format!(", waits on: {first}"));
        parts.push(format!("{} {state}{}", run.id, waits.unwrap_or_default()));
    }
    // One line: a second would be another field of the protocol.
    parts.join("; ").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::fleet::view::NodeView;
    use crate::inventory::NodeName;

    #[tokio::test]
    async fn the_status_line_counts_what_is_not_ready() {
        let at = Instant::now();
        let node = |name: &str, phase| {
            let node = NodeView {
                phase,
                ..NodeView::unknown(at)
            };
            (NodeName(name.to_owned()), node)
        };
        let view = FleetView {
            at,
            nodes: [
                node("a", Phase::Ready),
                node("b", Phase::Held),
                node("c", Phase::Unknown),
            ]
            .into(),
            own_unclean_boot: false,
            began_at: at,
        };
        assert_eq!(status(&view, &Runs::default()), "1 of 3 nodes ready, 1 held");
    }
}
