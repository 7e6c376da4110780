//! What the entries on disk add up to, in memory. Pure.
//!
//! The agent's own records and the coordinator's commands are bounded apart, so that a storm of local remedies never makes
//! the node forget a command it has already obeyed.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Intent, Outcome, Record, Sequence};

/// Records of each kind that are kept, in memory and over a compaction: more than any budget's window asks for.
const KEEP: usize = 4096;

/// One entry on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Entry {
    Intent {
        sequence: Sequence,
        intent: Intent,
        boot: String,
        epoch: u64,
        at_unix_ms: u64,
        boottime_ms: u64,
    },
    Outcome {
        sequence: Sequence,
        outcome: Outcome,
        took_ms: u64,
    },
    Epoch {
        epoch: u64,
    },
    /// The first number that is free: numbers of records that a compaction dropped are not given out again.
    Next {
        sequence: Sequence,
    },
}

#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<Sequence, Record>,
    commands: HashMap<String, Sequence>,
    /// In the order of their ages, for [`KEEP`].
    own: VecDeque<Sequence>,
    commanded: VecDeque<Sequence>,
    highest_epoch: u64,
    last: u64,
}

impl Book {
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Intent {
                sequence,
                intent,
                boot,
                epoch,
                at_unix_ms,
                boottime_ms,
            } => {
                self.last = self.last.max(sequence.0);
                let order = match &intent.command_id {
                    Some(command) => {
                        self.commands.insert(command.clone(), sequence);
                        &mut self.commanded
                    }
                    None => &mut self.own,
                };
                order.push_back(sequence);
                let oldest = if order.len() > KEEP {
                    order.pop_front()
                } else {
                    None
                };
                let record = Record {
                    sequence,
                    intent,
                    outcome: None,
                    boot,
                    epoch,
                    at_unix_ms,
                    took_ms: 0,
                    boottime_ms,
                };
                self.records.insert(sequence, record);
                self.forget(oldest);
            }
            Entry::Outcome {
                sequence,
                outcome,
                took_ms,
            } => {
                if let Some(record) = self.records.get_mut(&sequence) {
                    record.outcome = Some(outcome);
                    record.took_ms = took_ms;
                }
            }
            Entry::Epoch { epoch } => self.highest_epoch = self.highest_epoch.max(epoch),
            Entry::Next { sequence } => self.last = self.last.max(sequence.0.saturating_sub(1)),
        }
    }

    fn forget(&mut self, sequence: Option<Sequence>) {
        let dropped = sequence.and_then(|sequence| self.records.remove(&sequence));
        if let Some(command) = dropped.and_then(|record| record.intent.command_id) {
            self.commands.remove(&command);
        }
    }

    /// The fewest entries that add up to the same.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![
            Entry::Epoch {
                epoch: self.highest_epoch,
            },
            Entry::Next {
                sequence: self.next(),
            },
        ];
        for record in self.records.values().cloned() {
            entries.push(Entry::Intent {
                sequence: record.sequence,
                intent: record.intent,
                boot: record.boot,
                epoch: record.epoch,
                at_unix_ms: record.at_unix_ms,
                boottime_ms: record.boottime_ms,
            });
            if let Some(outcome) = record.outcome {
                entries.push(Entry::Outcome {
                    sequence: record.sequence,
                    outcome,
                    took_ms: record.took_ms,
                });
            }
        }
        entries
    }

    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }

    pub(super) fn record(&self, sequence: Sequence) -> Option<&Record> {
        self.records.get(&sequence)
    }

    pub(super) fn by_command(&self, command: &str) -> Option<&Record> {
        self.records.get(self.commands.get(command)?)
    }

    pub(super) fn highest_epoch(&self) -> u64 {
        self.highest_epoch
    }

    pub(super) fn next(&self) -> Sequence {
        Sequence(self.last.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begun(sequence: u64, command: Option<String>) -> Entry {
        Entry::Intent {
            sequence: Sequence(sequence),
            intent: Intent {
                remedy: "reclaim-log".into(),
                subject: "/var/log/app.log".into(),
                reason: "the disk is filling".into(),
                command_id: command,
                dry_run: false,
            },
            boot: "b".into(),
            epoch: 1,
            at_unix_ms: 1,
            boottime_ms: 1,
        }
    }

    #[test]
    fn a_storm_of_own_remedies_never_drops_a_command() {
        let mut book = Book::default();
        book.apply(begun(1, Some("run/1".into())));
        for sequence in 2..20_000 {
            book.apply(begun(sequence, None));
        }
        assert_eq!(
            book.by_command("run/1").map(|record| record.sequence),
            Some(Sequence(1))
        );
        assert_eq!(book.records().count(), KEEP + 1);
    }

    #[test]
    fn the_oldest_commands_go_when_there_are_too_many() {
        let mut book = Book::default();
        for sequence in 1..=5000 {
            book.apply(begun(sequence, Some(format!("run/{sequence}"))));
        }
        assert!(book.by_command("run/1").is_none());
        assert!(book.by_command("run/5000").is_some());
        assert_eq!(book.commands.len(), KEEP);
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (1_u64..40, proptest::option::of("[a-c]")).prop_map(|(n, command)| begun(n, command)),
            (1_u64..40, 0_u64..9).prop_map(|(n, took_ms)| Entry::Outcome {
                sequence: Sequence(n),
                outcome: Outcome::Succeeded {
                    detail: "done".into()
                },
                took_ms,
            }),
            (0_u64..9).prop_map(|epoch| Entry::Epoch { epoch }),
        ]
    }

    proptest! {
        #[test]
        fn compaction_changes_nothing_that_can_be_asked(entries in proptest::collection::vec(entry(), 0..60)) {
            // Numbers and commands are given out once.
            let mut seen = std::collections::HashSet::new();
            let mut book = Book::default();
            for entry in entries {
                let fresh = match &entry {
                    Entry::Intent { sequence, intent, .. } =>
                        intent.command_id.iter().all(|command| seen.insert(command.clone()))
                            && book.record(*sequence).is_none(),
                    Entry::Outcome { .. } | Entry::Epoch { .. } | Entry::Next { .. } => true,
                };
                if fresh {
                    book.apply(entry);
                }
            }
            let mut again = Book::default();
            for entry in book.entries() {
                again.apply(entry);
            }
            prop_assert!(book.records().eq(again.records()));
            prop_assert_eq!(book.highest_epoch(), again.highest_epoch());
            prop_assert_eq!(book.next(), again.next());
            for command in ["a", "b", "c"] {
                prop_assert_eq!(book.by_command(command), again.by_command(command));
            }
        }
    }
}
