//! Keeps on another file system what a reclaim is about to cut.
//!
//! ```text
//!  range, fixed ─► a thread: store ─► whole, verified, under its name ─► cut
//!       │              (read, compress, fsync, read back, compare, rename)
//!       └─► meanwhile: is there time? ── no, or it failed ─► cut without, and say so
//! ```
//!
//! A log is reclaimed because its disk is short, and what is short is worth more than what is archived: an archive that is
//! slow, full or gone (a network mount that hangs) must not let the disk fill. So it is written by a thread of its own, which is left
//! behind when there is no more time; it finds out by [`Job::cancelled`] and takes its work away again.
//!
//! | module | story |
//! |---|---|
//! | `store` | one archive: written, read back, named |
//! | `shelf` | all of them: names, room, age |

mod shelf;
mod store;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::statvfs::fstatvfs;
use tokio::time::Instant;

pub use self::shelf::well_placed;
pub(super) use self::store::Witness;
use self::store::{Job, store};
use crate::bytes::Bytes;
use crate::config::ArchiveSettings;
use crate::signal::LogId;

/// So many are written at a time; one that hangs keeps its place.
const AT_ONCE: usize = 4;
/// How often the log's disk is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// A disk that would be full sooner leaves no time.
const SOON: Duration = Duration::from_secs(3);
/// A rate over less than this is noise.
const LEAST_SPAN: Duration = Duration::from_millis(200);

/// What was kept of a head that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// All of it, verified.
    Whole {
        /// Where.
        path: PathBuf,
        /// Bytes of the log.
        bytes: u64,
        /// Bytes that they take there.
        stored: u64,
    },
    /// Nothing.
    Not {
        /// Why, for people.
        why: String,
    },
    /// A dry run: it would be kept here.
    Would {
        /// The archive's directory.
        dir: PathBuf,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { path, bytes, stored } => write!(
                f,
                "archived {} in {} of {}",
                Bytes(*bytes),
                Bytes(*stored),
                path.display()
            ),
            Self::Not { why } => write!(f, "NOT ARCHIVED: {why}"),
            Self::Would { dir } => write!(f, "archived in {} before", dir.display()),
        }
    }
}

/// Where heads are kept.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    settings: ArchiveSettings,
    running: Arc<AtomicUsize>,
}

impl Archive {
    pub(super) fn new(settings: ArchiveSettings) -> Self {
        Self {
            settings,
            running: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// What a dry run says.
    pub(super) fn would(&self) -> Kept {
        Kept::Would {
            dir: self.settings.dir.clone(),
        }
    }

    /// Keeps `range` of `file`, which is `log`. Returns when it is safe, or when there is no more time for it. With the archive comes
    /// what tells whether the log is still the one that was archived.
    pub(super) fn keep(&self, log: &LogId, file: &File, range: Range<u64>) -> (Kept, Option<Witness>) {
        match self.attempt(log, file, range) {
            Ok((kept, witness)) => (kept, Some(witness)),
            Err(why) => (Kept::Not { why }, None),
        }
    }

    fn attempt(&self, log: &LogId, file: &File, range: Range<u64>) -> Result<(Kept, Witness), String> {
        let look = || Room::of(file).map_err(|error| format!("the log's disk cannot be looked at: {error}"));
        let (begun, first) = (Instant::now(), look()?);
        if let Some(why) = no_time(first, first, Duration::ZERO) {
            return Err(why);
        }
        let place = Place::take(&self.running)
            .ok_or_else(|| format!("{AT_ONCE} archives are being written and do not end"))?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            file: file
                .try_clone()
                .map_err(|error| format!("open the log once more: {error}"))?,
            log: log.path.clone(),
            range,
            settings: self.settings.clone(),
            cancelled: Arc::clone(&cancelled),
        };
        let (send, done) = mpsc::channel();
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                let _place = place;
                let _nobody_waits = send.send(store(&job).map_err(|error| crate::causes::causes(&error)));
            })
            .map_err(|error| format!("begin a thread: {error}"))?;
        loop {
            let why = match done.recv_timeout(LOOK) {
                Ok(stored) => return stored,
                Err(RecvTimeoutError::Disconnected) => "it was broken off".to_owned(),
                Err(RecvTimeoutError::Timeout) => {
                    let elapsed = begun.elapsed();
                    match no_time(first, look()?, elapsed) {
                        Some(why) => why,
                        None if elapsed >= self.settings.deadline => {
                            format!("not done within {:?}", self.settings.deadline)
                        }
                        None => continue,
                    }
                }
            };
            cancelled.store(true, Ordering::Release);
            // It may have come to its end in this moment.
            return done.try_recv().unwrap_or(Err(why));
        }
    }
}

/// One of the places of [`AT_ONCE`].
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(running: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count: usize| (count < AT_ONCE).then_some(count + 1);
        running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()
            .map(|_| Self(Arc::clone(running)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is left on a disk, bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    available: u64,
    total: u64,
}

impl Room {
    fn of(file: &File) -> Result<Self, nix::Error> {
        let seen = fstatvfs(file)?;
        Ok(Self {
            available: seen.blocks_available() * seen.fragment_size(),
            total: seen.blocks() * seen.fragment_size(),
        })
    }
}

/// Why a disk that had `first` and has `now`, `elapsed` later, cannot wait. Pure.
fn no_time(first: Room, now: Room, elapsed: Duration) -> Option<String> {
    if now.available <= now.total / 100 {
        return Some(format!("the log's disk has only {} left", Bytes(now.available)));
    }
    let lost = first.available.saturating_sub(now.available);
    if elapsed < LEAST_SPAN || lost == 0 {
        return None;
    }
    let millis = u128::from(now.available) * elapsed.as_millis() / u128::from(lost);
    let left = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    (left < SOON).then(|| format!("the log's disk would be full in {left:.1?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_soon_will_be_cannot_wait() {
        let room = |available| Room {
            available,
            total: 1000 << 20,
        };
        let second = Duration::from_secs(1);
        let waits = |first: u64, now: u64| no_time(room(first << 20), room(now << 20), second).is_none();
        assert!(waits(500, 500));
        assert!(waits(500, 400), "4 s");
        assert!(!waits(500, 350), "2.3 s");
        assert!(!waits(10, 10), "a hundredth");
        assert!(waits(300, 500), "somebody freed space");
    }

    #[test]
    fn archives_that_hang_keep_their_places() {
        let running = Arc::new(AtomicUsize::new(0));
        let mut places: Vec<_> = (0..AT_ONCE)
            .map(|_| Place::take(&running).expect("a place"))
            .collect();
        assert!(Place::take(&running).is_none());
        places.pop();
        assert!(Place::take(&running).is_some());
    }
}
