//! Opens a store without ever harming what is there.
//!
//! ```text
//!  store.redb │ store.id   │
//!  ───────────┼────────────┼─────────────────────────────────────────────────────────
//!  none       │ empty      │ never was one: made aside, renamed, then store.id is written
//!  none       │ says so    │ it is gone: Damaged
//!  there      │ empty      │ the last step of the making was cut off: looked at, store.id is written
//!  there      │ says so    │ looked at; opened if it is that store, else Damaged
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::redb::backends::{FileBackend, InMemoryBackend};
use ::redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, TableError, WriteTransaction,
};
use nix::fcntl::{FallocateFlags, fallocate};

use super::super::{StoreError, backup};
use super::{EPOCH_KEY, ID_KEY, IDENTITY, JOURNAL, LENGTHS, META, RUNS, SCHEMA, SCHEMA_KEY, STATE};

/// Pages that are kept in memory: a fleet's whole store is smaller.
const CACHE: usize = 16 << 20;

/// A lock that somebody has is tried so often again,
const LOCK_TRIES: u32 = 25;
/// each time after this.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// So much of the disk is the store's own from the beginning: thousands of entries.
const RESERVE: u64 = 8 << 20;

pub(super) const RESTORE: &str = "restore it with: blackstart-coordinator restore --force BACKUP; without a backup, move store.redb and \
                                  store.id away, say blackstart-coordinator epoch --at-least N with an N above any that the agents \
                                  have obeyed, and restart: the fleet is learned again from the agents, unfinished runs are lost";

/// Opens `store.id`, making an empty one if it is not there, and holds it for as long as the file is open.
#[allow(
    clippy::disallowed_methods,
    reason = "nothing tells when a file's lock is let go without waiting for it for ever"
)]
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let id = id_file(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&id)
        .map_err(|error| io_error("open", &id, &error))?;
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A coordinator that is just ending has it for a moment longer; so has a child of this process, between its fork and
            // its own program.
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                tries += 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &id, &error)),
        }
    }
}

/// What `store.id` says.
enum Noted {
    /// Nothing was ever made here.
    Nothing,
    /// A power loss took what was written to it.
    Unreadable,
    /// The id of the store that was made here.
    Id(String),
}

impl Noted {
    fn read(mut file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(Self::Nothing);
        }
        let id = String::from_utf8_lossy(&bytes).trim().to_owned();
        let whole = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
        Ok(if whole { Self::Id(id) } else { Self::Unreadable })
    }
}

/// The database at `path`, made if there never was one. `id_file` is the locked `store.id`.
pub(super) fn database(path: &Path, id_file: &File) -> Result<Database, StoreError> {
    let noted = Noted::read(id_file).map_err(|error| io_error("read the id of", path, &error))?;
    let exists = path
        .try_exists()
        .map_err(|error| io_error("look for", path, &error))?;
    match (exists, &noted) {
        (true, _) => {}
        (false, Noted::Nothing) => create(path)?,
        (false, Noted::Unreadable | Noted::Id(_)) => {
            let what = "it is missing, though store.id beside it says that one existed";
            return Err(damaged(path, what.to_owned(), RESTORE));
        }
    }
    let id = look(path)?.id;
    match noted {
        Noted::Id(noted) if noted != id => {
            return Err(damaged(
                path,
                format!("it is another store ({id}) than the one that was made here ({noted} in store.id)"),
                "put the right one back; if this one is right, remove store.id and restart",
            ));
        }
        Noted::Id(_) => {}
        Noted::Nothing | Noted::Unreadable => {
            note_id(id_file, &id).map_err(|error| io_error("write the id of", path, &error))?;
        }
    }
    open(path)
}

/// Opens again what this process had open.
pub(super) fn again(path: &Path) -> Result<Database, StoreError> {
    look(path)?;
    open(path)
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let opened = Builder::new().set_cache_size(CACHE).open(path);
    if let Err(DatabaseError::DatabaseAlreadyOpen) = opened {
        return Err(StoreError::Busy(path.to_owned()));
    }
    let database = opened.map_err(|error| failed("open", path, &error.into()))?;
    reserve(path);
    Ok(database)
}

/// Reads the whole file into memory and checks it there: redb mends and marks whatever it opens, and a damaged file must
/// stay as it was found.
fn look(path: &Path) -> Result<Seen, StoreError> {
    let bytes = fs::read(path).map_err(|error| io_error("read", path, &error))?;
    if bytes.is_empty() {
        return Err(damaged(path, "it is empty".to_owned(), RESTORE));
    }
    // redb answers damage with errors where it expects it, and with a panic where it does not.
    let looked = catch_unwind(AssertUnwindSafe(|| look_at(&bytes)));
    match looked {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(found)) => Err(found.told(path)),
        Err(_) => Err(damaged(
            path,
            "its pages contradict each other".to_owned(),
            RESTORE,
        )),
    }
}

/// The epoch of the store at `path`, if that can be told.
pub(super) fn epoch(path: &Path) -> Option<u64> {
    look(path).ok().map(|seen| seen.epoch)
}

/// What a look saw.
struct Seen {
    id: String,
    epoch: u64,
}

/// What a look found wrong.
enum Found {
    NotRedb,
    Foreign,
    Newer(u64),
    Damaged(String),
}

impl Found {
    fn told(self, path: &Path) -> StoreError {
        let elsewhere = "is `state_dir` right? if so, ";
        match self {
            Self::NotRedb => damaged(
                path,
                "it is not a redb file, or its beginning is lost".to_owned(),
                format!("{elsewhere}{RESTORE}"),
            ),
            Self::Foreign => damaged(
                path,
                "it is a redb file of some other program".to_owned(),
                format!("{elsewhere}{RESTORE}"),
            ),
            Self::Newer(schema) => damaged(
                path,
                format!("it has schema {schema}, and this version reads {SCHEMA}"),
                "run the version of blackstart-coordinator that wrote it, or a newer one",
            ),
            Self::Damaged(what) => damaged(path, what, RESTORE),
        }
    }
}

impl<E: Into<::redb::Error>> From<E> for Found {
    fn from(error: E) -> Self {
        let error = error.into();
        if let ::redb::Error::Io(error) = &error
            && error.kind() == io::ErrorKind::InvalidData
        {
            return Self::NotRedb;
        }
        Self::Damaged(error.to_string())
    }
}

fn look_at(bytes: &[u8]) -> Result<Seen, Found> {
    let memory = InMemoryBackend::new();
    StorageBackend::set_len(&memory, bytes.len() as u64)
        .and_then(|()| StorageBackend::write(&memory, 0, bytes))
        .map_err(|error| Found::Damaged(error.to_string()))?;
    let database = Builder::new()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(memory)?;
    let transaction = database.begin_read()?;
    let foreign = |error| {
        if let TableError::Storage(error) = error {
            Found::from(error)
        } else {
            Found::Foreign
        }
    };
    let meta = transaction.open_table(META).map_err(foreign)?;
    let schema = meta.get(SCHEMA_KEY)?.ok_or(Found::Foreign)?.value();
    if schema != SCHEMA {
        return Err(Found::Newer(schema));
    }
    let identity = transaction.open_table(IDENTITY).map_err(foreign)?;
    let id = identity.get(ID_KEY)?.ok_or(Found::Foreign)?;
    Ok(Seen {
        id: id.value().to_owned(),
        epoch: meta.get(EPOCH_KEY)?.map_or(0, |epoch| epoch.value()),
    })
}

/// Makes an empty store aside and puts it in place whole.
fn create(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("new");
    let id = format!("{:032x}", rand::random::<u128>());
    let made = make(&aside, &id, |_| Ok(())).and_then(|()| {
        fs::rename(&aside, path)?;
        backup::sync_directory(path)?;
        Ok(())
    });
    made.map_err(|error| {
        // Only a leftover, which the next attempt replaces.
        let _ = fs::remove_file(&aside);
        failed("make", path, &error)
    })
}

/// Makes a store of this id, with what `contents` puts into it.
pub(super) fn make(
    aside: &Path,
    id: &str,
    contents: impl FnOnce(&WriteTransaction) -> Result<(), ::redb::Error>,
) -> Result<(), ::redb::Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(aside)?;
    let database = Builder::new()
        .set_cache_size(CACHE)
        .create_with_backend(FileBackend::new(file)?)?;
    super::commit(&database, |transaction| {
        let mut meta = transaction.open_table(META)?;
        meta.insert(SCHEMA_KEY, SCHEMA)?;
        meta.insert(EPOCH_KEY, 0)?;
        drop(meta);
        transaction.open_table(IDENTITY)?.insert(ID_KEY, id)?;
        transaction.open_table(RUNS)?;
        transaction.open_table(LENGTHS)?;
        transaction.open_table(JOURNAL)?;
        transaction.open_table(STATE)?;
        contents(transaction)?;
        Ok(Ok(()))
    })?
    .map_err(|why| ::redb::Error::Io(io::Error::other(why)))?;
    database.close()?;
    Ok(())
}

/// Writes the id, or with an empty one that nothing is known.
pub(super) fn note_id(mut file: &File, id: &str) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.set_len(0)?;
    if !id.is_empty() {
        writeln!(file, "{id}")?;
    }
    file.sync_all()
}

/// Holes in the file, and what lies behind its end, become space of its own: what is journaled while its disk is full
/// still fits for a while. Its length stays, which redb insists on.
fn reserve(path: &Path) {
    let reserved = OpenOptions::new().write(true).open(path).and_then(|file| {
        let length = file.metadata()?.len().max(RESERVE);
        let length = i64::try_from(length).map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length)?;
        Ok(())
    });
    if let Err(error) = reserved {
        tracing::debug!(%error, path = %path.display(), "the store's space is not reserved");
    }
}

fn id_file(path: &Path) -> PathBuf {
    path.with_extension("id")
}

fn damaged(path: &Path, what: String, advice: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        what,
        advice: advice.into(),
    }
}

pub(super) fn failed(action: &'static str, path: &Path, error: &::redb::Error) -> StoreError {
    if let ::redb::Error::Io(error) = error {
        return io_error(action, path, error);
    }
    StoreError::Io {
        action,
        path: path.to_owned(),
        why: error.to_string(),
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, StorageFull};
    let kind = error.kind();
    let advice = if matches!(kind, StorageFull | QuotaExceeded) {
        "; free space on its file system, then restart"
    } else if kind == NotFound {
        "; make its directory, or set `state_dir`"
    } else if kind == PermissionDenied {
        "; run as the user that owns it"
    } else {
        ""
    };
    StoreError::Io {
        action,
        path: path.to_owned(),
        why: format!("{error}{advice}"),
    }
}
