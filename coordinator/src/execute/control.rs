//! What operators, and the coordinator itself, say to the executor.
//!
//! Each word is durable before it is answered. Said twice it is once: whoever lost the answer may repeat it.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::driver::{Driver, Passed, Tracked};
use super::journal::{Entry, Event};
use super::record::Run;
use super::status::RunState;
use super::write::{encode, new_entry};
use super::{Control, Refusal, Word};
use crate::events::{EventKind, Severity};
use crate::plan::lint::lint;
use crate::plan::{Plan, rejoin};
use crate::store::{NewEntry, StoreError};

impl Driver {
    pub(super) async fn obey(&mut self, Control { word, reply }: Control) {
        let answer = match word {
            Word::Start {
                plan,
                reason,
                request,
            } => self.start(plan, reason, request).await,
            Word::Pause { run } => self.steer(&run, Event::Paused, RunState::Paused).await,
            Word::Resume { run } => self.steer(&run, Event::Unpaused, RunState::Running).await,
            Word::Abort { run } => {
                let why = "by an operator".to_owned();
                self.steer(&run, Event::Aborted { why }, RunState::Aborted).await
            }
        };
        self.publish(Instant::now());
        let answer = answer.map(|at| Arc::clone(&self.runs[at].status));
        // Whoever asked may have stopped waiting; what was done stays done.
        let _asker_gone = reply.send(answer);
    }

    async fn start(&mut self, plan: Plan, reason: String, request: Option<String>) -> Result<usize, Refusal> {
        let begun = |tracked: &Tracked| request.is_some() && tracked.run.request == request;
        if let Some(at) = self.runs.iter().position(begun) {
            return Ok(at);
        }
        if let Some(why) = &self.superseded {
            return Err(Refusal::Superseded(why.clone()));
        }
        let findings = lint(&plan, &self.inventory);
        if !findings.is_empty() {
            return Err(Refusal::Findings(findings));
        }
        // A lone node's way back ends where the whole cluster's begins, or a second power loss would find it in the way.
        let yields = |run: &Run| run.plan.runbook == rejoin::RUNBOOK && plan.runbook != rejoin::RUNBOOK;
        let mut yielding = Vec::new();
        for (at, tracked) in self.runs.iter().enumerate() {
            let run = &tracked.run;
            let shared = || {
                let ours: HashSet<_> = plan.releases().collect();
                run.plan.releases().find(|node| ours.contains(node)).cloned()
            };
            let Some(node) = run.state.is_active().then(shared).flatten() else {
                continue;
            };
            if !yields(run) {
                return Err(Refusal::Overlap {
                    run: run.id.clone(),
                    node,
                });
            }
            yielding.push(at);
        }
        let journal = |error: StoreError| Refusal::Journal(error.to_string());
        let id = format!("{}-{}", plan.runbook, self.begun + 1);
        let entry = Entry {
            at_unix_ms: (self.surroundings.unix_ms)(),
            elapsed_ms: 0,
            event: Event::RunStarted {
                plan,
                reason,
                epoch: self.epoch,
                request,
            },
        };
        // One hand over each node at any time: the lone run ends and the new one begins in the same write.
        let mut written = Vec::new();
        let mut aborted = Vec::new();
        for at in yielding {
            let why = format!("{id} takes its node over");
            let entries = self.entries(at, vec![Event::Aborted { why }]).map_err(journal)?;
            for entry in &entries {
                written.push(new_entry(&self.runs[at].run, 0, entry).map_err(journal)?);
            }
            aborted.push((at, entries));
        }
        written.push(NewEntry {
            run: id.clone(),
            index: 0,
            bytes: encode(&entry).map_err(journal)?,
        });
        self.append(written).await.map_err(journal)?;
        for (at, entries) in aborted {
            self.take_in(at, &entries).map_err(journal)?;
        }
        self.begun += 1;
        let now = Instant::now();
        let Some(run) = Run::begin(id, entry, now) else {
            return Err(Refusal::Stopping);
        };
        let text = format!("began: {}", run.reason);
        self.emit(&run, EventKind::RunStarted, Severity::Warning, text);
        let at = self.track(run, now);
        self.look(at, &mut Passed::default());
        Ok(at)
    }

    async fn steer(&mut self, id: &str, event: Event, wanted: RunState) -> Result<usize, Refusal> {
        let at = self
            .runs
            .iter()
            .position(|tracked| tracked.run.id == id)
            .ok_or_else(|| Refusal::Unknown(id.to_owned()))?;
        let run = &self.runs[at].run;
        if !run.state.is_active() && run.state != wanted {
            return Err(Refusal::Ended {
                run: id.to_owned(),
                state: run.state,
            });
        }
        if let Some(why) = self.superseded.as_ref().filter(|_| run.state.is_active()) {
            return Err(Refusal::Superseded(why.clone()));
        }
        if run.state == wanted {
            return Ok(at);
        }
        self.record(at, vec![event])
            .await
            .map_err(|error| Refusal::Journal(error.to_string()))?;
        if self.runs[at].run.state.is_active() {
            self.look(at, &mut Passed::default());
        }
        Ok(at)
    }
}
