//! The journal and the coordinator's durable state, behind one small trait.
//!
//! What each method guarantees once it has returned is the contract; the same conformance suite runs against every
//! implementation.

pub mod backup;
#[cfg(test)]
pub(crate) mod conformance;
pub mod copy;
pub(crate) mod etcd;
pub mod redb;
pub(crate) mod witnessed;

use std::path::PathBuf;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged, or not a store; it was left untouched.
    #[error("store {} cannot be used: {what}; {advice}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Another coordinator has it open.
    #[error("store {} is in use by another process; one coordinator at a time", .0.display())]
    Busy(PathBuf),
    /// Reading or writing failed; nothing of the failed write is kept.
    #[error("{action} store {}: {why}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        why: String,
    },
    /// An entry out of turn: another process has written to this run. Nothing was changed.
    #[error("entry {index} of run {run} was offered, and it has {has}: somebody else writes this run")]
    OutOfTurn {
        /// Which run.
        run: String,
        /// The entry that was offered.
        index: u64,
        /// So many it has.
        has: u64,
    },
    /// This coordinator does not lead any more. What was to be written is not, or another coordinator finds it there.
    #[error("this coordinator does not lead any more: {0}")]
    NotLeading(String),
}

/// An entry that is to be appended to a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Of which run.
    pub run: String,
    /// Its place in the journal of the run, counted from 0.
    pub index: u64,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Durable state. Values are opaque bytes: their form is their owner's (`execute` for runs, `fleet` for nodes).
pub trait Store: Send + Sync + 'static {
    /// Raises the epoch by one and returns it: durable, and higher than any that this store returned before.
    fn next_epoch(&self) -> Result<u64, StoreError>;

    /// Every later epoch is higher than `least`. Durable once this has returned.
    fn raise_epoch(&self, least: u64) -> Result<(), StoreError> {
        while self.next_epoch()? < least {}
        Ok(())
    }

    /// Appends entries to the journals of their runs, in their order, all of them or none: a wave of hundreds of steps costs
    /// one wait for the disk. Once this has returned they survive any crash. Each `index` must be the number of entries that
    /// its run has by then; another is refused (`OutOfTurn`), so two writers cannot interleave. No entries: nothing is done.
    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError>;

    /// Appends one entry, as [`Store::append_all`] does.
    fn append(&self, run: &str, index: u64, entry: &[u8]) -> Result<(), StoreError> {
        self.append_all(&[NewEntry {
            run: run.to_owned(),
            index,
            bytes: entry.to_vec(),
        }])
    }

    /// The journal of one run, in order.
    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError>;

    /// The ids of all runs, in the order in which their first entries were written.
    fn runs(&self) -> Result<Vec<String>, StoreError>;

    /// Sets a value of durable state, replacing the one before it. Durable once this has returned.
    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Sets some values, as [`Store::put`] does each: after a power event every node has a new one at once. Durable once
    /// this has returned; what of it is kept when it fails is open.
    fn put_all(&self, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        values.iter().try_for_each(|(key, value)| self.put(key, value))
    }

    /// Reads a value of durable state.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All values whose key begins with `prefix`, by key.
    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}
