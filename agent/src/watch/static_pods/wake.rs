//! Wakes the watcher when a file in the directory of manifests changes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

/// Events of the directory, while there is one.
#[derive(Debug)]
pub(super) struct Wake {
    dir: PathBuf,
    events: Option<AsyncFd<OwnedFd>>,
    told: bool,
}

impl Wake {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            events: None,
            told: false,
        }
    }

    /// Returns when something in the directory has changed, at the latest at `until`.
    pub(super) async fn wait(&mut self, until: Instant) {
        if self.events.is_none() {
            match watch(&self.dir) {
                Ok(events) => self.events = Some(events),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    debug!(dir = %self.dir.display(), "no static pods here");
                }
                Err(error) if !self.told => {
                    self.told = true;
                    warn!(dir = %self.dir.display(), %error, "no inotify for static pods; their manifests are polled");
                }
                Err(_) => {}
            }
        }
        let Some(events) = &self.events else {
            sleep_until(until).await;
            return;
        };
        match timeout_at(until, drain(events)).await {
            // The directory itself went, and another may come.
            Ok(Ok(Event::Gone) | Err(_)) => {
                self.events = None;
                sleep_until(until).await;
            }
            Ok(Ok(Event::Changed)) | Err(_) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Changed,
    Gone,
}

fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let what = AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(dir, what | AddWatchFlags::IN_ONLYDIR)?;
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
async fn drain(events: &AsyncFd<OwnedFd>) -> io::Result<Event> {
    let mut buffer = [0; 4096];
    loop {
        let mut ready = events.readable().await?;
        match nix::unistd::read(events.get_ref(), &mut buffer) {
            Ok(length) => return Ok(kind(&buffer[..length])),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether an event says that the directory itself is no longer there. An event is: watch, mask, cookie, length, name.
fn kind(mut events: &[u8]) -> Event {
    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
    let word = |bytes: &[u8], at: usize| {
        let bytes: Option<[u8; 4]> = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    while events.len() >= 16 {
        if word(events, 4) & gone.bits() != 0 {
            return Event::Gone;
        }
        let length = 16 + usize::try_from(word(events, 12)).unwrap_or(0);
        events = events.get(length..).unwrap_or_default();
    }
    Event::Changed
}
