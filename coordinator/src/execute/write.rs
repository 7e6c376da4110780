//! What the driver writes down: durable before anything follows from it, and all of one turn in one write.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::advance::Todo;
use super::driver::{Driver, Trouble};
use super::journal::{Entry, Event};
use super::record::Run;
use super::state::IllegalEvent;
use crate::events::{EventKind, NewEvent, Severity};
use crate::store::{NewEntry, StoreError};

/// The journal is tried again so long after it could not be written.
const JOURNAL_RETRY: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn entry(&self, run: &Run, event: Event) -> Entry {
        Entry {
            at_unix_ms: (self.surroundings.unix_ms)(),
            elapsed_ms: u64::try_from(run.elapsed(Instant::now()).as_millis()).unwrap_or(u64::MAX),
            event,
        }
    }

    /// Makes entries durable, all or none, then takes them in and tells about them.
    pub(super) async fn record(&mut self, at: usize, events: Vec<Event>) -> Result<(), StoreError> {
        let entries = self.entries(at, events)?;
        let run = &self.runs[at].run;
        let written = (0..).zip(&entries);
        let written: Result<Vec<_>, _> = written
            .map(|(after, entry)| new_entry(run, after, entry))
            .collect();
        self.append(written?).await?;
        self.take_in(at, &entries)
    }

    /// These events as entries. Nothing may get into a journal that could not be replayed.
    pub(super) fn entries(&self, at: usize, events: Vec<Event>) -> Result<Vec<Entry>, StoreError> {
        let run = &self.runs[at].run;
        run.check(&events).map_err(|error| unfit(&run.id, &error))?;
        Ok(events.into_iter().map(|event| self.entry(run, event)).collect())
    }

    /// Takes in what is durable.
    pub(super) fn take_in(&mut self, at: usize, entries: &[Entry]) -> Result<(), StoreError> {
        self.runs[at].changed |= !entries.is_empty();
        for entry in entries {
            let run = &mut self.runs[at].run;
            let before = run.state;
            let applied = run.apply(entry, Instant::now());
            applied.map_err(|error| unfit(&run.id, &error))?;
            self.tell(at, &entry.event, before);
        }
        Ok(())
    }

    pub(super) async fn append(&mut self, entries: Vec<NewEntry>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let appended = if self.surroundings.store_waits {
            let store = Arc::clone(&self.store);
            let appended = tokio::task::spawn_blocking(move || store.append_all(&entries)).await;
            appended.unwrap_or_else(|panic| {
                Err(StoreError::Io {
                    action: "append to the journal in",
                    path: "store".into(),
                    why: panic.to_string(),
                })
            })
        } else {
            self.store.append_all(&entries)
        };
        if let Err(error @ StoreError::OutOfTurn { .. }) = &appended {
            self.stand_down(error.to_string(), None);
        }
        appended?;
        if self.trouble.take().is_some() {
            let text = "the journal can be written again; runs go on";
            self.ports
                .events
                .emit(NewEvent::new(Severity::Info, EventKind::RunState, text));
        }
        Ok(())
    }

    pub(super) fn journal_failed(&mut self, error: &StoreError) {
        if self.superseded.is_some() {
            return;
        }
        let why = error.to_string();
        tracing::error!(
            error = why,
            "the journal cannot be written; nothing is begun until it can"
        );
        if self.trouble.is_none() {
            let text =
                format!("the journal cannot be written, so nothing is begun and no node is held: {why}");
            self.ports
                .events
                .emit(NewEvent::new(Severity::Critical, EventKind::RunState, text));
        }
        self.trouble = Some(Trouble {
            why,
            until: Instant::now() + JOURNAL_RETRY,
        });
    }
}

/// What is written down of what is to be done with a step; `None`: nothing, it was before.
pub(super) fn event(run: &Run, at: usize, todo: &Todo) -> Option<Event> {
    let step = run.plan.steps[at].id.clone();
    Some(match todo.clone() {
        Todo::Resend => return None,
        Todo::Dispatch => {
            let (command_id, attempt) = run.next_command(at);
            Event::StepStarted {
                step,
                command_id,
                attempt,
            }
        }
        Todo::Retry(why) => Event::AttemptFailed {
            step,
            attempt: run.steps[at].attempts,
            why,
        },
        Todo::Done(evidence) => Event::StepDone { step, evidence },
        Todo::Residue(why) => Event::StepResidue { step, why },
        Todo::Failed(why) => Event::StepFailed { step, why },
        Todo::Reopen(why) => Event::StepReopened { step, why },
    })
}

/// The entry that comes so many `after` the last of the journal of its run.
pub(super) fn new_entry(run: &Run, after: u64, entry: &Entry) -> Result<NewEntry, StoreError> {
    Ok(NewEntry {
        run: run.id.clone(),
        index: run.entries + after,
        bytes: encode(entry)?,
    })
}

fn unfit(run: &str, error: &IllegalEvent) -> StoreError {
    StoreError::Io {
        action: "append to the journal in",
        path: run.into(),
        why: error.to_string(),
    }
}

pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(entry).map_err(|error| StoreError::Io {
        action: "encode an entry for",
        path: "journal".into(),
        why: error.to_string(),
    })
}
