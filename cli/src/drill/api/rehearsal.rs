//! Carries a script out, as an operator, the machines and the cluster would, and gathers what happened.

use std::time::Duration;

use blackstart_agent::gate::{self, GateState};
use blackstart_proto::v1::RunbookRequest;
use tokio::time::{Instant, Interval};

use super::super::seen::ticker;
use super::super::show::{Scene, Show, Stage};
use super::cast::Cast;
use super::chronicle::{Chronicle, Ending, Heard, Proof, RunStory, StepStory};
use super::ground::Ground;
use super::saboteur::{self, Sabotage};
use super::script::{Act, End, Run, Script, Sight};
use super::{shown, sights};
use crate::client::{Fleet as Operator, Via};
use crate::failure::Failure;
use crate::output::Output;
use crate::view::{RunDetail, RunbookPlan, RunbookRun};

/// Nothing in a drill takes longer on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A script that is carried out.
pub(super) struct Rehearsal<'a> {
    title: String,
    ground: &'a mut Ground,
    show: &'a mut Show,
    output: &'a mut Output,
    tick: Interval,
    act: String,
    chronicle: Chronicle,
    /// The runs as they are shown.
    shown: Vec<RunDetail>,
    operator: Operator,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Seen,
    InVain,
}

impl<'a> Rehearsal<'a> {
    /// Brings the cluster up, with what the script puts into it.
    pub(super) async fn begin(
        title: String,
        script: &Script,
        ground: &'a mut Ground,
        show: &'a mut Show,
        output: &'a mut Output,
    ) -> Result<Self, Failure> {
        ground.bring_up(&title, show, output).await?;
        let put = ground.double.with(|world| world.apply_manifests(&script.objects));
        put.map_err(|refusal| {
            Failure::other(format!("put the drill's objects into its cluster: {refusal:?}"))
        })?;
        let operator = Operator::connect(&ground.connection, Via::default()).await?;
        let mut rehearsal = Self {
            title,
            ground,
            show,
            output,
            tick: ticker(),
            act: "the cluster comes up".to_owned(),
            chronicle: Chronicle {
                leaves: script.leaves.clone(),
                ..Chronicle::default()
            },
            shown: Vec::new(),
            operator,
        };
        for sight in &script.at_first {
            if rehearsal.until(sight).await? == Waited::InVain {
                return Err(Failure::other(format!(
                    "prepare the drill: waited in vain for {}",
                    sight.words()
                )));
            }
        }
        Ok(rehearsal)
    }

    /// Carries it out, and gathers what came of it.
    pub(super) async fn hold(
        mut self,
        script: &Script,
        cast: &Cast,
        sabotage: Option<Sabotage>,
    ) -> Result<Chronicle, Failure> {
        for act in &script.acts {
            if self.act(act).await? == Waited::InVain {
                break;
            }
        }
        let reached = self.ends(&script.ends).await?;
        self.chronicle.ended_ms = reached.then(|| self.ground.now_ms());
        self.chronicle.ends = self.look_at(&script.ends);
        if let Some(sabotage) = sabotage {
            saboteur::work(sabotage, self.ground, cast);
            if sabotage == Sabotage::Undone {
                self.chronicle.ends = self.look_at(&script.ends);
            }
            if sabotage == Sabotage::Mute {
                saboteur::mute(&mut self.chronicle.heard);
            }
        }
        // The coordinator first: machines that go dark now are none of its business.
        self.ground.coordinator.kill().await;
        self.chronicle.calls = self.ground.calls();
        let told_off = self.ground.told_off();
        self.chronicle.proofs.extend(told_off);
        self.chronicle.changes = self.ground.double.history();
        self.ground.fleet.cut_power();
        if sabotage == Some(Sabotage::RogueAgent) {
            saboteur::forge(&self.ground.fleet, &cast.victim)?;
        }
        self.chronicle.machines = self.ground.machines()?;
        Ok(self.chronicle)
    }

    /// A moment passes: machines, API server and terminal are brought up to date.
    async fn beat(&mut self) -> Result<(), Failure> {
        self.tick.tick().await;
        self.ground.mirror();
        match self.ground.coordinator.failed() {
            Some(failure) => Err(failure),
            None => self.draw(),
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let pods = self.ground.double.with(|world| sights::pods_words(world));
        let scene = Scene {
            title: &self.title,
            act: &self.act,
            at_ms: self.ground.now_ms(),
            seats: self.ground.fleet.seats(),
            runs: &self.shown,
            pods: &pods,
        };
        self.show.now(&scene, self.output)?;
        Ok(())
    }

    /// Says what is done now; it stands in the timeline.
    fn tell(&mut self, what: &str) -> Result<(), Failure> {
        what.clone_into(&mut self.act);
        let at = self.ground.now_ms();
        self.chronicle.told.push((at, None, what.to_owned()));
        self.draw()
    }

    fn in_vain(&mut self, what: String) -> Waited {
        self.chronicle.stuck.get_or_insert(what);
        Waited::InVain
    }

    async fn act(&mut self, act: &Act) -> Result<Waited, Failure> {
        match act {
            Act::Run(run) => self.run(run).await,
            Act::Trouble(..) | Act::Happens(..) | Act::Until(_) | Act::Refused { .. } => {
                self.simple(act).await
            }
        }
    }

    /// An act that is no run.
    async fn simple(&mut self, act: &Act) -> Result<Waited, Failure> {
        match act {
            Act::Trouble(words, event) => {
                self.tell(words)?;
                self.chronicle.trouble_ms.get_or_insert(self.ground.now_ms());
                self.ground.happen(event).map(|()| Waited::Seen)
            }
            Act::Happens(words, event) => {
                self.tell(words)?;
                self.ground.happen(event).map(|()| Waited::Seen)
            }
            Act::Until(sight) => self.until(sight).await,
            Act::Refused { request, missing } => self.refused(request, missing).await,
            Act::Run(_) => Ok(Waited::Seen),
        }
    }

    async fn until(&mut self, sight: &Sight) -> Result<Waited, Failure> {
        let began = Instant::now();
        while !self.sees(sight) {
            if began.elapsed() > PATIENCE {
                return Ok(self.in_vain(sight.words()));
            }
            self.beat().await?;
        }
        Ok(Waited::Seen)
    }

    fn sees(&self, sight: &Sight) -> bool {
        if let Sight::Machine(name, stage) = sight {
            let machine = &self.ground.fleet.nodes[name].machine;
            // Until its gate has written down that it holds, nobody can let it go.
            let written = *stage != Stage::Held
                || gate::status(&machine.settings().runtime_dir).state == GateState::Held;
            return written && Stage::from(machine.host().stage(Instant::now())) == *stage;
        }
        self.ground.double.with(|world| sights::is_so(world, sight))
    }

    /// A plan that is to refuse, once what is known tells so.
    async fn refused(&mut self, request: &RunbookRequest, missing: &str) -> Result<Waited, Failure> {
        let asked = self.words(request);
        self.tell(&format!("asked for {asked}, to be refused"))?;
        let like = |plan: &RunbookPlan| plan.steps.is_empty() && says(plan, missing);
        let (plan, waited) = self.planned(request, like).await?;
        self.hear(&asked, missing, &plan, true);
        // What was not said is for the law to judge; the drill goes on.
        Ok(waited)
    }

    fn hear(&mut self, asked: &str, expected: &str, plan: &RunbookPlan, whole: bool) {
        let steps = plan.steps.iter().filter(|_| whole);
        let refusals = plan.refusals.iter();
        self.chronicle.heard.push(Heard {
            asked: asked.to_owned(),
            expected: expected.to_owned(),
            refusals: refusals
                .map(|one| (one.what.clone(), one.missing.clone()))
                .collect(),
            steps: steps.map(|step| step.id.clone()).collect(),
        });
    }

    fn words(&self, request: &RunbookRequest) -> String {
        let of = [
            &request.node,
            &request.workload,
            &request.pod,
            &request.namespace,
            &request.cluster,
        ];
        let of = of.into_iter().find(|of| !of.is_empty());
        format!(
            "{} of {}",
            request.runbook,
            of.map_or(self.ground.cluster.as_str(), String::as_str)
        )
    }

    /// Its plan, once it is so; the last one if it never is.
    async fn planned(
        &mut self,
        request: &RunbookRequest,
        like: impl Fn(&RunbookPlan) -> bool,
    ) -> Result<(RunbookPlan, Waited), Failure> {
        let began = Instant::now();
        loop {
            let plan = self.operator.plan_runbook(request.clone()).await?;
            if like(&plan) {
                return Ok((plan, Waited::Seen));
            }
            if began.elapsed() > PATIENCE {
                let steps: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
                let missing: Vec<_> = plan.refusals.iter().map(|one| one.missing.as_str()).collect();
                let what = format!(
                    "another plan of {}; it has steps {steps:?}, and says to be missing: {missing:?}",
                    self.words(request)
                );
                return Ok((plan, self.in_vain(what)));
            }
            self.beat().await?;
        }
    }

    async fn run(&mut self, run: &Run) -> Result<Waited, Failure> {
        let asked = self.words(&run.request);
        self.tell(&format!("asked for {asked}"))?;
        let like = |plan: &RunbookPlan| {
            plan.steps
                .iter()
                .map(|step| step.id.as_str())
                .eq(run.steps.iter().copied())
                && run.missing.is_none_or(|missing| says(plan, missing))
        };
        let since = Instant::now();
        let (first, asked_ms) = loop {
            let (plan, waited) = self.planned(&run.request, like).await?;
            if waited == Waited::InVain {
                return Ok(waited);
            }
            let asked_ms = self.ground.now_ms();
            if !run.request.proof.is_empty() {
                self.chronicle.proofs.push(Proof {
                    machine: run.request.node.clone(),
                    at_ms: asked_ms,
                    by: "operator",
                });
            }
            match self.operator.start_runbook(run.request.clone()).await {
                Ok(first) => {
                    if let Some(missing) = run.missing {
                        self.hear(&asked, missing, &plan, false);
                    }
                    break (first, asked_ms);
                }
                // What is known has changed since it was planned.
                Err(Failure::Refused(_)) if since.elapsed() < PATIENCE => self.beat().await?,
                Err(failure) => return Err(failure),
            }
        };
        self.tell(&format!("{} goes on", first.id))?;
        self.follow(run, first, asked_ms).await
    }

    /// As an operator follows it: approves where it asks, until it ends.
    async fn follow(&mut self, run: &Run, begun: RunbookRun, asked_ms: u64) -> Result<Waited, Failure> {
        let id = begun.id.clone();
        let at = self.chronicle.runs.len();
        self.chronicle
            .runs
            .push(RunStory::new(&begun, &run.request, asked_ms));
        let mut meanwhile = run.meanwhile.as_ref();
        let since = Instant::now();
        loop {
            let look = self.operator.runbook_run(&id).await?;
            self.take(at, &look);
            if look.has_ended() {
                self.chronicle.runs[at].ended_ms = Some(self.ground.now_ms());
                self.beat().await?;
                return Ok(if look.state == "succeeded" {
                    Waited::Seen
                } else {
                    Waited::InVain
                });
            }
            if look.state == "halted" {
                return Ok(Waited::InVain);
            }
            if look.wants_approval
                && let Some(step) = look.current.as_ref()
            {
                self.approve(at, &id, step).await?;
            }
            if let Some((_, acts)) = meanwhile.filter(|(step, _)| has_come(step, &look)) {
                meanwhile = None;
                for act in acts {
                    if self.simple(act).await? == Waited::InVain {
                        return Ok(Waited::InVain);
                    }
                }
            }
            if since.elapsed() > PATIENCE {
                return Ok(self.in_vain(format!("the end of {id}")));
            }
            self.beat().await?;
        }
    }

    /// Once for each step: what is shown of a run is a moment behind the word that was given.
    async fn approve(&mut self, at: usize, id: &str, step: &str) -> Result<(), Failure> {
        let now = self.ground.now_ms();
        let steps = &mut self.chronicle.runs[at].steps;
        let known = steps.iter_mut().find(|known| known.id == step);
        let Some(known) = known.filter(|known| known.approved_ms.is_none()) else {
            return Ok(());
        };
        known.approved_ms = Some(now);
        self.tell(&format!("{step} of {id} is approved"))?;
        self.operator.approve_runbook(id, Some(step)).await?;
        Ok(())
    }

    /// How a run was seen to stand.
    fn take(&mut self, at: usize, look: &RunbookRun) {
        let now = self.ground.now_ms();
        let story = &mut self.chronicle.runs[at];
        look.state.clone_into(&mut story.state);
        story.waiting_on.clone_from(&look.waiting_on);
        for step in &look.steps {
            let known = story.steps.iter_mut().find(|known| known.id == step.id);
            let Some(known) = known else {
                story.steps.push(StepStory::new(step, now));
                continue;
            };
            if matches!(step.phase, "done" | "failed" | "cancelled") && known.phase != step.phase {
                known.ended_ms = Some(now);
            }
            step.phase.clone_into(&mut known.phase);
            known.said = step.evidence.clone().unwrap_or_default();
        }
        let shown = shown::detail(look, now.saturating_sub(story.asked_ms));
        match self.shown.iter_mut().find(|run| run.run.id == look.id) {
            Some(known) => *known = shown,
            None => self.shown.push(shown),
        }
    }

    /// Waits until everything is as it should be at the end; `false`: it never is.
    async fn ends(&mut self, ends: &[End]) -> Result<bool, Failure> {
        let patience = if self.chronicle.stuck.is_some() {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let began = Instant::now();
        loop {
            if self.look_at(ends).iter().all(|ending| ending.wrong.is_none()) {
                return Ok(true);
            }
            if began.elapsed() > patience {
                return Ok(false);
            }
            self.beat().await?;
        }
    }

    fn look_at(&self, ends: &[End]) -> Vec<Ending> {
        let now = Instant::now();
        ends.iter()
            .map(|end| {
                let (what, wrong) = self.ground.double.with(|world| sights::ending(world, end));
                let kubelet = match end {
                    End::Back(node) => self.ground.fleet.nodes[node]
                        .machine
                        .host()
                        .kubelet_is_healthy(now),
                    End::Whole { .. } | End::Left { .. } | End::Load { .. } | End::Template { .. } => true,
                };
                Ending {
                    what,
                    wrong: wrong
                        .or_else(|| (!kubelet).then(|| "its machine's kubelet is not healthy".to_owned())),
                }
            })
            .collect()
    }
}

fn says(plan: &RunbookPlan, missing: &str) -> bool {
    plan.refusals.iter().any(|one| one.missing.contains(missing))
}

/// It is the step's turn, or was.
fn has_come(step: &str, run: &RunbookRun) -> bool {
    let found = run.steps.iter().find(|known| known.id == step);
    run.current.as_deref() == Some(step) || found.is_some_and(|step| matches!(step.phase, "begun" | "done"))
}
