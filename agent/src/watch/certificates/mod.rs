//! Certificates on disk → [`Signal::Certificates`]: which there are, and until when they are valid.
//!
//! ```text
//!  globs ──find──► paths ──read, if changed──► certificates ─┐
//!  wall clock, clock floor ──────the later─────────────────► └─► signal: everything, at each look
//! ```
//!
//! Judged by the later of the wall clock and of the latest time that this node has trusted ([`super::clock`]): after a power loss the
//! clock may say 2016, and every certificate would look fresh.

pub(crate) mod find;
pub(crate) mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::find::Finder;
use super::clock::{Clocks, read_floor};
use crate::signal::{Certificate, CertificateFile, CertificatesSignal, Signal};

/// Between looks. Only what has changed is read again.
const PERIOD: Duration = Duration::from_mins(1);

/// Watches until `stop`. `read` is [`Clocks::read`] except where a test has clocks of its own.
pub async fn watch(
    globs: Vec<String>,
    state_dir: PathBuf,
    read: fn() -> Clocks,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    let finder = match Finder::new(&globs) {
        Ok(finder) => finder,
        Err(error) => {
            warn!(%error, "certificates are not watched: their globs cannot be used");
            return;
        }
    };
    let mut shelf = Shelf::new(finder);
    loop {
        let dir = state_dir.clone();
        // Certificates may lie on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let signal = shelf.look(&dir, read());
            (shelf, signal)
        });
        let signal = match looked.await {
            Ok((same, signal)) => {
                shelf = same;
                signal
            }
            Err(error) => {
                warn!(%error, "certificates are not watched any more");
                return;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            sent = signals.send(Signal::Certificates(signal)) => if sent.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}

/// Tells whether a file has changed: inode, length, and time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let seen = std::fs::metadata(path).ok()?;
        Some(Self(seen.ino(), seen.len(), seen.ctime(), seen.ctime_nsec()))
    }
}

/// What was read, so that it is not read again.
#[derive(Debug)]
struct Shelf {
    finder: Finder,
    known: BTreeMap<PathBuf, (Stamp, Vec<Certificate>)>,
    /// Files whose trouble was logged.
    told: BTreeSet<PathBuf>,
}

impl Shelf {
    const fn new(finder: Finder) -> Self {
        Self {
            finder,
            known: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    fn look(&mut self, state_dir: &Path, clocks: Clocks) -> CertificatesSignal {
        let found = self.finder.find();
        self.known.retain(|path, _| found.files.contains(path));
        self.told.retain(|path| found.files.contains(path));
        let files = found.files.into_iter().map(|path| CertificateFile {
            content: self.content(&path),
            path,
        });
        CertificatesSignal {
            files: files.collect(),
            unseen: found.unseen,
            now: trusted(state_dir, clocks),
            kept: clocks.synchronised == Some(true),
        }
    }

    fn content(&mut self, path: &Path) -> Result<Vec<Certificate>, String> {
        let stamp = Stamp::of(path);
        if let Some((known, certificates)) = self.known.get(path)
            && stamp == Some(*known)
        {
            return Ok(certificates.clone());
        }
        let content = read::certificates(path);
        match (&content, stamp) {
            (Ok(certificates), Some(stamp)) => {
                self.told.remove(path);
                self.known.insert(path.to_owned(), (stamp, certificates.clone()));
            }
            (Ok(_), None) => {}
            (Err(why), _) => {
                self.known.remove(path);
                if self.told.insert(path.to_owned()) {
                    warn!(path = %path.display(), why, "a certificate cannot be read; its end is not watched");
                }
            }
        }
        content
    }
}

/// What certificates are judged by: the later of the wall clock and of what this node has already trusted.
pub(crate) fn trusted(state_dir: &Path, clocks: Clocks) -> Duration {
    clocks.wall.max(read_floor(state_dir))
}

#[cfg(test)]
mod tests;
