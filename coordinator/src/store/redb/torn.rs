//! The power is lost between any two writes of the disk, or within one: a batch of entries is there whole or not at all.

use std::fs;
use std::sync::Arc;

use ::redb::backends::InMemoryBackend;
use ::redb::{Builder, StorageBackend};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::NewEntry;
use super::*;

const BEFORE: u64 = 20;
const WAVE: u64 = 300;

/// What redb asks of a disk.
#[derive(Debug, Clone)]
enum Asked {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

/// A disk that remembers what it was asked.
#[derive(Debug)]
struct Recorder {
    disk: InMemoryBackend,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Recorder {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.note(Asked::Length(usize::try_from(length).unwrap()));
        self.disk.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Asked::Sync);
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Asked::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        self.disk.write(offset, data)
    }
}

fn wave(from: u64, count: u64) -> Vec<NewEntry> {
    (from..from + count)
        .map(|index| NewEntry {
            run: "run".to_owned(),
            index,
            bytes: format!("entry {index} of a wave, long enough to be one").into_bytes(),
        })
        .collect()
}

fn apply(image: &mut Vec<u8>, asked: &Asked) {
    match asked {
        Asked::Write(offset, bytes) => {
            let end = (offset + bytes.len()).max(image.len());
            image.resize(end, 0);
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Asked::Length(length) => image.resize(*length, 0),
        Asked::Sync => {}
    }
}

/// What a disk has when the power goes after so many of what it was asked. What was synced is there; of what came after that,
/// with a chance: all of it, or some of it, the last of them in part.
fn left(before: &[u8], asked: &[Asked], chance: Option<&mut SmallRng>) -> Vec<u8> {
    let mut image = before.to_vec();
    let synced = asked.iter().rposition(|asked| matches!(asked, Asked::Sync));
    let (certain, open) = asked.split_at(synced.map_or(0, |at| at + 1));
    for asked in certain {
        apply(&mut image, asked);
    }
    let Some(chance) = chance else {
        for asked in open {
            apply(&mut image, asked);
        }
        return image;
    };
    for asked in open {
        match asked {
            Asked::Write(offset, bytes) if chance.random_bool(0.3) => {
                // A disk writes whole sectors.
                let kept = bytes.len().min(chance.random_range(0..=bytes.len() / 512) * 512);
                apply(&mut image, &Asked::Write(*offset, bytes[..kept].to_vec()));
            }
            Asked::Write(..) if chance.random_bool(0.5) => {}
            Asked::Write(..) | Asked::Length(_) | Asked::Sync => apply(&mut image, asked),
        }
    }
    image
}

#[test]
fn a_batch_is_whole_or_not_there_wherever_the_power_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = RedbStore::open(&path).unwrap();
    store.append_all(&wave(0, BEFORE)).unwrap();
    drop(store);

    let before = fs::read(&path).unwrap();
    let disk = InMemoryBackend::new();
    disk.set_len(before.len() as u64).unwrap();
    disk.write(0, &before).unwrap();
    let asked = Arc::default();
    let recorder = Recorder {
        disk,
        asked: Arc::clone(&asked),
    };
    let database = Builder::new().create_with_backend(recorder).unwrap();
    let entries = wave(BEFORE, WAVE);
    commit(&database, |transaction| append(transaction, &entries))
        .unwrap()
        .unwrap();
    let promised = asked.lock().unwrap().len();
    drop(database);

    let asked = asked.lock().unwrap().clone();
    let seed = 1;
    let mut chance = SmallRng::seed_from_u64(seed);
    let (mut without, mut whole) = (0, 0);
    for cut in 0..=asked.len() {
        for torn in 0..4 {
            let chance = (torn > 0).then_some(&mut chance);
            fs::write(&path, left(&before, &asked[..cut], chance)).unwrap();
            let store = RedbStore::open(&path).unwrap_or_else(|error| panic!("cut {cut}, {torn}: {error}"));
            let journal = store.journal("run").unwrap();
            let has = journal.len() as u64;
            assert!(
                has == BEFORE + WAVE || (has == BEFORE && cut < promised),
                "cut {cut}, {torn}, promised at {promised}: {has} entries"
            );
            for (entry, bytes) in wave(0, has).iter().zip(&journal) {
                assert_eq!(&entry.bytes, bytes, "cut {cut}, {torn}");
            }
            store.append_all(&wave(has, 1)).unwrap();
            *(if has == BEFORE { &mut without } else { &mut whole }) += 1;
        }
    }
    assert!(without > 0 && whole > 0);
    println!(
        "{} requests of a disk, cut at each: {without} times without the batch, {whole} times with it",
        asked.len()
    );
}
