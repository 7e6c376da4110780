//! The database on the disk, `member/snap/db`: batches one after the other, each in pages of its own.
//!
//! ```text
//!  page 0…: magic │ length │ SHA-256 │ zeroes to 64 ── batch (protobuf) ── zeroes to 4096 │ the next batch …
//! ```
//! Where etcd has bbolt's B+tree this has a row of batches that is only ever added to; what is alike is what others look at: it is one file of
//! whole pages that its member holds locked (`flock`) for as long as it lives, a file of which a page was damaged is noticed by whoever opens it, and
//! what a crash has torn at its end does not count.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use blackstart_proto::Message;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::store::Store;
use super::wire::Batch;

/// Of a page, bytes; bbolt's on most machines.
pub(super) const PAGE: u64 = 4096;
const MAGIC: &[u8; 8] = b"BSdouble";
/// Before the batch itself, bytes.
const HEAD: usize = 64;
/// A batch is no larger, bytes.
const LARGEST: u64 = 2 << 30;

/// One that is written to, and locked.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error("{path}: invalid database: {why}", path = .0.display(), why = .1)]
    Damaged(PathBuf, String),
    #[error("{path}: another process has it open", path = .0.display())]
    Held(PathBuf),
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, io::Error),
}

impl Database {
    /// Begins one with this batch. What was there is replaced.
    pub(super) fn create(path: &Path, first: &Batch) -> Result<Self, DatabaseError> {
        let failed = |error| DatabaseError::Io(path.to_owned(), error);
        if let Some(dir) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true);
        let file = options.open(path).map_err(failed)?;
        let mut database = Self {
            path: path.to_owned(),
            file,
            bytes: 0,
        };
        database.hold()?;
        database.append(first)?;
        Ok(database)
    }

    /// Opens one to go on with it; what is in it. A torn end is cut off.
    pub(super) fn open(path: &Path) -> Result<(Self, Store), DatabaseError> {
        let failed = |error| DatabaseError::Io(path.to_owned(), error);
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let mut database = Self {
            path: path.to_owned(),
            file,
            bytes: 0,
        };
        database.hold()?;
        let (store, bytes) = read(path)?;
        database.file.set_len(bytes).map_err(failed)?;
        database.bytes = bytes;
        Ok((database, store))
    }

    fn hold(&self) -> Result<(), DatabaseError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(fs::TryLockError::WouldBlock) => Err(DatabaseError::Held(self.path.clone())),
            Err(fs::TryLockError::Error(error)) => Err(DatabaseError::Io(self.path.clone(), error)),
        }
    }

    /// Puts a batch at the end, and is sure that it is on the disk.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), DatabaseError> {
        let failed = |error| DatabaseError::Io(self.path.clone(), error);
        let pages = pages(batch);
        self.file.write_all_at(&pages, self.bytes).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.bytes += pages.len() as u64;
        Ok(())
    }

    /// The same in another place, where it replaces what is there.
    pub(super) fn moved(mut self, to: &Path) -> Result<Self, DatabaseError> {
        let moved = fs::rename(&self.path, to).and_then(|()| match to.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        });
        moved.map_err(|error| DatabaseError::Io(to.to_owned(), error))?;
        to.clone_into(&mut self.path);
        Ok(self)
    }

    /// Of whole batches.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn pages(batch: &Batch) -> Vec<u8> {
    let batch = batch.encode_to_vec();
    let mut pages = Vec::with_capacity(batch.len() + HEAD + 4096);
    pages.extend(MAGIC);
    pages.extend((batch.len() as u64).to_le_bytes());
    pages.extend(digest(&SHA256, &batch).as_ref());
    pages.resize(HEAD, 0);
    pages.extend(batch);
    let whole = (pages.len() as u64).next_multiple_of(PAGE);
    pages.resize(usize::try_from(whole).unwrap_or(usize::MAX), 0);
    pages
}

/// What is in a file, and how many bytes of it. What comes after whole batches has to be torn (cut off, or zeroes) or a hash.
pub(super) fn read(path: &Path) -> Result<(Store, u64), DatabaseError> {
    let failed = |error| DatabaseError::Io(path.to_owned(), error);
    let damaged = |why: String| DatabaseError::Damaged(path.to_owned(), why);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut from = BufReader::new(file);
    let mut store = Store::default();
    let mut at = 0;
    while at + PAGE <= size {
        let mut head = [0; HEAD];
        from.read_exact(&mut head).map_err(failed)?;
        let length = u64::from_le_bytes(head[8..16].try_into().unwrap_or_default());
        if head == [0; HEAD] && at > 0 {
            // Room that a crash has left, if nothing comes after it.
            let mut rest = Vec::new();
            from.read_to_end(&mut rest).map_err(failed)?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(damaged(format!("its page {} is zeroes", at / PAGE)));
            }
            break;
        }
        if &head[..8] != MAGIC || length > LARGEST {
            return Err(damaged(format!("its page {} is none", at / PAGE)));
        }
        let whole = (HEAD as u64 + length).next_multiple_of(PAGE);
        if at + whole > size {
            break;
        }
        let mut batch = vec![0; usize::try_from(whole).unwrap_or_default() - HEAD];
        from.read_exact(&mut batch).map_err(failed)?;
        batch.truncate(usize::try_from(length).unwrap_or_default());
        if digest(&SHA256, &batch).as_ref() != &head[16..16 + SHA256_OUTPUT_LEN] {
            if at + whole == size && at > 0 {
                break;
            }
            return Err(damaged(format!("the hash of its page {} is another", at / PAGE)));
        }
        let batch = Batch::decode(&*batch).map_err(|error| damaged(error.to_string()))?;
        store.absorb(batch);
        at += whole;
    }
    if at == 0 {
        return Err(damaged("it is empty, or was cut off".to_owned()));
    }
    Ok((store, at))
}

/// Writes what comes from elsewhere to a file of its own.
pub(super) fn receive(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).open(path)
}

/// Makes a file of pages durable.
pub(super) fn seal(mut file: File) -> io::Result<()> {
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::wire::Pair;
    use super::*;

    fn batch(revision: i64, bytes: usize) -> Batch {
        Batch {
            index: u64::try_from(revision).unwrap() + 3,
            term: 2,
            revision,
            pairs: vec![Pair {
                key: revision.to_string().into_bytes(),
                create: revision,
                modified: revision,
                value: vec![7; bytes],
            }],
            ..Batch::default()
        }
    }

    #[test]
    fn what_was_written_is_there_again_and_its_member_alone_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("member/snap/db");
        let mut database = Database::create(&path, &batch(1, 10)).unwrap();
        database.append(&batch(2, 9000)).unwrap();
        assert!(matches!(Database::open(&path), Err(DatabaseError::Held(_))));
        let bytes = database.bytes();
        drop(database);
        assert_eq!((bytes % PAGE, fs::metadata(&path).unwrap().len()), (0, bytes));
        let (mut database, store) = Database::open(&path).unwrap();
        assert_eq!((store.revision(), store.keys(), store.applied().index), (2, 2, 5));
        database.append(&batch(3, 1)).unwrap();
        assert_eq!(read(&path).unwrap().0.revision(), 3);
    }

    #[test]
    fn damage_is_told_and_a_torn_end_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut database = Database::create(&path, &batch(1, 10)).unwrap();
        database.append(&batch(2, 5000)).unwrap();
        database.append(&batch(3, 5000)).unwrap();
        drop(database);
        let whole = fs::read(&path).unwrap();
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
            read(&path).map(|(store, _)| store.revision())
        };
        assert_eq!(with(|bytes| bytes.truncate(bytes.len() - 100)).unwrap(), 2);
        assert_eq!(
            with(|bytes| bytes[13_000] ^= 1).unwrap(),
            2,
            "the last one was torn"
        );
        assert_eq!(with(|bytes| bytes.extend([0; 8192])).unwrap(), 3);
        assert_eq!(with(|bytes| bytes.extend([9; 32])).unwrap(), 3, "a hash");
        for (what, change) in [
            ("all zeroes", (|bytes| bytes.fill(0)) as fn(&mut Vec<u8>)),
            ("a page in the middle", |bytes| bytes[5000] ^= 1),
            ("the first page", |bytes| bytes[70] ^= 1),
            ("a page of zeroes", |bytes| bytes[4096..12_288].fill(0)),
            ("something else", |bytes| {
                bytes[4096..4104].copy_from_slice(b"whatever");
            }),
            ("nothing", Vec::clear),
        ] {
            assert!(matches!(with(change), Err(DatabaseError::Damaged(..))), "{what}");
        }
    }
}
