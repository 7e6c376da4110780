//! A store as a [`Snapshot`], and a store made of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ::redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use super::super::StoreError;
use super::super::backup::{RunJournal, Snapshot};
use super::{
    EPOCH_KEY, ID_KEY, IDENTITY, JOURNAL, LENGTHS, META, NewEntry, RUNS, RedbStore, SCHEMA, SCHEMA_KEY,
    STATE, append, open,
};

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The epoch that the store has now; the next start takes the one after it.
    pub epoch: u64,
    /// Where the store that was there is kept.
    pub kept: Option<PathBuf>,
}

impl RedbStore {
    /// Everything that is in it, at one moment. Writers are not held up.
    ///
    /// # Errors
    /// It cannot be read, or its parts contradict each other.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let taken = {
            let held = self.held("copy")?;
            let super::Held::Open(database) = &*held else {
                return Err(self.io("copy", "it is closed".to_owned()));
            };
            database.begin_read().map_err(::redb::Error::from)
        };
        let taken = taken.and_then(|transaction| take(&transaction));
        taken
            .map_err(|error| self.io("copy", error.to_string()))?
            .map_err(|what| StoreError::Damaged {
                path: self.path.clone(),
                what,
                advice: open::RESTORE.to_owned(),
            })
    }

    /// The highest epoch that it gave away.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn epoch(&self) -> Result<u64, StoreError> {
        self.read("read the epoch of", |transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(EPOCH_KEY)?.map_or(0, |epoch| epoch.value()))
        })
    }

    /// Raises the epoch to `at_least`, if it is below that. Returns what it is now: durable.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn raise_epoch(&self, at_least: u64) -> Result<u64, StoreError> {
        self.write("raise the epoch in", |transaction| {
            let mut meta = transaction.open_table(META)?;
            let epoch = meta.get(EPOCH_KEY)?.map_or(0, |epoch| epoch.value());
            let epoch = epoch.max(at_least);
            meta.insert(EPOCH_KEY, epoch)?;
            Ok(Ok(epoch))
        })
    }
}

fn take(transaction: &ReadTransaction) -> Result<Result<Snapshot, String>, ::redb::Error> {
    let meta = transaction.open_table(META)?;
    let number = |key| meta.get(key).map(|value| value.map_or(0, |value| value.value()));
    let identity = transaction.open_table(IDENTITY)?;
    let id = identity
        .get(ID_KEY)?
        .map_or_else(String::new, |id| id.value().to_owned());
    let lengths = transaction.open_table(LENGTHS)?;
    let journal = transaction.open_table(JOURNAL)?;
    let mut runs = Vec::new();
    let mut entries_in_all = 0;
    for run in transaction.open_table(RUNS)?.iter()? {
        let id = run?.1.value().to_owned();
        let mut entries = Vec::new();
        for entry in journal.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))? {
            entries.push(entry?.1.value().into());
        }
        let says = lengths.get(id.as_str())?.map_or(0, |length| length.value());
        if says != entries.len() as u64 {
            let has = entries.len();
            return Ok(Err(format!(
                "run {id} has {has} entries, and says that it has {says}"
            )));
        }
        entries_in_all += says;
        runs.push(RunJournal { id, entries });
    }
    let has = ::redb::ReadableTableMetadata::len(&journal)?;
    if has != entries_in_all {
        return Ok(Err(format!(
            "the journals have {has} entries, and those of the runs that it knows {entries_in_all}"
        )));
    }
    let mut values = Vec::new();
    for entry in transaction.open_table(STATE)?.iter()? {
        let (key, value) = entry?;
        values.push((key.value().to_owned(), value.value().into()));
    }
    Ok(Ok(Snapshot {
        schema: number(SCHEMA_KEY)?,
        id,
        epoch: number(EPOCH_KEY)?,
        runs,
        values,
    }))
}

/// Puts a store with the contents of a snapshot at `path`, with an epoch of at least `epoch`, the snapshot's and that of the store
/// that was there if it can still be told. That one is kept beside it. A crash leaves one or the other.
///
/// # Errors
/// - `Busy`: a coordinator has it open.
/// - `Damaged`: there is one, and `replace` was not said; or the snapshot is of another schema.
/// - `Io`: it could not be made. What was there is still there.
pub fn restore(path: &Path, snapshot: &Snapshot, epoch: u64, replace: bool) -> Result<Restored, StoreError> {
    let lock = open::lock(path)?;
    let refused = |what: String, advice: &str| StoreError::Damaged {
        path: path.to_owned(),
        what,
        advice: advice.to_owned(),
    };
    if snapshot.schema != SCHEMA {
        let what = format!(
            "the backup has schema {}, and this version writes {SCHEMA}",
            snapshot.schema
        );
        return Err(refused(
            what,
            "restore with the version of blackstart-coordinator that made it",
        ));
    }
    let failed = |action, error: io::Error| open::io_error(action, path, &error);
    let exists = path.try_exists().map_err(|error| failed("look for", error))?;
    if exists && !replace {
        return Err(refused(
            "there is one already, and a restore would replace it".to_owned(),
            "if that is meant, say --force: the one that is there is kept beside it",
        ));
    }
    let there = if exists { open::epoch(path) } else { None };
    let epoch = epoch.max(snapshot.epoch).max(there.unwrap_or(0));
    let aside = path.with_extension("new");
    open::make(&aside, &snapshot.id, |transaction| {
        fill(transaction, snapshot, epoch)
    })
    .map_err(|error| {
        // Only a leftover, which the next attempt replaces.
        let _ = fs::remove_file(&aside);
        open::failed("make", path, &error)
    })?;
    let mut kept = None;
    if exists {
        kept = Some(keep(path).map_err(|error| failed("keep a copy of", error))?);
        // Whichever of the two is there after a crash is taken for the right one.
        open::note_id(&lock, "").map_err(|error| failed("write the id of", error))?;
    }
    fs::rename(&aside, path)
        .and_then(|()| super::super::backup::sync_directory(path))
        .map_err(|error| failed("put in place", error))?;
    open::note_id(&lock, &snapshot.id).map_err(|error| failed("write the id of", error))?;
    Ok(Restored { epoch, kept })
}

/// A second name for the file, which the first one's replacement does not touch.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let kept = path.with_extension(format!("redb.kept-{number}"));
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn fill(transaction: &WriteTransaction, snapshot: &Snapshot, epoch: u64) -> Result<(), ::redb::Error> {
    transaction.open_table(META)?.insert(EPOCH_KEY, epoch)?;
    for run in &snapshot.runs {
        let entries: Vec<_> = (0..)
            .zip(&run.entries)
            .map(|(index, entry)| NewEntry {
                run: run.id.clone(),
                index,
                bytes: entry.as_slice().to_vec(),
            })
            .collect();
        append(transaction, &entries)?.map_err(|why| ::redb::Error::Io(io::Error::other(why)))?;
    }
    let mut state = transaction.open_table(STATE)?;
    for (key, value) in &snapshot.values {
        state.insert(key.as_str(), value.as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
