//! The store as it was at one revision, in memory: what a coordinator that follows answers from. It is only read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{NewEntry, Store, StoreError};
use super::layout::pick_up;
use crate::etcd::wire::KeyValue;
use crate::leader::Keys;

/// A value, and the revision that its key was made at.
#[derive(Debug, Clone)]
struct Kept {
    value: Arc<[u8]>,
    made_at: i64,
}

/// Cheap to clone, as far as its values go.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    keys: Keys,
    name: String,
    values: BTreeMap<Vec<u8>, Kept>,
}

impl Snapshot {
    pub(crate) fn new(keys: Keys, prefix: &str) -> Self {
        Self {
            keys,
            name: format!("{prefix} in etcd"),
            values: BTreeMap::new(),
        }
    }

    /// Takes a key in, if it is one of the store's.
    pub(crate) fn set(&mut self, key: KeyValue) {
        if self.keys.kept().iter().any(|prefix| key.key.starts_with(prefix)) {
            let kept = Kept {
                value: key.value.into(),
                made_at: key.create_revision,
            };
            self.values.insert(key.key, kept);
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.values.remove(key);
    }

    fn under(&self, prefix: Vec<u8>) -> impl Iterator<Item = (String, &Kept)> {
        let length = prefix.len();
        let all = self.values.range(prefix.clone()..);
        all.take_while(move |(key, _)| key.starts_with(&prefix))
            .map(move |(key, kept)| (String::from_utf8_lossy(&key[length..]).into_owned(), kept))
    }

    fn follows<T>() -> Result<T, StoreError> {
        Err(StoreError::NotLeading("it follows".to_owned()))
    }
}

impl Store for Snapshot {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        Self::follows()
    }

    fn append_all(&self, _: &[NewEntry]) -> Result<(), StoreError> {
        Self::follows()
    }

    fn put(&self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        Self::follows()
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let read = |key: &[u8]| Ok(self.values.get(key).map(|kept| kept.value.to_vec()));
        (0..)
            .zip(self.under(self.keys.journal_of(run)))
            .map(|(index, (_, kept))| pick_up((&self.name, &self.keys), (run, index), &kept.value, read))
            .collect()
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        let mut runs: Vec<_> = self.under(self.keys.length("")).collect();
        runs.sort_by_key(|(_, length)| length.made_at);
        Ok(runs.into_iter().map(|(run, _)| run).collect())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.values.get(&self.keys.state(key));
        Ok(found.map(|kept| kept.value.to_vec()))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let found = self.under(self.keys.state(prefix));
        Ok(found
            .map(|(rest, kept)| (format!("{prefix}{rest}"), kept.value.to_vec()))
            .collect())
    }
}
