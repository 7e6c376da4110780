//! `ReclaimLog`: runs [`crate::reclaim`] on a thread that may block, and says in one line what came of it.
//!
//! Needs no space: it opens nothing for creation and writes no byte, so it works on a disk that is full, and whoever
//! keeps the ledger on the same disk may do it first and write the outcome afterwards.

use std::error::Error;
use std::sync::Arc;

use crate::ledger::Outcome;
use crate::reclaim::{ReclaimError, Reclaimed, Rules, reclaim};
use crate::signal::LogId;

/// Reclaims `log`, or with `dry_run` says how. After a success the caller should let diagnosis see
/// [`Signal::LogGone`](crate::signal::Signal::LogGone) for it: what was known of its size is out of date, and the
/// watcher tells the new size at its next look.
pub async fn reclaim_log(log: LogId, rules: Arc<Rules>, dry_run: bool) -> Outcome {
    let done = tokio::task::spawn_blocking(move || reclaim(&log, &rules, dry_run)).await;
    match done {
        Ok(done) => outcome(done),
        Err(_) => Outcome::Failed {
            detail: "the reclaim was broken off".to_owned(),
        },
    }
}

/// A log that is gone or was truncated by somebody else has given its space back.
fn outcome(done: Result<Reclaimed, ReclaimError>) -> Outcome {
    match done {
        Ok(reclaimed) => Outcome::Succeeded {
            detail: reclaimed.to_string(),
        },
        Err(error @ (ReclaimError::Gone { .. } | ReclaimError::Shrunk { .. })) => Outcome::Succeeded {
            detail: error.to_string(),
        },
        Err(error) => Outcome::Failed {
            detail: error
                .source()
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::LogSettings;

    #[tokio::test]
    async fn tells_what_it_did_and_that_a_log_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let path = root.join("app.log");
        fs::write(&path, vec![b'x'; 4 << 20]).unwrap();
        let _writer = OpenOptions::new().write(true).open(&path).unwrap();
        let found = fs::metadata(&path).unwrap();
        let log = LogId {
            dev: found.dev(),
            ino: found.ino(),
            path: path.clone(),
            deleted: false,
        };
        let rules = Arc::new(
            Rules::new(&LogSettings {
                globs: vec![format!("{}/*", root.display())],
                keep_tail: 1 << 20,
                ..LogSettings::default()
            })
            .unwrap(),
        );
        let detail = async |dry_run| match reclaim_log(log.clone(), rules.clone(), dry_run).await {
            Outcome::Succeeded { detail } | Outcome::Failed { detail } => detail,
        };
        let planned = detail(true).await;
        assert!(planned.starts_with("would punch the first 3.0 MiB"), "{planned}");
        let done = detail(false).await;
        assert!(done.contains("by punch of the first 3.0 MiB"), "{done}");
        fs::remove_file(&path).unwrap();
        let gone = reclaim_log(log.clone(), rules.clone(), false).await;
        assert!(matches!(gone, Outcome::Succeeded { .. }), "{gone:?}");
    }
}
