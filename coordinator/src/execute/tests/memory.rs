//! A store in memory that dies, or is full, on demand.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::store::{NewEntry, Store, StoreError};

/// What goes wrong with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The process dies with it, and it is lost.
    DiesBefore,
    /// The process dies when half of its entries are on their way; a transaction is whole or not there.
    DiesWithin,
    /// The process dies once it is durable: nobody learns of it.
    DiesAfter,
    /// It is refused; the next one is not.
    Refused,
    /// It is refused, and so are some more: the disk is full for a while.
    DiskFull,
}

impl Wrong {
    pub(crate) const ALL: [Self; 5] = [
        Self::DiesBefore,
        Self::DiesWithin,
        Self::DiesAfter,
        Self::Refused,
        Self::DiskFull,
    ];
}

/// Which write of a process goes wrong, counted from 0, and how.
pub(crate) type Fault = (usize, Wrong);

/// So many writes a disk that is full refuses.
const FULL_FOR: usize = 4;

/// A store in memory. Once it is dead nothing can be done with it.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    data: Mutex<Data>,
    fault: Option<Fault>,
    dead: AtomicBool,
    /// So many writes were tried.
    tried: AtomicUsize,
    /// The most entries that were written at once.
    largest: AtomicUsize,
    /// Every append fails while this is set.
    pub(crate) full: AtomicBool,
}

#[derive(Debug, Default, Clone)]
struct Data {
    epoch: u64,
    runs: Vec<(String, Vec<Vec<u8>>)>,
    values: BTreeMap<String, Vec<u8>>,
}

impl Data {
    fn append(&mut self, entry: &NewEntry) -> Result<(), StoreError> {
        let at = self.runs.iter().position(|(id, _)| *id == entry.run);
        let has = at.map_or(0, |at| self.runs[at].1.len()) as u64;
        if has != entry.index {
            let (run, index) = (entry.run.clone(), entry.index);
            return Err(StoreError::OutOfTurn { run, index, has });
        }
        let at = at.unwrap_or_else(|| {
            self.runs.push((entry.run.clone(), Vec::new()));
            self.runs.len() - 1
        });
        self.runs[at].1.push(entry.bytes.clone());
        Ok(())
    }
}

impl MemoryStore {
    pub(crate) fn with(fault: Option<Fault>) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// What the next process finds.
    pub(crate) fn left_behind(&self, fault: Option<Fault>) -> Self {
        Self {
            data: Mutex::new(self.data.lock().unwrap().clone()),
            ..Self::with(fault)
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// So many writes were tried, epochs and entries.
    pub(crate) fn writes(&self) -> usize {
        self.tried.load(Ordering::SeqCst)
    }

    /// The most entries that were written at once.
    pub(crate) fn largest(&self) -> usize {
        self.largest.load(Ordering::SeqCst)
    }

    /// What is written of a command is durable, whatever became of the process.
    pub(crate) fn has_intent(&self, command_id: &str) -> bool {
        let data = self.data.lock().unwrap();
        let intent = format!("\"command_id\":\"{command_id}\"");
        let mut entries = data.runs.iter().flat_map(|(_, journal)| journal);
        entries.any(|entry| String::from_utf8_lossy(entry).contains(&intent))
    }

    /// One transaction of so many changes, which may go wrong.
    fn write<T>(
        &self,
        changes: usize,
        mut change: impl FnMut(&mut Data, usize) -> Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        self.alive()?;
        let number = self.tried.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(changes, Ordering::SeqCst);
        let lasts = |wrong| if wrong == Wrong::DiskFull { FULL_FOR } else { 1 };
        let wrong = self
            .fault
            .filter(|(at, wrong)| (*at..at + lasts(*wrong)).contains(&number))
            .map(|(_, wrong)| wrong);
        let die = || {
            self.dead.store(true, Ordering::SeqCst);
            Err(gone("it died"))
        };
        match wrong {
            Some(Wrong::Refused | Wrong::DiskFull) => return Err(gone("no space left")),
            Some(Wrong::DiesBefore) => return die(),
            Some(Wrong::DiesWithin | Wrong::DiesAfter) | None => {}
        }
        let mut data = self.data.lock().unwrap();
        let mut aside = data.clone();
        for at in 0..changes {
            if wrong == Some(Wrong::DiesWithin) && at == changes / 2 {
                return die();
            }
            change(&mut aside, at)?;
        }
        *data = aside;
        if wrong == Some(Wrong::DiesAfter) {
            return die();
        }
        Ok(())
    }

    /// The names of the events of a run, as its journal has them.
    pub(crate) fn journal_text(&self, run: &str) -> String {
        let journal = self.journal(run).unwrap();
        journal
            .iter()
            .map(|entry| String::from_utf8_lossy(entry) + "\n")
            .collect()
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.is_dead() {
            Err(gone("this process is dead"))
        } else {
            Ok(())
        }
    }
}

fn gone(why: &str) -> StoreError {
    StoreError::Io {
        action: "use",
        path: "memory".into(),
        why: why.to_owned(),
    }
}

impl Store for MemoryStore {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        self.write(1, |data, _| {
            data.epoch += 1;
            Ok(())
        })?;
        Ok(self.data.lock().unwrap().epoch)
    }

    fn append_all(&self, entries: &[NewEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return self.alive();
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(gone("no space left"));
        }
        self.write(entries.len(), |data, at| data.append(&entries[at]))
    }

    fn journal(&self, run: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        self.alive()?;
        let data = self.data.lock().unwrap();
        let journal = data.runs.iter().find(|(id, _)| id == run);
        Ok(journal.map(|(_, journal)| journal.clone()).unwrap_or_default())
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        self.alive()?;
        Ok(self
            .data
            .lock()
            .unwrap()
            .runs
            .iter()
            .map(|(id, _)| id.clone())
            .collect())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(1, |data, _| {
            data.values.insert(key.to_owned(), value.to_vec());
            Ok(())
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?;
        Ok(self.data.lock().unwrap().values.get(key).cloned())
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.alive()?;
        let data = self.data.lock().unwrap();
        let found = data.values.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
