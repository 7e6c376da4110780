//! What the agent says to systemd, if systemd runs it: ready, its status in a line, and that it lives.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The way to systemd, or to nobody.
#[derive(Debug, Clone)]
pub struct Notify {
    systemd: bool,
    watchdog: Option<Duration>,
}

impl Notify {
    /// To nobody: for an agent that shares its process with others.
    pub const fn none() -> Self {
        Self {
            systemd: false,
            watchdog: None,
        }
    }

    /// To whoever set `NOTIFY_SOCKET` and `WATCHDOG_USEC` for this process; to nobody if nobody did.
    pub fn systemd() -> Self {
        Self {
            systemd: true,
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// How often [`Notify::alive`] is to be called.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|deadline| deadline / 3)
    }

    pub(super) fn ready(&self) {
        self.send(NotifyState::Ready);
    }

    pub(super) fn alive(&self) {
        self.send(NotifyState::Watchdog);
    }

    pub(super) fn stopping(&self) {
        self.send(NotifyState::Stopping);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(NotifyState::Status(text));
    }

    fn send(&self, state: NotifyState<'_>) {
        if self.systemd
            && let Err(error) = sd_notify::notify(&[state])
        {
            debug!(%error, "systemd does not take notifications");
        }
    }
}
