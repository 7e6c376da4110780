//! Reads everything that a store or a backup has, as a coordinator that starts would, and says all that is wrong. Pure.

use blackstart_proto::boot::BootIdentity;
use serde::Serialize;
use tokio::time::Instant;

use crate::brakes::kept::{HOLDS, STORMS};
use crate::execute::journal::{Entry, Event};
use crate::execute::record::Run;
use crate::execute::status::RunState;
use crate::fleet::boots;
use crate::permit::{self, kept::PERMITS};
use crate::store::backup::{Bytes, RunJournal, Snapshot};
use crate::store::witnessed::WITNESS;
use crate::trust::book;
use crate::trust::desk::{ISSUED, REVOKED, TOKENS};

/// Where version 0.1 kept the coordinator's own boot before it had a file for it.
const SETTLED_BOOT: &str = "coordinator/settled-boot";

/// What a check found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The id of the store.
    pub id: String,
    /// The highest epoch that it gave away.
    pub epoch: u64,
    /// Each run that can be replayed, oldest first.
    pub runs: Vec<RunReport>,
    /// So many values it has.
    pub values: usize,
    /// What is wrong. Empty: a coordinator can start with it.
    pub problems: Vec<Problem>,
}

/// A run that can be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Its id.
    pub id: String,
    /// So many entries its journal has.
    pub entries: u64,
    /// How it stands.
    pub state: RunState,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// With what: `store`, `run ID`, `value KEY`.
    pub of: String,
    /// What, and what to do.
    pub what: String,
}

/// Looks at everything.
pub fn check(snapshot: &Snapshot) -> Report {
    let mut report = Report {
        id: snapshot.id.clone(),
        epoch: snapshot.epoch,
        values: snapshot.values.len(),
        ..Report::default()
    };
    for run in &snapshot.runs {
        match replay(run, snapshot.epoch) {
            Ok(run) => report.runs.push(run),
            Err(what) => report.problems.push(Problem {
                of: format!("run {}", run.id),
                what,
            }),
        }
    }
    for (key, value) in &snapshot.values {
        if let Err(what) = parse(key, value.as_slice()) {
            report.problems.push(Problem {
                of: format!("value {key}"),
                what,
            });
        }
    }
    report
}

fn replay(run: &RunJournal, highest: u64) -> Result<RunReport, String> {
    let journal: Vec<_> = run
        .entries
        .iter()
        .map(|entry| Bytes::as_slice(entry).to_vec())
        .collect();
    let replayed = Run::replay(&run.id, &journal, Instant::now()).map_err(|error| error.to_string())?;
    let epochs = journal.iter().filter_map(|entry| {
        let entry: Entry = serde_json::from_slice(entry).ok()?;
        if let Event::RunStarted { epoch, .. } | Event::Resumed { epoch } = entry.event {
            return Some(epoch);
        }
        None
    });
    if let Some(epoch) = epochs.max().filter(|epoch| *epoch > highest) {
        return Err(format!(
            "it was at work with epoch {epoch}, and the store knows none above {highest}: its agents would refuse this coordinator; raise \
             it with: blackstart-coordinator epoch --at-least {epoch}"
        ));
    }
    Ok(RunReport {
        id: replayed.id,
        entries: replayed.entries,
        state: replayed.state,
    })
}

fn parse(key: &str, value: &[u8]) -> Result<(), String> {
    let parsed = if key.starts_with(boots::PREFIX) {
        serde_json::from_slice::<boots::KnownBoot>(value).map(|_| ())
    } else if [HOLDS, STORMS].contains(&key) {
        serde_json::from_slice::<serde_json::Value>(value).map(|_| ())
    } else if key == PERMITS {
        return permit::kept::understand(value).map_err(|error| {
            format!(
                "it cannot be read ({error}); a coordinator that starts takes it for one that is not there"
            )
        });
    } else if key == TOKENS {
        serde_json::from_slice::<Vec<book::Token>>(value).map(|_| ())
    } else if key.starts_with(ISSUED) {
        serde_json::from_slice::<book::Issued>(value).map(|_| ())
    } else if key.starts_with(REVOKED) {
        serde_json::from_slice::<book::Revocation>(value).map(|_| ())
    } else if key == SETTLED_BOOT {
        serde_json::from_slice::<BootIdentity>(value).map(|_| ())
    } else if key == WITNESS {
        serde_json::from_slice::<u64>(value).map(|_| ())
    } else {
        return Err(
            "this version does not know what it is; it is left alone: was the store written by a newer one?"
                .to_owned(),
        );
    };
    parsed.map_err(|error| {
        format!("it cannot be read ({error}); a coordinator that starts takes it for one that is not there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn entry(event: Event) -> Bytes {
        let entry = Entry {
            at_unix_ms: 0,
            elapsed_ms: 0,
            event,
        };
        serde_json::to_vec(&entry).unwrap().as_slice().into()
    }

    fn begun(epoch: u64) -> Bytes {
        entry(Event::RunStarted {
            plan: Plan {
                runbook: "cold-start".to_owned(),
                steps: Vec::new(),
                lanes: Vec::new(),
                notes: Vec::new(),
            },
            reason: "test".to_owned(),
            epoch,
            request: None,
        })
    }

    fn journal(id: &str, entries: Vec<Bytes>) -> RunJournal {
        RunJournal {
            id: id.to_owned(),
            entries,
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let boot = br#"{"boot":{"boot_id":"a","nonce":"b","previous_shutdown":"clean"},"previous":null,"attended":false}"#;
        let snapshot = Snapshot {
            schema: 1,
            id: "id".to_owned(),
            epoch: 3,
            runs: vec![
                journal("well", vec![begun(3)]),
                journal("riddle", vec![begun(1), b"{}"[..].into()]),
                journal("ahead", vec![begun(1), entry(Event::Resumed { epoch: 7 })]),
                journal("headless", vec![entry(Event::Paused)]),
            ],
            values: vec![
                ("node/a".to_owned(), boot[..].into()),
                ("node/b".to_owned(), b"\xff"[..].into()),
                ("strange".to_owned(), b"{}"[..].into()),
            ],
        };
        let report = check(&snapshot);
        assert_eq!((report.runs.len(), report.values), (1, 3));
        let problems: Vec<_> = report
            .problems
            .iter()
            .map(|problem| (problem.of.as_str(), problem.what.as_str()))
            .collect();
        let expected = [
            ("run riddle", "entry 1"),
            ("run ahead", "epoch --at-least 7"),
            ("run headless", "does not begin"),
            ("value node/b", "cannot be read"),
            ("value strange", "newer"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for ((of, what), (at, says)) in problems.iter().zip(expected) {
            assert!(*of == at && what.contains(says), "{of}: {what}");
        }
    }
}
