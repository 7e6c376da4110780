//! The ledger's form on disk.
//!
//! ```text
//! "blackstart-ledger 1\n"
//! [length u32 LE][crc32 of payload, u32 LE][payload: JSON]   … repeated
//! zeroes up to the end of the allocated space
//! ```
//! Space is allocated and zeroed ahead, so that an append overwrites blocks the file already owns: `fdatasync` is then one
//! write to the disk, without a commit of the file system's journal. It is also a reserve: on a full disk, which is when
//! logs are reclaimed, some hundreds of records can still be written.
//!
//! What a power loss can leave is a broken *last* record: its append never returned. That one is cut off, kept aside and
//! told. Anything else that is broken was whole once; the file is then left as it is and refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{LedgerError, Recovery};

const MAGIC: &[u8] = b"blackstart-ledger 1\n";
const HEADER: usize = 8;
/// A record larger than this is damage.
const MAX_RECORD: usize = 1 << 20;
/// At least so much is kept allocated behind the last record, bytes: some 400 remedies.
const RESERVE: u64 = 256 << 10;
/// No ledger grows to this, bytes: it is written anew long before.
const MAX_FILE: u64 = 128 << 20;

pub(super) const ADVICE: &str = "nothing was changed; move the file away and start the agent again \
                                 (budgets begin anew, the coordinator sends its epoch again)";

#[derive(Debug)]
pub(super) struct LedgerFile {
    path: PathBuf,
    file: File,
    /// End of the last whole record.
    end: u64,
    /// End of the zeroed space.
    allocated: u64,
}

/// A record's JSON, and the offset of its frame.
pub(super) type Payload = (u64, Vec<u8>);

/// Whole records, and where they end.
struct Scan {
    records: Vec<Payload>,
    end: u64,
    /// Something other than zeroes follows the last whole record.
    torn: bool,
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Io { action, path, source }
}

fn scan(path: &Path, bytes: &[u8]) -> Result<Scan, LedgerError> {
    let damaged = |offset: usize, what: &str| LedgerError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        what: what.to_owned(),
        advice: ADVICE.to_owned(),
    };
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(0, "it does not begin as a ledger of this version does"));
    }
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while let Some(payload) = record_at(bytes, at) {
        records.push((at as u64, payload.to_owned()));
        at += HEADER + payload.len();
    }
    let torn = bytes[at..].iter().any(|byte| *byte != 0);
    // A torn append is the last thing in the file. A whole record behind it means that the damage is in the middle, and
    // what follows would be lost by a cut.
    if torn && (at + 1..bytes.len()).any(|next| record_at(bytes, next).is_some()) {
        return Err(damaged(at, "whole records follow a broken one"));
    }
    Ok(Scan {
        records,
        end: at as u64,
        torn,
    })
}

/// The payload of a whole record at `at`.
fn record_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let header = bytes.get(at..at + HEADER)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header[4..].try_into().ok()?);
    if length == 0 || length > MAX_RECORD {
        return None;
    }
    let payload = bytes.get(at + HEADER..at + HEADER + length)?;
    (crc32fast::hash(payload) == crc).then_some(payload)
}

fn contents(path: &Path, file: &mut File) -> Result<Vec<u8>, LedgerError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LedgerError::Damaged {
            path: path.to_owned(),
            offset: MAX_FILE,
            what: "it is larger than a ledger can be".to_owned(),
            advice: ADVICE.to_owned(),
        });
    }
    Ok(bytes)
}

/// Whole records, without the lock. A record that is just being written is passed over.
pub(super) fn read(path: &Path) -> Result<Vec<Payload>, LedgerError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let bytes = contents(path, &mut file)?;
    understand(path, &bytes)
}

/// The whole records among the bytes of a ledger; none in an empty one.
pub(super) fn understand(path: &Path, bytes: &[u8]) -> Result<Vec<Payload>, LedgerError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(scan(path, bytes)?.records)
}

impl LedgerFile {
    /// Opens, locks and mends. An empty file is a new ledger.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Payload>, Recovery), LedgerError> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed("create the directory of", path))?;
        }
        let mut file = open_locked(path)?;
        let bytes = contents(path, &mut file)?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            end: 0,
            allocated: bytes.len() as u64,
        };
        if bytes.is_empty() {
            // By rename, so that a ledger is never seen with half a first line.
            ledger.rewrite(&[])?;
            return Ok((ledger, Vec::new(), Recovery::Created));
        }
        let found = scan(path, &bytes)?;
        ledger.end = found.end;
        let recovery = if found.torn {
            ledger.cut_tail(&bytes)?
        } else {
            Recovery::Whole
        };
        Ok((ledger, found.records, recovery))
    }

    /// Bytes in use.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Appends one record. Durable once it has returned; after an error nothing of it counts.
    pub(super) fn append(&mut self, payload: &[u8]) -> Result<(), LedgerError> {
        let frame = frame(&self.path, payload)?;
        let end = self.end + frame.len() as u64;
        self.reserve(end);
        let written = self
            .file
            .write_all_at(&frame, self.end)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What was half written must not be read back as a record. Should this fail too, the next append overwrites
            // it, and opening finds a torn record or an intent without outcome: neither claims that something was done.
            let _best_effort = self
                .file
                .write_all_at(&vec![0; frame.len()], self.end)
                .and_then(|()| self.file.sync_data());
            return Err(failed("append to", &self.path)(source));
        }
        self.end = end;
        self.allocated = self.allocated.max(end);
        Ok(())
    }

    /// Replaces everything by `payloads`, at once or not at all.
    pub(super) fn rewrite(&mut self, payloads: &[Vec<u8>]) -> Result<(), LedgerError> {
        let mut bytes = MAGIC.to_vec();
        for payload in payloads {
            bytes.extend(frame(&self.path, payload)?);
        }
        let end = bytes.len() as u64;
        let allocated = allocation(end);
        bytes.resize(usize::try_from(allocated).unwrap_or(bytes.len()), 0);

        let aside = beside(&self.path, "new");
        let written = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                // Locked before it has the ledger's name: whoever opens it by that name finds it taken.
                file.try_lock()?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&aside, &self.path)?;
                Ok(file)
            });
        match written {
            Ok(file) => self.file = file,
            Err(source) => {
                let _best_effort = fs::remove_file(&aside);
                return Err(failed("write anew", &self.path)(source));
            }
        }
        self.end = end;
        self.allocated = bytes.len() as u64;
        self.sync_dir()
    }

    /// Keeps zeroed space behind `end`. A disk too full for it may still take the record itself.
    fn reserve(&mut self, end: u64) {
        if self.allocated >= end + RESERVE {
            return;
        }
        let target = allocation(end);
        let room = usize::try_from(target - self.allocated).unwrap_or_default();
        let grown = self
            .file
            .write_all_at(&vec![0; room], self.allocated)
            .and_then(|()| self.file.sync_all());
        self.allocated = match grown {
            Ok(()) => target,
            Err(_full) => self.file.metadata().map_or(self.allocated, |found| found.len()),
        };
    }

    fn cut_tail(&mut self, bytes: &[u8]) -> Result<Recovery, LedgerError> {
        let end = usize::try_from(self.end).unwrap_or(usize::MAX);
        let last = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(end, |last| last + 1);
        let torn = &bytes[end..last];
        let kept_in = beside(&self.path, &format!("torn-{}", self.end));
        // Nice to have for a look, and no reason to stay down on a full disk.
        let kept_in = match fs::write(&kept_in, torn) {
            Ok(()) => Some(kept_in),
            Err(_full) => {
                let _best_effort = fs::remove_file(&kept_in);
                None
            }
        };
        self.file
            .write_all_at(&vec![0; torn.len()], self.end)
            .and_then(|()| self.file.sync_data())
            .map_err(failed("cut the torn end of", &self.path))?;
        Ok(Recovery::TornTail {
            bytes: torn.len() as u64,
            kept_in,
        })
    }

    fn sync_dir(&self) -> Result<(), LedgerError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("sync the directory of", &self.path))
    }
}

/// Opens the file of this name and locks it, also if it is replaced meanwhile.
fn open_locked(path: &Path) -> Result<File, LedgerError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
        }
        let ours = file.metadata().map_err(failed("look at", path))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            // Written anew between open and lock.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", path)(error)),
        }
    }
}

/// How far a file with records up to `end` is allocated.
fn allocation(end: u64) -> u64 {
    (end + RESERVE).next_multiple_of(RESERVE)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn frame(path: &Path, payload: &[u8]) -> Result<Vec<u8>, LedgerError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| (1..=MAX_RECORD).contains(&(*length as usize)))
        .ok_or_else(|| failed("frame a record for", path)(io::ErrorKind::FileTooLarge.into()))?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payloads(count: u8) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| format!("{{\"n\":{n}}}").repeat(usize::from(n) + 1).into_bytes())
            .collect()
    }

    fn written(dir: &Path, count: u8) -> (PathBuf, Vec<u8>, usize) {
        let path = dir.join("ledger");
        let (mut file, _, _) = LedgerFile::open(&path).unwrap();
        for payload in payloads(count) {
            file.append(&payload).unwrap();
        }
        let end = usize::try_from(file.len()).unwrap();
        drop(file);
        let bytes = fs::read(&path).unwrap();
        (path, bytes, end)
    }

    #[test]
    fn cut_anywhere_it_is_repaired_to_its_last_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes, end) = written(dir.path(), 5);
        for cut in MAGIC.len()..=end {
            fs::write(&path, &bytes[..cut]).unwrap();
            let (mut file, records, recovery) = LedgerFile::open(&path).unwrap();
            let whole = records.len();
            let left = usize::try_from(file.len()).unwrap();
            assert!(
                records.iter().map(|(_, p)| p).eq(payloads(5)[..whole].iter()),
                "cut at {cut}"
            );
            match recovery {
                Recovery::Whole => assert!(bytes[left..cut].iter().all(|byte| *byte == 0), "cut at {cut}"),
                Recovery::TornTail { kept_in, .. } => {
                    let kept = fs::read(kept_in.unwrap()).unwrap();
                    assert!(bytes[left..cut].starts_with(&kept), "cut at {cut}");
                }
                Recovery::Created => panic!("emptied by a cut at {cut}"),
            }
            file.append(b"after").unwrap();
            drop(file);
            assert_eq!(LedgerFile::open(&path).unwrap().1.len(), whole + 1);
        }
    }

    #[test]
    fn cut_within_its_first_line_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes, _) = written(dir.path(), 2);
        for cut in 1..MAGIC.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let error = LedgerFile::open(&path).unwrap_err();
            assert!(matches!(error, LedgerError::Damaged { offset: 0, .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), &bytes[..cut]);
        }
    }

    #[test]
    fn an_append_overwrites_space_that_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes, _) = written(dir.path(), 1);
        let (mut file, _, _) = LedgerFile::open(&path).unwrap();
        file.append(b"more").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        assert!(file.allocated >= file.end + RESERVE);
    }

    #[test]
    fn a_full_disk_refuses_the_record_and_keeps_the_rest() {
        // /dev/full takes no byte: the smallest full disk there is.
        let full = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut file = LedgerFile {
            path: "/dev/full".into(),
            file: full,
            end: 0,
            allocated: 0,
        };
        assert!(matches!(file.append(b"x"), Err(LedgerError::Io { .. })));
        assert_eq!(file.len(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_written_anew_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes, _) = written(dir.path(), 3);
        let (mut file, _, _) = LedgerFile::open(&path).unwrap();
        fs::create_dir(beside(&path, "new")).unwrap();
        assert!(file.rewrite(&payloads(1)).is_err());
        assert_eq!(fs::read(&path).unwrap(), bytes);
        file.append(b"goes on").unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_flipped_byte_is_never_taken_for_truth(at in 0_usize..400, flip in 1_u8..=255) {
            let dir = tempfile::tempdir().unwrap();
            let (path, mut bytes, end) = written(dir.path(), 6);
            let at = at % end;
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            match LedgerFile::open(&path) {
                Ok((_, records, recovery)) => {
                    let expected = payloads(6);
                    prop_assert!(records.iter().all(|(_, payload)| expected.contains(payload)));
                    // Only the last record can be given up, and that is told.
                    prop_assert_eq!(records.len(), 5);
                    prop_assert!(matches!(recovery, Recovery::TornTail { .. }), "{recovery:?}");
                }
                Err(LedgerError::Damaged { .. }) => prop_assert_eq!(fs::read(&path).unwrap(), bytes),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn no_file_makes_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), headed in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger");
            let head: &[u8] = if headed { MAGIC } else { b"" };
            fs::write(&path, [head, &tail].concat()).unwrap();
            let _ = LedgerFile::open(&path);
        }
    }
}
