//! The coordinator's disk, and a store on it that crashes, fails and tears.
//!
//! What is on the [`Disk`] survives whatever happens to a process. A crash is an unwinding at the very write, before or after it
//! is durable: it takes down whatever process made the write, as a kill at that instruction would.

use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blackstart_coordinator::execute::journal::{Entry, Event};
use blackstart_coordinator::store::{NewEntry, Store, StoreError};
use rand::Rng;
use rand::rngs::SmallRng;

/// What a process that was killed unwinds with.
#[derive(Debug)]
pub(super) struct Killed;

/// What survives.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    epoch: u64,
    runs: Vec<(String, Vec<Vec<u8>>)>,
    values: BTreeMap<String, Vec<u8>>,
    /// Command ids whose intent is on this disk.
    intents: BTreeMap<String, u64>,
    /// Entries that a lying disk has promised and does not have.
    promised: VecDeque<(String, Vec<u8>)>,
    /// The world's chances of what goes wrong at a write.
    chances: Chances,
    /// Every write fails, as on a full disk.
    pub(super) full: bool,
    /// It says that a write is durable before it is.
    lies: bool,
}

/// Of a hundred thousand writes of a journal so many go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chances {
    pub(super) crash: u32,
    pub(super) fail: u32,
}

impl Disk {
    pub(super) fn new(chances: Chances, lies: bool) -> Self {
        Self {
            chances,
            lies,
            ..Self::default()
        }
    }

    /// The intent of this command is durable.
    pub(super) fn has_intent(&self, command_id: &str) -> bool {
        self.intents.contains_key(command_id)
    }

    /// How many entries all journals have.
    pub(super) fn entries(&self) -> usize {
        self.runs.iter().map(|(_, entries)| entries.len()).sum()
    }

    /// What was promised and not written is gone.
    pub(super) fn power_lost(&mut self) {
        self.promised.clear();
    }

    fn entries_of(&self, run: &str) -> usize {
        let written = self.runs.iter().find(|(id, _)| id == run);
        let promised = self.promised.iter().filter(|(id, _)| id == run).count();
        written.map_or(0, |(_, entries)| entries.len()) + promised
    }

    fn write(&mut self, run: &str, entry: &[u8]) {
        if let Ok(Entry {
            event: Event::StepStarted { command_id, .. },
            ..
        }) = serde_json::from_slice(entry)
        {
            *self.intents.entry(command_id).or_default() += 1;
        }
        match self.runs.iter_mut().find(|(id, _)| id == run) {
            Some((_, entries)) => entries.push(entry.to_vec()),
            None => self.runs.push((run.to_owned(), vec![entry.to_vec()])),
        }
    }
}

/// A disk as processes share it.
pub(super) type SharedDisk = Arc<Mutex<Disk>>;

/// The store of one process.
#[derive(Debug)]
pub(super) struct StoreDouble {
    disk: SharedDisk,
    chance: Mutex<SmallRng>,
}

impl StoreDouble {
    pub(super) fn new(disk: SharedDisk, chance: SmallRng) -> Self {
        Self {
            disk,
            chance: Mutex::new(chance),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    fn draw(&self, of: u32) -> bool {
        of > 0
            && self
                .chance
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .random_ratio(of.min(100_000), 100_000)
    }

    /// A write that may never come to be, or be the last thing that its process does.
    fn write(&self, action: &'static str, write: impl FnOnce(&mut Disk)) -> Result<(), StoreError> {
        let chances = self.disk().chances;
        if self.disk().full || self.draw(chances.fail) {
            return Err(failed(action, "no space left on the disk"));
        }
        // A torn write is one that is not there: the real store checks what it reads and takes the state before.
        if self.draw(chances.crash) {
            resume_unwind(Box::new(Killed));
        }
        write(&mut self.disk());
        if self.draw(chances.crash) {
            resume_unwind(Box::new(Killed));
        }
        Ok(())
    }
}

/// A disk, whatever happened to the process that had it last.
pub(super) fn lock(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: &'static str, why: &str) -> StoreError {
    StoreError::Io {
        action,
        path: "store".into(),
        why: why.to_owned(),
    }
}

impl Store for StoreDouble {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        self.write("raise the epoch in", |disk| disk.epoch += 1)?;
        Ok(self.disk().epoch)
    }

    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        let mut lengths = BTreeMap::new();
        for NewEntry { run, index, .. } in entries {
            let has = lengths
                .entry(run.as_str())
                .or_insert_with(|| self.disk().entries_of(run) as u64);
            if *has != *index {
                let (run, index, has) = (run.clone(), *index, *has);
                return Err(StoreError::OutOfTurn { run, index, has });
            }
            *has += 1;
        }
        // All of them or none, as one transaction is: a crash in the midst of it is one before it.
        self.write("append to", |disk| {
            for NewEntry { run, bytes, .. } in entries {
                if disk.lies {
                    disk.promised.push_back((run.clone(), bytes.clone()));
                    if disk.promised.len() > 3
                        && let Some((run, entry)) = disk.promised.pop_front()
                    {
                        disk.write(&run, &entry);
                    }
                } else {
                    disk.write(run, bytes);
                }
            }
        })
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let disk = self.disk();
        let found = disk.runs.iter().find(|(id, _)| id == run);
        Ok(found.map(|(_, entries)| entries.clone()).unwrap_or_default())
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.disk().runs.iter().map(|(id, _)| id.clone()).collect())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write("put a value into", |disk| {
            disk.values.insert(key.to_owned(), value.to_vec());
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.disk().values.get(key).cloned())
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let disk = self.disk();
        let found = disk.values.range(prefix.to_owned()..);
        Ok(found
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}
