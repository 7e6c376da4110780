//! Who commanded what, why, and what came of it: append-only, and chained so that a change is found.
//!
//! ```text
//!  door: a command ── asked ─► write ─► the service ─► outcome ─► write ─► answer
//!  orders to agents, and their answers ──────────────► note
//!                                                        ▼ one thread, one wait for the disk for all that has come
//!                                              state_dir/audit/NUMBER.log
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`chain`] | records, lines, and whether they hang together. Pure |
//! | [`file`](mod@file) | the files: append, rotate, mend what a crash cut off, read |
//! | [`local`] | what is typed on the coordinator's own machine |
//!
//! An audit that cannot be written keeps nobody from bringing a fleet back: it is said loudly, and the command goes on.

pub mod chain;
pub mod file;
pub mod local;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::events::{EventKind, Events, NewEvent, Severity};
use chain::What;
use file::Log;

/// Records that wait to be written.
const BACKLOG: usize = 1024;
/// So many are written with one wait for the disk.
const BATCH: usize = 256;
/// A command waits no longer for its record: a disk that hangs keeps nobody from recovering.
const PATIENCE: Duration = Duration::from_secs(5);
/// Files that could not be written are opened anew no sooner: all of them are read for it.
const AGAIN: Duration = Duration::from_secs(10);

type Written = oneshot::Sender<()>;

/// The way to the audit. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Audit {
    to_writer: mpsc::Sender<(What, Option<Written>)>,
    dir: Arc<PathBuf>,
    /// Records that found no room, and are not told of yet.
    lost: Arc<AtomicU64>,
}

impl Audit {
    /// Opens the one in `dir`, or begins it; inside a runtime. What keeps it from being written is said, and nothing else.
    pub fn open(dir: &Path, events: Events) -> Self {
        let (to_writer, waiting) = mpsc::channel(BACKLOG);
        let audit = Self {
            to_writer,
            dir: Arc::new(dir.to_owned()),
            lost: Arc::default(),
        };
        let (dir, lost) = (dir.to_owned(), Arc::clone(&audit.lost));
        tokio::task::spawn_blocking(move || write_all(&dir, waiting, &lost, &events));
        audit
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a record, and returns when it is durable, or cannot be, or takes too long.
    pub async fn write(&self, what: What) {
        let (done, written) = oneshot::channel();
        let write = async {
            if self.to_writer.send((what, Some(done))).await.is_ok() {
                let _gone = written.await;
            }
        };
        if timeout(PATIENCE, write).await.is_err() {
            tracing::warn!("the audit's disk does not answer; the command goes on");
        }
    }

    /// Has a record written soon. Waits for nothing: one that finds no room is lost, and that is told.
    pub fn note(&self, what: What) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.to_writer.try_send((what, None)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The one writer. Ends when nobody can send any more, and has written everything by then.
fn write_all(
    dir: &Path,
    mut waiting: mpsc::Receiver<(What, Option<Written>)>,
    lost: &AtomicU64,
    events: &Events,
) {
    let troubled = AtomicBool::new(false);
    let trouble = |error: &std::io::Error| {
        tracing::error!(%error, dir = %dir.display(), "the audit cannot be written");
        if !troubled.swap(true, Ordering::Relaxed) {
            let text = format!("the audit in {} cannot be written: {error}", dir.display());
            events.emit(NewEvent::new(Severity::Critical, EventKind::Audit, text));
        }
    };
    let mut log = None;
    let mut again = Instant::now();
    let mut batch = Vec::new();
    while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (records, written): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let missed = lost.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let text = format!("{missed} records found no room in the audit, whose disk is too slow");
            events.emit(NewEvent::new(Severity::Critical, EventKind::Audit, text));
        }
        if log.is_none() && Instant::now() >= again {
            log = Log::open(dir).inspect_err(trouble).ok();
            again = Instant::now() + AGAIN;
        }
        if let Some(open) = &mut log {
            match open.append(records, now_unix_ms()) {
                Ok(()) => {
                    troubled.store(false, Ordering::Relaxed);
                }
                Err(error) => {
                    trouble(&error);
                    // How much of it is there is looked at anew.
                    log = None;
                }
            }
        }
        for done in written.into_iter().flatten() {
            let _gone = done.send(());
        }
    }
}

/// For people.
fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// [`file::verify`], on a thread that may wait for the disk.
pub(crate) async fn verify(dir: PathBuf, expect: Option<String>) -> std::io::Result<chain::Report> {
    spawn_blocking(move || file::verify(&dir, expect.as_deref()))
        .await
        .map_err(std::io::Error::other)?
}
