//! Several coordinators: the store in etcd, written by the one that leads.
//!
//! ```text
//!  PREFIX/length/RUN          entries of a run; the order in which these were made is the order of the runs
//!  PREFIX/journal/RUN/INDEX   an entry, after a byte that says whether it stands here or in parts
//!  PREFIX/part/RUN/INDEX/N    …because etcd takes no request above 1.5 MiB, and a plan may be larger
//!  PREFIX/state/KEY           a value
//!  PREFIX/epoch, schema
//!  PREFIX/leader, turn        see [`leader`](crate::leader)
//! ```
//!
//! Each write is one transaction with two conditions: that we lead (the leader's key is the one we made), and that the turn
//! is where our last write left it. The turn is written as well, so a transaction is carried out at most once, however often it
//! is sent and however late it arrives. One whose answer was lost is therefore sent again, and tells by the turn whether it had
//! been done. One that stays open until the deadline ends the tenure: whoever leads next reads the journal anew.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod layout;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use snapshot::Snapshot;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use self::layout::{IN_PARTS, WHOLE, number, pick_up};
use super::{NewEntry, Store, StoreError};
use crate::config::EtcdSettings;
use crate::etcd::wire::{Compare, KeyValue, RequestOp, TxnRequest};
use crate::etcd::{Etcd, EtcdError, created_at, found, holds, put, read, unsettled, written_at};
use crate::leader::{Keys, Tenure, Won};

/// The form of what is stored; raised by whoever changes it.
const SCHEMA: &[u8] = b"1";
/// An entry that is no larger stands in its own key, bytes.
const INLINE: usize = 64 << 10;
/// One part of a larger one, bytes.
const PART: usize = 1 << 20;
/// Of one transaction: etcd takes 128 operations and 1.5 MiB unless told otherwise.
const BATCH_KEYS: usize = 100;
const BATCH_BYTES: usize = 1 << 20;

/// [`Store`] in etcd, for as long as this coordinator leads.
///
/// Its methods wait: they must be called from a thread that may, and never from a task.
#[derive(Debug)]
pub(crate) struct EtcdStore {
    etcd: Etcd,
    keys: Keys,
    name: String,
    timeout: Duration,
    tenure: Tenure,
    revision: i64,
    turn: Mutex<Turn>,
    runtime: Handle,
}

#[derive(Debug)]
struct Turn {
    /// The revision of our last write.
    at: i64,
    writes: u64,
}

/// What became of a write whose conditions were looked at.
enum Written {
    Done,
    /// We lead, and one of the write's own conditions was not met. What was read for that case.
    Unmet(Vec<Option<KeyValue>>),
}

impl EtcdStore {
    /// The store of the tenure that was won. Waits, as every call does.
    ///
    /// # Errors
    /// etcd does not answer, somebody else leads, or what is there is of another version.
    pub(crate) fn open(
        etcd: Etcd,
        settings: &EtcdSettings,
        won: &Won,
        runtime: Handle,
    ) -> Result<Self, StoreError> {
        let store = Self {
            etcd,
            keys: Keys::new(&settings.prefix),
            name: format!("{} in etcd", settings.prefix),
            timeout: settings.timeout,
            tenure: won.tenure.clone(),
            revision: won.revision,
            turn: Mutex::new(Turn {
                at: won.turn,
                writes: 0,
            }),
            runtime,
        };
        store.check_schema()?;
        Ok(store)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        let key = self.keys.key("schema");
        match self.read_key("read the version of", &key)? {
            None => self
                .write("make", Vec::new(), Vec::new(), vec![put(&key, SCHEMA, 0)])
                .map(drop),
            Some(schema) if schema.value == SCHEMA => Ok(()),
            Some(schema) => Err(StoreError::Damaged {
                path: self.name.clone().into(),
                what: format!(
                    "it is of version {}, and this is version 1",
                    String::from_utf8_lossy(&schema.value)
                ),
                advice: "start the version of blackstart-coordinator that wrote it".to_owned(),
            }),
        }
    }

    fn failed(&self, action: &'static str, error: &EtcdError) -> StoreError {
        let why = match error {
            EtcdError::Refused { why, .. } if why.contains("space exceeded") => {
                format!(
                    "{error}; compact and defragment etcd, then `etcdctl alarm disarm`: the next write tries again"
                )
            }
            EtcdError::Refused { .. } => error.to_string(),
            EtcdError::Silent { .. } => {
                format!("{error}; is a majority of its members up (etcdctl endpoint status)?")
            }
        };
        StoreError::Io {
            action,
            path: self.name.clone().into(),
            why,
        }
    }

    fn not_leading(&self, why: impl Into<String>) -> StoreError {
        let why = why.into();
        self.tenure.end(why.clone());
        StoreError::NotLeading(why)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_key(&self, action: &'static str, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        let read = self.runtime.block_on(self.etcd.get(self.timeout, key));
        read.map_err(|error| self.failed(action, &error))
    }

    fn read_all(&self, action: &'static str, prefix: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        let read = self.runtime.block_on(self.etcd.all(self.timeout, prefix));
        read.map_err(|error| self.failed(action, &error))
    }

    /// One transaction: `ops` if we lead and every one of `only_if` is so; else what `looks` finds.
    fn write(
        &self,
        action: &'static str,
        only_if: Vec<Compare>,
        looks: Vec<RequestOp>,
        ops: Vec<RequestOp>,
    ) -> Result<Written, StoreError> {
        // One write at a time: each stands on the one before.
        let mut turn = self.turn();
        if !self.tenure.holds() {
            return Err(self.not_leading("its lease may have ended"));
        }
        let (leader_key, turn_key) = (self.keys.leader(), self.keys.turn());
        let id = format!("{}-{}", self.revision, turn.writes + 1);
        let ours = [
            created_at(&leader_key, self.revision),
            written_at(&turn_key, turn.at),
        ];
        let txn = TxnRequest {
            compare: ours.into_iter().chain(only_if).collect(),
            success: ops
                .into_iter()
                .chain([put(&turn_key, id.as_bytes(), 0)])
                .collect(),
            failure: [read(&leader_key), read(&turn_key)]
                .into_iter()
                .chain(looks)
                .collect(),
        };
        let answer = match self.runtime.block_on(self.etcd.txn(self.timeout, &txn)) {
            Ok(answer) => answer,
            Err(error) if unsettled(&error) => {
                let failed = self.failed(action, &error);
                return Err(self.not_leading(format!("whether a write was done is not known ({failed})")));
            }
            Err(error) => return Err(self.failed(action, &error)),
        };
        if answer.succeeded {
            turn.at = answer.header.map_or(0, |header| header.revision);
            turn.writes += 1;
            return Ok(Written::Done);
        }
        let mut read = found(answer.responses);
        let (leader, turned) = (read.next().flatten(), read.next().flatten());
        if leader.map(|leader| leader.create_revision) != Some(self.revision) {
            return Err(self.not_leading("another coordinator does, or the lease has ended"));
        }
        match turned {
            Some(turned) if turned.value == id.as_bytes() => {
                // Done by an attempt whose answer was lost.
                turn.at = turned.mod_revision;
                turn.writes += 1;
                Ok(Written::Done)
            }
            Some(turned) if turned.mod_revision == turn.at => Ok(Written::Unmet(read.collect())),
            Some(_) | None => Err(self.not_leading("somebody else wrote to its keys")),
        }
    }

    fn last_epoch(&self) -> Result<u64, StoreError> {
        let epoch = self.read_key("read the epoch of", &self.keys.key("epoch"))?;
        Ok(epoch.and_then(|epoch| number(&epoch.value)).unwrap_or(0))
    }

    fn write_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        let ops = vec![put(&self.keys.key("epoch"), epoch.to_string().as_bytes(), 0)];
        self.write("raise the epoch in", Vec::new(), Vec::new(), ops)
            .map(drop)
    }

    /// So many entries a run has.
    fn length(&self, run: &str) -> Result<u64, StoreError> {
        let length = self.read_key("append to the journal in", &self.keys.length(run))?;
        Ok(length.and_then(|length| number(&length.value)).unwrap_or(0))
    }

    fn append_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let (mut only_if, mut looks, mut ops) = (Vec::new(), Vec::new(), Vec::new());
        for (run, (before, after)) in &batch.runs {
            let length = self.keys.length(run);
            only_if.push(match before {
                0 => created_at(&length, 0),
                _ => holds(&length, before.to_string().as_bytes()),
            });
            looks.push(read(&length));
            ops.push(put(&length, after.to_string().as_bytes(), 0));
        }
        ops.extend(batch.entries.iter().map(|(key, value)| put(key, value, 0)));
        match self.write("append to the journal in", only_if, looks, ops)? {
            Written::Done => Ok(()),
            Written::Unmet(found) => {
                let has = found.iter().map(|length| {
                    length
                        .as_ref()
                        .and_then(|length| number(&length.value))
                        .unwrap_or(0)
                });
                let unmet = batch
                    .runs
                    .iter()
                    .zip(has)
                    .find(|((_, (before, _)), has)| before != has);
                let Some(((run, (index, _)), has)) = unmet else {
                    return Err(self.not_leading("somebody else wrote to its keys"));
                };
                Err(StoreError::OutOfTurn {
                    run: run.clone(),
                    index: *index,
                    has,
                })
            }
        }
    }

    /// The value of an entry's own key; what does not fit there is written in parts before it.
    fn lay_down(&self, run: &str, index: u64, entry: &[u8]) -> Result<Vec<u8>, StoreError> {
        if entry.len() <= INLINE {
            return Ok([&[WHOLE], entry].concat());
        }
        let mut parts = 0_usize;
        for (number, part) in entry.chunks(PART).enumerate() {
            let ops = vec![put(&self.keys.part(run, index, number), part, 0)];
            self.write("append to the journal in", Vec::new(), Vec::new(), ops)?;
            parts = number + 1;
        }
        Ok([&[IN_PARTS], parts.to_string().as_bytes()].concat())
    }

    fn pick_up(&self, run: &str, index: u64, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        pick_up((&self.name, &self.keys), (run, index), value, |key| {
            let found = self.read_key("read the journal in", key)?;
            Ok(found.map(|found| found.value))
        })
    }
}

/// Entries of one transaction.
#[derive(Default)]
struct Batch {
    /// The lengths of its runs: before it, and after it.
    runs: BTreeMap<String, (u64, u64)>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Batch {
    fn keys(&self) -> usize {
        self.runs.len() + self.entries.len()
    }

    /// Runs stand in the order of the transactions that began them, so one begins one at most.
    fn begins_a_run(&self) -> bool {
        self.runs.values().any(|(before, _)| *before == 0)
    }

    fn add(&mut self, entry: &NewEntry, key: Vec<u8>, value: Vec<u8>) {
        let lengths = self
            .runs
            .entry(entry.run.clone())
            .or_insert((entry.index, entry.index));
        lengths.1 = entry.index.wrapping_add(1);
        self.bytes += value.len();
        self.entries.push((key, value));
    }
}

/// Keys by what follows `prefix`, which all have.
fn names(prefix: &[u8], found: Vec<KeyValue>) -> impl Iterator<Item = (String, KeyValue)> {
    let length = prefix.len();
    found.into_iter().map(move |found| {
        let name = String::from_utf8_lossy(&found.key[length..]).into_owned();
        (name, found)
    })
}

impl Store for EtcdStore {
    /// Higher than any before, also than any of an etcd whose epoch was lost: etcd's own count of changes is a part of it.
    fn next_epoch(&self) -> Result<u64, StoreError> {
        let revision = u64::try_from(self.revision).unwrap_or(0);
        let epoch = revision.max(self.last_epoch()? + 1);
        self.write_epoch(epoch)?;
        Ok(epoch)
    }

    fn raise_epoch(&self, least: u64) -> Result<(), StoreError> {
        let epoch = self.last_epoch()?.max(least);
        self.write_epoch(epoch)
    }

    /// In batches that etcd takes; each is one transaction, so what fails in the middle leaves whole entries, the first ones. Entries that are
    /// out of turn are found before anything is written.
    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        let begun = entries.iter().filter(|entry| entry.index == 0).count();
        // One batch tells by its own conditions.
        let at_once = entries.len() <= BATCH_KEYS / 2 && begun <= 1;
        for entry in entries {
            let has = match next.get(entry.run.as_str()) {
                Some(has) => *has,
                None if at_once => entry.index,
                None => self.length(&entry.run)?,
            };
            if entry.index != has {
                return Err(StoreError::OutOfTurn {
                    run: entry.run.clone(),
                    index: entry.index,
                    has,
                });
            }
            next.insert(&entry.run, has.wrapping_add(1));
        }
        let mut batch = Batch::default();
        for entry in entries {
            let value = self.lay_down(&entry.run, entry.index, &entry.bytes)?;
            // An entry may bring a run, which is a key more.
            let second = entry.index == 0 && batch.begins_a_run();
            if second || batch.keys() + 2 > BATCH_KEYS || batch.bytes + value.len() > BATCH_BYTES {
                self.append_batch(&std::mem::take(&mut batch))?;
            }
            batch.add(entry, self.keys.journal(&entry.run, entry.index), value);
        }
        self.append_batch(&batch)
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let prefix = self.keys.journal_of(run);
        let entries = self.read_all("read the journal in", &prefix)?;
        let entries = (0..).zip(entries);
        entries
            .map(|(index, entry)| self.pick_up(run, index, &entry.value))
            .collect()
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        let prefix = self.keys.length("");
        let found = self.read_all("list the runs in", &prefix)?;
        let mut runs: Vec<_> = names(&prefix, found).collect();
        runs.sort_by_key(|(_, length)| length.create_revision);
        Ok(runs.into_iter().map(|(run, _)| run).collect())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let ops = vec![put(&self.keys.state(key), value, 0)];
        self.write("write a value to", Vec::new(), Vec::new(), ops)
            .map(drop)
    }

    /// In batches that etcd takes; each is one transaction.
    fn put_all(&self, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let mut ops = Vec::new();
        let mut bytes = 0;
        for (key, value) in values {
            if !ops.is_empty() && (ops.len() == BATCH_KEYS || bytes + value.len() > BATCH_BYTES) {
                self.write(
                    "write values to",
                    Vec::new(),
                    Vec::new(),
                    std::mem::take(&mut ops),
                )?;
                bytes = 0;
            }
            bytes += value.len();
            // etcd takes no key twice in one transaction.
            let key = self.keys.state(key);
            ops.retain(|op| !writes(op, &key));
            ops.push(put(&key, value, 0));
        }
        if !ops.is_empty() {
            self.write("write values to", Vec::new(), Vec::new(), ops)?;
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.read_key("read a value from", &self.keys.state(key))?;
        Ok(found.map(|found| found.value))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let of_state = self.keys.state("");
        let found = self.read_all("read values from", &self.keys.state(prefix))?;
        Ok(names(&of_state, found)
            .map(|(key, found)| (key, found.value))
            .collect())
    }
}

fn writes(op: &RequestOp, key: &[u8]) -> bool {
    use crate::etcd::wire::request_op::Request;
    matches!(&op.request, Some(Request::RequestPut(put)) if put.key == key)
}
