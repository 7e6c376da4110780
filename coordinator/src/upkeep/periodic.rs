//! Backups that a coordinator makes of its own store: `state_dir/backups/NUMBER.backup`, the newest `keep` of them.
//!
//! They are on the store's own disk: what they mend is a store that was damaged, or a step that went wrong. Against the loss of the
//! disk or the machine an operator copies them, or what `blackstart-coordinator backup` writes, to another one.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::policy::BackupPolicy;
use crate::store::backup;
use crate::store::redb::RedbStore;

const SUFFIX: &str = "backup";

/// The first is made so long after a start, or later: a coordinator that ends before that again and again must not push out the backups
/// of better days.
const FIRST: Duration = Duration::from_mins(1);

/// Makes them until `stop`, each `every` since the last, also since one of a process before.
pub async fn run(store: Arc<RedbStore>, directory: PathBuf, policy: BackupPolicy, stop: CancellationToken) {
    if policy.keep == 0 {
        return stop.cancelled().await;
    }
    let mut pause = until_first(&directory, policy.every, SystemTime::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = policy.every;
        let (store, directory) = (Arc::clone(&store), directory.clone());
        let made = spawn_blocking(move || make(&store, &directory, policy.keep));
        if let Err(error) = made.await.map_err(io::Error::other).and_then(|made| made) {
            tracing::warn!(%error, "no backup of the store was made; tried again in {:?}", policy.every);
        }
    }
}

/// How long until one is due. A wall clock that lies makes that sooner or later, never longer than `every`.
fn until_first(directory: &Path, every: Duration, now: SystemTime) -> Duration {
    let newest = numbers(directory)
        .ok()
        .and_then(|numbers| numbers.last().copied());
    let Some(newest) = newest else {
        return FIRST.min(every);
    };
    let made = fs::metadata(place(directory, newest)).and_then(|file| file.modified());
    let age = made.ok().and_then(|made| now.duration_since(made).ok());
    every
        .saturating_sub(age.unwrap_or_default())
        .max(FIRST.min(every))
}

/// Makes one, unless the store is as it was at the last one, and removes those that are too many.
fn make(store: &RedbStore, directory: &Path, keep: usize) -> io::Result<()> {
    let bytes = backup::encode(&store.snapshot().map_err(io::Error::other)?);
    fs::create_dir_all(directory)?;
    let numbers = numbers(directory)?;
    let last = numbers.last().copied().unwrap_or(0);
    if fs::read(place(directory, last)).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    backup::write(&place(directory, last + 1), &bytes).map_err(|error| {
        let why = Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
        io::Error::other(format!("{error}{why}"))
    })?;
    // Only once the new one is durable.
    let too_many = (numbers.len() + 1).saturating_sub(keep).min(numbers.len());
    for number in &numbers[..too_many] {
        fs::remove_file(place(directory, *number))?;
    }
    Ok(())
}

fn place(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.{SUFFIX}"))
}

/// The numbers of those that are there, in order. Other files are nobody's business here.
fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split_once('.'));
        if let Some((number, SUFFIX)) = number
            && let Ok(number) = number.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn the_newest_are_kept_and_nothing_is_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&dir.path().join("store.redb")).unwrap();
        let directory = dir.path().join("backups");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("mine.backup"), "").unwrap();
        for index in 0..5 {
            store.append("run", index, b"{}").unwrap();
            make(&store, &directory, 2).unwrap();
            // The store is as it was.
            make(&store, &directory, 2).unwrap();
        }
        assert_eq!(numbers(&directory).unwrap(), [4, 5]);
        assert!(directory.join("mine.backup").exists());
        let newest = backup::read(&place(&directory, 5)).unwrap();
        assert_eq!(newest, store.snapshot().unwrap());
        assert_eq!(newest.runs[0].entries.len(), 5);
    }
    #[test]
    fn a_coordinator_that_starts_again_and_again_makes_no_more_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_hours(1);
        let due = |after: Duration| until_first(dir.path(), hour, SystemTime::now() + after);
        assert_eq!(due(Duration::ZERO), FIRST);
        backup::write(&place(dir.path(), 1), b"").unwrap();
        let soon = due(hour / 4);
        assert!(soon > hour / 2 && soon <= hour * 3 / 4, "{soon:?}");
        assert_eq!(due(hour * 2), FIRST);
        // The clock went back.
        assert_eq!(until_first(dir.path(), hour, SystemTime::UNIX_EPOCH), hour);
        let second = Duration::from_secs(1);
        assert_eq!(until_first(dir.path(), second, SystemTime::UNIX_EPOCH), second);
    }
}
