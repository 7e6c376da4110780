//! The loop that carries plans out: the one writer of every run.
//!
//! Each pass reads everything anew (the fleet, the runs, the time), asks [`advance`] what comes next and does a little of it. A pass
//! is caused by a change of the fleet, an answer, an operator's word or a time that has come, and never acts on what caused it
//! alone. What is to be done is written down first, all of one turn together (`write.rs`); if the journal cannot be written, nothing is
//! done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::advance::{Advance, Circumstances, Todo, advance};
use super::journal::Event;
use super::record::{Heard, JournalError, Run};
use super::state::Phase;
use super::status::{RunStatus, lanes, status};
use super::waiting::WaitingOn;
use super::write::{event, new_entry};
use super::{Control, ExecuteError, Ports, Runs, Surroundings};
use crate::events::{EventKind, NewEvent, Severity};
use crate::fleet::{Action, Answer, Order, OrderResult};
use crate::inventory::{Inventory, NodeName};
use crate::plan::{LaneId, StepKind};
use crate::policy::ColdStartPolicy;
use crate::runbooks::plan::Runbook;
use crate::store::{Store, StoreError};

/// A change of the fleet causes no pass sooner than this after the one before: with thousands of nodes there is always one.
const PACE: Duration = Duration::from_millis(20);
/// With a run at work there is a pass at least so often: words grow old without anybody saying so.
const TICK: Duration = Duration::from_secs(1);
/// So many entries of a run are written in one pass, together, so that operators and answers are heard in between.
const PER_PASS: usize = 512;
/// An order that finds the way to the fleet full is offered again after this.
const CROWDED: Duration = Duration::from_millis(50);
/// A failed attempt is followed by the next after this, doubled for each before it, and up to half of it more by chance.
const BACK_OFF: Duration = Duration::from_secs(2);
/// So many runs are remembered in memory; the store keeps all.
const REMEMBERED: usize = 256;

/// The task behind an [`Executor`](super::Executor).
#[allow(missing_debug_implementations, reason = "a store need not be Debug")]
pub struct Driver {
    pub(super) store: Arc<dyn Store>,
    pub(super) inventory: Arc<Inventory>,
    policy: ColdStartPolicy,
    pub(super) ports: Ports,
    pub(super) surroundings: Surroundings,
    words: mpsc::Receiver<Control>,
    pub(super) publish: watch::Sender<Runs>,
    pub(super) epoch: u64,
    pub(super) runs: Vec<Tracked>,
    /// So many runs the store has.
    pub(super) begun: usize,
    pub(super) superseded: Option<String>,
    pub(super) trouble: Option<Trouble>,
    /// What kept it from acting when its runs were shown last.
    pub(super) shown: Option<WaitingOn>,
}

pub(super) struct Tracked {
    pub(super) run: Run,
    /// The last look at what comes next.
    pub(super) advance: Advance,
    pub(super) status: Arc<RunStatus>,
    /// It is perhaps not as it was shown last.
    pub(super) changed: bool,
}

/// The journal cannot be written.
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) until: Instant,
}

/// What a pass came to.
#[derive(Default)]
pub(super) struct Passed {
    /// Something changed by it: there may be more to do at once.
    again: bool,
    /// When to look again at the latest.
    wake: Option<Instant>,
}

impl Passed {
    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Driver {
    pub(super) fn open(
        store: Arc<dyn Store>,
        inventory: Arc<Inventory>,
        policy: ColdStartPolicy,
        ports: Ports,
        surroundings: Surroundings,
        words: mpsc::Receiver<Control>,
        publish: watch::Sender<Runs>,
    ) -> Result<Self, ExecuteError> {
        let epoch = store.next_epoch()?;
        let now = Instant::now();
        // Runbooks carry theirs out by themselves, in the same store.
        let mut ids = store.runs()?;
        ids.retain(|id| Runbook::of_run(id).is_none());
        let mut driver = Self {
            begun: ids.len(),
            store,
            inventory,
            policy,
            ports,
            surroundings,
            words,
            publish,
            epoch,
            runs: Vec::new(),
            superseded: None,
            trouble: None,
            shown: None,
        };
        let mut runs = Vec::with_capacity(ids.len());
        for id in ids {
            runs.push(Run::replay(&id, &driver.store.journal(&id)?, now)?);
        }
        // All of them are taken up or none: what a crash leaves of this is one or the other.
        let mut resumed = Vec::new();
        let mut written = Vec::new();
        for run in runs.iter().filter(|run| run.state.is_active()) {
            let entry = driver.entry(run, Event::Resumed { epoch });
            written.push(new_entry(run, 0, &entry)?);
            resumed.push(entry);
        }
        driver.store.append_all(&written)?;
        let mut resumed = resumed.into_iter();
        for mut run in runs {
            if run.state.is_active()
                && let Some(entry) = resumed.next()
            {
                run.apply(&entry, now).map_err(|error| JournalError {
                    run: run.id.clone(),
                    index: run.entries,
                    why: error.to_string(),
                })?;
                driver.emit(
                    &run,
                    EventKind::RunState,
                    Severity::Warning,
                    format!("taken up again from its journal, with epoch {epoch}; its deadlines start anew"),
                );
            }
            driver.track(run, now);
        }
        driver.publish(now);
        Ok(driver)
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Works until `stop`. Runs that are at work then are taken up again by the next process.
    pub async fn run(mut self, stop: CancellationToken) {
        // A port whose other side is gone must not be asked again and again.
        let (mut view_open, mut results_open, mut words_open) = (true, true, true);
        loop {
            let passed = self.pass(&stop).await;
            let looked = Instant::now();
            if stop.is_cancelled() {
                return;
            }
            let wake = if passed.again { Some(looked) } else { passed.wake };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                control = self.words.recv(), if words_open => match control {
                    Some(control) => self.obey(control).await,
                    None => words_open = false,
                },
                result = self.ports.results.recv(), if results_open => match result {
                    Some(result) => self.hear(result),
                    None => results_open = false,
                },
                () = sleep_until(wake.unwrap_or(looked)), if wake.is_some() => {}
                changed = self.ports.view.changed(), if view_open => match changed {
                    Ok(()) => sleep_until(looked + PACE).await,
                    Err(_) => view_open = false,
                },
            }
            while let Ok(result) = self.ports.results.try_recv() {
                self.hear(result);
            }
        }
    }

    /// Looks at every run at work and does what comes next, a little of it at a time.
    async fn pass(&mut self, stop: &CancellationToken) -> Passed {
        let mut passed = Passed::default();
        self.heed_epochs();
        let retry = self.trouble.as_ref().map(|trouble| trouble.until);
        let blocked = self.superseded.is_some() || retry.is_some_and(|until| Instant::now() < until);
        for at in 0..self.runs.len() {
            if !self.runs[at].run.state.is_active() {
                continue;
            }
            self.look(at, &mut passed);
            if blocked || self.superseded.is_some() {
                continue;
            }
            if stop.is_cancelled() {
                return passed;
            }
            let mut todo = std::mem::take(&mut self.runs[at].advance.todo);
            passed.again |= todo.len() > PER_PASS;
            todo.truncate(PER_PASS);
            if let Err(error) = self.perform(at, todo, &mut passed).await {
                self.journal_failed(&error);
            }
            if self.runs[at].advance.ended
                && self
                    .trouble
                    .as_ref()
                    .is_none_or(|trouble| trouble.until <= Instant::now())
            {
                match self.record(at, vec![Event::RunEnded]).await {
                    Ok(()) => passed.again = true,
                    Err(error) => self.journal_failed(&error),
                }
            }
        }
        if let Some(trouble) = &self.trouble {
            passed.again = false;
            passed.wake_at(trouble.until.max(Instant::now() + PACE));
        }
        if self.runs.iter().any(|tracked| tracked.run.state.is_active()) {
            passed.wake_at(Instant::now() + TICK);
        }
        self.publish(Instant::now());
        passed
    }

    /// Asks what comes next in a run, and keeps the answer.
    pub(super) fn look(&mut self, at: usize, passed: &mut Passed) {
        let view = Arc::clone(&self.ports.view.borrow_and_update());
        let stalls = Arc::clone(&self.ports.stalls.borrow_and_update());
        let in_flight = self.in_flight();
        let tracked = &mut self.runs[at];
        let mut next = advance(
            &tracked.run,
            Circumstances {
                view: &view,
                policy: &self.policy,
                now: Instant::now(),
                in_flight: &in_flight,
                // Until the coordinator has a client of its own, masters' agents tell.
                feedback: &BTreeMap::new(),
                stalls: &stalls,
            },
        );
        for (step, clock) in tracked.run.steps.iter_mut().zip(std::mem::take(&mut next.clocks)) {
            step.clock = clock;
        }
        for (lane, now) in tracked.run.lanes.iter_mut().zip(&next.lanes) {
            lane.pace = now.pace;
        }
        let before = &tracked.advance;
        tracked.changed |=
            before.waiting != next.waiting || lanes(&tracked.run, before) != lanes(&tracked.run, &next);
        if let Some(wake) = next.wake {
            passed.wake_at(wake);
        }
        tracked.advance = next;
    }

    /// Writes down what is to be done, all of it together, and then does it.
    async fn perform(
        &mut self,
        at: usize,
        todo: Vec<(usize, Todo)>,
        passed: &mut Passed,
    ) -> Result<(), StoreError> {
        let run = &self.runs[at].run;
        let events: Vec<_> = todo
            .iter()
            .filter_map(|(step, todo)| event(run, *step, todo))
            .collect();
        passed.again |= !events.is_empty();
        self.record(at, events).await?;
        for (step, todo) in todo {
            match todo {
                Todo::Dispatch | Todo::Resend => self.send(at, step, passed),
                Todo::Retry(_) => self.back_off(at, step),
                Todo::Done(_) | Todo::Residue(_) | Todo::Failed(_) | Todo::Reopen(_) => {}
            }
        }
        Ok(())
    }

    /// After an attempt that failed, as its journal has it by now.
    fn back_off(&mut self, at: usize, step: usize) {
        let step = &mut self.runs[at].run.steps[step];
        let failed = step.attempts - step.forgiven;
        let pause = BACK_OFF * 2_u32.saturating_pow(failed.saturating_sub(1));
        let jitter = self.surroundings.chance.random_range(0.0..0.5);
        step.clock.retry_at = Some(Instant::now() + pause + pause.mul_f64(jitter));
    }

    /// Sends the command of a step that was begun. If there is no room for it now, it is sent later.
    fn send(&mut self, at: usize, step: usize, passed: &mut Passed) {
        let run = &mut self.runs[at].run;
        let kind = &run.plan.steps[step].kind;
        let (Some(node), Some(action)) = (kind.node(), action(kind, run)) else {
            return;
        };
        let Some(command_id) = run.steps[step].command_id.clone() else {
            return;
        };
        let order = Order {
            node: node.clone(),
            command_id,
            epoch: self.epoch,
            expires_in: self.policy.release_deadline,
            action,
        };
        match self.ports.orders.try_send(order) {
            Ok(()) => run.steps[step].clock.sent = Some(Instant::now()),
            Err(_full_or_closed) => passed.wake_at(Instant::now() + CROWDED),
        }
    }

    /// Takes an answer in. What follows from it is the next pass's business.
    fn hear(&mut self, result: OrderResult) {
        let Some(run_id) = result.command_id.split('/').next() else {
            return;
        };
        let Some(run) = self
            .runs
            .iter_mut()
            .map(|tracked| &mut tracked.run)
            .find(|run| run.id == run_id)
        else {
            return;
        };
        // An answer to an attempt that is over says nothing about this one.
        let expected = |at: &&usize| {
            let step = &run.steps[**at];
            step.phase == Phase::Started && step.command_id.as_deref() == Some(&result.command_id)
        };
        let Some(at) = run.places_of(&result.node).iter().find(expected).copied() else {
            return;
        };
        let step = &mut run.steps[at];
        if result.answer == Answer::RefusedEpoch {
            // One that refuses what this process never sent answers an executor before it.
            if step.clock.sent.is_some() && run.state.is_active() {
                let why = format!(
                    "{} refused epoch {}, it has obeyed a higher one: {}",
                    result.node, self.epoch, result.detail
                );
                self.stand_down(why, Some(&result.node));
            }
            return;
        }
        step.heard = Some(Heard {
            answer: result.answer,
            detail: result.detail,
            at: Instant::now(),
        });
    }

    /// Another executor is at work: nothing is done any more, and nobody is held.
    pub(super) fn stand_down(&mut self, why: String, node: Option<&NodeName>) {
        if self.superseded.is_some() {
            return;
        }
        tracing::error!(why, "superseded; every run is halted");
        let text = format!("superseded, every run of this coordinator is halted: {why}");
        let event = NewEvent::new(Severity::Critical, EventKind::RunState, text);
        self.ports.events.emit(match node {
            Some(node) => event.node(node),
            None => event,
        });
        self.superseded = Some(why);
    }

    /// An agent that has obeyed a higher epoch says so when it comes: no order is needed to learn of it.
    fn heed_epochs(&mut self) {
        let told = {
            let view = self.ports.view.borrow();
            let higher = view
                .nodes
                .iter()
                .find(|(_, node)| node.highest_epoch > self.epoch);
            higher.map(|(name, node)| (name.clone(), node.highest_epoch))
        };
        if let Some((node, epoch)) = told {
            let why = format!(
                "{node} has obeyed epoch {epoch}, and this is epoch {}",
                self.epoch
            );
            self.stand_down(why, Some(&node));
        }
    }

    /// How many steps of each lane are between dispatch and verification, in all runs.
    fn in_flight(&self) -> BTreeMap<LaneId, usize> {
        let mut in_flight = BTreeMap::new();
        for run in self.active() {
            for (at, step) in run.steps.iter().enumerate() {
                if step.phase == Phase::Started
                    && let Some(lane) = run.lane_of[at]
                {
                    *in_flight.entry(run.lanes[lane].lane.clone()).or_default() += 1;
                }
            }
        }
        in_flight
    }

    fn active(&self) -> impl Iterator<Item = &Run> {
        let runs = self.runs.iter().map(|tracked| &tracked.run);
        runs.filter(|run| run.state.is_active())
    }

    pub(super) fn track(&mut self, run: Run, now: Instant) -> usize {
        let advance = Advance::default();
        let status = Arc::new(status(&run, &advance, None, now));
        self.runs.push(Tracked {
            run,
            advance,
            status,
            changed: true,
        });
        if self.runs.len() > REMEMBERED
            && let Some(oldest) = self
                .runs
                .iter()
                .position(|tracked| !tracked.run.state.is_active())
        {
            self.runs.remove(oldest);
        }
        self.runs.len() - 1
    }
}

/// What a node is told to do for a step; `None`: nothing.
fn action(kind: &StepKind, run: &Run) -> Option<Action> {
    let (run_id, reason) = (run.id.clone(), run.reason.clone());
    match kind {
        StepKind::ReleaseKubelet { .. } => Some(Action::ReleaseKubelet { run: run_id, reason }),
        StepKind::HoldManifest { component, .. } => Some(Action::HoldManifest {
            component: *component,
            run: run_id,
            reason,
        }),
        StepKind::ReleaseManifest { component, .. } => Some(Action::ReleaseManifest {
            component: *component,
            run: run_id,
            reason,
        }),
        StepKind::ControlPlaneGate { .. }
        | StepKind::ServingGate { .. }
        | StepKind::KubeletsGate { .. }
        | StepKind::VerifyCluster { .. } => None,
    }
}
