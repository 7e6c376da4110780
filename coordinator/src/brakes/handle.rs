//! The one book of a running coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Book, Held, Hold, NodeBrakes, Scope, kept};
use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::store::{Store, StoreError};
use crate::storm::Frozen;

/// More holds than this are not kept.
const MAX_HOLDS: usize = 1024;
/// A hold for longer than this is one until it is lifted.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// Why a hold was not made or lifted.
#[derive(Debug, thiserror::Error)]
pub enum BrakesError {
    /// It would not survive the coordinator, so it is not in force either.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are too many.
    #[error("{MAX_HOLDS} holds stand already; lift some first (blackstart get holds)")]
    Full,
}

/// Cheap to clone; all clones are one book.
#[derive(Debug, Clone)]
pub struct BrakesHandle {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    /// Held while the store is written, so that the store and the book agree.
    writing: Mutex<()>,
    book: watch::Sender<Arc<Book>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("book", &self.book)
            .finish_non_exhaustive()
    }
}

impl BrakesHandle {
    /// What the store has of it.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn open(store: Arc<dyn Store>, inventory: Arc<Inventory>) -> Result<Self, StoreError> {
        let book = kept::load(store.as_ref(), Instant::now(), unix_ms())?;
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                inventory,
                writing: Mutex::new(()),
                book: watch::Sender::new(Arc::new(book)),
            }),
        })
    }

    /// The book, and every later one.
    pub fn watch(&self) -> watch::Receiver<Arc<Book>> {
        self.shared.book.subscribe()
    }

    /// The book as it stands.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.shared.book.borrow())
    }

    /// What concerns this node now.
    pub fn of(&self, node: &NodeName) -> NodeBrakes {
        let spec = self.shared.inventory.node(node);
        spec.map_or_else(NodeBrakes::default, |spec| self.book().of(spec, Instant::now()))
    }

    /// The nodes that are silenced here now.
    pub fn silenced(&self) -> BTreeSet<NodeName> {
        self.book().silenced(&self.shared.inventory, Instant::now())
    }

    /// Makes a hold, in place of an earlier one of the same scope and remedy. Durable once it has returned. Blocks.
    ///
    /// # Errors
    /// It is not in force.
    pub fn set(
        &self,
        scope: Scope,
        what: Held,
        by: String,
        reason: String,
        length: Option<Duration>,
    ) -> Result<Hold, BrakesError> {
        let now = Instant::now();
        let length = length.filter(|length| *length < LONGEST);
        let hold = Hold {
            scope,
            what,
            by,
            reason,
            made_unix_ms: unix_ms(),
            length,
            until: length.map(|length| now + length),
        };
        let _turn = self.turn();
        let mut holds: Vec<Hold> = self.book().standing(now).cloned().collect();
        holds.retain(|known| (&known.scope, known.what) != (&hold.scope, what));
        if holds.len() >= MAX_HOLDS {
            return Err(BrakesError::Full);
        }
        holds.push(hold.clone());
        self.replace(holds)?;
        Ok(hold)
    }

    /// Lifts a hold; `None`: there is none. Durable once it has returned. Blocks.
    ///
    /// # Errors
    /// It still stands.
    pub fn lift(&self, scope: &Scope, what: Held) -> Result<Option<Hold>, BrakesError> {
        let _turn = self.turn();
        let mut holds: Vec<Hold> = self.book().standing(Instant::now()).cloned().collect();
        let Some(at) = holds
            .iter()
            .position(|known| (&known.scope, known.what) == (scope, what))
        else {
            return Ok(None);
        };
        let lifted = holds.remove(at);
        self.replace(holds)?;
        Ok(Some(lifted))
    }

    /// Takes over what the guard found. In force at once; blocks for the store only if a storm came or went.
    ///
    /// # Errors
    /// It is in force and not kept: a coordinator that restarts will not know of it.
    pub fn storms(&self, storms: BTreeMap<(ClusterName, String), Frozen>) -> Result<(), StoreError> {
        let _turn = self.turn();
        let before = self.book();
        if before.storms == storms {
            return Ok(());
        }
        let same = before.storms.keys().eq(storms.keys());
        self.shared.book.send_modify(|book| {
            *book = Arc::new(Book {
                storms,
                ..(**book).clone()
            });
        });
        if same {
            return Ok(());
        }
        kept::save_storms(self.shared.store.as_ref(), &self.book())
    }

    /// Has every session say its freezes again.
    pub fn renew(&self) {
        let _turn = self.turn();
        self.shared.book.send_modify(|book| {
            let mut next = (**book).clone();
            next.renewal += 1;
            *book = Arc::new(next);
        });
    }

    fn replace(&self, holds: Vec<Hold>) -> Result<(), StoreError> {
        kept::save_holds(self.shared.store.as_ref(), &holds)?;
        self.shared.book.send_modify(|book| {
            *book = Arc::new(Book {
                holds,
                ..(**book).clone()
            });
        });
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock, milliseconds since the Unix epoch.
fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use blackstart_proto::remedy::RemedyKind;

    use super::*;
    use crate::store::redb::RedbStore;

    #[tokio::test]
    async fn holds_and_storms_outlast_the_coordinator_and_reach_the_nodes_that_they_are_for() {
        let dir = tempfile::tempdir().unwrap();
        let text = "clusters:\n\
             - name: a\n  nodes:\n  - {name: a-1, address: 10.0.0.1, role: control-plane}\n  - {name: a-2, address: 10.0.0.2}\n\
             - name: b\n  nodes:\n  - {name: b-1, address: 10.0.0.3, role: control-plane}\n";
        let inventory = Arc::new(crate::inventory::parse("f", text).unwrap().inventory);
        let open = || {
            let store: Arc<dyn Store> = Arc::new(RedbStore::open(&dir.path().join("store.redb")).unwrap());
            BrakesHandle::open(store, Arc::clone(&inventory)).unwrap()
        };
        let node = |name: &str| NodeName(name.to_owned());
        let cluster = ClusterName("a".to_owned());
        let brakes = open();
        let set = |scope, what, length| {
            brakes
                .set(scope, what, "ann".into(), "new disk".into(), length)
                .unwrap()
        };
        set(Scope::Node(node("a-1")), Held::Silence, None);
        set(
            Scope::Cluster(cluster.clone()),
            Held::Remedy(RemedyKind::Prune),
            Some(Duration::from_hours(1)),
        );
        set(Scope::Fleet, Held::Every, Some(Duration::from_millis(1)));
        set(
            Scope::Node(node("a-1")),
            Held::Silence,
            Some(Duration::from_hours(2)),
        );
        let frozen = Frozen {
            since: Instant::now(),
            threshold: 3,
            evidence: "3 of 4".into(),
            below_since: None,
        };
        let storm = (cluster.clone(), "UnitFailed".to_owned());
        brakes.storms([(storm, frozen)].into()).unwrap();
        drop(brakes);
        while RedbStore::open(&dir.path().join("store.redb")).is_err() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let brakes = open();
        let counts = |name: &str| {
            let of = brakes.of(&node(name));
            (of.holds.len(), of.freezes.len())
        };
        assert_eq!(
            [counts("a-1"), counts("a-2"), counts("b-1")],
            [(2, 1), (1, 1), (0, 0)]
        );
        assert_eq!(brakes.silenced(), [node("a-1")].into());
        let lifted = brakes
            .lift(&Scope::Node(node("a-1")), Held::Silence)
            .unwrap()
            .unwrap();
        assert_eq!(
            (lifted.by.as_str(), lifted.length),
            ("ann", Some(Duration::from_hours(2)))
        );
        assert!(brakes.lift(&Scope::Fleet, Held::Silence).unwrap().is_none());
        assert!(brakes.silenced().is_empty());
    }
}
