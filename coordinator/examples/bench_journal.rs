//! What the journal of a wave costs, written entry by entry and in batches, on the disk of the present directory.
//!
//! ```text
//! cargo run --release -p blackstart-coordinator --example bench_journal
//! ```
#![expect(clippy::print_stdout, reason = "a figure is what it is for")]

use std::time::Duration;

use anyhow::Context;
use blackstart_coordinator::store::redb::RedbStore;
use blackstart_coordinator::store::{NewEntry, Store};
use tokio::time::Instant;

const STEPS: u64 = 1500;
/// As many as the executor writes at once.
const BATCH: usize = 512;

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(".").context("make a directory here")?;
    let taken = |name: &str, at_once: usize| -> anyhow::Result<Duration> {
        let store = RedbStore::open(&dir.path().join(name))?;
        let began = Instant::now();
        for batch in wave().chunks(at_once) {
            store.append_all(batch)?;
        }
        Ok(began.elapsed())
    };
    let one_by_one = taken("single.redb", 1)?;
    let together = taken("batch.redb", BATCH)?;
    println!(
        "{STEPS} entries: one by one {one_by_one:?}, {BATCH} at once {together:?}: {:.0} times as fast",
        one_by_one.as_secs_f64() / together.as_secs_f64()
    );
    Ok(())
}

fn wave() -> Vec<NewEntry> {
    let entry = |index| NewEntry {
        run: "run".to_owned(),
        index,
        bytes: format!("entry {index} of a wave, long enough to be one").into_bytes(),
    };
    (0..STEPS).map(entry).collect()
}
