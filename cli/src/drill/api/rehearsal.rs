//! Carries a script out, as an operator, the machines and the cluster would, and gathers what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use blackstart_agent::gate::{self, GateState};
use blackstart_apiserver::World;
use blackstart_proto::v1::RunbookRequest;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use super::super::seen::ticker;
use super::super::show::{Scene, Show, Stage};
use super::cast::Cast;
use super::chronicle::{Chronicle, Ending, Heard, Proof, RunStory, StepStory};
use super::ground::Ground;
use super::objects::{APP, OURS, OUTCOME, merge};
use super::saboteur::{self, Sabotage};
use super::script::{Act, End, Event, Run, Script, Sight};
use crate::client::{Fleet as Operator, Via};
use crate::failure::Failure;
use crate::output::Output;
use crate::view::{PlanStep, RunDetail, RunState, RunbookPlan, RunbookRun, Step, StepState};

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
        let pods = self.ground.double.with(|world| pods_words(world));
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
                self.happen(event)
            }
            Act::Happens(words, event) => {
                self.tell(words)?;
                self.happen(event)
            }
            Act::Until(sight) => self.until(sight).await,
            Act::Refused { request, missing } => self.refused(request, missing).await,
            Act::Run(_) => Ok(Waited::Seen),
        }
    }

    fn happen(&mut self, event: &Event) -> Result<Waited, Failure> {
        let ground = &mut *self.ground;
        match event {
            Event::PowerOff(name) => ground.fleet.power_off(name),
            Event::PowerOn(name) => ground.fleet.power_on(name)?,
            Event::LetGo(name) => {
                let settings = ground.fleet.nodes[name].machine.settings();
                gate::release(&settings.runtime_dir, "operator")
                    .map_err(|error| Failure::other(format!("open the gate of {name}: {error}")))?;
            }
            Event::CutOff(name) => {
                ground.cut_off.insert(name.clone());
            }
            Event::Reconnect(name) => {
                ground.cut_off.remove(name);
            }
            Event::Fare(outcome) => ground.double.with(|world| {
                world.outcomes.clear();
                let outcome = outcome.iter();
                world
                    .outcomes
                    .extend(outcome.map(|(image, outcome)| ((*image).to_owned(), *outcome)));
            }),
            Event::Bmc(mood) => {
                if let Some(bmc) = &ground.bmc {
                    bmc.set_mood(*mood);
                }
            }
            Event::Ail(outcome) => ground.double.with(|world| {
                for pod in world.store.all("pods") {
                    if pod["metadata"]["labels"]["app"] == APP {
                        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                        let mark = json!({"metadata": {"annotations": {OUTCOME: outcome}}});
                        world.change("pods", OURS, name, |pod| merge(pod, &mark));
                    }
                }
            }),
            Event::Put(objects) => ground
                .double
                .with(|world| world.apply_manifests(objects))
                .map_err(|refusal| {
                    Failure::other(format!("put objects into the drill's cluster: {refusal:?}"))
                })?,
            Event::Remove { resource, name } => {
                let resource = blackstart_apiserver::resources::named(resource);
                let options = blackstart_apiserver::DeleteOptions::default();
                ground
                    .double
                    .with(|world| world.delete(resource, OURS, name, &options).map(drop))
                    .map_err(|refusal| {
                        Failure::other(format!("take {name} from the drill's cluster: {refusal:?}"))
                    })?;
            }
            Event::Change {
                resource,
                name,
                patch,
            } => ground.double.with(|world| {
                world.change(resource, OURS, name, |object| {
                    merge(object, patch);
                    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
                    object["metadata"]["generation"] = generation.into();
                });
            }),
            Event::Cordon(nodes, on) => ground.double.with(|world| {
                for node in nodes {
                    let unschedulable = if *on { Value::Bool(true) } else { Value::Null };
                    let patch = json!({"spec": {"unschedulable": unschedulable}});
                    world.change("nodes", "", node, |node| merge(node, &patch));
                }
            }),
        }
        self.ground.mirror();
        Ok(Waited::Seen)
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
        self.ground.double.with(|world| is_so(world, sight))
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
        self.chronicle.runs.push(story(&begun, &run.request, asked_ms));
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
                story.steps.push(of_step(step, now));
                continue;
            };
            if matches!(step.phase, "done" | "failed" | "cancelled") && known.phase != step.phase {
                known.ended_ms = Some(now);
            }
            step.phase.clone_into(&mut known.phase);
            known.said = step.evidence.clone().unwrap_or_default();
        }
        let shown = detail(look, now.saturating_sub(story.asked_ms));
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
                let (what, wrong) = self.ground.double.with(|world| look(world, end));
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

fn story(run: &RunbookRun, request: &RunbookRequest, asked_ms: u64) -> RunStory {
    let refusals = run.refusals.iter();
    RunStory {
        id: run.id.clone(),
        runbook: run.runbook.clone(),
        node: Some(run.node.clone()).filter(|node| !node.is_empty()),
        namespace: run.subject.as_ref().map(|_| {
            let given = Some(request.namespace.clone()).filter(|given| !given.is_empty());
            given.unwrap_or_else(|| OURS.to_owned())
        }),
        state: run.state.to_owned(),
        asked_ms,
        ended_ms: None,
        steps: run.steps.iter().map(|step| of_step(step, asked_ms)).collect(),
        refusals: refusals
            .map(|one| (one.what.clone(), one.missing.clone()))
            .collect(),
        waiting_on: run.waiting_on.clone(),
    }
}

fn of_step(step: &crate::view::RunbookStep, now: u64) -> StepStory {
    let has_ended = matches!(step.phase, "done" | "failed" | "cancelled");
    StepStory {
        id: step.id.clone(),
        planned: step.evidence.clone().unwrap_or_default(),
        said: String::new(),
        phase: step.phase.to_owned(),
        wants_approval: step.approval.is_some(),
        approved_ms: None,
        ended_ms: has_ended.then_some(now),
    }
}

/// A run as the terminal shows those of cold starts.
fn detail(run: &RunbookRun, elapsed_ms: u64) -> RunDetail {
    let done = run.steps.iter().filter(|step| step.phase == "done").count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let steps = run.steps.iter().map(|step| {
        let is_current = run.current.as_ref() == Some(&step.id);
        Step {
            plan: PlanStep {
                id: step.id.clone(),
                kind: step.id.clone(),
                cluster: Some(run.cluster.clone()),
                // They stand below the nodes, all of them.
                node: None,
                component: None,
                after: Vec::new(),
                description: String::new(),
                deadline_ms: Some(step.deadline_ms),
            },
            state: match step.phase {
                "done" => StepState::Done,
                "failed" => StepState::Failed,
                "cancelled" => StepState::Cancelled,
                "begun" => StepState::Started,
                _ if is_current => StepState::Waiting,
                _ => StepState::Pending,
            },
            waiting_on: run.waiting_on.clone().filter(|_| is_current),
            evidence: step.evidence.clone(),
            attempts: 0,
            started_ms: None,
            ended_ms: None,
        }
    });
    RunDetail {
        run: crate::view::Run {
            id: run.id.clone(),
            runbook: run.runbook.clone(),
            about: Some(run.subject.clone().unwrap_or_else(|| run.node.clone())),
            state: match run.state {
                "running" | "undoing" => RunState::Running,
                "halted" => RunState::Halted,
                "succeeded" => RunState::Succeeded,
                "aborted" => RunState::Aborted,
                _ => RunState::Unknown,
            },
            started_at: run.started_at,
            elapsed_ms,
            steps_total: count(run.steps.len()),
            steps_done: count(done),
            residue: Vec::new(),
            reason: run
                .reason
                .clone()
                .unwrap_or_else(|| format!("asked for by {}", run.by)),
            waiting_on: run.waiting_on.iter().cloned().collect(),
        },
        steps: steps.collect(),
        notes: run.notes.clone(),
        lanes: Vec::new(),
    }
}

/// The pods of a workload that are not on their way out.
fn pods_of<'w>(world: &'w World, namespace: &'w str, app: &'w str) -> impl Iterator<Item = &'w Value> {
    let pods = world.store.list("pods", Some(namespace)).map(AsRef::as_ref);
    pods.filter(move |pod: &&Value| {
        pod["metadata"]["labels"]["app"] == app && pod["metadata"]["deletionTimestamp"].is_null()
    })
}

/// How the pods of [`OURS`] are, by workload: `gateway-proxy 2/5 ready (3 CrashLoopBackOff)`.
fn pods_words(world: &World) -> String {
    let workloads = world.store.list("deployments", Some(OURS));
    let told = workloads.map(|workload| {
        let name = blackstart_apiserver::json::name(workload);
        let wants = workload["spec"]["replicas"].as_u64().unwrap_or_default();
        let mut ready = 0;
        let mut others: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in pods_of(world, OURS, name) {
            if is_ready(pod) {
                ready += 1;
                continue;
            }
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
            let state = waiting.as_str().or(pod["status"]["phase"].as_str());
            *others.entry(state.unwrap_or("Pending")).or_default() += 1;
        }
        let others: Vec<_> = others
            .into_iter()
            .map(|(state, count)| {
                let state = if state == "Running" { "not ready" } else { state };
                format!("{count} {state}")
            })
            .collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" ({})", others.join(", "))
        };
        format!("{name} {ready}/{wants} ready{others}")
    });
    told.collect::<Vec<_>>().join(", ")
}

fn is_ready(pod: &Value) -> bool {
    blackstart_apiserver::json::condition(pod, "Ready") == "True"
}

fn is_so(world: &World, sight: &Sight) -> bool {
    let mut ours = pods_of(world, OURS, APP);
    match sight {
        Sight::Ready {
            namespace,
            workload,
            pods,
        } => {
            let found = world.get("deployments", namespace, workload);
            found.is_some_and(|found| found["status"]["readyReplicas"].as_u64().unwrap_or_default() == *pods)
        }
        Sight::Waits { reason, restarts } => {
            let mut ours = ours.peekable();
            ours.peek().is_some()
                && ours.all(|pod| {
                    let status = &pod["status"]["containerStatuses"][0];
                    status["state"]["waiting"]["reason"] == *reason
                        && status["restartCount"].as_i64().unwrap_or_default() >= *restarts
                })
        }
        Sight::NotReady => ours.any(|pod| !is_ready(pod)),
        Sight::Unscheduled => {
            ours.any(|pod| blackstart_apiserver::json::condition(pod, "PodScheduled") == "False")
        }
        Sight::Machine(..) => false,
        Sight::Node(name, ready) => {
            let node = world.get("nodes", "", name);
            node.is_some_and(|node| {
                (blackstart_apiserver::json::condition(&node, "Ready") == "True") == *ready
            })
        }
        Sight::Elsewhere(node) => !ours.any(|pod| pod["spec"]["nodeName"] == node.as_str()),

        Sight::On(node) => ours.any(|pod| pod["spec"]["nodeName"] == node.as_str()),
    }
}

/// What the pods of a node use of its processors, by what they were made to use; percent.
fn load(world: &World, node: &str) -> i64 {
    use blackstart_apiserver::quantity::millis;

    let pods = world.store.list("pods", None);
    let here = pods.filter(|pod| pod["spec"]["nodeName"] == node);
    let takes = |pod: &Value| millis(&pod["metadata"]["annotations"]["apiserver-double/cpu"]);
    let used: i64 = here.map(|pod| takes(pod)).sum();
    let has = world
        .get("nodes", "", node)
        .map_or(0, |node| millis(&node["status"]["allocatable"]["cpu"]));
    if has > 0 { used * 100 / has } else { 0 }
}

/// What is to be true, and why it is not.
fn look(world: &World, end: &End) -> (String, Option<String>) {
    match end {
        End::Whole { namespace, workload } => {
            let what = format!("{namespace}/{workload} has all its pods");
            let Some(found) = world.get("deployments", namespace, workload) else {
                return (what, Some("it is not there".to_owned()));
            };
            let wants = found["spec"]["replicas"].as_u64().unwrap_or_default();
            let pods: Vec<_> = pods_of(world, namespace, workload).collect();
            let well = pods
                .iter()
                .filter(|pod| is_ready(pod) && pod["status"]["phase"] == "Running");
            let well = u64::try_from(well.count()).unwrap_or_default();
            let all = u64::try_from(pods.len()).unwrap_or_default();
            let wrong = wants == 0 || well != wants || all != wants;
            (
                what,
                wrong.then(|| format!("{well} of {all} are Running and ready, and {wants} are wanted")),
            )
        }
        End::Back(name) => {
            let what = format!("node {name} is back");
            let Some(node) = world.get("nodes", "", name) else {
                return (what, Some("the API has none".to_owned()));
            };
            let ready = blackstart_apiserver::json::condition(&node, "Ready");
            let mut wrong = Vec::new();
            if ready != "True" {
                wrong.push(format!("Ready is {ready}"));
            }
            if node["spec"]["unschedulable"] == true {
                wrong.push("it is cordoned".to_owned());
            }
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            let taints: Vec<_> = taints.filter_map(|taint| taint["key"].as_str()).collect();
            if !taints.is_empty() {
                wrong.push(format!("it is tainted: {}", taints.join(", ")));
            }
            (what, (!wrong.is_empty()).then(|| wrong.join("; ")))
        }
        End::Left { workload, node } => {
            let here = pods_of(world, OURS, workload).filter(|pod| pod["spec"]["nodeName"] == node.as_str());
            let here = here.count();
            (
                format!("{OURS}/{workload} has no pod on {node}"),
                (here > 0).then(|| format!("it has {here}")),
            )
        }
        End::Load { node, below } => {
            let what = format!("the pods of {node} use less than {below}% of its processors");
            let used = load(world, node);
            (what, (used >= *below).then(|| format!("they use {used}%")))
        }
        End::Template { workload, at, is } => {
            let what = format!("{at} of {OURS}/{workload} is {is}");
            let found = world.get("deployments", OURS, workload);
            let found = found
                .and_then(|found| found.pointer(at).cloned())
                .unwrap_or_default();
            (what, (found != *is).then(|| format!("it is {found}")))
        }
    }
}
