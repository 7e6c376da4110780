//! The one book of a running agent: whoever holds, and whoever looks, has the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::book::Book;
use super::{Held, Hold, Standing, Word, file};
use crate::causes::causes;
use crate::ledger::{Now, SharedLedger};

/// Why a hold was not taken or lifted.
#[derive(Debug, thiserror::Error)]
pub enum BrakesError {
    /// Too many.
    #[error("{0}")]
    Full(String),
    /// It would not survive the agent, so it is not in force either.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Cheap to clone; all clones are one book.
#[derive(Debug, Clone)]
pub struct SharedBrakes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    boot: String,
    book: Mutex<Book>,
    standing: watch::Sender<Arc<Standing>>,
}

impl SharedBrakes {
    /// The book of this state directory, in the boot of this nonce. A damaged one is set aside and told, and the agent goes on without: a
    /// node that nobody mends is worse, and the coordinator says its holds again. Blocks.
    pub fn open(state_dir: &Path, boot: &str) -> Self {
        let path = state_dir.join("brakes.json");
        let now = Instant::now();
        let known = match file::read(&path, &Now::read(boot), now) {
            Ok(known) => known.unwrap_or_default(),
            Err(error) => {
                let aside = path.with_extension("damaged");
                let kept = fs::rename(&path, &aside);
                warn!(
                    path = %path.display(), %error, kept_in = %aside.display(), ?kept,
                    "the file of holds cannot be read; holds that were made on this node are lost"
                );
                Book::default()
            }
        };
        let standing = watch::Sender::new(Arc::new(known.standing(now)));
        Self {
            inner: Arc::new(Inner {
                path,
                boot: boot.to_owned(),
                book: Mutex::new(known),
                standing,
            }),
        }
    }

    /// What is in force, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Standing>> {
        self.inner.standing.subscribe()
    }

    /// What is in force now.
    pub fn standing(&self, now: Instant) -> Standing {
        self.book().standing(now)
    }

    /// Takes in a hold of the node's own; durable once it has returned. Blocks.
    ///
    /// # Errors
    /// It is not in force: there are too many, or it could not be written.
    pub fn hold(&self, hold: &Hold) -> Result<(), BrakesError> {
        let now = Instant::now();
        let mut book = self.book();
        let mut next = book.clone();
        next.hold(hold.clone(), now).map_err(BrakesError::Full)?;
        self.write(&next, now)?;
        info!(what = %hold.what, by = hold.by, reason = hold.reason, "held on this node");
        *book = next;
        self.publish(&book, now);
        Ok(())
    }

    /// Lifts a hold of the node's own; `None`: there is none. Blocks.
    ///
    /// # Errors
    /// It still stands: that it does not could not be written.
    pub fn lift(&self, what: Held) -> Result<Option<Hold>, BrakesError> {
        let now = Instant::now();
        let mut book = self.book();
        let mut next = book.clone();
        let Some(lifted) = next.lift(what, now) else {
            return Ok(None);
        };
        self.write(&next, now)?;
        info!(%what, "lifted on this node");
        *book = next;
        self.publish(&book, now);
        Ok(Some(lifted))
    }

    /// Takes in the coordinator's word: in force at once, then written. Blocks.
    pub fn told(&self, word: Word, obeyed: u64) {
        let now = Instant::now();
        let mut book = self.book();
        let before = book.clone();
        if let Err(superseded) = book.told(word, obeyed, now) {
            warn!(
                epoch = superseded.epoch,
                obeyed = superseded.obeyed,
                "holds of an older epoch are refused"
            );
            return;
        }
        if *book == before {
            return;
        }
        self.publish(&book, now);
        if let Err(error) = self.write(&book, now) {
            warn!(
                error = causes(&error),
                "the coordinator's holds are in force but not written"
            );
        }
    }

    fn write(&self, book: &Book, now: Instant) -> Result<(), BrakesError> {
        let path = &self.inner.path;
        file::write(path, book, &Now::read(&self.inner.boot), now).map_err(|source| BrakesError::Write {
            path: path.clone(),
            source,
        })
    }

    fn publish(&self, book: &Book, now: Instant) {
        self.inner.standing.send_replace(Arc::new(book.standing(now)));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down what the link hears, each word in its turn, until the link is gone. One that was replaced meanwhile is passed over.
pub async fn keep(mut words: watch::Receiver<Option<Word>>, brakes: SharedBrakes, ledger: SharedLedger) {
    while words.changed().await.is_ok() {
        let Some(word) = words.borrow_and_update().clone() else {
            continue;
        };
        let (brakes, ledger) = (brakes.clone(), ledger.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let obeyed = ledger.lock().highest_epoch();
            brakes.told(word, obeyed);
        });
        if kept.await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::*;

    #[test]
    fn what_is_held_is_held_by_the_next_agent_and_a_damaged_file_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let hold = Hold {
            scope: Scope::Local,
            what: Held::Silence,
            by: "ann".into(),
            reason: "new disk".into(),
            until: None,
        };
        let brakes = SharedBrakes::open(dir.path(), "boot");
        brakes.hold(&hold).unwrap();
        let word = Word {
            epoch: 3,
            holds: vec![Hold {
                scope: Scope::Fleet,
                what: Held::Every,
                ..hold.clone()
            }],
            freezes: Vec::new(),
        };
        brakes.told(word, 0);
        drop(brakes);
        let brakes = SharedBrakes::open(dir.path(), "another boot");
        assert_eq!(brakes.subscribe().borrow().holds.len(), 2);
        assert_eq!(brakes.lift(Held::Silence).unwrap(), Some(hold));
        assert_eq!(brakes.lift(Held::Every).unwrap(), None);
        assert_eq!(brakes.subscribe().borrow().holds.len(), 1);

        fs::write(dir.path().join("brakes.json"), "{").unwrap();
        let brakes = SharedBrakes::open(dir.path(), "boot");
        assert_eq!(brakes.standing(Instant::now()), Standing::default());
        assert!(dir.path().join("brakes.damaged").exists());
    }

    #[test]
    fn a_hold_that_cannot_be_written_is_not_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let brakes = SharedBrakes::open(&dir.path().join("missing"), "boot");
        let hold = Hold {
            scope: Scope::Local,
            what: Held::Every,
            by: String::new(),
            reason: String::new(),
            until: None,
        };
        assert!(brakes.hold(&hold).is_err());
        assert_eq!(brakes.standing(Instant::now()), Standing::default());
    }
}
