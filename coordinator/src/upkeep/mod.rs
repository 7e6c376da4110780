//! Seeing to the store: backup, restore, check, and the operator's word on the epoch.
//!
//! ```text
//!  backup, check ─ nobody has the store open ─► read it
//!                └ a coordinator has ─► runtime_dir/backup.sock ─► the same snapshot, from within it
//!  restore, epoch ─ only while nobody has it open
//! ```

pub mod check;
pub mod periodic;
pub mod socket;

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::config::{Settings, StoreSettings};
use crate::store::StoreError;
use crate::store::backup::{self, BackupError, Snapshot};
use crate::store::redb::{RedbStore, Restored, restore as restore_store};

/// A restored store has an epoch so far above the one in its backup: a coordinator that started anew every second since then
/// would have needed eleven days to get there.
pub const LEAP: u64 = 1_000_000;
/// The highest epoch that an operator may name: there is room for the starts after it.
pub const HIGHEST: u64 = 1 << 53;

/// Why the store was not seen to.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// There is nothing to see to.
    #[error("there is no store at {}; is `state_dir` of the configuration right?", .0.display())]
    NoStore(PathBuf),
    /// It is no file of this coordinator.
    #[error(
        "the store is in etcd (`store.etcd`): etcdctl snapshot save keeps it, and `blackstart-coordinator store copy` brings it to a \
         file"
    )]
    InEtcd,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A coordinator has the store open, and does not answer.
    #[error(
        "a process has the store open and does not answer at {}; is it a coordinator with this `runtime_dir`? (systemctl status \
         blackstart-coordinator)", path.display()
    )]
    NoAnswer {
        /// Where it was asked.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It answered, and could not do it.
    #[error("the running coordinator could not copy its store: {0}")]
    Refused(String),
    /// It has the store open, so nobody else may change it.
    #[error("a coordinator runs; stop it first: systemctl stop blackstart-coordinator")]
    Running,
    /// The directory of the store.
    #[error("create the state directory {}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Everything that the store has, also while a coordinator runs. Tells whether one does.
///
/// # Errors
/// There is no store, it cannot be used, or who has it open does not answer.
pub fn snapshot(settings: &Settings) -> Result<(Snapshot, bool), UpkeepError> {
    let path = file(settings)?;
    // Opening makes a store where there never was one, and that is not what is wanted here.
    if !path.exists() && !path.with_extension("id").exists() {
        return Err(UpkeepError::NoStore(path));
    }
    match RedbStore::open(&path) {
        Ok(store) => Ok((store.snapshot()?, false)),
        Err(StoreError::Busy(_)) => Ok((socket::ask(&settings.backup_socket())?, true)),
        Err(error) => Err(error.into()),
    }
}

/// Puts a backup in the place of the store. Its epoch is far above the backup's, or `at_least` if that is higher: agents refuse a
/// coordinator whose epoch is below one that they have obeyed.
///
/// # Errors
/// The backup cannot be used, a coordinator runs, there is a store and `replace` was not said, or the disk says no.
pub fn restore(
    settings: &Settings,
    file: &std::path::Path,
    at_least: Option<u64>,
    replace: bool,
) -> Result<(Snapshot, Restored), UpkeepError> {
    let path = self::file(settings)?;
    let snapshot = backup::read(file)?;
    make_state_dir(settings)?;
    let epoch = at_least.unwrap_or(0).max(snapshot.epoch.saturating_add(LEAP));
    let restored = restore_store(&path, &snapshot, epoch, replace).map_err(running)?;
    Ok((snapshot, restored))
}

/// The epoch of the store, raised if it is below `at_least`. With that a store is made where there is none.
///
/// # Errors
/// There is no store, a coordinator runs, or the disk says no.
pub fn epoch(settings: &Settings, at_least: Option<u64>) -> Result<u64, UpkeepError> {
    let path = file(settings)?;
    let Some(at_least) = at_least else {
        return Ok(snapshot(settings)?.0.epoch);
    };
    make_state_dir(settings)?;
    let store = RedbStore::open(&path).map_err(running)?;
    Ok(store.raise_epoch(at_least)?)
}

/// Where the store is.
fn file(settings: &Settings) -> Result<PathBuf, UpkeepError> {
    match settings.store {
        StoreSettings::Embedded => Ok(settings.store_file()),
        StoreSettings::Etcd(_) => Err(UpkeepError::InEtcd),
    }
}

fn make_state_dir(settings: &Settings) -> Result<(), UpkeepError> {
    let path = settings.state_dir.clone();
    fs::create_dir_all(&path).map_err(|source| UpkeepError::StateDir { path, source })
}

fn running(error: StoreError) -> UpkeepError {
    match error {
        StoreError::Busy(_) => UpkeepError::Running,
        error @ (StoreError::Damaged { .. }
        | StoreError::Io { .. }
        | StoreError::OutOfTurn { .. }
        | StoreError::NotLeading(_)) => error.into(),
    }
}
