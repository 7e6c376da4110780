//! Which of the ledger's records the coordinator knows.
//!
//! A record is told when it is new and once more when it has ended; and again with each report until one that carried it is
//! acknowledged.

use std::collections::{BTreeSet, VecDeque};

use crate::ledger::{Ledger, Record, Sequence};

/// Told in one report at most.
const BATCH: usize = 32;
/// Of the records of the time before the agent's start, the newest so many are told: a fleet that comes back at once must not
/// send its whole history.
const HISTORY: usize = 256;
/// Reports on their way that are remembered. Acknowledgements of older ones come too late to be of use.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct Told {
    /// Every record up to here is known…
    until: Sequence,
    /// …but of these the coordinator does not know the end.
    unfinished: BTreeSet<Sequence>,
    /// Reports without acknowledgement: their numbers, and which records they carried, ended or not.
    in_flight: VecDeque<(u64, Vec<(Sequence, bool)>)>,
}

impl Told {
    /// As an agent starts: nothing is told yet.
    pub(super) fn new(ledger: &Ledger) -> Self {
        let older = ledger.records().rev().nth(HISTORY);
        Self {
            until: older.map_or(Sequence(0), |record| record.sequence),
            unfinished: BTreeSet::new(),
            in_flight: VecDeque::new(),
        }
    }

    /// What the next report has to carry, oldest first.
    pub(super) fn news(&self, ledger: &Ledger) -> Vec<Record> {
        let ended = self
            .unfinished
            .iter()
            .filter_map(|sequence| ledger.record(*sequence))
            .filter(|record| record.outcome.is_some());
        let mut new: Vec<&Record> = ledger
            .records()
            .rev()
            .take_while(|record| record.sequence > self.until)
            .collect();
        new.reverse();
        ended.chain(new).take(BATCH).cloned().collect()
    }

    /// Report `number` carried these.
    pub(super) fn sent(&mut self, number: u64, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        if self.in_flight.len() == IN_FLIGHT {
            self.in_flight.pop_front();
        }
        let carried = records
            .iter()
            .map(|record| (record.sequence, record.outcome.is_some()))
            .collect();
        self.in_flight.push_back((number, carried));
    }

    /// The coordinator has taken in report `number`, and with it all before it.
    pub(super) fn acknowledged(&mut self, number: u64) {
        while let Some((sent, carried)) = self.in_flight.front()
            && *sent <= number
        {
            for (sequence, ended) in carried {
                self.until = self.until.max(*sequence);
                if *ended {
                    self.unfinished.remove(sequence);
                } else {
                    self.unfinished.insert(*sequence);
                }
            }
            self.in_flight.pop_front();
        }
    }

    /// What was on its way in the last session may be lost. Records that the ledger has dropped never end.
    pub(super) fn new_session(&mut self, ledger: &Ledger) {
        self.in_flight.clear();
        self.unfinished
            .retain(|sequence| ledger.record(*sequence).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Intent, Outcome};

    fn begin(ledger: &mut Ledger) -> Sequence {
        let intent = Intent {
            remedy: "restart-unit".into(),
            subject: "kubelet.service".into(),
            reason: "it failed".into(),
            command_id: None,
            dry_run: false,
        };
        ledger.intent(intent).unwrap()
    }

    fn end(ledger: &mut Ledger, sequence: Sequence) {
        let detail = "running".into();
        ledger.outcome(sequence, Outcome::Succeeded { detail }).unwrap();
    }

    fn open(dir: &tempfile::TempDir) -> Ledger {
        Ledger::open(&dir.path().join("ledger"), "b").unwrap().0
    }

    fn numbers(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.sequence.0).collect()
    }

    #[test]
    fn a_record_is_told_until_acknowledged_and_again_when_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(&dir);
        let mut told = Told::new(&ledger);
        let first = begin(&mut ledger);
        for number in 1..=2 {
            let news = told.news(&ledger);
            assert_eq!(numbers(&news), [first.0]);
            told.sent(number, &news);
        }
        // It ends after it was sent and before that is acknowledged.
        end(&mut ledger, first);
        told.acknowledged(2);
        let news = told.news(&ledger);
        assert_eq!(numbers(&news), [first.0]);
        assert!(news[0].outcome.is_some());
        told.sent(3, &news);
        told.acknowledged(3);
        assert_eq!(told.news(&ledger), []);
    }

    #[test]
    fn what_was_on_its_way_when_the_session_broke_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(&dir);
        let mut told = Told::new(&ledger);
        let first = begin(&mut ledger);
        let news = told.news(&ledger);
        told.sent(1, &news);
        told.new_session(&ledger);
        told.acknowledged(1);
        assert_eq!(numbers(&told.news(&ledger)), [first.0]);
    }

    #[test]
    fn many_are_told_in_batches_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(&dir);
        let mut told = Told::new(&ledger);
        let mut written = Vec::new();
        for _ in 0..BATCH + 5 {
            let sequence = begin(&mut ledger);
            end(&mut ledger, sequence);
            written.push(sequence.0);
        }
        let first = told.news(&ledger);
        told.sent(1, &first);
        told.acknowledged(1);
        let second = told.news(&ledger);
        assert_eq!((first.len(), second.len()), (BATCH, 5));
        assert_eq!([numbers(&first), numbers(&second)].concat(), written);
    }
}
