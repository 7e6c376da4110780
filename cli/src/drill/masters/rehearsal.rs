//! What an operator does in a drill on masters: asks, is refused, runs a runbook, approves of it, follows it to its end; and what is gathered of it.

use std::time::Duration;

use blackstart_proto::v1::RunbookRequest;
use tokio::time::{Instant, sleep};

use super::bed::Bed;
use super::chronicle::{Chronicle, Heard, RunStory, StepStory};
use crate::client::{Fleet as Operator, Via};
use crate::failure::Failure;
use crate::output::note;
use crate::view::{RunbookPlan, RunbookRun};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A drill that is held.
pub(super) struct Rehearsal {
    pub(super) bed: Bed,
    pub(super) chronicle: Chronicle,
    operator: Operator,
}

/// A runbook that is run.
pub(super) struct Run<'a> {
    pub(super) request: RunbookRequest,
    /// The steps that its plan is to have; it is begun once it has them.
    pub(super) steps: &'a [String],
    /// How it is to end: `succeeded`, or `halted`, and is aborted then.
    pub(super) ends: &'static str,
    /// A part of what it is to ask, or to say when it halts.
    pub(super) says: &'a str,
    /// Who has begun it does not approve of it: somebody else does.
    pub(super) two: bool,
}

/// A step of this kind, or of this id, where that names a node.
fn is_like(expected: &str, id: &str) -> bool {
    expected == id || !expected.contains(':') && id.split(':').next() == Some(expected)
}

fn are_like(steps: &[crate::view::RunbookStep], expected: &[String]) -> bool {
    steps.len() == expected.len()
        && steps
            .iter()
            .zip(expected)
            .all(|(step, like)| is_like(like, &step.id))
}

impl Rehearsal {
    /// Waits until coordinator and agents are there, and all is well.
    pub(super) async fn begin(bed: Bed) -> Result<Self, Failure> {
        let since = Instant::now();
        let operator = loop {
            match Operator::connect(&bed.connection, Via::default()).await {
                Ok(operator) => break operator,
                Err(failure) if since.elapsed() > bed.patience() => return Err(failure),
                Err(_) => sleep(LOOK).await,
            }
        };
        let mut rehearsal = Self {
            bed,
            chronicle: Chronicle::default(),
            operator,
        };
        rehearsal.tell("the masters come up");
        rehearsal.until_well("the masters to be well at first").await?;
        match &rehearsal.chronicle.stuck {
            None => Ok(rehearsal),
            Some(what) => Err(Failure::other(format!(
                "prepare the drill: waited in vain for {what}"
            ))),
        }
    }

    /// Says what is done now; it stands in the timeline.
    pub(super) fn tell(&mut self, what: &str) {
        let at = self.bed.now_ms();
        note(format!("{:>3}.{} s  {what}", at / 1000, at % 1000 / 100));
        self.chronicle.told.push((at, what.to_owned()));
    }

    /// Says what goes wrong: the clock of the recovery begins.
    pub(super) fn trouble(&mut self, what: &str) {
        self.tell(what);
        self.chronicle.trouble_ms.get_or_insert(self.bed.now_ms());
    }

    /// Nothing more is to be done: something was waited for in vain.
    pub(super) fn is_stuck(&self) -> bool {
        self.chronicle.stuck.is_some()
    }

    fn in_vain(&mut self, what: String) {
        self.chronicle.stuck.get_or_insert(what);
    }

    async fn beat(&mut self) -> Result<(), Failure> {
        sleep(LOOK).await;
        self.bed.failed().map_or(Ok(()), Err)
    }

    /// Waits until something is so.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Bed) -> bool) -> Result<(), Failure> {
        let since = Instant::now();
        while !holds(&self.bed) {
            if since.elapsed() > self.bed.patience() {
                self.in_vain(what.to_owned());
                return Ok(());
            }
            self.beat().await?;
        }
        Ok(())
    }

    pub(super) async fn until_well(&mut self, what: &str) -> Result<(), Failure> {
        self.until(what, Bed::is_well).await
    }

    /// A request about the whole cluster.
    pub(super) fn request(&self, runbook: &str, reason: &str) -> RunbookRequest {
        RunbookRequest {
            runbook: runbook.to_owned(),
            cluster: self.bed.cluster.clone(),
            reason: reason.to_owned(),
            ..RunbookRequest::default()
        }
    }

    /// Its plan, once it is so; the last one, if it never is.
    async fn planned(
        &mut self,
        request: &RunbookRequest,
        like: impl Fn(&RunbookPlan) -> bool,
    ) -> Result<RunbookPlan, Failure> {
        let since = Instant::now();
        loop {
            let plan = self.operator.plan_runbook(request.clone()).await?;
            if like(&plan) {
                return Ok(plan);
            }
            if since.elapsed() > self.bed.patience() {
                let steps: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
                let missing: Vec<_> = plan.refusals.iter().map(|one| one.missing.as_str()).collect();
                self.in_vain(format!(
                    "another plan of {}; it has steps {steps:?}, and says to be missing: {missing:?}",
                    request.runbook
                ));
                return Ok(plan);
            }
            self.beat().await?;
        }
    }

    /// A plan that is to refuse, once what is known tells so: it has these steps all the same.
    pub(super) async fn refused(
        &mut self,
        request: RunbookRequest,
        steps: &[String],
        missing: &str,
    ) -> Result<(), Failure> {
        if self.is_stuck() {
            return Ok(());
        }
        let of = [&request.node, &request.cluster];
        let of = of.into_iter().find(|of| !of.is_empty()).cloned();
        let asked = format!("{} of {}", request.runbook, of.unwrap_or_default());
        self.tell(&format!("asked for {asked}, to be refused"));
        let like = |plan: &RunbookPlan| {
            are_like(&plan.steps, steps) && plan.refusals.iter().any(|one| one.missing.contains(missing))
        };
        let plan = self.planned(&request, like).await?;
        self.chronicle.heard.push(Heard {
            asked,
            expected: missing.to_owned(),
            said: plan.refusals.into_iter().map(|one| one.missing).collect(),
        });
        Ok(())
    }

    /// Runs a runbook, approves where it asks, and follows it to where it is to end. Its number among the runs of the drill.
    pub(super) async fn run(&mut self, run: Run<'_>) -> Result<(), Failure> {
        if self.is_stuck() {
            return Ok(());
        }
        self.tell(&format!("asked for {}", run.request.runbook));
        let like = |plan: &RunbookPlan| are_like(&plan.steps, run.steps);
        let since = Instant::now();
        let (begun, asked_ms) = loop {
            self.planned(&run.request, like).await?;
            if self.is_stuck() {
                return Ok(());
            }
            let asked_ms = self.bed.now_ms();
            match self.operator.start_runbook(run.request.clone()).await {
                Ok(begun) => break (begun, asked_ms),
                // What is known has changed since it was planned.
                Err(Failure::Refused(_)) if since.elapsed() < self.bed.patience() => self.beat().await?,
                Err(failure) => return Err(failure),
            }
        };
        self.tell(&format!("{} goes on", begun.id));
        let at = self.chronicle.runs.len();
        self.chronicle.runs.push(RunStory {
            id: begun.id.clone(),
            node: run.request.node.clone(),
            expected: run.ends,
            asked_ms,
            ..RunStory::default()
        });
        self.follow(at, &begun.id, &run).await
    }

    async fn follow(&mut self, at: usize, id: &str, run: &Run<'_>) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let look = self.operator.runbook_run(id).await?;
            self.take(at, &look);
            if look.state == "halted" && run.ends == "halted" {
                self.hear(id, run.says, look.waiting_on.clone());
                self.tell(&format!("{id} has stopped: it is aborted"));
                // The coordinator goes on until it is told; nothing of it may come after.
                self.operator.abort_runbook(id).await?;
                "halted".clone_into(&mut self.chronicle.runs[at].state);
                self.chronicle.runs[at].ended_ms = Some(self.bed.now_ms());
                return Ok(());
            }
            if look.has_ended() || look.state == "halted" {
                self.chronicle.runs[at].ended_ms = Some(self.bed.now_ms());
                return Ok(());
            }
            if look.wants_approval
                && let Some(step) = look.current.as_deref()
            {
                self.approve(at, id, step, (&look, run)).await?;
            }
            if since.elapsed() > self.bed.patience() {
                self.in_vain(format!("the end of {id}"));
                return Ok(());
            }
            self.beat().await?;
        }
    }

    fn hear(&mut self, asked: &str, expected: &str, said: Option<String>) {
        self.chronicle.heard.push(Heard {
            asked: asked.to_owned(),
            expected: expected.to_owned(),
            said: said.into_iter().collect(),
        });
    }

    /// Once for each step: what is shown of a run is a moment behind the word that was given.
    async fn approve(
        &mut self,
        at: usize,
        id: &str,
        step: &str,
        (look, run): (&RunbookRun, &Run<'_>),
    ) -> Result<(), Failure> {
        let now = self.bed.now_ms();
        let steps = &mut self.chronicle.runs[at].steps;
        let known = steps.iter_mut().find(|known| known.id == step);
        let Some(known) = known.filter(|known| known.approved_ms.is_none()) else {
            return Ok(());
        };
        known.approved_ms = Some(now);
        known.by_another = run.two;
        self.hear(&format!("{step} of {id}"), run.says, look.waiting_on.clone());
        self.tell(&format!("{step} of {id} is approved"));
        if !run.two {
            self.operator.approve_runbook(id, Some(step)).await?;
            return Ok(());
        }
        let said = match self.operator.approve_runbook(id, Some(step)).await {
            Ok(_) => "it was approved".to_owned(),
            Err(failure) => failure.to_string(),
        };
        self.hear("the approval of who has begun it", "two persons", Some(said));
        self.tell("somebody else approves");
        let mut second = Operator::connect(&self.bed.second, Via::default()).await?;
        second.approve_runbook(id, Some(step)).await?;
        Ok(())
    }

    /// How a run was seen to stand.
    fn take(&mut self, at: usize, look: &RunbookRun) {
        let now = self.bed.now_ms();
        let story = &mut self.chronicle.runs[at];
        look.state.clone_into(&mut story.state);
        story.waiting_on.clone_from(&look.waiting_on);
        for step in &look.steps {
            let evidence = step.evidence.clone().unwrap_or_default();
            let known = story.steps.iter_mut().find(|known| known.id == step.id);
            let Some(known) = known else {
                story.steps.push(StepStory {
                    id: step.id.clone(),
                    phase: step.phase.to_owned(),
                    planned: evidence,
                    wants_approval: step.approval.is_some(),
                    ..StepStory::default()
                });
                continue;
            };
            if matches!(step.phase, "done" | "failed" | "cancelled") && known.phase != step.phase {
                known.ended_ms = Some(now);
                known.said = evidence;
            }
            step.phase.clone_into(&mut known.phase);
        }
    }

    /// Ends everything, and gathers what came of it.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        // The coordinator first: what goes now is none of its business.
        self.bed.kill_coordinator().await?;
        self.chronicle.outs = self.bed.witness.outs();
        self.chronicle.health = self.bed.witness.health();
        self.bed.stop_agents().await?;
        for master in &self.bed.masters {
            let ledger = super::super::fleet::ledger(&master.name, &master.files.ledger)?;
            self.chronicle.ledgers.push((master.name.clone(), ledger));
        }
        Ok(())
    }
}
