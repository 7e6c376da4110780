//! Pods that do not run as they should, the chapter Pod 故障恢复: what can be mended safely is, the rest is told with what to do. Pure.
//!
//! | what is found | what is done |
//! |---|---|
//! | killed for its memory | the limit in its owner's template raised by half, capped by limit ranges, quotas and nodes; wants approval |
//! | ends over and over, and what it needs is back (or `--skip-back-off`) | deleted: its successor does not wait for the back-off |
//! | failed for good, or its node's network did not let it start | deleted: its controller makes another |
//! | to go, on a node that is off, with proof | deleted without its kubelet's word |
//! | anything else | refused, with its evidence and what to do |
//!
//! A pod that nobody makes again is never deleted, and one that serves neither.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::case::{Case, is_real};
use super::declared::Declared;
use super::diagnosis::{Cause, Diagnosis, State, all};
use super::maintenance::{empty, refused, step};
use super::mends::{
    Awaited, Before, Bounds, Chosen, Memory, MemoryMend, Mends, Raise, TemplateMend, TolerationMend, raised,
};
use super::node_down::NotDead;
use super::plan::{Action, Refusal, Request, RunbookPlan, Step};
use super::subject::{Of, Subject};
use super::world::World;
use crate::kubernetes::detail::{PodDetail, Workload};
use crate::kubernetes::objects::workload::WorkloadKind;

/// So many pods of a run are made again: what is wrong with more is not the pods.
const MOST: usize = 20;
/// A call to an API server that answers is done by then, retries and all.
const SHORT: Duration = Duration::from_mins(2);
/// Pods take their grace period to go, 30 s unless they say otherwise.
const GOING: Duration = Duration::from_mins(5);
/// Images are pulled and probes answered within this, beside the time that they have to be well.
const STARTING: Duration = Duration::from_mins(10);
/// A rollout goes pod by pod; the deadline of its progress is 10 minutes by default.
const ROLLOUT: Duration = Duration::from_mins(30);

/// `blackstart pods heal`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let plan = empty(request, world);
    let declared = world.declared.as_slice();
    let Some(subject) = plan.request.subject.clone() else {
        return refused(
            plan,
            "mend pods",
            "a namespace, or a pod: blackstart pods heal --cluster CLUSTER -n NAMESPACE [POD]".to_owned(),
        );
    };
    let case = match &world.case {
        Some(Ok(case)) => case,
        Some(Err(why)) => return refused(plan, &format!("mend {subject}"), why.clone()),
        None => {
            return refused(
                plan,
                &format!("mend {subject}"),
                "its pods were not read".to_owned(),
            );
        }
    };
    if plan.request.mending.rollback {
        return rollback(plan, case, &subject);
    }
    let now = i64::try_from(world.unix_ms).ok();
    let now = now
        .and_then(|now| Timestamp::from_millisecond(now).ok())
        .unwrap_or_default();
    let mut healing = Healing {
        case,
        declared,
        request: plan.request.clone(),
        mends: Mends::default(),
        refusals: Vec::new(),
    };
    let all = all(case, now);
    let chosen: Vec<_> = all.iter().filter(|one| is_of(one, &subject)).collect();
    if chosen.is_empty() {
        let there = match &subject.of {
            Of::Pod(name) => case.pods.iter().any(|pod| pod.key.name == *name),
            Of::AllPods | Of::Workload { .. } => true,
        };
        let missing = if there {
            "something to mend: nothing is wrong with it that is seen".to_owned()
        } else {
            format!("{subject}: there is none in cluster {}", subject.cluster)
        };
        return refused(plan, &format!("mend {subject}"), missing);
    }
    for diagnosis in chosen {
        healing.mend(diagnosis);
    }
    healing.plan(plan)
}

/// It is about what was asked for.
fn is_of(diagnosis: &Diagnosis, subject: &Subject) -> bool {
    match &subject.of {
        Of::AllPods => true,
        Of::Pod(name) => diagnosis.kind == "Pod" && diagnosis.key.name == *name,
        Of::Workload { kind, name } => diagnosis.kind == kind.as_str() && diagnosis.key.name == *name,
    }
}

struct Healing<'a> {
    case: &'a Case,
    declared: &'a [Declared],
    request: Request,
    mends: Mends,
    refusals: Vec<Refusal>,
}

impl Healing<'_> {
    fn refuse(&mut self, what: String, missing: String) {
        self.refusals.push(Refusal { what, missing });
    }

    fn mend(&mut self, diagnosis: &Diagnosis) {
        let case = self.case;
        let Some(pod) = case
            .pod(&diagnosis.key, &diagnosis.uid)
            .filter(|_| diagnosis.kind == "Pod")
        else {
            return self.by_hand(diagnosis);
        };
        if !is_real(pod) {
            return self.by_hand(diagnosis);
        }
        if diagnosis.state == State::Terminating {
            return self.finish(pod, diagnosis);
        }
        if pod.controller.is_none() {
            return self.refuse(
                format!("delete pod {}, which is {}", pod.key, diagnosis.state.as_str()),
                format!(
                    "a controller that makes it again ({}); without one it is mended by hand",
                    diagnosis.words()
                ),
            );
        }
        if diagnosis.has(|cause| *cause == Cause::OomKilled) {
            return self.raise(pod, diagnosis);
        }
        match diagnosis.state {
            State::Error if pod.is_over() => self.recreate(pod, diagnosis),
            State::CrashLoop | State::ImagePull => self.skip_back_off(pod, diagnosis),
            State::ContainerCreating
                if diagnosis.has(|cause| matches!(cause, Cause::SandboxFailed | Cause::NetworkPlugin)) =>
            {
                self.recreate(pod, diagnosis);
            }
            State::Pending
            | State::ContainerCreating
            | State::Error
            | State::Terminating
            | State::Unknown
            | State::Restarting
            | State::NotReady
            | State::NotMade => self.by_hand(diagnosis),
        }
    }

    /// What is not mended says why, and what to do.
    fn by_hand(&mut self, diagnosis: &Diagnosis) {
        let advice: Vec<_> = diagnosis
            .findings
            .iter()
            .map(|finding| finding.cause.advice())
            .collect();
        let advice = if advice.is_empty() {
            Cause::Unexplained.advice()
        } else {
            advice.join("; ")
        };
        self.refuse(format!("mend {}", diagnosis.words()), advice);
    }

    fn recreate(&mut self, pod: &PodDetail, diagnosis: &Diagnosis) {
        self.mends.pods.push(Chosen {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            controller: pod.controller_words().unwrap_or_default(),
            why: diagnosis.words(),
        });
        self.await_maker(pod);
    }

    fn await_maker(&mut self, pod: &PodDetail) {
        if let Some(maker) = self.case.maker(pod)
            && !self.mends.awaited.contains(&maker)
        {
            self.mends.awaited.push(maker);
        }
    }

    /// A pod whose containers wait for their next try: made again only if what it needs is back.
    fn skip_back_off(&mut self, pod: &PodDetail, diagnosis: &Diagnosis) {
        let maker = self.case.maker(pod);
        let declared = self.declared.iter().find(|one| {
            maker.as_ref().is_some_and(|maker| {
                one.kind.as_str() == maker.kind
                    && one.object == maker.key.name
                    && one.namespace == maker.key.namespace
            })
        });
        let what = || format!("skip the back-off of pod {}", pod.key);
        if let Some(declared) =
            declared.filter(|one| !one.needs.is_empty() && diagnosis.state == State::CrashLoop)
        {
            let mut away = Vec::new();
            for (namespace, service) in &declared.needs {
                match self.case.needs.get(&format!("{namespace}/{service}")) {
                    Some(Ok(true)) => {}
                    Some(Ok(false)) | None => {
                        away.push(format!("service {namespace}/{service} has no ready address"));
                    }
                    Some(Err(why)) => away.push(why.clone()),
                }
            }
            if away.is_empty() {
                let needs: Vec<_> = declared
                    .needs
                    .iter()
                    .map(|(namespace, service)| format!("{namespace}/{service}"))
                    .collect();
                self.recreate(pod, diagnosis);
                if let Some(last) = self.mends.pods.last_mut() {
                    last.why = format!("{}; what it needs is there: {}", last.why, needs.join(", "));
                }
                return;
            }
            if !self.request.mending.skip_back_off {
                return self.refuse(what(), format!("what it needs: {}", away.join("; ")));
            }
        }
        if self.request.mending.skip_back_off {
            return self.recreate(pod, diagnosis);
        }
        let advice: Vec<_> = diagnosis
            .findings
            .iter()
            .map(|finding| finding.cause.advice())
            .collect();
        self.refuse(
            format!("{} ({})", what(), diagnosis.words()),
            format!(
                "evidence that what it needs is back: declare it (`workloads`, `needs`), or say so with --skip-back-off; {}",
                advice.join("; ")
            ),
        );
    }

    /// A pod on its way out whose node is off.
    fn finish(&mut self, pod: &PodDetail, diagnosis: &Diagnosis) {
        let silent = diagnosis.has(|cause| matches!(cause, Cause::NodeSilent { .. }));
        if !silent {
            return self.by_hand(diagnosis);
        }
        let what = format!("delete pod {} without its kubelet's word", pod.key);
        if !pod.finalizers.is_empty() {
            return self.refuse(what, format!("the consent of {}", pod.finalizers.join(", ")));
        }
        match self.case.down.get(&pod.node) {
            Some(Ok(_)) => {}
            Some(Err(NotDead::Lives(why) | NotDead::NotKnown(why))) => return self.refuse(what, why.clone()),
            None => return self.refuse(what, format!("{} among the nodes that are declared", pod.node)),
        }
        let Some(proof) = &self.request.proof else {
            return self.refuse(
                what,
                format!(
                    "proof that {} is off: silence is none, it may be cut off and go on writing. Switch it off, then say how: --proof 'power \
                     off at the BMC, seen off'",
                    pod.node
                ),
            );
        };
        if let Some(other) = self.mends.stuck.iter().find(|one| one.node != pod.node) {
            let other = other.node.clone();
            return self.refuse(
                what,
                format!(
                    "a proof of its own: this one is for {other}; name the pod: blackstart pods heal {}",
                    pod.key.name
                ),
            );
        }
        let proof = proof.to_string();
        self.mends.stuck.push(Chosen {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            controller: pod.controller_words().unwrap_or_default(),
            why: format!("{}; proof that {} is off: {proof}", diagnosis.words(), pod.node),
        });
        if pod.controller.is_some() {
            self.await_maker(pod);
        }
    }

    /// A pod that was killed for its memory.
    fn raise(&mut self, pod: &PodDetail, diagnosis: &Diagnosis) {
        let case = self.case;
        let what = format!("raise the memory of pod {}", pod.key);
        let Some(workload) = case.template(pod).filter(|workload| workload.name.kind.rolls()) else {
            let maker = pod.controller_words().unwrap_or_default();
            return self.refuse(
                what,
                format!("a template that can be changed: it is made by {maker}, which is no Deployment, StatefulSet or DaemonSet"),
            );
        };
        let by = match self.request.mending.add_memory {
            0 => Raise::Half,
            bytes => Raise::Add(bytes),
        };
        let killed = diagnosis
            .findings
            .iter()
            .filter(|one| one.cause == Cause::OomKilled);
        let killed: Vec<String> = killed.filter_map(|one| one.container.clone()).collect();
        for container in killed {
            match raised(workload, &container, by, bounds(case)) {
                Ok(mend) => self.change(workload, mend),
                Err(missing) => return self.refuse(what, missing),
            }
        }
        // A stateful set does not replace a pod that never became ready by one of its newest template.
        if workload.name.kind == WorkloadKind::StatefulSet || workload.on_delete {
            self.recreate(pod, diagnosis);
        } else {
            self.await_maker(pod);
        }
    }

    fn change(&mut self, workload: &Workload, mend: MemoryMend) {
        let known = self
            .mends
            .templates
            .iter_mut()
            .find(|one| one.workload == workload.name);
        match known {
            Some(template) if template.memory.iter().any(|one| one.container == mend.container) => {}
            Some(template) => template.memory.push(mend),
            None => {
                let mut template = TemplateMend::new(workload);
                template.memory.push(mend);
                self.mends.templates.push(template);
            }
        }
    }

    fn plan(mut self, mut plan: RunbookPlan) -> RunbookPlan {
        if self.mends.pods.len() > MOST {
            let more = self.mends.pods.split_off(MOST);
            self.refuse(
                format!("make {} more pods again in this run", more.len()),
                format!("the end of this run: {MOST} pods at a time, since what is wrong with more is seldom the pods"),
            );
        }
        let Self {
            mends,
            refusals,
            request,
            case,
            ..
        } = self;
        plan.refusals = refusals;
        plan.notes = case
            .lacks
            .iter()
            .map(|lack| format!("not looked at: {lack}"))
            .collect();
        plan.steps = steps(&mends, request.mending.steady, None);
        plan.mends = mends;
        plan
    }
}

pub(super) fn bounds(case: &Case) -> Bounds<'_> {
    Bounds {
        ranges: &case.bounds,
        quotas: &case.quotas,
        rooms: &case.rooms,
    }
}

/// The steps that carry mends out. `asks`: why a change of a template has to be approved of, if not for the usual reason; `Some(None)`
/// is for what is approved beforehand.
pub(super) fn steps(mends: &Mends, steady: Duration, approved: Option<&str>) -> Vec<Step> {
    let mut steps = Vec::new();
    let words = |templates: &mut dyn Iterator<Item = &TemplateMend>| {
        templates.map(TemplateMend::words).collect::<Vec<_>>().join("; ")
    };
    let asks = |mut step: Step| {
        if approved.is_none() {
            step.approval = Some(format!(
                "a template is changed, and its pods are made anew: {}",
                step.evidence
            ));
        }
        step
    };
    let mut memory = mends
        .templates
        .iter()
        .filter(|one| !one.memory.is_empty())
        .peekable();
    if memory.peek().is_some() {
        steps.push(asks(step(Action::RaiseMemory, words(&mut memory), SHORT)));
    }
    let mut tolerations = mends
        .templates
        .iter()
        .filter(|one| one.tolerations.is_some())
        .peekable();
    if tolerations.peek().is_some() {
        steps.push(asks(step(Action::AddTolerations, words(&mut tolerations), SHORT)));
    }
    if !mends.restarts.is_empty() {
        let names: Vec<_> = mends
            .restarts
            .iter()
            .map(|one| one.workload.to_string())
            .collect();
        steps.push(step(Action::RolloutRestart, names.join(", "), SHORT));
    }
    let told = |pods: &[Chosen]| {
        let told: Vec<_> = pods.iter().take(3).map(|pod| pod.why.clone()).collect();
        let more = pods.len().saturating_sub(3);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        format!("{} pods: {}{more}", pods.len(), told.join("; "))
    };
    if !mends.stuck.is_empty() {
        steps.push(step(Action::FinishTermination, told(&mends.stuck), GOING));
    }
    if !mends.pods.is_empty() {
        steps.push(step(Action::Recreate, told(&mends.pods), GOING));
    }
    if steps.is_empty() {
        return steps;
    }
    if !mends.templates.is_empty() || !mends.restarts.is_empty() {
        steps.push(step(
            Action::AwaitRollout,
            "every pod of the newest template, and none of another",
            ROLLOUT,
        ));
    }
    if !mends.awaited.is_empty() {
        let names: Vec<_> = mends
            .awaited
            .iter()
            .map(|one| format!("{} {}", one.kind, one.key))
            .collect();
        steps.push(step(
            Action::AwaitSteady,
            format!(
                "pods of {} Running and ready, and none started again for {} s",
                names.join(", "),
                steady.as_secs()
            ),
            STARTING + steady,
        ));
    }
    steps
}

/// Puts back what earlier runs changed.
pub(super) fn rollback(mut plan: RunbookPlan, case: &Case, subject: &Subject) -> RunbookPlan {
    let makers: BTreeSet<Awaited> = case
        .pods
        .iter()
        .filter(|pod| matches!(&subject.of, Of::Pod(name) if *name == pod.key.name))
        .filter_map(|pod| case.maker(pod))
        .collect();
    let chosen = |workload: &&Workload| match &subject.of {
        Of::AllPods => true,
        Of::Pod(_) => makers
            .iter()
            .any(|maker| maker.kind == workload.name.kind.as_str() && maker.key == workload.name.key),
        Of::Workload { kind, name } => workload.name.kind == *kind && workload.name.key.name == *name,
    };
    for workload in case.workloads.iter().filter(chosen) {
        let Some(before) = Before::of(workload) else {
            continue;
        };
        let mut template = TemplateMend::new(workload);
        for (container, memory) in &before.memory {
            if let Some(from) = Memory::of(workload, container).filter(|from| from != memory) {
                template.memory.push(MemoryMend {
                    container: container.clone(),
                    from,
                    to: *memory,
                });
            }
        }
        template.tolerations = before.tolerations.map(|to| TolerationMend {
            from: workload.tolerations.clone(),
            to,
        });
        plan.mends.awaited.push(Awaited {
            kind: workload.name.kind.to_string(),
            key: workload.name.key.clone(),
            node: None,
        });
        plan.mends.templates.push(template);
    }
    if plan.mends.templates.is_empty() {
        return refused(
            plan,
            &format!("put back what was changed in {subject}"),
            "a change of Blackstart's that stands: none of its workloads has the annotation blackstart.io/template-before".to_owned(),
        );
    }
    let words: Vec<_> = plan.mends.templates.iter().map(TemplateMend::words).collect();
    plan.steps = vec![
        step(Action::RestoreTemplates, words.join("; "), SHORT),
        step(Action::AwaitRollout, "every pod of the newest template", ROLLOUT),
    ];
    plan
}
