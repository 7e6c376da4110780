//! The embedded default: one redb file, and beside it `store.id`.
//!
//! ```text
//!  store.redb   meta: schema, id, epoch
//!               runs: position → run        lengths: run → entries        journal: (run, index) → entry
//!               state: key → value
//!  store.id     the id of the store that was made here: held locked while one is open, and what tells
//!               "never was" from "is gone" when there is no store.redb
//! ```
//!
//! Every write is one transaction, in two phases: redb then trusts the newest commit by construction, so damage to it is
//! an error, and is not taken for a commit that a crash cut short, which would quietly give back the state before it.
//!
//! A file is looked at in a copy before it is opened (`redb/open.rs`): what is damaged, foreign or of another version is told
//! with advice, and stays as it is.

mod open;
mod snapshot;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torn;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

pub use self::snapshot::{Restored, restore};
use super::{NewEntry, Store, StoreError};

/// The form of what is stored; raised by whoever changes it.
const SCHEMA: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const IDENTITY: TableDefinition<'_, &str, &str> = TableDefinition::new("identity");
const RUNS: TableDefinition<'_, u64, &str> = TableDefinition::new("runs");
const LENGTHS: TableDefinition<'_, &str, u64> = TableDefinition::new("lengths");
const JOURNAL: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("journal");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

const SCHEMA_KEY: &str = "schema";
const EPOCH_KEY: &str = "epoch";
const ID_KEY: &str = "id";

/// [`Store`] in one redb file.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    /// `store.id`, locked: dropped, and so let go, after the database.
    held: Mutex<Held>,
    _lock: File,
}

/// The database, as long as it can be trusted.
#[derive(Debug)]
enum Held {
    Open(Database),
    /// A write met a full disk. redb wants to be opened again; so do we, at the next call.
    Full,
    /// A write failed otherwise. After a failed sync nobody knows what the disk has, and what is read back may only be in
    /// memory: nothing more is promised by this process.
    Failed(String),
}

impl RedbStore {
    /// Opens the store at `path`, or makes an empty one if there never was one. Its directory must exist.
    ///
    /// # Errors
    /// - `Busy`: another process has it open.
    /// - `Damaged`: it is damaged, foreign, of another version, or missing though one existed. Nothing was changed.
    /// - `Io`: it could not be read or made.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = open::lock(path)?;
        let database = open::database(path, &lock)?;
        Ok(Self {
            path: path.to_owned(),
            held: Mutex::new(Held::Open(database)),
            _lock: lock,
        })
    }

    /// The database, opened again if a full disk had closed it.
    fn held(&self, action: &'static str) -> Result<MutexGuard<'_, Held>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Held::Open(_) => {}
            Held::Full => *held = Held::Open(open::again(&self.path)?),
            Held::Failed(why) => {
                return Err(self.io(
                    action,
                    format!(
                        "an earlier write failed ({why}); see to the disk, then restart the coordinator: it reads what is there"
                    ),
                ));
            }
        }
        Ok(held)
    }

    fn read<T>(
        &self,
        action: &'static str,
        look: impl FnOnce(&ReadTransaction) -> Result<T, ::redb::Error>,
    ) -> Result<T, StoreError> {
        let held = self.held(action)?;
        let Held::Open(database) = &*held else {
            return Err(self.io(action, "it is closed".to_owned()));
        };
        let looked = database
            .begin_read()
            .map_err(::redb::Error::from)
            .and_then(|transaction| look(&transaction));
        looked.map_err(|error| self.io(action, advised(&error)))
    }

    /// One durable transaction. `change` may refuse, which is no failure of the store and changes nothing.
    fn write<T>(
        &self,
        action: &'static str,
        change: impl FnOnce(&WriteTransaction) -> Result<Result<T, StoreError>, ::redb::Error>,
    ) -> Result<T, StoreError> {
        let mut held = self.held(action)?;
        let Held::Open(database) = &*held else {
            return Err(self.io(action, "it is closed".to_owned()));
        };
        match commit(database, change) {
            Ok(answer) => answer,
            Err(error) => {
                let why = advised(&error);
                *held = if is_full(&error) {
                    Held::Full
                } else {
                    Held::Failed(error.to_string())
                };
                Err(self.io(action, why))
            }
        }
    }

    fn io(&self, action: &'static str, why: String) -> StoreError {
        StoreError::Io {
            action,
            path: self.path.clone(),
            why,
        }
    }
}

fn commit<T>(
    database: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<Result<T, StoreError>, ::redb::Error>,
) -> Result<Result<T, StoreError>, ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    let answer = change(&transaction)?;
    if answer.is_ok() {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(answer)
}

/// The error, and for a full disk what to do.
fn advised(error: &::redb::Error) -> String {
    if is_full(error) {
        format!("{error}; free space on its file system: the next write tries again")
    } else {
        error.to_string()
    }
}

fn is_full(error: &::redb::Error) -> bool {
    let ::redb::Error::Io(error) = error else {
        return false;
    };
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn append(
    transaction: &WriteTransaction,
    entries: &[NewEntry],
) -> Result<Result<(), StoreError>, ::redb::Error> {
    let mut lengths = transaction.open_table(LENGTHS)?;
    let mut journal = transaction.open_table(JOURNAL)?;
    for NewEntry { run, index, bytes } in entries {
        let (run, index) = (run.as_str(), *index);
        let has = lengths.get(run)?.map_or(0, |length| length.value());
        if index != has {
            let run = run.to_owned();
            return Ok(Err(StoreError::OutOfTurn { run, index, has }));
        }
        if has == 0 {
            let mut runs = transaction.open_table(RUNS)?;
            let position = runs.len()?;
            runs.insert(position, run)?;
        }
        lengths.insert(run, has + 1)?;
        journal.insert((run, index), bytes.as_slice())?;
    }
    Ok(Ok(()))
}

impl Store for RedbStore {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        self.write("raise the epoch in", |transaction| {
            let mut meta = transaction.open_table(META)?;
            let epoch = meta.get(EPOCH_KEY)?.map_or(0, |epoch| epoch.value()) + 1;
            meta.insert(EPOCH_KEY, epoch)?;
            Ok(Ok(epoch))
        })
    }

    fn raise_epoch(&self, least: u64) -> Result<(), StoreError> {
        self.write("raise the epoch in", |transaction| {
            let mut meta = transaction.open_table(META)?;
            let epoch = meta.get(EPOCH_KEY)?.map_or(0, |epoch| epoch.value());
            meta.insert(EPOCH_KEY, epoch.max(least))?;
            Ok(Ok(()))
        })
    }

    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write("append to the journal in", |transaction| {
            append(transaction, entries)
        })
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read("read the journal in", |transaction| {
            let journal = transaction.open_table(JOURNAL)?;
            let entries = journal.range((run, 0)..=(run, u64::MAX))?;
            entries.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        })
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        self.read("list the runs in", |transaction| {
            let runs = transaction.open_table(RUNS)?;
            runs.iter()?.map(|run| Ok(run?.1.value().to_owned())).collect()
        })
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write("write a value to", |transaction| {
            transaction.open_table(STATE)?.insert(key, value)?;
            Ok(Ok(()))
        })
    }

    fn put_all(&self, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        self.write("write values to", |transaction| {
            let mut state = transaction.open_table(STATE)?;
            for (key, value) in values {
                state.insert(key.as_str(), value.as_slice())?;
            }
            Ok(Ok(()))
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read a value from", |transaction| {
            let state = transaction.open_table(STATE)?;
            Ok(state.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read("read values from", |transaction| {
            let state = transaction.open_table(STATE)?;
            let mut found = Vec::new();
            for entry in state.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }
}
