//! A store of which it is known whether it took the last write.

use std::sync::Arc;

use tokio::sync::watch;

use super::{NewEntry, Store, StoreError};

/// The value that [`Witnessed::write`] writes: when that was, seconds since the Unix epoch.
pub(crate) const WITNESS: &str = "witness";

/// Passes everything on, and remembers how the last write went.
#[derive(Clone)]
pub(crate) struct Witnessed {
    store: Arc<dyn Store>,
    trouble: watch::Sender<Option<String>>,
}

impl Witnessed {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            trouble: watch::Sender::default(),
        }
    }

    /// Why the last write failed; `None`: it did not, or there was none.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Writes something of its own, so that it is known whether the trouble is over though nobody has anything to write. Blocks.
    pub(crate) fn write(&self, unix_seconds: u64) -> Result<(), StoreError> {
        self.put(WITNESS, unix_seconds.to_string().as_bytes())
    }

    fn seen<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        let trouble = match &written {
            Ok(_) => None,
            // What was offered was wrong; the store is well.
            Err(StoreError::OutOfTurn { .. }) => return written,
            Err(error) => Some(error.to_string()),
        };
        self.trouble.send_if_modified(|known| {
            let changed = *known != trouble;
            *known = trouble;
            changed
        });
        written
    }
}

impl Store for Witnessed {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        self.seen(self.store.next_epoch())
    }

    fn raise_epoch(&self, least: u64) -> Result<(), StoreError> {
        self.seen(self.store.raise_epoch(least))
    }

    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.seen(self.store.append_all(entries))
    }

    fn append(&self, run: &str, index: u64, entry: &[u8]) -> Result<(), StoreError> {
        self.seen(self.store.append(run, index, entry))
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store.journal(run)
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        self.store.runs()
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.seen(self.store.put(key, value))
    }

    fn put_all(&self, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        if values.is_empty() {
            return Ok(());
        }
        self.seen(self.store.put_all(values))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.store.scan(prefix)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::redb::RedbStore;

    /// A store whose disk fills up, and is emptied again.
    pub(crate) struct Full {
        pub(crate) store: RedbStore,
        pub(crate) full: AtomicBool,
    }

    impl Full {
        fn write<T>(&self, write: impl FnOnce(&RedbStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
            if self.full.load(Ordering::SeqCst) {
                return Err(StoreError::Io {
                    action: "write",
                    path: "store".into(),
                    why: "no space left on device".to_owned(),
                });
            }
            write(&self.store)
        }
    }

    impl Store for Full {
        fn next_epoch(&self) -> Result<u64, StoreError> {
            self.write(Store::next_epoch)
        }

        fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
            self.write(|store| store.append_all(entries))
        }

        fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
            self.store.journal(run)
        }

        fn runs(&self) -> Result<Vec<String>, StoreError> {
            self.store.runs()
        }

        fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
            self.write(|store| store.put(key, value))
        }

        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.store.get(key)
        }

        fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
            self.store.scan(prefix)
        }
    }

    #[test]
    fn it_is_the_store_behind_it() {
        crate::store::conformance::all(|| {
            let dir = tempfile::tempdir().unwrap();
            move || Witnessed::new(Arc::new(RedbStore::open(&dir.path().join("store")).unwrap()))
        });
    }

    #[test]
    fn the_last_write_is_what_counts_and_reading_and_wrong_entries_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let full = Arc::new(Full {
            store: RedbStore::open(&dir.path().join("store")).unwrap(),
            full: AtomicBool::new(false),
        });
        let store = Witnessed::new(Arc::clone(&full) as Arc<dyn Store>);
        let trouble = store.trouble();
        assert!(store.append("run", 7, b"out of turn").is_err());
        assert_eq!(*trouble.borrow(), None);
        full.full.store(true, Ordering::SeqCst);
        assert!(store.put("key", b"1").is_err());
        store.get("key").unwrap();
        store.append_all(&[]).unwrap();
        let told = trouble.borrow().clone().unwrap();
        assert!(told.contains("no space left"), "{told}");
        full.full.store(false, Ordering::SeqCst);
        store.write(1).unwrap();
        assert_eq!(*trouble.borrow(), None);
    }
}
