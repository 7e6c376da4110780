//! The end of the log, in memory: what others may still lack. Pure.

use std::collections::VecDeque;

use super::wire::{Entry, Place};

/// Entries after `base`.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    base: Place,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The first that is not on the disk.
    unsaved: u64,
}

impl Log {
    /// `entries` come right after `base`, one after the other, and are on the disk.
    pub(super) fn new(base: Place, entries: Vec<Entry>) -> Self {
        let bytes = entries.iter().map(Entry::size).sum();
        let mut log = Self {
            base,
            entries: entries.into(),
            bytes,
            unsaved: 0,
        };
        log.unsaved = log.last().index + 1;
        log
    }

    /// Where it ends.
    pub(super) fn last(&self) -> Place {
        self.entries.back().map_or(self.base, |entry| Place {
            index: entry.index,
            term: entry.term,
        })
    }

    fn at(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.base.index + 1)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    /// `None`: it is not here, or not here any more.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.at(index).map(|at| self.entries[at].term)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.at(index).map(|at| &self.entries[at])
    }

    /// From there on, one at least and so many bytes at most.
    pub(super) fn from(&self, index: u64, at_most: usize) -> Vec<Entry> {
        let Some(at) = self.at(index) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let some = self.entries.iter().skip(at).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.size();
            is_first || bytes <= at_most
        });
        some.cloned().collect()
    }

    /// Puts one at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Makes the log after `commit` that of the leader, as far as these say. What fits already stays.
    pub(super) fn accept(&mut self, entries: Vec<Entry>, commit: u64) {
        for entry in entries {
            if entry.index <= commit || self.term(entry.index) == Some(entry.term) {
                continue;
            }
            while self.last().index >= entry.index {
                if let Some(gone) = self.entries.pop_back() {
                    self.bytes -= gone.size();
                }
            }
            self.unsaved = self.unsaved.min(entry.index);
            self.push(entry);
        }
    }

    /// What is not on the disk; it counts as saved from now on.
    pub(super) fn take_unsaved(&mut self) -> Vec<Entry> {
        let unsaved = self.from(self.unsaved, usize::MAX);
        self.unsaved = self.last().index + 1;
        unsaved
    }

    /// Everything up to there is in a database that came from elsewhere.
    pub(super) fn begin_after(&mut self, base: Place) {
        *self = Self::new(base, Vec::new());
    }

    /// Forgets the oldest while it has more than so many bytes, but nothing after `applied`.
    pub(super) fn trim(&mut self, applied: u64, at_most: usize) {
        while self.bytes > at_most
            && let Some(first) = self.entries.front()
            && first.index <= applied
            && first.index < self.unsaved
        {
            self.base = Place {
                index: first.index,
                term: first.term,
            };
            self.bytes -= first.size();
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            kind: Entry::NORMAL,
            term,
            index,
            data: Some(vec![0; 100]),
        }
    }

    #[test]
    fn what_the_leader_says_replaces_what_does_not_fit_and_is_to_be_saved() {
        let mut log = Log::new(
            Place { index: 3, term: 1 },
            vec![entry(4, 1), entry(5, 1), entry(6, 1)],
        );
        log.accept(vec![entry(4, 1), entry(5, 2)], 4);
        assert_eq!(log.last(), Place { index: 5, term: 2 });
        assert_eq!(log.take_unsaved(), [entry(5, 2)]);
        assert_eq!(log.take_unsaved(), []);
        assert_eq!((log.term(3), log.term(2), log.term(6)), (Some(1), None, None));
    }

    #[test]
    fn only_what_was_carried_out_and_saved_is_forgotten() {
        let mut log = Log::new(Place::default(), vec![entry(1, 1), entry(2, 1)]);
        log.push(entry(3, 1));
        log.trim(2, 0);
        assert_eq!((log.term(2), log.term(1)), (Some(1), None));
        log.trim(9, 0);
        assert_eq!(log.get(3), Some(&entry(3, 1)), "it is not on the disk");
        assert_eq!(log.from(3, 1).len(), 1, "one at least");
    }
}
