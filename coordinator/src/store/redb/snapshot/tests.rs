//! What a restore keeps, refuses and raises.

use super::super::super::Store;
use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("store.redb")
    }

    fn open(&self) -> RedbStore {
        RedbStore::open(&self.file()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}

/// A store at epoch 3 with two runs and a value.
fn filled() -> (Place, Snapshot) {
    let place = Place::new();
    let store = place.open();
    for _ in 0..3 {
        store.next_epoch().unwrap();
    }
    for (run, index, entry) in [("b", 0, &b"{}"[..]), ("a", 0, b"\xff"), ("b", 1, b"")] {
        store.append(run, index, entry).unwrap();
    }
    store.put("node/a", b"known").unwrap();
    let snapshot = store.snapshot().unwrap();
    drop(store);
    (place, snapshot)
}

#[test]
fn a_store_comes_back_from_its_snapshot_with_a_higher_epoch() {
    let (_first, snapshot) = filled();
    assert_eq!((snapshot.epoch, snapshot.runs.len()), (3, 2));
    let place = Place::new();
    let restored = restore(&place.file(), &snapshot, 1000, false).unwrap();
    assert_eq!((restored.epoch, restored.kept), (1000, None));
    let store = place.open();
    let expected = Snapshot {
        epoch: 1000,
        ..snapshot
    };
    assert_eq!(store.snapshot().unwrap(), expected);
    assert_eq!(store.journal("b").unwrap(), [&b"{}"[..], b""]);
    assert_eq!(store.next_epoch().unwrap(), 1001);
    store.append("b", 2, b"goes on").unwrap();
    drop(store);
    assert_eq!(place.names(), ["store.id", "store.redb"]);
}

#[test]
fn a_store_that_is_there_is_replaced_only_when_told_to_and_kept() {
    let (_first, snapshot) = filled();
    let place = Place::new();
    let store = place.open();
    store.raise_epoch(5000).unwrap();
    store.append("mine", 0, b"{}").unwrap();
    // A coordinator has it open.
    let error = restore(&place.file(), &snapshot, 10, true).unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error}");
    drop(store);
    let before = fs::read(place.file()).unwrap();
    let error = restore(&place.file(), &snapshot, 10, false).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    assert!(fs::read(place.file()).unwrap() == before);

    // It had a higher epoch than the backup, and so its agents have.
    let restored = restore(&place.file(), &snapshot, 10, true).unwrap();
    assert_eq!(restored.epoch, 5000);
    let kept = restored.kept.unwrap();
    assert!(fs::read(&kept).unwrap() == before);
    assert_eq!(place.open().runs().unwrap(), ["b", "a"]);
    // And again: nothing that is kept is overwritten.
    let again = restore(&place.file(), &snapshot, 10, true).unwrap();
    assert_ne!(again.kept.as_ref(), Some(&kept));
    assert!(fs::read(&kept).unwrap() == before);
    // The way back from a restore that was a mistake.
    fs::rename(&kept, place.file()).unwrap();
    fs::remove_file(place.dir.path().join("store.id")).unwrap();
    assert_eq!(place.open().runs().unwrap(), ["mine"]);
}

#[test]
fn a_damaged_and_a_missing_store_come_back() {
    let (place, snapshot) = filled();
    fs::write(place.file(), b"not a store at all".repeat(1000)).unwrap();
    restore(&place.file(), &snapshot, 10, true).unwrap();
    assert_eq!(place.open().runs().unwrap(), ["b", "a"]);
    // One that is gone is not in the way: nothing has to be forced.
    fs::remove_file(place.file()).unwrap();
    restore(&place.file(), &snapshot, 10, false).unwrap();
    assert_eq!(place.open().runs().unwrap(), ["b", "a"]);
}

#[test]
fn a_snapshot_of_another_schema_is_refused() {
    let (place, snapshot) = filled();
    let newer = Snapshot {
        schema: 9,
        ..snapshot
    };
    let error = restore(&place.file(), &newer, 10, true).unwrap_err();
    assert!(error.to_string().contains("schema 9"), "{error}");
    assert_eq!(place.open().epoch().unwrap(), 3);
    assert_eq!(place.names(), ["store.id", "store.redb"]);
}

#[test]
fn a_restore_that_was_cut_off_leaves_one_store_or_the_other() {
    let (place, snapshot) = filled();
    let other = Snapshot {
        id: "cd".repeat(16),
        ..snapshot
    };
    // Before the new one is in its place: a leftover beside, perhaps with the id taken back already.
    fs::write(place.dir.path().join("store.new"), "half").unwrap();
    assert_eq!(place.open().epoch().unwrap(), 3);
    fs::write(place.dir.path().join("store.id"), "").unwrap();
    assert_eq!(place.open().epoch().unwrap(), 3);
    // After, and its id is not written yet.
    restore(&place.file(), &other, 10, true).unwrap();
    fs::write(place.dir.path().join("store.id"), "").unwrap();
    assert_eq!(place.open().epoch().unwrap(), 10);
}
