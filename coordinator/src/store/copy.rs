//! From one store to another: from one coordinator to several, or back.

use super::{Store, StoreError};

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Runs with their whole journals.
    pub runs: usize,
    /// Values of durable state.
    pub values: usize,
    /// The other store's next epoch is higher than this.
    pub epoch: u64,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is something else in the other store.
    #[error("{0} in the store that is written to differs from the one that is read; write to an empty one")]
    Differs(String),
}

/// Copies everything. What is there already must be the same, so that a copy that was cut short may be made again. Nobody else
/// may be at work in either.
///
/// # Errors
/// A store does not answer, or there is another history in `to`. What was copied until then stays.
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<Copied, CopyError> {
    let runs = from.runs()?;
    let there = to.runs()?;
    if !runs.starts_with(&there) {
        return Err(CopyError::Differs(format!(
            "the list of runs ({})",
            there.join(", ")
        )));
    }
    let values = from.scan("")?;
    for (key, value) in to.scan("")? {
        if !values.contains(&(key.clone(), value)) {
            return Err(CopyError::Differs(format!("the value of {key}")));
        }
    }
    for run in &runs {
        let entries = from.journal(run)?;
        let there = to.journal(run)?;
        if !entries.starts_with(&there) {
            return Err(CopyError::Differs(format!("the journal of {run}")));
        }
        for (index, entry) in (0..).zip(&entries).skip(there.len()) {
            to.append(run, index, entry)?;
        }
    }
    to.put_all(&values)?;
    // Last of all: whoever acts on the copy acts above everything that was ever done by the original.
    let epoch = from.next_epoch()?;
    to.raise_epoch(epoch)?;
    Ok(Copied {
        runs: runs.len(),
        values: values.len(),
        epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::RedbStore;

    fn store(dir: &tempfile::TempDir, name: &str) -> RedbStore {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        RedbStore::open(&dir.join("store.redb")).unwrap()
    }

    #[test]
    fn the_copy_is_the_original_and_acts_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (store(&dir, "from"), store(&dir, "to"));
        for run in ["z", "a"] {
            from.append(run, 0, b"began").unwrap();
            from.append(run, 1, b"ended").unwrap();
        }
        from.put("node/a", b"boot").unwrap();
        from.raise_epoch(41).unwrap();
        // A copy that was cut short.
        to.append("z", 0, b"began").unwrap();
        let copied = copy(&from, &to).unwrap();
        assert_eq!((copied.runs, copied.values, copied.epoch), (2, 1, 42));
        assert_eq!(to.runs().unwrap(), ["z", "a"]);
        assert_eq!(to.journal("a").unwrap(), from.journal("a").unwrap());
        assert_eq!(to.get("node/a").unwrap().as_deref(), Some(&b"boot"[..]));
        assert!(to.next_epoch().unwrap() > 42);
    }

    #[test]
    fn another_history_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (store(&dir, "from"), store(&dir, "to"));
        from.append("a", 0, b"began").unwrap();
        to.append("a", 0, b"otherwise").unwrap();
        let error = copy(&from, &to).unwrap_err();
        assert!(error.to_string().contains("the journal of a"), "{error}");
        to.append("b", 0, b"another").unwrap();
        assert!(
            copy(&from, &to)
                .unwrap_err()
                .to_string()
                .contains("the list of runs")
        );
        assert_eq!(to.journal("a").unwrap(), [b"otherwise"]);
    }
}
