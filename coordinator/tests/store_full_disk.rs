//! The store on a disk that is full: what was promised stays, a refused write leaves nothing, and space heals it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; a skipped one says so"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use blackstart_coordinator::store::backup::{self, BackupError};
use blackstart_coordinator::store::redb::{RedbStore, restore};
use blackstart_coordinator::store::{Store, StoreError};
use tempfile::TempDir;

/// A small file system in memory, unmounted whatever happens.
struct Small {
    dir: TempDir,
}

impl Small {
    fn mount(size: &str) -> Result<Self, String> {
        let small = Self {
            dir: tempfile::tempdir().map_err(|error| error.to_string())?,
        };
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "none",
                &small.root(),
            ],
        )?;
        Ok(small)
    }

    fn root(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily if a file is still open there; not mounted at all if the test was skipped.
        let _gone = run("umount", &[&self.root()]).or_else(|_| run("umount", &["-l", &self.root()]));
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn small(size: &str) -> Option<Small> {
    match Small::mount(size) {
        Ok(small) => Some(small),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "cannot mount tmpfs: {why}");
            println!("SKIPPED: cannot mount tmpfs: {why}");
            None
        }
    }
}

fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_whole_entries_and_space_heals_it() {
    let Some(disk) = small("16m") else { return };
    let path = disk.path("store.redb");
    let store = RedbStore::open(&path).unwrap();
    store.append("run", 0, b"begun").unwrap();
    fill(&disk.path("filler"));

    let entry = vec![7; 4000];
    let mut written = 1;
    let error = loop {
        match store.append("run", written, &entry) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "the disk is not full");
    };
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    // What is its own already is reserved: a run goes on for a while.
    assert!(written > 300, "only {written} entries fitted");
    // Still full: refused again, and read all the same once there is space.
    assert!(store.append("run", written, &vec![7; 2_000_000]).is_err());

    fs::remove_file(disk.path("filler")).unwrap();
    assert_eq!(store.journal("run").unwrap().len() as u64, written);
    store.append("run", written, &entry).unwrap();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.journal("run").unwrap().len() as u64, written + 1);
}

#[test]
fn a_store_that_cannot_be_made_leaves_no_half_of_one() {
    let Some(disk) = small("16k") else { return };
    let path = disk.path("store.redb");
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(!path.exists() && !disk.path("store.new").exists());
    run("mount", &["-o", "remount,size=16m", &disk.root()]).unwrap();
    RedbStore::open(&path).unwrap();
}

#[test]
fn a_store_is_opened_on_a_full_disk_and_a_restore_there_changes_nothing() {
    let Some(disk) = small("16m") else { return };
    let path = disk.path("store.redb");
    let store = RedbStore::open(&path).unwrap();
    store.append("run", 0, &vec![7; 100_000]).unwrap();
    let snapshot = store.snapshot().unwrap();
    drop(store);
    fill(&disk.path("filler"));
    let before = fs::read(&path).unwrap();

    let error = restore(&path, &snapshot, 100, true).unwrap_err();
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(fs::read(&path).unwrap() == before && !disk.path("store.new").exists());
    let error = backup::write(&disk.path("backup"), &backup::encode(&snapshot)).unwrap_err();
    assert!(matches!(error, BackupError::Io { .. }), "{error}");
    assert!(!disk.path("backup").exists() && !disk.path("backup.new").exists());
    // A coordinator that starts now can: what it writes first fits into what is its own.
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.next_epoch().unwrap(), 1);
    store.append("run", 1, b"goes on").unwrap();
    assert_eq!(store.journal("run").unwrap().len(), 2);
}
