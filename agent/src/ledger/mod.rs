//! The append-only record on disk of every intent and its outcome.
//!
//! An intent is durable before its act begins, so budgets survive crashes and reboots, and a command of the coordinator is
//! done at most once. The ledger also keeps the highest epoch obeyed.
//!
//! ```text
//! intent / outcome / epoch ──► file: appended, durable ──► book: what it adds up to ──► decide, link, `ledger show`
//! ```

mod book;
mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::warn;

use book::{Book, Entry};
use file::{LedgerFile, Payload};

/// The file is written anew when it has grown past this, bytes, and to twice what the last time left.
const COMPACT_ABOVE: u64 = 8 << 20;
/// Longer texts of evidence are cut to this, bytes.
const MAX_TEXT: usize = 1024;

/// Number of an intent: unique on this node, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// What is about to be done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// [`crate::remedy::Remedy::name`].
    pub remedy: String,
    /// [`crate::remedy::Remedy::subject`].
    pub subject: String,
    /// The evidence.
    pub reason: String,
    /// The coordinator's command it answers; `None` for the agent's own decisions.
    pub command_id: Option<String>,
    /// Nothing will be changed.
    pub dry_run: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done and verified.
    Succeeded {
        /// What came of it.
        detail: String,
    },
    /// Not done, or not verified.
    Failed {
        /// Why.
        detail: String,
    },
}

/// An intent with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its number.
    pub sequence: Sequence,
    /// What and why.
    pub intent: Intent,
    /// `None` while it runs, and for ever if the agent died meanwhile.
    pub outcome: Option<Outcome>,
    /// Which boot it was written in: what [`Ledger::open`] was told.
    pub boot: String,
    /// The highest epoch obeyed when it was written.
    pub epoch: u64,
    /// Wall clock at the intent, milliseconds since the Unix epoch; for people.
    pub at_unix_ms: u64,
    /// How long it took, milliseconds; 0 while it runs.
    pub took_ms: u64,
    /// `CLOCK_BOOTTIME` at the intent, milliseconds: durations within one boot.
    pub boottime_ms: u64,
}

impl Record {
    /// How long ago the intent was written: by `CLOCK_BOOTTIME` within a boot, across boots by the wall clock, which may
    /// lie; never negative.
    pub fn age(&self, now: &Now) -> Duration {
        let elapsed = if self.boot == now.boot {
            now.boottime_ms.saturating_sub(self.boottime_ms)
        } else {
            now.unix_ms.saturating_sub(self.at_unix_ms)
        };
        Duration::from_millis(elapsed)
    }
}

/// The clocks that a [`Record`]'s age is told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// This boot.
    pub boot: String,
    /// `CLOCK_BOOTTIME`, milliseconds.
    pub boottime_ms: u64,
    /// Wall clock, milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// The clocks as they stand.
    pub fn read(boot: &str) -> Self {
        let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            boot: boot.to_owned(),
            boottime_ms: millis(boottime),
            unix_ms: millis(unix),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What opening found and mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// A new ledger was made.
    Created,
    /// All records were whole.
    Whole,
    /// The last record was torn and was cut off.
    TornTail {
        /// Bytes cut off.
        bytes: u64,
        /// Where they are now; `None` when the disk was too full to keep them.
        kept_in: Option<PathBuf>,
    },
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be opened, read or written.
    #[error("{action} ledger {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Damaged before its last record, or not a ledger at all; it was left untouched.
    #[error("ledger {} is damaged at byte {offset}: {what}; {advice}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Another agent has it open.
    #[error("ledger {} is in use by another agent on this node", .0.display())]
    Busy(PathBuf),
    /// This command was begun before, and is done at most once.
    #[error("command {command_id} was begun before, as number {}", sequence.0)]
    Repeated {
        /// The command.
        command_id: String,
        /// Where its record is.
        sequence: Sequence,
    },
}

/// The ledger as the agent's parts share it. The lock is never held over an await.
#[derive(Debug, Clone)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// Shares an open ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// The ledger, unless somebody has it, who may be waiting for a disk that hangs.
    pub fn glance(&self) -> Option<MutexGuard<'_, Ledger>> {
        match self.0.try_lock() {
            Ok(ledger) => Some(ledger),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The ledger, for a short while. Waits for writes to the disk: for a thread that may block.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open ledger. One process writes it at a time (an exclusive `flock`).
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: LedgerFile,
    book: Book,
    boot: String,
    /// Length at which it is written anew.
    compact_at: u64,
}

/// What a ledger says, read without its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// The highest epoch obeyed.
    pub highest_epoch: u64,
    /// Oldest first.
    pub records: Vec<Record>,
}

impl Ledger {
    /// Opens the ledger, or makes a new one where there is none. `boot` names this boot (its nonce): ages within it are
    /// monotonic.
    ///
    /// # Errors
    /// It cannot be read or written, is damaged before its last record, or another agent has it.
    pub fn open(path: &Path, boot: &str) -> Result<(Self, Recovery), LedgerError> {
        let (file, payloads, recovery) = LedgerFile::open(path)?;
        let replayed = replay(path, payloads)?;
        let ledger = Self {
            path: path.to_owned(),
            compact_at: COMPACT_ABOVE.max(file.len().saturating_mul(2)),
            file,
            book: replayed,
            boot: boot.to_owned(),
        };
        Ok((ledger, recovery))
    }

    /// What a ledger says that may be in use: reads it without the lock and mends nothing. A torn end is passed over.
    ///
    /// # Errors
    /// It cannot be read, or is damaged before its last record.
    pub fn read(path: &Path) -> Result<Contents, LedgerError> {
        contents(path, file::read(path)?)
    }

    /// What the bytes of a ledger say, as [`Ledger::read`] does of a file at `path`.
    ///
    /// # Errors
    /// It is damaged before its last record.
    pub fn understand(path: &Path, bytes: &[u8]) -> Result<Contents, LedgerError> {
        contents(path, file::understand(path, bytes)?)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what is about to be done. Durable once it has returned.
    ///
    /// # Errors
    /// It could not be made durable, or is a command that was begun before: then it must not be done.
    pub fn intent(&mut self, mut intent: Intent) -> Result<Sequence, LedgerError> {
        if let Some(command_id) = &intent.command_id
            && let Some(record) = self.book.by_command(command_id)
        {
            return Err(LedgerError::Repeated {
                command_id: command_id.clone(),
                sequence: record.sequence,
            });
        }
        cut(&mut intent.reason);
        let now = self.now();
        let sequence = self.book.next();
        self.append(Entry::Intent {
            sequence,
            intent,
            boot: now.boot,
            epoch: self.book.highest_epoch(),
            at_unix_ms: now.unix_ms,
            boottime_ms: now.boottime_ms,
        })?;
        Ok(sequence)
    }

    /// Writes down how it ended. Durable once it has returned.
    ///
    /// # Errors
    /// It could not be made durable.
    pub fn outcome(&mut self, sequence: Sequence, mut outcome: Outcome) -> Result<(), LedgerError> {
        let (Outcome::Succeeded { detail } | Outcome::Failed { detail }) = &mut outcome;
        cut(detail);
        let now = self.now();
        // An outcome may be of an intent of an earlier boot: found unfinished, and looked into.
        let took = self
            .record(sequence)
            .map_or(Duration::ZERO, |record| record.age(&now));
        self.append(Entry::Outcome {
            sequence,
            outcome,
            took_ms: millis(took),
        })
    }

    /// Obeys an epoch from now on. Durable once it has returned; a lower one than before changes nothing.
    ///
    /// # Errors
    /// It could not be made durable.
    pub fn obey_epoch(&mut self, epoch: u64) -> Result<(), LedgerError> {
        if epoch <= self.book.highest_epoch() {
            return Ok(());
        }
        self.append(Entry::Epoch { epoch })
    }

    /// The highest epoch obeyed.
    pub fn highest_epoch(&self) -> u64 {
        self.book.highest_epoch()
    }

    /// The newest 4,096 records of the agent's own and as many of the coordinator's commands, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.book.records()
    }

    /// One record.
    pub fn record(&self, sequence: Sequence) -> Option<&Record> {
        self.book.record(sequence)
    }

    /// The record of a command of the coordinator, if it was begun here.
    pub fn by_command(&self, command_id: &str) -> Option<&Record> {
        self.book.by_command(command_id)
    }

    /// The clocks as they stand, for [`Record::age`].
    pub fn now(&self) -> Now {
        Now::read(&self.boot)
    }

    fn append(&mut self, entry: Entry) -> Result<(), LedgerError> {
        let payload = encode(&self.path, &entry)?;
        if self.file.len() > self.compact_at {
            self.compact();
        }
        self.file.append(&payload)?;
        self.book.apply(entry);
        Ok(())
    }

    /// Writes the file anew, without what is no longer kept. That it cannot (a full disk) is no reason to stop: the old
    /// file stands.
    fn compact(&mut self) {
        let encoded: Result<Vec<_>, _> = self
            .book
            .entries()
            .iter()
            .map(|entry| encode(&self.path, entry))
            .collect();
        let before = self.file.len();
        if let Err(error) = encoded.and_then(|payloads| self.file.rewrite(&payloads)) {
            warn!(ledger = %self.path.display(), %error, "ledger could not be compacted");
        }
        self.compact_at = if self.file.len() < before {
            COMPACT_ABOVE.max(self.file.len().saturating_mul(2))
        } else {
            before.saturating_add(COMPACT_ABOVE / 8)
        };
    }
}

/// Cuts a text that is too long, between characters.
fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
}

fn encode(path: &Path, entry: &Entry) -> Result<Vec<u8>, LedgerError> {
    serde_json::to_vec(entry).map_err(|error| file::failed("encode a record for", path)(error.into()))
}

fn contents(path: &Path, payloads: Vec<file::Payload>) -> Result<Contents, LedgerError> {
    let book = replay(path, payloads)?;
    Ok(Contents {
        highest_epoch: book.highest_epoch(),
        records: book.records().cloned().collect(),
    })
}

fn replay(path: &Path, payloads: Vec<Payload>) -> Result<Book, LedgerError> {
    let mut book = Book::default();
    for (offset, payload) in payloads {
        let entry = serde_json::from_slice(&payload).map_err(|error| LedgerError::Damaged {
            path: path.to_owned(),
            offset,
            what: format!("a whole record that this version cannot read ({error})"),
            advice: file::ADVICE.to_owned(),
        })?;
        book.apply(entry);
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(subject: &str, command: Option<&str>) -> Intent {
        Intent {
            remedy: "restart-unit".into(),
            subject: subject.into(),
            reason: "it failed".into(),
            command_id: command.map(str::to_owned),
            dry_run: false,
        }
    }

    fn done() -> Outcome {
        Outcome::Succeeded {
            detail: "running".into(),
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, recovery) = Ledger::open(&path, "boot-1").unwrap();
        assert_eq!(recovery, Recovery::Created);
        let first = ledger.intent(intent("kubelet.service", Some("run/1"))).unwrap();
        ledger.outcome(first, done()).unwrap();
        ledger.obey_epoch(7).unwrap();
        ledger.obey_epoch(3).unwrap();
        let second = ledger.intent(intent("docker.service", None)).unwrap();
        drop(ledger);

        let (ledger, recovery) = Ledger::open(&path, "boot-2").unwrap();
        assert_eq!(recovery, Recovery::Whole);
        assert_eq!(ledger.highest_epoch(), 7);
        assert_eq!(ledger.by_command("run/1").unwrap().outcome, Some(done()));
        assert_eq!(ledger.record(second).unwrap().outcome, None);
        assert!(second > first);
        let read = Ledger::read(&path).unwrap();
        assert_eq!((read.highest_epoch, read.records.len()), (7, 2));
    }

    #[test]
    fn a_command_is_begun_at_most_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, _) = Ledger::open(&path, "b").unwrap();
        let first = ledger.intent(intent("u", Some("run/1"))).unwrap();
        drop(ledger);
        let (mut ledger, _) = Ledger::open(&path, "b").unwrap();
        let error = ledger.intent(intent("u", Some("run/1"))).unwrap_err();
        assert!(
            matches!(error, LedgerError::Repeated { sequence, .. } if sequence == first),
            "{error}"
        );
        ledger.intent(intent("u", Some("run/2"))).unwrap();
    }

    #[test]
    fn a_second_agent_is_refused_and_may_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut first, _) = Ledger::open(&path, "b").unwrap();
        first.intent(intent("u", None)).unwrap();
        assert!(matches!(Ledger::open(&path, "b"), Err(LedgerError::Busy(_))));
        assert_eq!(Ledger::read(&path).unwrap().records.len(), 1);
    }

    #[test]
    fn age_is_by_boottime_within_a_boot_and_never_negative_across() {
        let record = |boot: &str| Record {
            sequence: Sequence(1),
            intent: intent("u", None),
            outcome: None,
            boot: boot.into(),
            epoch: 0,
            at_unix_ms: 1_000_000,
            took_ms: 0,
            boottime_ms: 5_000,
        };
        let now = |unix_ms| Now {
            boot: "b".into(),
            boottime_ms: 8_000,
            unix_ms,
        };
        assert_eq!(record("b").age(&now(400)), Duration::from_secs(3));
        assert_eq!(record("a").age(&now(400)), Duration::ZERO);
        assert_eq!(record("a").age(&now(1_004_000)), Duration::from_secs(4));
    }

    #[test]
    fn compaction_bounds_the_file_and_keeps_commands_and_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, _) = Ledger::open(&path, "b").unwrap();
        // Two megabytes are enough to see it.
        ledger.compact_at = 2 << 20;
        ledger.obey_epoch(9).unwrap();
        ledger.intent(intent("kubelet.service", Some("run/1"))).unwrap();
        let mut long = intent("/var/log/app.log", None);
        long.reason = "é".repeat(4000);
        let mut last = Sequence(0);
        for _ in 0..6000 {
            // Not durable each for itself: this test is about size.
            let sequence = ledger.book.next();
            let entry = Entry::Intent {
                sequence,
                intent: long.clone(),
                boot: "b".into(),
                epoch: 9,
                at_unix_ms: 1,
                boottime_ms: 1,
            };
            ledger.book.apply(entry);
            last = sequence;
        }
        ledger.compact();
        let after = ledger.intent(long).unwrap();
        assert_eq!(after.0, last.0 + 1);
        let reason = ledger.record(after).unwrap().intent.reason.clone();
        assert!(reason.len() <= MAX_TEXT + '…'.len_utf8(), "{}", reason.len());
        drop(ledger);

        let (ledger, _) = Ledger::open(&path, "b").unwrap();
        assert_eq!(ledger.highest_epoch(), 9);
        assert!(ledger.by_command("run/1").is_some());
        assert_eq!(ledger.records().count(), 4096 + 1);
    }

    #[test]
    fn a_record_of_a_later_version_is_refused_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut file, _, _) = LedgerFile::open(&path).unwrap();
        file.append(br#"{"type":"verdict"}"#).unwrap();
        drop(file);
        let error = Ledger::open(&path, "b").unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
    }
}
