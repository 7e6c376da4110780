//! The log on the disk: etcd's files, frames, checksums and records (server/storage/wal of etcd 3.5).
//!
//! ```text
//!  member/wal/SEQUENCE-FIRST.wal:  crc of the file before │ metadata │ snapshot 0 │ hard state │ entries, hard states, snapshots …
//!  a frame: 8 bytes with the length (lower 56 bits) and the padding (0x80 | bytes, upper 8) │ record │ padding to 8
//! ```
//! A file that a crash has torn ends with its last whole record, and what comes after is cut off. Files are never removed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use blackstart_proto::Message;

use super::wire::{Entry, HardState, Ids, Record, SnapshotMark};

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CRC: i64 = 4;
const SNAPSHOT: i64 = 5;

/// A file that has so many bytes is followed by another; etcd's own size.
const SEGMENT: u64 = 64 << 20;
/// No record is larger, bytes; etcd's own limit for one that is not torn.
const LARGEST: u64 = 10 << 20;

/// CRC-32C (Castagnoli), as Go's `crc32.Update`.
fn crc32c(mut crc: u32, data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at: u32 = 0;
        while at < 256 {
            let mut value = at;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    (value >> 1) ^ 0x82f6_3b78
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[at as usize] = value;
            at += 1;
        }
        table
    };
    crc = !crc;
    for byte in data {
        crc = TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    }
    !crc
}

/// A log that is written to.
#[derive(Debug)]
pub(super) struct Wal {
    dir: PathBuf,
    file: File,
    sequence: u64,
    bytes: u64,
    crc: u32,
    ids: Ids,
    hard: HardState,
}

/// What a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) ids: Ids,
    pub(super) hard: HardState,
    /// One after the other.
    pub(super) entries: Vec<Entry>,
}

fn name(sequence: u64, first: u64) -> String {
    format!("{sequence:016x}-{first:016x}.wal")
}

/// There is one.
pub(super) fn exists(dir: &Path) -> bool {
    files(dir).is_ok_and(|files| !files.is_empty())
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "wal") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Wal {
    /// Begins one, with these entries that are agreed on already. It is there as a whole, or not at all.
    pub(super) fn create(dir: &Path, ids: Ids, hard: HardState, entries: &[Entry]) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join("0.tmp");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let mut wal = Self {
            dir: dir.to_owned(),
            file,
            sequence: 0,
            bytes: 0,
            crc: 0,
            ids,
            hard: HardState::default(),
        };
        wal.head()?;
        wal.put(SNAPSHOT, &SnapshotMark::default())?;
        wal.append(entries, hard)?;
        wal.file.sync_all()?;
        fs::rename(path, dir.join(name(0, 0)))?;
        File::open(dir)?.sync_all()?;
        Ok(wal)
    }

    /// Reads all of it, to go on with it. A torn end is cut off.
    ///
    /// # Errors
    /// It is damaged elsewhere than at its end.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Said)> {
        let files = files(dir)?;
        let mut reading = Reading::default();
        let mut end = 0;
        for (number, path) in files.iter().enumerate() {
            let is_last = number + 1 == files.len();
            end = reading.file(path, is_last)?;
        }
        let last = files.last().ok_or(io::ErrorKind::NotFound)?;
        let mut file = File::options().write(true).open(last)?;
        file.set_len(end)?;
        file.seek(SeekFrom::End(0))?;
        let said = Said {
            ids: reading.ids.ok_or_else(|| damaged(last, "it has no metadata"))?,
            hard: reading.hard,
            entries: reading.entries,
        };
        let wal = Self {
            dir: dir.to_owned(),
            file,
            sequence: files.len() as u64 - 1,
            bytes: end,
            crc: reading.crc,
            ids: said.ids,
            hard: said.hard,
        };
        Ok((wal, said))
    }

    /// What every file begins with.
    fn head(&mut self) -> io::Result<()> {
        let before = self.crc;
        self.frame(&Record {
            kind: CRC,
            crc: before,
            data: None,
        })?;
        self.put(METADATA, &self.ids.clone())
    }

    fn put(&mut self, kind: i64, of: &impl Message) -> io::Result<()> {
        let data = of.encode_to_vec();
        self.crc = crc32c(self.crc, &data);
        let record = Record {
            kind,
            crc: self.crc,
            data: Some(data),
        };
        self.frame(&record)
    }

    fn frame(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = vec![0; 8];
        record.encode(&mut bytes).map_err(io::Error::other)?;
        let length = bytes.len() as u64 - 8;
        let padding = (8 - length % 8) % 8;
        let head = if padding == 0 {
            length
        } else {
            length | (0x80 | padding) << 56
        };
        bytes[..8].copy_from_slice(&head.to_le_bytes());
        bytes.resize(bytes.len() + usize::from(padding as u8), 0);
        self.file.write_all(&bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn append(&mut self, entries: &[Entry], hard: HardState) -> io::Result<()> {
        for entry in entries {
            self.put(ENTRY, entry)?;
        }
        if hard != self.hard {
            self.hard = hard;
            self.put(STATE, &hard)?;
        }
        Ok(())
    }

    /// Writes these, and is sure that they are on the disk where that matters: how far is agreed may be lost.
    pub(super) fn save(&mut self, entries: &[Entry], hard: HardState) -> io::Result<()> {
        let before = self.hard;
        let matters = !entries.is_empty() || (hard.term, hard.vote) != (before.term, before.vote);
        self.append(entries, hard)?;
        if matters {
            self.file.sync_data()?;
        }
        if self.bytes > SEGMENT {
            self.cut(entries.last().map_or(0, |entry| entry.index) + 1)?;
        }
        Ok(())
    }

    /// A database that came from elsewhere has everything up to there.
    pub(super) fn mark(&mut self, mark: SnapshotMark) -> io::Result<()> {
        self.put(SNAPSHOT, &mark)?;
        self.file.sync_data()
    }

    fn cut(&mut self, first: u64) -> io::Result<()> {
        self.file.sync_all()?;
        self.sequence += 1;
        let path = self.dir.join(format!("{}.tmp", self.sequence));
        self.file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        self.bytes = 0;
        self.head()?;
        let hard = self.hard;
        self.put(STATE, &hard)?;
        self.file.sync_all()?;
        fs::rename(path, self.dir.join(name(self.sequence, first)))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn damaged(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

#[derive(Debug, Default)]
struct Reading {
    crc: u32,
    ids: Option<Ids>,
    hard: HardState,
    entries: Vec<Entry>,
}

impl Reading {
    /// Where its last whole record ends.
    fn file(&mut self, path: &Path, is_last: bool) -> io::Result<u64> {
        let mut from = io::BufReader::new(File::open(path)?);
        let mut end = 0;
        loop {
            match next(&mut from)? {
                Some((record, bytes)) => {
                    self.record(path, record)?;
                    end += bytes;
                }
                None if is_last => return Ok(end),
                None => {
                    // etcd keeps its last file longer than what is in it, and cuts it before it makes another.
                    let mut rest = Vec::new();
                    from.read_to_end(&mut rest)?;
                    if rest.iter().any(|byte| *byte != 0) {
                        return Err(damaged(path, "it is torn, and is not the last of the log"));
                    }
                    return Ok(end);
                }
            }
        }
    }

    fn record(&mut self, path: &Path, record: Record) -> io::Result<()> {
        let Record { kind, crc, data } = record;
        if kind == CRC {
            // Of the very first there is none before.
            if self.crc != 0 && crc != self.crc {
                return Err(damaged(path, "crc mismatch between its files"));
            }
            self.crc = crc;
            return Ok(());
        }
        let data = data.unwrap_or_default();
        self.crc = crc32c(self.crc, &data);
        if crc != self.crc {
            return Err(damaged(path, "crc mismatch"));
        }
        let unclear = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match kind {
            METADATA => self.ids = Some(Ids::decode(&*data).map_err(unclear)?),
            STATE => self.hard = HardState::decode(&*data).map_err(unclear)?,
            ENTRY => {
                let entry = Entry::decode(&*data).map_err(unclear)?;
                // One that is written again replaces what came after it.
                let kept = self.entries.partition_point(|one| one.index < entry.index);
                self.entries.truncate(kept);
                if self
                    .entries
                    .last()
                    .is_some_and(|last| last.index + 1 != entry.index)
                {
                    // After a database that came from elsewhere.
                    self.entries.clear();
                }
                self.entries.push(entry);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The next record and the bytes that it takes; `None`: the file ends, or is torn here.
fn next(from: &mut impl Read) -> io::Result<Option<(Record, u64)>> {
    let mut head = [0; 8];
    if !filled(from, &mut head)? {
        return Ok(None);
    }
    let head = u64::from_le_bytes(head);
    let padding = if head >> 63 == 1 { (head >> 56) & 0x7 } else { 0 };
    let length = head & !(0xff << 56);
    if length == 0 || length > LARGEST {
        return Ok(None);
    }
    let whole = usize::try_from(length + padding).unwrap_or_default();
    let mut bytes = vec![0; whole];
    if !filled(from, &mut bytes)? {
        return Ok(None);
    }
    bytes.truncate(usize::try_from(length).unwrap_or_default());
    match Record::decode(&*bytes) {
        Ok(record) => Ok(Some((record, 8 + length + padding))),
        Err(_) => Ok(None),
    }
}

fn filled(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids {
        member: 0x1234,
        cluster: 0xabcd,
    };

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry {
            kind: Entry::NORMAL,
            term,
            index,
            data: Some(vec![7; bytes]),
        }
    }

    fn hard(term: u64, commit: u64) -> HardState {
        HardState {
            term,
            vote: 1,
            commit,
        }
    }

    #[test]
    fn the_checksum_is_that_of_castagnoli() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn what_was_written_is_read_again_across_files_and_starts() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::create(dir.path(), IDS, hard(1, 1), &[entry(1, 1, 3)]).unwrap();
        wal.save(&[entry(2, 1, 5), entry(3, 1, 0)], hard(1, 2)).unwrap();
        wal.bytes = SEGMENT;
        wal.save(&[entry(3, 2, 9)], hard(2, 2)).unwrap();
        drop(wal);
        let (mut wal, said) = Wal::open(dir.path()).unwrap();
        let expected = [entry(1, 1, 3), entry(2, 1, 5), entry(3, 2, 9)];
        assert_eq!(
            (said.ids, said.hard, &*said.entries),
            (IDS, hard(2, 2), &expected[..])
        );
        assert_eq!(files(dir.path()).unwrap().len(), 2);
        wal.save(&[entry(4, 2, 1)], hard(2, 4)).unwrap();
        drop(wal);
        assert_eq!(Wal::open(dir.path()).unwrap().1.entries.len(), 4);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_elsewhere_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::create(dir.path(), IDS, hard(1, 0), &[]).unwrap();
        wal.save(&[entry(1, 1, 100)], hard(1, 0)).unwrap();
        let whole = wal.bytes;
        wal.save(&[entry(2, 1, 100)], hard(1, 0)).unwrap();
        let path = dir.path().join(name(0, 0));
        let bytes = fs::read(&path).unwrap();
        for cut in [whole + 1, whole + 8, whole + 50] {
            fs::write(&path, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
            let (wal, said) = Wal::open(dir.path()).unwrap();
            assert_eq!((wal.bytes, said.entries.len()), (whole, 1));
        }
        let mut bad = bytes;
        let middle = usize::try_from(whole).unwrap() - 20;
        bad[middle] ^= 1;
        fs::write(&path, bad).unwrap();
        let why = Wal::open(dir.path()).unwrap_err().to_string();
        assert!(why.contains("crc mismatch"), "{why}");
    }
}
