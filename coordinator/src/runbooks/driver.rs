//! Carries one run out: looks, writes the intent, acts, looks again, writes the outcome. One task a run, one writer of its journal.

mod act;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::case::read::Depth;
use super::case::{Case, Wellness};
use super::journal::{Entry, Event};
use super::look::{Context, Look, Progress, look};
use super::plan::Action;
use super::record::{Record, RunState};
use super::status::{Asks, RunbookStatus};
use super::waiting::WaitingOn;
use super::{Refusal, Shared, Told, Word, lanes, observe, unix_ms};
use crate::events::{EventKind, NewEvent, Severity};
use crate::fleet::{Answer, OrderResult};
use crate::kubernetes::calls::Target;
use crate::store::{NewEntry, StoreError};

/// Looked at again at least so often: deadlines pass without an event.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const PACE: Duration = Duration::from_millis(50);
/// What is read of pods is good for so long; a few lists each time.
const READ_AGAIN: Duration = Duration::from_millis(900);
/// The journal is tried again so long after it could not be written.
const JOURNAL_RETRY: Duration = Duration::from_secs(2);

/// An answer of the node's agent.
#[derive(Debug)]
pub(super) struct Heard(pub(super) OrderResult);

/// A run at work.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    run: Record,
    /// It was taken up from its journal, which does not say so yet.
    resumed: bool,
    words: mpsc::Receiver<Told>,
    answers: mpsc::Receiver<Heard>,
    /// What only this process knows of the step whose turn it is.
    memory: Memory,
    /// Why the journal cannot be written.
    trouble: Option<String>,
    waiting: Option<WaitingOn>,
    /// Who approved last, and of what, as this process heard it: journals do not keep that of every approval.
    spoken: Option<(String, Asks)>,
}

#[derive(Debug, Default)]
struct Memory {
    step: Option<usize>,
    turn: Option<Instant>,
    sent: Option<Instant>,
    heard: Option<(Answer, String, Instant)>,
    refused: BTreeMap<Target, (Instant, String)>,
    acted: Option<Instant>,
    refused_power: Option<(Instant, String)>,
    /// The pods that it is about, and when they were read.
    case: Option<(Instant, Result<Arc<Case>, String>)>,
    /// The pods that were well then, and since when they are.
    steady: Option<(BTreeSet<(String, u64)>, Instant)>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        run: Record,
        resumed: bool,
        words: mpsc::Receiver<Told>,
        answers: mpsc::Receiver<Heard>,
    ) -> Self {
        Self {
            shared,
            run,
            resumed,
            words,
            answers,
            memory: Memory::default(),
            trouble: None,
            waiting: None,
            spoken: None,
        }
    }

    /// Until the run has ended, or `stop`. Answers with its id.
    pub(super) async fn run(mut self, stop: CancellationToken) -> String {
        let id = self.run.id.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        id
    }

    async fn work(&mut self) {
        let mut view = self.shared.ports.view.clone();
        let cluster = self.shared.ports.clusters.get(&self.run.plan.cluster);
        let mut caches = cluster.map(|cluster| cluster.changes());
        loop {
            let again = self.pass().await;
            if !self.run.state.is_active() {
                return;
            }
            if again {
                continue;
            }
            let looked = Instant::now();
            let changed = async {
                match &mut caches {
                    Some(caches) => drop(caches.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(told) = self.words.recv() => self.obey(told).await,
                Some(heard) = self.answers.recv() => self.hear(heard.0),
                () = sleep_until(looked + TICK) => {}
                _ = view.changed() => sleep(PACE).await,
                () = changed => sleep(PACE).await,
            }
        }
    }

    /// One look and what follows from it. `true`: there may be more to do at once.
    async fn pass(&mut self) -> bool {
        if self.resumed {
            let epoch = self.shared.ports.epoch;
            if !self.write(Event::Resumed { epoch }).await {
                return false;
            }
            self.resumed = false;
            self.tell(
                Severity::Warning,
                EventKind::RunState,
                "taken up again from its journal",
            );
        }
        let Some(at) = self.run.current() else {
            return match self.run.state {
                RunState::Running | RunState::Undoing => self.end().await,
                RunState::Halted | RunState::Succeeded | RunState::Aborted => {
                    let why = self.run.failed().map(|step| {
                        let step = &self.run.steps[step];
                        WaitingOn::Operator(format!("{} failed: {}", step.id(), step.evidence))
                    });
                    self.wait(why);
                    false
                }
            };
        };
        if let Some(why) = self.run.plan.request.options.proposed.as_ref()
            && self.run.is_proposal()
        {
            self.wait(Some(WaitingOn::Proposal(why.clone())));
            return false;
        }
        if self.memory.step != Some(at) {
            self.memory = Memory {
                step: Some(at),
                turn: Some(Instant::now()),
                ..Memory::default()
            };
        }
        observe::ask(&self.shared.ports, &self.run.plan.request).await;
        self.ask_power(at).await;
        let case = self.case(at).await;
        let mut world = match self.shared.world(&self.run.plan.request, Some(&self.run.plan)) {
            Ok(world) => world,
            Err(refusal) => {
                let why = format!("{refusal} any more");
                return self.write(Event::Failed { step: at, why }).await;
            }
        };
        world.case = case;
        let record = &self.run.steps[at];
        let context = Context {
            run: &self.run.id,
            request: &self.run.plan.request,
            plan: &self.run.plan,
            undoing: record.undo.is_some(),
            mends: &self.run.plan.mends,
        };
        match look(&record.step, &self.progress(at), context, &world) {
            Look::Done(evidence) => {
                let text = format!("{}: {evidence}", record.id());
                let written = self.write(Event::Done { step: at, evidence }).await;
                if written {
                    self.tell(Severity::Info, EventKind::StepDone, &text);
                }
                written
            }
            Look::Failed(why) => {
                let text = format!("{}: {why}", record.id());
                let written = self.write(Event::Failed { step: at, why }).await;
                if written {
                    self.tell(Severity::Critical, EventKind::StepFailed, &text);
                }
                written
            }
            Look::Wait(waiting) => {
                self.wait(Some(waiting));
                false
            }
            Look::Do(calls, waiting) => match self.hindrance(at) {
                Some(hindrance) => {
                    self.wait(Some(hindrance));
                    // Somebody who has to be asked is not late.
                    self.memory.turn = Some(Instant::now());
                    false
                }
                None => self.act(at, calls, waiting).await,
            },
        }
    }

    fn progress(&self, at: usize) -> Progress {
        let step = &self.run.steps[at];
        Progress {
            begun: step.begun,
            unsure: step.unsure,
            approved: step.approved.clone(),
            turn: self.memory.turn,
            attempts: step.command.as_ref().map_or(0, |command| command.attempt),
            forgiven: step.forgiven,
            sent: self.memory.sent,
            heard: self.memory.heard.clone(),
            refused: self.memory.refused.clone(),
            notes: step.notes.clone(),
            acted: self.memory.acted,
            refused_power: self.memory.refused_power.clone(),
            steady: self.memory.steady.as_ref().map(|(_, since)| *since),
        }
    }

    /// What the step is about, read anew unless it was just now.
    async fn case(&mut self, at: usize) -> Option<Result<Arc<Case>, String>> {
        if !self.run.steps[at].step.action.wants_case() {
            return None;
        }
        if let Some((read, case)) = &self.memory.case
            && read.elapsed() < READ_AGAIN
        {
            return Some(case.clone());
        }
        let case = observe::case(&self.shared.ports, &self.run.plan.request, Depth::Pods)
            .await
            .map(Arc::new);
        let now = Instant::now();
        let well = case
            .as_ref()
            .ok()
            .map(|case| case.wellness(&self.run.plan.mends.awaited));
        self.memory.steady = match (well, self.memory.steady.take()) {
            (Some(Wellness::Well(pods)), Some((before, since))) if pods == before => Some((pods, since)),
            (Some(Wellness::Well(pods)), _) => Some((pods, now)),
            (Some(Wellness::Not(_)) | None, _) => None,
        };
        self.memory.case = Some((now, case.clone()));
        Some(case)
    }

    /// What keeps a step from changing anything now.
    fn hindrance(&self, at: usize) -> Option<WaitingOn> {
        let step = &self.run.steps[at];
        if let Some(why) = step.step.approval.as_ref().filter(|_| step.approved.is_none()) {
            return Some(WaitingOn::Approval(format!("{}: {why}", step.id())));
        }
        if !self.shared.ports.tenure.holds() {
            return Some(WaitingOn::Operator(
                "this coordinator does not lead any more".to_owned(),
            ));
        }
        // What is put back is put back whoever else is at work, and whatever the weather.
        if step.undo.is_some() || step.step.action == Action::RestoreTolerations {
            return None;
        }
        let sky = self.shared.weather().over(&self.run.plan.cluster);
        if let Some(why) = sky.storm
            && self.run.overrode_by.is_none()
            && !self.run.plan.request.options.despite_storm
            && lanes::minds_storm(&self.run.plan.request)
        {
            return Some(WaitingOn::Storm(why));
        }
        let cold_starts = Arc::clone(&self.shared.ports.cold_starts.borrow());
        let has_begun = self.run.steps.iter().any(|step| step.begun);
        lanes::cold_start(
            &self.run.plan,
            has_begun,
            &cold_starts,
            &self.shared.ports.inventory,
        )
        .map(|run| WaitingOn::Api(format!("{run} is bringing the cluster back, and goes first")))
    }

    /// The intent first, durable; then the calls.
    async fn act(&mut self, at: usize, calls: Vec<Call>, waiting: WaitingOn) -> bool {
        let step = &self.run.steps[at];
        let command = calls.iter().find_map(|call| match call {
            Call::Order { attempt, .. } | Call::Etcd { attempt, .. } | Call::ControlPlane { attempt, .. } => {
                Some(self.run.command(at, *attempt))
            }
            Call::Api(_) | Call::Silence | Call::LiftSilence | Call::PowerOff { .. } | Call::Note(_) => None,
        });
        let anew = command.is_some() && command != step.command;
        if !step.begun || anew {
            let text = format!("{}: {}", step.id(), step.step.evidence);
            if !self.write(Event::Intent { step: at, command }).await {
                return false;
            }
            self.memory.sent = None;
            self.memory.heard = None;
            self.tell(Severity::Info, EventKind::StepStarted, &text);
        }
        self.wait(Some(waiting));
        let mut changed = false;
        let mut calls = calls.into_iter().peekable();
        while let Some(call) = calls.next() {
            // The last moment before the wire: this process may have been stopped since it looked.
            if !self.shared.ports.tenure.holds() {
                return false;
            }
            match call {
                Call::Api(call) => {
                    // At once, since each takes as long as the way to the server; its budget of requests holds for all together.
                    let mut wave = vec![call];
                    while let Some(Call::Api(call)) = calls.next_if(|call| matches!(call, Call::Api(_))) {
                        wave.push(call);
                    }
                    changed |= self.ask(&wave).await;
                }
                Call::Silence => changed |= self.silence(true).await,
                Call::LiftSilence => changed |= self.silence(false).await,
                Call::Order { order, .. } => self.send(at, self.of_kubelet(order)),
                Call::PowerOff { uuid } => self.power_off(&uuid).await,
                Call::Etcd { act, .. } => self.send(at, self.of_etcd(act)),
                Call::ControlPlane { part, act, .. } => self.send(at, self.of_control_plane(part, act)),
                Call::Note(memo) => {
                    // What cannot be written down is not done.
                    if !self.write(Event::Noted { step: at, memo }).await {
                        return false;
                    }
                    continue;
                }
            }
            // Somebody who wants it to stop is not to wait for a whole wave.
            if !self.words.is_empty() {
                break;
            }
        }
        changed
    }

    async fn end(&mut self) -> bool {
        if !self.write(Event::Ended).await {
            return false;
        }
        let left = self.run.left();
        let (severity, text) = match self.run.state {
            RunState::Aborted if left.is_empty() => (Severity::Info, "aborted; all is put back".to_owned()),
            RunState::Aborted => (
                Severity::Warning,
                format!("aborted; it leaves: {}", left.join("; ")),
            ),
            RunState::Succeeded | RunState::Running | RunState::Halted | RunState::Undoing => {
                (Severity::Info, "succeeded".to_owned())
            }
        };
        self.tell(severity, EventKind::RunState, &text);
        self.waiting = None;
        self.publish();
        true
    }

    async fn obey(&mut self, Told { word, reply }: Told) {
        let answer = match word {
            Word::Approve { by, of } => self.approve(by, of).await,
            Word::Abort { by } => self.abort(by).await,
        };
        // Whoever asked may have stopped waiting; what was done stays done.
        let _asker_gone = reply.send(answer.map(|()| self.publish()));
    }

    /// Approves of what waits, if that is what the operator was shown.
    async fn approve(&mut self, by: String, of: Option<String>) -> Result<(), Refusal> {
        let waits = Asks::of(&self.run, self.waiting.as_ref());
        let is_meant = |asks: &Asks| of.as_ref().is_none_or(|of| *of == asks.to_string());
        match waits {
            Some(asks) if is_meant(&asks) => {
                self.approve_of(asks.clone(), by.clone()).await?;
                self.spoken = Some((by, asks));
                Ok(())
            }
            // Who does not hear the answer asks again, and is not to be told that nothing waits.
            _ if self.run.state == RunState::Running && self.has_heard(&by, of.as_deref()) => Ok(()),
            Some(asks) => Err(Refusal::Asks {
                run: self.run.id.clone(),
                waits: asks.to_string(),
                named: of.unwrap_or_default(),
            }),
            None => Err(Refusal::State(format!(
                "nothing of run {} waits for approval",
                self.run.id
            ))),
        }
    }

    fn has_heard(&self, by: &str, of: Option<&str>) -> bool {
        match of {
            None => self.spoken.as_ref().is_some_and(|(who, _)| who == by) || self.run.has_word_of(by),
            Some(of) => {
                let last = self.spoken.as_ref();
                last.is_some_and(|(who, asks)| who == by && asks.to_string() == of)
                    || self.run.has_word_of_on(by, of)
            }
        }
    }

    async fn approve_of(&mut self, asks: Asks, by: String) -> Result<(), Refusal> {
        match asks {
            Asks::Proposal => self.accept(by).await,
            Asks::Storm { why } => {
                let text = format!("{by} has it go on although {why}");
                self.said(Event::Overrode { by, why }, &text).await
            }
            Asks::Step { at, id } => {
                let text = format!("{id} approved by {by}");
                self.said(Event::Approved { step: at, by }, &text).await?;
                self.memory = Memory::default();
                Ok(())
            }
        }
    }

    /// What was proposed is at work from now on, so it needs its lane now.
    async fn accept(&mut self, by: String) -> Result<(), Refusal> {
        let runs = Arc::clone(&self.shared.runs.borrow());
        let others = runs.values().filter(|run| run.id != self.run.id);
        self.shared.admit(&self.run.plan, others.map(AsRef::as_ref))?;
        let text = format!("what was proposed is accepted by {by}");
        self.said(Event::Accepted { by }, &text).await
    }

    async fn abort(&mut self, by: String) -> Result<(), Refusal> {
        if self.run.state == RunState::Undoing {
            return Ok(());
        }
        let text = format!("aborted by {by}: puts back what it changed");
        self.said(Event::Aborted { by }, &text).await
    }

    /// Durable before it is answered.
    async fn said(&mut self, event: Event, text: &str) -> Result<(), Refusal> {
        // It waits for that word no longer, and whoever looks once it is answered sees that.
        self.waiting = None;
        if self.write(event).await {
            self.tell(Severity::Warning, EventKind::RunState, text);
            return Ok(());
        }
        Err(Refusal::Journal(self.trouble.clone().unwrap_or_default()))
    }

    /// Makes an entry durable and takes it in. `false`: it could not be, and nothing follows from it.
    async fn write(&mut self, event: Event) -> bool {
        let entry = Entry {
            at_unix_ms: unix_ms(),
            event,
        };
        match self.append(&entry).await {
            Ok(()) => {
                self.trouble = None;
                self.publish();
                true
            }
            Err(why) => {
                tracing::error!(
                    run = self.run.id,
                    why,
                    "the journal cannot be written; nothing is done until it can"
                );
                self.wait(Some(WaitingOn::Journal(why.clone())));
                self.trouble = Some(why);
                sleep(JOURNAL_RETRY).await;
                false
            }
        }
    }

    async fn append(&mut self, entry: &Entry) -> Result<(), String> {
        // Nothing may get into a journal that could not be replayed.
        let mut next = self.run.clone();
        next.apply(entry).map_err(|error| error.to_string())?;
        let bytes = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
        let store = Arc::clone(&self.shared.ports.store);
        let written = NewEntry {
            run: self.run.id.clone(),
            index: self.run.entries,
            bytes,
        };
        let appended: Result<(), StoreError> = spawn_blocking(move || store.append_all(&[written]))
            .await
            .map_err(|error| error.to_string())?;
        appended.map_err(|error| error.to_string())?;
        self.run = next;
        Ok(())
    }

    fn wait(&mut self, waiting: Option<WaitingOn>) {
        self.waiting = waiting;
        self.publish();
    }

    fn publish(&self) -> Arc<RunbookStatus> {
        self.shared.publish(&self.run, self.waiting.clone())
    }

    fn tell(&self, severity: Severity, kind: EventKind, text: &str) {
        self.shared.tell(&self.run, NewEvent::new(severity, kind, text));
    }
}
