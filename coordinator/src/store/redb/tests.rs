//! The contract, and what becomes of a file that is not as it was left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::conformance;
use super::*;

const CHILD_STORE: &str = "BLACKSTART_TEST_STORE";

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("store.redb")
    }

    fn id(&self) -> PathBuf {
        self.dir.path().join("store.id")
    }

    fn open(&self) -> Result<RedbStore, StoreError> {
        RedbStore::open(&self.file())
    }

    /// With some content, closed.
    fn filled() -> Self {
        let place = Self::new();
        let store = place.open().unwrap();
        for index in 0..20 {
            store.append("run", index, &[b'x'; 1000]).unwrap();
        }
        store.put("node/a", b"known").unwrap();
        drop(store);
        place
    }

    /// Opening fails as damaged, names the file and gives advice, and leaves the file as it is.
    fn assert_refused(&self, what: &str) {
        let before = fs::read(self.file()).ok();
        for _ in 0..2 {
            let error = self.open().unwrap_err();
            let told = error.to_string();
            assert!(matches!(error, StoreError::Damaged { .. }), "{told}");
            assert!(
                told.contains("store.redb cannot be used") && told.contains(what),
                "{told}"
            );
            assert!(told.contains("; "), "no advice: {told}");
            assert!(
                before == fs::read(self.file()).ok(),
                "the file was changed: {told}"
            );
        }
    }
}

#[test]
fn it_conforms() {
    conformance::all(|| {
        let place = Place::new();
        move || place.open().unwrap()
    });
}

#[test]
fn it_is_for_its_owner_alone() {
    let place = Place::filled();
    for file in [place.file(), place.id()] {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[test]
fn a_second_opener_is_told_that_it_is_busy() {
    let place = Place::filled();
    let first = place.open().unwrap();
    assert!(matches!(place.open().unwrap_err(), StoreError::Busy(path) if path == place.file()));
    drop(first);
    place.open().unwrap();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let place = Place::filled();
    for (content, what) in [
        (Vec::new(), "it is empty"),
        (b"not a store at all".repeat(1000), "not a redb file"),
        (vec![0; 1 << 20], "not a redb file"),
    ] {
        fs::write(place.file(), content).unwrap();
        place.assert_refused(what);
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_was_cut() {
    let place = Place::filled();
    let whole = fs::read(place.file()).unwrap();
    for keep in [5, 100, 320, 4096, 10_000, whole.len() / 2, whole.len() - 1] {
        fs::write(place.file(), &whole[..keep]).unwrap();
        place.assert_refused("");
    }
    fs::write(place.file(), &whole).unwrap();
    assert_eq!(place.open().unwrap().journal("run").unwrap().len(), 20);
}

#[test]
fn damage_is_refused_or_harmless_and_never_loses_an_entry() {
    let place = Place::filled();
    let whole = fs::read(place.file()).unwrap();
    let mut refused = 0;
    for page in (0..whole.len()).step_by(4096) {
        let mut bad = whole.clone();
        for byte in &mut bad[page + 64..page + 96] {
            *byte ^= 0x5a;
        }
        if bad[page..page + 4096].iter().all(|byte| matches!(byte, 0 | 0x5a)) {
            continue;
        }
        fs::write(place.file(), &bad).unwrap();
        match place.open() {
            // A page that is not in use any more.
            Ok(store) => {
                let journal = store.journal("run").unwrap();
                assert!(
                    journal.len() == 20 && journal.iter().all(|entry| entry == &[b'x'; 1000]),
                    "page {page}"
                );
                assert_eq!(store.get("node/a").unwrap().as_deref(), Some(&b"known"[..]));
            }
            Err(error) => {
                assert!(
                    matches!(error, StoreError::Damaged { .. }),
                    "page {page}: {error}"
                );
                assert!(
                    fs::read(place.file()).unwrap() == bad,
                    "page {page} changed the file"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 3, "only {refused} pages are in use");
}

#[test]
fn another_programs_file_and_another_schema_are_told_apart() {
    let place = Place::filled();
    fs::remove_file(place.file()).unwrap();
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("theirs");
    let database = Database::create(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(table)
        .unwrap()
        .insert("schema", 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    place.assert_refused("some other program");

    let place = Place::filled();
    let database = Database::open(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert(SCHEMA_KEY, 9)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    place.assert_refused("it has schema 9, and this version reads 1; run the version");
}

#[test]
fn one_that_is_gone_is_not_replaced_by_an_empty_one() {
    let place = Place::filled();
    fs::remove_file(place.file()).unwrap();
    place.assert_refused("missing");
    assert!(!place.file().exists());
    // The advice: somebody decides that it is lost.
    fs::remove_file(place.id()).unwrap();
    assert_eq!(place.open().unwrap().runs().unwrap(), Vec::<String>::new());
}

#[test]
fn the_store_of_another_place_is_recognized() {
    let (place, other) = (Place::filled(), Place::filled());
    fs::copy(other.file(), place.file()).unwrap();
    place.assert_refused("another store");
    fs::remove_file(place.id()).unwrap();
    place.open().unwrap();
}

#[test]
fn a_making_that_was_cut_off_is_finished() {
    // After `store.id`, with a leftover of what was made aside.
    let place = Place::new();
    fs::write(place.id(), "").unwrap();
    fs::write(place.dir.path().join("store.new"), "half").unwrap();
    drop(place.open().unwrap());
    // Before `store.id` was written, and when a power loss took its content.
    for content in ["", "\0\0\0\0"] {
        fs::write(place.id(), content).unwrap();
        drop(place.open().unwrap());
        assert_eq!(fs::read_to_string(place.id()).unwrap().trim().len(), 32);
    }
}

#[test]
fn a_directory_that_is_not_there_is_told_with_advice() {
    let told = RedbStore::open(&PathBuf::from("/nowhere/at/all/store.redb"))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("/nowhere/at/all") && told.contains("state_dir"),
        "{told}"
    );
}

/// The child of the test below: writes until it is killed, and says each time what is durable.
fn writes_until_killed(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    let first = store.journal("run").unwrap().len() as u64;
    for index in first.. {
        store
            .append("run", index, format!("entry {index}").as_bytes())
            .unwrap();
        store.put("count", &index.to_le_bytes()).unwrap();
        let epoch = store.next_epoch().unwrap();
        println!("\ndurable {index} {epoch}");
    }
}

#[test]
fn what_was_promised_survives_a_kill() {
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        writes_until_killed(Path::new(&path));
        return;
    }
    let place = Place::new();
    let mut least = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::redb::tests::what_was_promised_survives_a_kill",
                "--nocapture",
            ])
            .env(CHILD_STORE, place.file())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut promises = lines.filter_map(|line| {
            let line = line.ok()?;
            let (index, epoch) = line.strip_prefix("durable ")?.split_once(' ')?;
            Some((index.parse::<u64>().unwrap(), epoch.parse::<u64>().unwrap()))
        });
        promises.nth(round * 3).expect("the child ended early");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between our look and its end counts as well.
        let (index, epoch) = promises.last().unwrap_or((least, 0));

        let store = place.open().unwrap();
        let journal = store.journal("run").unwrap();
        assert!(
            journal.len() as u64 > index,
            "{} entries, promised {index}",
            journal.len()
        );
        for (index, entry) in journal.iter().enumerate() {
            assert_eq!(entry, format!("entry {index}").as_bytes());
        }
        let count = store.get("count").unwrap().unwrap();
        assert!(u64::from_le_bytes(count.try_into().unwrap()) >= index);
        assert!(store.next_epoch().unwrap() > epoch);
        least = index;
    }
}
