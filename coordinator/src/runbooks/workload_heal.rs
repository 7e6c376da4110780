//! A declared workload that is not whole, the chapters `GatewayProxy` 故障恢复 and NSF 故障恢复. Pure.
//!
//! | what is found | what is done |
//! |---|---|
//! | pods killed for their memory, or `--add-memory` | requests and limits raised by the declared step; wants approval unless declared `auto` |
//! | pods that no node takes for its taints | tolerations of those taints proposed; wants approval unless declared `auto` |
//! | too few available, and nothing that a restart cannot cure | rolling restart by the standard annotation |
//! | images, configuration, quotas, room | refused, with its evidence and what to do |
//!
//! It ends when the replicas are as desired and no pod was started again over the window.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::case::Case;
use super::declared::Declared;
use super::diagnosis::{Cause, Diagnosis, State, all};
use super::maintenance::{empty, refused};
use super::mends::{Awaited, Chosen, Mends, Raise, Restart, TemplateMend, TolerationMend, raised};
use super::plan::{Refusal, Request, RunbookPlan};
use super::pods_heal::{bounds, rollback, steps};
use super::subject::Of;
use super::world::World;
use crate::kubernetes::detail::Workload;
use crate::kubernetes::objects::scheduling::Toleration;
use crate::kubernetes::objects::workload::{WorkloadKind, WorkloadName};
use crate::kubernetes::objects::{Key, Taint};

/// Added to requests and limits unless something else is declared or asked for: the smaller of the plan's two steps.
pub const STEP: u64 = 500 << 20;

/// `blackstart workload heal`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let plan = empty(request, world);
    let declared = world.declared.as_slice();
    let wanted = plan
        .request
        .subject
        .clone()
        .and_then(|subject| match &subject.of {
            Of::Workload { kind, name } => {
                let name = WorkloadName {
                    kind: *kind,
                    key: Key {
                        namespace: subject.namespace.clone(),
                        name: name.clone(),
                    },
                };
                Some((subject, name))
            }
            Of::AllPods | Of::Pod(_) => None,
        });
    let Some((subject, name)) = wanted else {
        return refused(
            plan,
            "mend a workload",
            "which: blackstart workload get lists those that are declared".to_owned(),
        );
    };
    let what = format!("mend {name}");
    let case = match &world.case {
        Some(Ok(case)) => case,
        Some(Err(why)) => return refused(plan, &what, why.clone()),
        None => return refused(plan, &what, "it was not read".to_owned()),
    };
    if plan.request.mending.rollback {
        return rollback(plan, case, &subject);
    }
    let Some(workload) = case.workload(&name) else {
        return refused(
            plan,
            &what,
            format!("it: cluster {} has no {name}", subject.cluster),
        );
    };
    if workload.desired == 0 {
        return refused(plan, &what, "replicas: it is scaled to none".to_owned());
    }
    if workload.is_paused {
        return refused(
            plan,
            &what,
            format!(
                "its rollout is paused: kubectl rollout resume {} {}",
                workload.name.kind.plural(),
                name.key.name
            ),
        );
    }
    let now = i64::try_from(world.unix_ms).ok();
    let now = now
        .and_then(|now| Timestamp::from_millisecond(now).ok())
        .unwrap_or_default();
    let of = Awaited {
        kind: name.kind.to_string(),
        key: name.key.clone(),
        node: None,
    };
    let sick = all(case, now)
        .into_iter()
        .filter(|one| belongs(one, &of, case))
        .collect();
    let declared = declared.iter().find(|one| {
        one.cluster == subject.cluster
            && one.kind == name.kind
            && one.namespace == name.key.namespace
            && one.object == name.key.name
    });
    Healing {
        case,
        workload,
        sick,
        of,
        declared,
    }
    .plan(plan, &what)
}

/// It is about the workload, one of its replica sets, or one of its pods.
fn belongs(diagnosis: &Diagnosis, of: &Awaited, case: &Case) -> bool {
    if let Some(pod) = case.pod(&diagnosis.key, &diagnosis.uid) {
        return case
            .maker(pod)
            .is_some_and(|maker| maker.kind == of.kind && maker.key == of.key);
    }
    let owner = format!("{} {}", of.kind, of.key.name);
    diagnosis.key.namespace == of.key.namespace
        && (diagnosis.kind == of.kind && diagnosis.key == of.key
            || diagnosis.controller.as_ref() == Some(&owner))
}

struct Healing<'a> {
    case: &'a Case,
    workload: &'a Workload,
    sick: Vec<Diagnosis>,
    of: Awaited,
    declared: Option<&'a Declared>,
}

impl Healing<'_> {
    fn plan(&self, mut plan: RunbookPlan, what: &str) -> RunbookPlan {
        let asked = plan.request.mending.add_memory;
        if self.workload.is_whole() && self.sick.is_empty() && asked == 0 {
            return refused(
                plan,
                what,
                format!("something to mend: {}", self.workload.words()),
            );
        }
        let mut mends = Mends {
            awaited: vec![self.of.clone()],
            ..Mends::default()
        };
        let mut template = TemplateMend::new(self.workload);
        self.memory(asked, &mut template, &mut plan);
        self.tolerations(&mut template, &mut plan);
        if !template.memory.is_empty() || template.tolerations.is_some() {
            mends.templates.push(template);
        } else if plan.refusals.is_empty() {
            let incurable = self.incurable();
            if incurable.is_empty() {
                mends.restarts.push(Restart {
                    workload: self.workload.name.clone(),
                    uid: self.workload.uid.clone(),
                });
            }
            plan.refusals.extend(incurable);
        }
        if !mends.templates.is_empty() || !mends.restarts.is_empty() {
            self.broken_pods(&mut mends);
            let auto = self.declared.is_some_and(|declared| declared.changes_by_itself);
            plan.steps = steps(
                &mends,
                plan.request.mending.steady,
                auto.then_some("declared auto"),
            );
            for step in &mut plan.steps {
                if matches!(step.action, super::plan::Action::RolloutRestart) {
                    step.evidence = format!("{}; {}", self.workload.words(), self.words());
                }
            }
            plan.mends = mends;
        }
        plan.notes.extend(
            self.case
                .lacks
                .iter()
                .map(|lack| format!("not looked at: {lack}")),
        );
        plan
    }

    fn words(&self) -> String {
        let told: Vec<_> = self.sick.iter().take(3).map(Diagnosis::words).collect();
        if told.is_empty() {
            "nothing is seen that is wrong with its pods".to_owned()
        } else {
            told.join("; ")
        }
    }

    fn memory(&self, asked: u64, template: &mut TemplateMend, plan: &mut RunbookPlan) {
        let killed = self.sick.iter().flat_map(|one| &one.findings);
        let killed = killed.filter(|finding| finding.cause == Cause::OomKilled);
        let mut containers: Vec<String> = killed.filter_map(|finding| finding.container.clone()).collect();
        if containers.is_empty() && asked > 0 {
            let limited = self.workload.memory.iter().filter(|one| one.limit.is_some());
            containers = limited.map(|one| one.container.clone()).collect();
        }
        containers.sort();
        containers.dedup();
        let more = if asked > 0 {
            asked
        } else {
            self.declared.map_or(STEP, |declared| declared.add_memory)
        };
        for container in containers {
            match raised(self.workload, &container, Raise::Add(more), bounds(self.case)) {
                Ok(mend) => template.memory.push(mend),
                Err(missing) => plan.refusals.push(Refusal {
                    what: format!("raise the memory of {}", self.workload.name),
                    missing,
                }),
            }
        }
    }

    /// Taints that keep its pods from nodes; those that Kubernetes or Blackstart sets of a node that is not well are none to tolerate.
    fn tolerations(&self, template: &mut TemplateMend, plan: &mut RunbookPlan) {
        let waits = self
            .sick
            .iter()
            .any(|one| one.state == State::Pending && one.has(|cause| matches!(cause, Cause::Taint { .. })));
        if !waits {
            return;
        }
        let mut by_taint: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        for room in self
            .case
            .rooms
            .iter()
            .filter(|room| room.is_ready && !room.is_cordoned)
        {
            let keeps = |taint: &&Taint| {
                matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                    && !self.workload.tolerations.iter().any(|one| one.tolerates(taint))
            };
            let keeping: Vec<_> = room.taints.iter().filter(keeps).collect();
            if keeping.iter().any(|taint| is_reserved(taint)) {
                continue;
            }
            for taint in keeping {
                *by_taint
                    .entry((taint.key.clone(), taint.value.clone(), taint.effect.clone()))
                    .or_default() += 1;
            }
        }
        // Those of the most nodes: one taint more, as few as make room.
        let best = by_taint.into_iter().max_by_key(|(_, nodes)| *nodes);
        let Some(((key, value, effect), _)) = best else {
            plan.refusals.push(Refusal {
                what: format!("schedule the pods of {}", self.workload.name),
                missing: format!(
                    "a node that it may be let onto: every taint in its way says that its node is not well or is a control plane ({})",
                    self.words()
                ),
            });
            return;
        };
        let mut to = self.workload.tolerations.clone();
        to.push(Toleration {
            key,
            operator: if value.is_empty() { "Exists" } else { "Equal" }.to_owned(),
            value,
            effect,
            ..Toleration::default()
        });
        template.tolerations = Some(TolerationMend {
            from: self.workload.tolerations.clone(),
            to,
        });
    }

    /// What a restart does not cure.
    fn incurable(&self) -> Vec<Refusal> {
        let hopeless = |cause: &Cause| match cause {
            Cause::ImageNotFound { .. }
            | Cause::ImageUnauthorized { .. }
            | Cause::ImageNameInvalid { .. }
            | Cause::ImageNeverPulled { .. }
            | Cause::RegistryUnreachable { .. }
            | Cause::ConfigMapMissing { .. }
            | Cause::SecretMissing { .. }
            | Cause::KeyMissing
            | Cause::ClaimMissing { .. }
            | Cause::ClaimUnbound { .. }
            | Cause::QuotaExceeded { .. }
            | Cause::LimitRangeExceeded
            | Cause::PolicyViolated
            | Cause::ServiceAccountMissing
            | Cause::Forbidden
            | Cause::WebhookDown
            | Cause::Insufficient { .. }
            | Cause::Affinity
            | Cause::TooManyPods
            | Cause::HostPortTaken { .. }
            | Cause::VolumeElsewhere
            | Cause::Cordoned
            | Cause::CommandBroken
            | Cause::NodeLost { .. }
            | Cause::NodeSilent { .. }
            | Cause::Finalizers { .. } => true,
            Cause::Taint { .. }
            | Cause::NotScheduled
            | Cause::MountFailed
            | Cause::VolumeHeld
            | Cause::AddressesExhausted
            | Cause::NetworkPlugin
            | Cause::SandboxFailed
            | Cause::ImagePullFailed { .. }
            | Cause::NodeDiskFull
            | Cause::OomKilled
            | Cause::LivenessFailed
            | Cause::StartupFailed
            | Cause::ReadinessFailed
            | Cause::Segfault
            | Cause::Killed
            | Cause::AskedToEnd
            | Cause::EndsByItself
            | Cause::ExitCode { .. }
            | Cause::Evicted { .. }
            | Cause::NodeWentDown { .. }
            | Cause::NodeRefused { .. }
            | Cause::DeadlineExceeded
            | Cause::NodeUnderPressure { .. }
            | Cause::KubeletHolds { .. }
            | Cause::StaticPod { .. }
            | Cause::Unexplained => false,
        };
        let mut refusals: Vec<Refusal> = Vec::new();
        for diagnosis in &self.sick {
            if let Some(finding) = diagnosis.findings.iter().find(|finding| hopeless(&finding.cause)) {
                let missing = finding.cause.advice();
                if refusals.iter().all(|one| one.missing != missing) {
                    refusals.push(Refusal {
                        what: format!("cure it by a restart: {}", diagnosis.words()),
                        missing,
                    });
                }
            }
        }
        refusals
    }

    /// A stateful set waits for ever for a pod of an old template to become ready.
    fn broken_pods(&self, mends: &mut Mends) {
        if self.workload.name.kind != WorkloadKind::StatefulSet && !self.workload.on_delete {
            return;
        }
        for diagnosis in &self.sick {
            let pod = self.case.pod(&diagnosis.key, &diagnosis.uid);
            if let Some(pod) = pod.filter(|pod| pod.deleted.is_none() && pod.controller.is_some()) {
                mends.pods.push(Chosen {
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                    node: pod.node.clone(),
                    controller: pod.controller_words().unwrap_or_default(),
                    why: diagnosis.words(),
                });
            }
        }
    }
}

/// Of a node that is not well, that is off, or that belongs to the control plane.
fn is_reserved(taint: &Taint) -> bool {
    taint.key.starts_with("node.kubernetes.io/")
        || taint.key.starts_with("node.cloudprovider.kubernetes.io/")
        || taint.key.starts_with("node-role.kubernetes.io/")
}
