//! Wakes the gate when a word for it is put into the runtime directory, and the agent when the gate has said something there.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// Looks that often when events are not to be had (inotify instances are few by default)…
const POLL: Duration = Duration::from_millis(500);
/// …and that often beside them.
const SLOW_POLL: Duration = Duration::from_secs(5);

/// Events of one directory, or a poll.
#[derive(Debug)]
pub(crate) struct Wake {
    events: Option<AsyncFd<OwnedFd>>,
}

impl Wake {
    pub(crate) fn on(dir: &Path) -> Self {
        let events = match watch(dir) {
            Ok(events) => Some(events),
            Err(error) => {
                warn!(dir = %dir.display(), %error, "no inotify for the gate's files; polling them");
                None
            }
        };
        Self { events }
    }

    /// Returns when something was written, or it is time to look anyway; at the latest after `at_most`.
    pub(super) async fn wait(&mut self, at_most: Duration) {
        let Some(events) = &self.events else {
            tokio::time::sleep(POLL.min(at_most)).await;
            return;
        };
        match tokio::time::timeout(SLOW_POLL.min(at_most), drain(events)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => self.failed(&error),
        }
    }

    /// Returns when something was written; never, without events.
    pub(crate) async fn written(&mut self) {
        let Some(events) = &self.events else {
            return pending().await;
        };
        if let Err(error) = drain(events).await {
            self.failed(&error);
        }
    }

    /// What is written is told.
    pub(crate) fn hears(&self) -> bool {
        self.events.is_some()
    }

    fn failed(&mut self, error: &io::Error) {
        warn!(%error, "inotify for the gate's files failed; polling them");
        self.events = None;
    }
}

fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(
        dir,
        AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ONLYDIR,
    )?;
    register(inotify.into())
}

#[expect(
    deprecated,
    reason = "`AsyncFd::register` is unsafe because a type may lie about its descriptor; `OwnedFd` does not"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Waits for an event, and takes all there are: what they say is read from the files.
async fn drain(events: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let mut ready = events.readable().await?;
        match nix::unistd::read(events.get_ref(), &mut buffer) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}
