//! One archive: a range of a log, compressed as a stream, durable, read back and compared before it gets its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statvfs::statvfs;
use ring::digest::{Context, Digest, SHA256};
use zstd::{Decoder, Encoder};

use super::{Kept, shelf};
use crate::bytes::Bytes;
use crate::config::ArchiveSettings;

/// So much is read at once.
const CHUNK: usize = 1 << 20;
/// The room is looked at again after so many bytes of the log.
const ROOM_EACH: u64 = 32 << 20;
/// So much of the range's beginning and end is held against the log once more before the cut.
const WINDOW: u64 = 64 << 10;

/// What has to be done.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) file: File,
    pub(super) log: PathBuf,
    /// What is going to be cut.
    pub(super) range: Range<u64>,
    pub(super) settings: ArchiveSettings,
    /// Nobody waits any more.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{} is on the log's own file system", .0.display())]
    SameFileSystem(PathBuf),
    #[error("{} has less than {percent}% free", dir.display())]
    NoRoom { dir: PathBuf, percent: u64 },
    #[error("it would take more than {}, which is all that archives may take", Bytes(*.0))]
    TooLarge(u64),
    #[error("the log was truncated by somebody else meanwhile")]
    Shrunk,
    #[error("nobody waits for it any more")]
    Cancelled,
    #[error("what was read back is not what was written")]
    Differs,
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What tells whether a log is still the one that was archived: somebody may have truncated it, and it may have grown since.
#[derive(Debug)]
pub(in crate::reclaim) struct Witness {
    range: Range<u64>,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Witness {
    fn of(file: &File, range: Range<u64>) -> io::Result<Self> {
        let length = WINDOW.min(range.end - range.start);
        Ok(Self {
            head: read(file, range.start, length)?,
            tail: read(file, range.end - length, length)?,
            range,
        })
    }

    /// The log still has what was archived where it was.
    pub(in crate::reclaim) fn agrees(&self, file: &File) -> bool {
        Self::of(file, self.range.clone())
            .is_ok_and(|now| (now.head, now.tail) == (self.head.clone(), self.tail.clone()))
    }
}

fn read(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Does it. Leaves nothing behind when it fails.
pub(super) fn store(job: &Job) -> Result<(Kept, Witness), StoreError> {
    let dir = &job.settings.dir;
    let looked = |source| io_error("look at", dir, source);
    let seen = job.file.metadata().map_err(looked)?;
    if fs::metadata(dir).map_err(looked)?.dev() == seen.dev() {
        return Err(StoreError::SameFileSystem(dir.clone()));
    }
    shelf::sweep(dir, job.settings.deadline * 2 + Duration::from_mins(1)).map_err(looked)?;
    room(dir, job.settings.min_free_percent)?;
    // What was punched before is a hole, and was archived then.
    let range = first_data(&job.file).min(job.range.end)..job.range.end;
    let name = shelf::name(Timestamp::now(), seen.ino(), &range, &job.log);
    let partial = dir.join(shelf::partial(&name));
    let stored = fill(job, &range, &partial, &dir.join(&name));
    if stored.is_err() {
        let _never_made = fs::remove_file(&partial);
    }
    let (witness, size) = stored?;
    // It is whole; that an older one could not be removed changes nothing of it, and is tried again at the next.
    if let Err(error) = shelf::thin(dir, job.settings.max_bytes, &name) {
        tracing::warn!(dir = %dir.display(), %error, "old archives could not be removed");
    }
    let kept = Kept::Whole {
        path: dir.join(name),
        bytes: range.end - range.start,
        stored: size,
    };
    Ok((kept, witness))
}

fn fill(job: &Job, range: &Range<u64>, partial: &Path, to: &Path) -> Result<(Witness, u64), StoreError> {
    let fail = |action| move |source| io_error(action, partial, source);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        // A log may hold what is not for everybody.
        .mode(0o600)
        .open(partial)
        .map_err(fail("create"))?;
    let (digest, witness) = compress(job, range, &file, partial)?;
    file.sync_all().map_err(fail("sync"))?;
    // What is read back comes from the disk then, as far as the kernel takes advice.
    let _advice = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let size = file.metadata().map_err(fail("look at"))?.len();
    verify(partial, &digest, range.end - range.start, &job.cancelled)?;
    if job.cancelled.load(Ordering::Acquire) {
        return Err(StoreError::Cancelled);
    }
    fs::rename(partial, to).map_err(fail("rename"))?;
    File::open(&job.settings.dir)
        .and_then(|dir| dir.sync_all())
        .map_err(fail("sync the directory of"))?;
    Ok((witness, size))
}

fn compress(job: &Job, range: &Range<u64>, to: &File, path: &Path) -> Result<(Digest, Witness), StoreError> {
    let fail = |source| io_error("write", path, source);
    let unreadable = |source: io::Error| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            StoreError::Shrunk
        } else {
            io_error("read", &job.log, source)
        }
    };
    let witness = Witness::of(&job.file, range.clone()).map_err(unreadable)?;
    let mut encoder = Encoder::new(to, job.settings.level).map_err(fail)?;
    encoder.include_checksum(true).map_err(fail)?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut looked) = (range.start, range.start);
    while at < range.end {
        if job.cancelled.load(Ordering::Acquire) {
            return Err(StoreError::Cancelled);
        }
        let want = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let part = &mut chunk[..want];
        job.file.read_exact_at(part, at).map_err(unreadable)?;
        hash.update(part);
        encoder.write_all(part).map_err(fail)?;
        at += want as u64;
        if at - looked >= ROOM_EACH {
            looked = at;
            room(&job.settings.dir, job.settings.min_free_percent)?;
            if to.metadata().map_err(fail)?.len() > job.settings.max_bytes {
                return Err(StoreError::TooLarge(job.settings.max_bytes));
            }
        }
    }
    encoder.finish().map_err(fail)?;
    if to.metadata().map_err(fail)?.len() > job.settings.max_bytes {
        return Err(StoreError::TooLarge(job.settings.max_bytes));
    }
    Ok((hash.finish(), witness))
}

/// Decompresses all of it, and holds it against what was read of the log.
fn verify(path: &Path, digest: &Digest, length: u64, cancelled: &AtomicBool) -> Result<(), StoreError> {
    let fail = |source| io_error("read back", path, source);
    let file = File::open(path).map_err(fail)?;
    let mut decoder = Decoder::with_buffer(BufReader::with_capacity(CHUNK, file)).map_err(fail)?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut seen = 0;
    loop {
        if cancelled.load(Ordering::Acquire) {
            return Err(StoreError::Cancelled);
        }
        let read = decoder.read(&mut chunk).map_err(fail)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        seen += read as u64;
    }
    if seen == length && hash.finish().as_ref() == digest.as_ref() {
        Ok(())
    } else {
        Err(StoreError::Differs)
    }
}

fn room(dir: &Path, min_free_percent: u64) -> Result<(), StoreError> {
    let seen = statvfs(dir).map_err(|errno| io_error("look at", dir, errno.into()))?;
    let (free, all) = (u128::from(seen.blocks_available()), u128::from(seen.blocks()));
    if free * 100 < all * u128::from(min_free_percent) {
        return Err(StoreError::NoRoom {
            dir: dir.to_owned(),
            percent: min_free_percent,
        });
    }
    Ok(())
}

/// Where the file's data begin. A file system that cannot tell has them from the beginning.
fn first_data(file: &File) -> u64 {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)).unwrap_or(0)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(bytes: &[u8]) -> (tempfile::NamedTempFile, Digest) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), zstd::encode_all(bytes, 3).unwrap()).unwrap();
        (file, ring::digest::digest(&SHA256, bytes))
    }

    #[test]
    fn a_damaged_archive_is_never_taken_for_a_whole_one() {
        let bytes: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let (archive, digest) = compressed(&bytes);
        let whole = fs::read(archive.path()).unwrap();
        let check = |stored: &[u8]| {
            fs::write(archive.path(), stored).unwrap();
            verify(
                archive.path(),
                &digest,
                bytes.len() as u64,
                &AtomicBool::new(false),
            )
        };
        check(&whole).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(check(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(whole.len() / 50) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(check(&damaged).is_err(), "a bit at {at}");
        }
        // Whole, and of something else.
        let (other, _) = compressed(&bytes[..bytes.len() - 1]);
        assert!(matches!(
            check(&fs::read(other.path()).unwrap()),
            Err(StoreError::Differs)
        ));
    }

    #[test]
    fn a_witness_notices_a_log_that_was_truncated_and_grew_again() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'a'; 300_000]).unwrap();
        let witness = Witness::of(&file, 0..200_000).unwrap();
        assert!(witness.agrees(&file));
        file.write_all(&[b'c'; 1000]).unwrap();
        assert!(witness.agrees(&file), "it only grew");
        file.set_len(0).unwrap();
        assert!(!witness.agrees(&file));
        file.write_all_at(&vec![b'b'; 400_000], 0).unwrap();
        assert!(!witness.agrees(&file));
    }
}
