//! How sessions, reboot tools and operators speak to the keeper.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Book, Line, PermitId, Wish, kept};
use crate::inventory::NodeName;
use crate::store::{Store, StoreError};

/// The coordinator ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this coordinator is stopping")]
pub struct Stopping;

/// What the keeper is asked.
#[derive(Debug)]
pub(super) enum Word {
    /// An agent wants, or has, a permit.
    Ask {
        wish: Wish,
        session: u64,
        /// Why it is not taken in.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A reboot tool wants, or has, one.
    Lock {
        wish: Wish,
        /// It is granted; or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Whoever had it, or wanted it, does no more.
    GiveBack {
        id: PermitId,
        how: String,
        reply: oneshot::Sender<()>,
    },
    /// An operator takes back all of a node.
    Release {
        node: NodeName,
        by: String,
        reason: String,
        reply: oneshot::Sender<Vec<Line>>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    next: u64,
    by_node: BTreeMap<NodeName, (u64, Instant)>,
}

impl Sessions {
    /// The session of a node, and since when it stands.
    pub(super) fn of(&self, node: &NodeName) -> Option<(u64, Instant)> {
        self.by_node.get(node).copied()
    }
}

/// Who is in session.
#[derive(Debug, Default)]
pub(super) struct Present {
    sessions: Mutex<Sessions>,
    /// Somebody came or went.
    pub(super) changed: Notify,
}

impl Present {
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cheap to clone; all clones speak to one keeper.
#[derive(Debug, Clone)]
pub struct PermitsHandle {
    pub(super) words: mpsc::Sender<Word>,
    pub(super) book: watch::Receiver<Arc<Book>>,
    pub(super) present: Arc<Present>,
}

/// An agent's session, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    node: NodeName,
    number: u64,
    present: Arc<Present>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut sessions = self.present.sessions();
        // A newer session of the node may have come.
        if sessions
            .of(&self.node)
            .is_some_and(|(number, _)| number == self.number)
        {
            sessions.by_node.remove(&self.node);
        }
        drop(sessions);
        self.present.changed.notify_one();
    }
}

impl PermitsHandle {
    /// Permits as the store has them, where nobody keeps them: nothing that is asked is taken in.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) fn remembered(store: &dyn Store) -> Result<Self, StoreError> {
        let kept = kept::load(store, Instant::now())?;
        let lines = kept.grants.iter().map(|grant| grant.line(0)).collect();
        Ok(Self {
            words: mpsc::channel(1).0,
            book: watch::channel(Arc::new(Book { lines })).1,
            present: Arc::default(),
        })
    }

    /// The book, and every later one.
    pub fn watch(&self) -> watch::Receiver<Arc<Book>> {
        self.book.clone()
    }

    /// The book as it stands.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.borrow())
    }

    /// A session of this node begins.
    pub fn opened(&self, node: &NodeName) -> Ticket {
        let mut sessions = self.present.sessions();
        sessions.next += 1;
        let number = sessions.next;
        sessions.by_node.insert(node.clone(), (number, Instant::now()));
        drop(sessions);
        self.present.changed.notify_one();
        Ticket {
            node: node.clone(),
            number,
            present: Arc::clone(&self.present),
        }
    }

    /// An agent asks, in its session. Its answer stands in the book.
    ///
    /// # Errors
    /// The coordinator ends. The inner error: it is not taken in, and why.
    pub async fn ask(&self, ticket: &Ticket, wish: Wish) -> Result<Result<(), String>, Stopping> {
        let session = ticket.number;
        self.say(|reply| Word::Ask { wish, session, reply }).await
    }

    /// A reboot tool asks.
    ///
    /// # Errors
    /// The coordinator ends. The inner error: not now, and why.
    pub async fn lock(&self, wish: Wish) -> Result<Result<(), String>, Stopping> {
        self.say(|reply| Word::Lock { wish, reply }).await
    }

    /// What was asked for or granted is over; nothing happens if there is no such thing.
    ///
    /// # Errors
    /// The coordinator ends.
    pub async fn give_back(&self, id: PermitId, how: String) -> Result<(), Stopping> {
        self.say(|reply| Word::GiveBack { id, how, reply }).await
    }

    /// An operator takes back everything of a node. What it was.
    ///
    /// # Errors
    /// The coordinator ends.
    pub async fn release(&self, node: NodeName, by: String, reason: String) -> Result<Vec<Line>, Stopping> {
        let word = |reply| Word::Release {
            node,
            by,
            reason,
            reply,
        };
        self.say(word).await
    }

    async fn say<T>(&self, word: impl FnOnce(oneshot::Sender<T>) -> Word) -> Result<T, Stopping> {
        let (reply, replied) = oneshot::channel();
        self.words.send(word(reply)).await.map_err(|_| Stopping)?;
        replied.await.map_err(|_| Stopping)
    }
}
