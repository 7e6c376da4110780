//! Did the laws hold? Judged from the [`Chronicle`]. Pure.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::chronicle::{Call, Chronicle, RunStory, StepStory};
use super::deed::{Deed, Object};
use super::objects::{SYSTEM, THEIRS};

/// What the drills of these chapters check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) enum Law {
    Proof,
    Budgets,
    LeftAsFound,
    OnlyPlanned,
    Protected,
    Evidence,
    Agents,
    End,
}

impl Law {
    pub(in super::super) const ALL: [Self; 8] = [
        Self::Proof,
        Self::Budgets,
        Self::LeftAsFound,
        Self::OnlyPlanned,
        Self::Protected,
        Self::Evidence,
        Self::Agents,
        Self::End,
    ];

    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::Proof => "proof-of-death",
            Self::Budgets => "budgets",
            Self::LeftAsFound => "left-as-found",
            Self::OnlyPlanned => "only-planned",
            Self::Protected => "protected",
            Self::Evidence => "missing-evidence",
            Self::Agents => "agents",
            Self::End => "chapter-end",
        }
    }

    pub(in super::super) const fn sentence(self) -> &'static str {
        match self {
            Self::Proof => {
                "nothing was deleted by force and no node said to be out of service unless its machine was off and an operator, or its management controller, had said so"
            }
            Self::Budgets => "no pod was taken away that its disruption budget did not let go",
            Self::LeftAsFound => {
                "no cordon, taint, toleration or mark of Blackstart's stayed but what the chapter says"
            }
            Self::OnlyPlanned => {
                "every change that was asked of the API is one that a step of a plan names, after its approval"
            }
            Self::Protected => "nothing was done to pods of the system, of nodes, or of others' namespaces",
            Self::Evidence => "what was refused said what is missing for it",
            Self::Agents => "agents obeyed only steps of runs on their node, each once, and no lower epoch",
            Self::End => "what the chapter is for was reached",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One law, and how it was broken: not at all, if there are no violations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) law: Law,
    pub(super) violations: Vec<String>,
}

/// Judges every law.
pub(super) fn judge(chronicle: &Chronicle) -> Vec<Verdict> {
    Law::ALL
        .into_iter()
        .map(|law| Verdict {
            law,
            violations: match law {
                Law::Proof => proof(chronicle),
                Law::Budgets => budgets(chronicle),
                Law::LeftAsFound => left_as_found(chronicle),
                Law::OnlyPlanned => only_planned(chronicle),
                Law::Protected => protected(chronicle),
                Law::Evidence => evidence(chronicle),
                Law::Agents => agents(chronicle),
                Law::End => end(chronicle),
            },
        })
        .collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The pod that a call takes away, as it was.
fn taken<'a>(chronicle: &'a Chronicle, call: &'a Call) -> Option<(&'a Object, &'a Arc<Value>)> {
    let pod = match &call.deed {
        Deed::Evict(pod) | Deed::Delete { pod, .. } => pod,
        Deed::Cordon(_)
        | Deed::Uncordon(_)
        | Deed::Taint(_)
        | Deed::Untaint(_)
        | Deed::Detach(_)
        | Deed::Tolerations(_)
        | Deed::Memory(_)
        | Deed::Restart(_)
        | Deed::Other(_) => return None,
    };
    Some((pod, chronicle.object_at(pod, call.revision)?))
}

/// The node that a call would tell the cluster to be dead.
fn declared_dead(chronicle: &Chronicle, call: &Call) -> Option<String> {
    match &call.deed {
        Deed::Taint(node) => Some(node.name.clone()),
        Deed::Delete { force: true, .. } => {
            let (_, pod) = taken(chronicle, call)?;
            Some(text(pod, "/spec/nodeName").to_owned())
        }
        Deed::Detach(attachment) => {
            let attachment = chronicle.object_at(attachment, call.revision)?;
            Some(text(attachment, "/spec/nodeName").to_owned())
        }
        Deed::Cordon(_)
        | Deed::Uncordon(_)
        | Deed::Untaint(_)
        | Deed::Evict(_)
        | Deed::Delete { force: false, .. }
        | Deed::Tolerations(_)
        | Deed::Memory(_)
        | Deed::Restart(_)
        | Deed::Other(_) => None,
    }
}

fn proof(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for call in &chronicle.calls {
        let Some(node) = declared_dead(chronicle, call) else {
            continue;
        };
        let why = match (
            chronicle.is_dark(&node, call.at_ms),
            chronicle.is_proved(&node, call.at_ms),
        ) {
            (true, true) => continue,
            (false, _) => format!("when {node} had power"),
            (true, false) => format!("before anybody had said that {node} is off"),
        };
        violations.push(format!("{} at {} ms, {why}", call.deed, call.at_ms));
    }
    violations
}

/// The budgets that cover a pod, as they were at a revision.
fn covering<'a>(
    chronicle: &'a Chronicle,
    namespace: &'a str,
    pod: &'a Value,
    revision: u64,
) -> impl Iterator<Item = &'a Arc<Value>> {
    chronicle
        .objects_at("poddisruptionbudgets", namespace, revision)
        .filter(|budget| {
            let labels = budget["spec"]["selector"]["matchLabels"].as_object();
            labels.is_some_and(|labels| {
                let mut labels = labels.iter();
                labels.all(|(name, value)| pod["metadata"]["labels"][name] == *value)
            })
        })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["type"] == "Ready")
        .any(|condition| condition["status"] == "True")
}

fn budgets(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for call in chronicle.calls.iter().filter(|call| call.is_done()) {
        let Some((object, pod)) = taken(chronicle, call) else {
            continue;
        };
        let node = text(pod, "/spec/nodeName");
        // What is not ready, or not there any more, no budget counts.
        if !is_ready(pod) || chronicle.is_dark(node, call.at_ms) {
            continue;
        }
        let Some(told) = chronicle.told_to_go(object, call.revision) else {
            continue;
        };
        // An eviction that is granted is written into its budget first, in the same breath.
        let just_before = told.revision - 1;
        for budget in covering(chronicle, &object.namespace, pod, just_before) {
            let drawn = !budget["status"]["disruptedPods"][&object.name].is_null();
            let allowed = budget["status"]["disruptionsAllowed"]
                .as_i64()
                .unwrap_or_default();
            if !drawn && allowed < 1 {
                violations.push(format!(
                    "{} at {} ms, when budget {} let none of its pods go",
                    call.deed,
                    call.at_ms,
                    text(budget, "/metadata/name")
                ));
            }
        }
    }
    violations
}

fn left_as_found(chronicle: &Chronicle) -> Vec<String> {
    let remains = chronicle.remains();
    let stray = remains.iter().filter(|one| !one.expected);
    stray
        .map(|one| {
            format!(
                "{} of {} is {} at the end, and was {} before",
                one.what, one.object, one.after, one.before
            )
        })
        .collect()
}

/// A step does such a thing.
fn does(run: &RunStory, step: &StepStory, deed: &Deed, pod: Option<&Value>, on: Option<&str>) -> bool {
    let of_node = |object: &Object| run.node.as_deref() == Some(object.name.as_str());
    let is_there = || on.is_some() && on == run.node.as_deref();
    let named = |object: &Object| {
        let mut words = step
            .planned
            .split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '.')));
        words.any(|word| word == object.name)
            && run
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == object.namespace)
    };
    match (step.id.as_str(), deed) {
        ("cordon", Deed::Cordon(node))
        | ("uncordon", Deed::Uncordon(node))
        | ("taint-out-of-service", Deed::Taint(node))
        | ("remove-taint", Deed::Untaint(node)) => of_node(node),
        ("drain" | "relieve", Deed::Evict(_)) | ("delete-remaining", Deed::Delete { force: false, .. }) => {
            is_there()
        }
        ("force-delete", Deed::Delete { force: true, .. } | Deed::Detach(_)) => is_there(),
        // A plan of many pods names some, and how many there are: no more than that, and none that serves.
        (
            "recreate",
            Deed::Delete {
                pod: object,
                force: false,
            },
        ) if more(step) => {
            run.namespace.as_ref() == Some(&object.namespace) && pod.is_some_and(|pod| !is_ready(pod))
        }
        ("recreate", Deed::Delete { pod, force: false })
        | ("finish-termination", Deed::Delete { pod, force: true }) => named(pod),
        // It is about what an earlier step has named.
        ("restore-tolerations", Deed::Tolerations(_)) => {
            run.steps.iter().any(|step| step.id == "shorten-tolerations")
        }
        ("raise-memory" | "restore-templates", Deed::Memory(workload))
        | ("shorten-tolerations" | "add-tolerations" | "restore-templates", Deed::Tolerations(workload))
        | ("rollout-restart", Deed::Restart(workload)) => named(workload),
        _ => false,
    }
}

/// It names some of its pods only.
fn more(step: &StepStory) -> bool {
    step.planned.ends_with(" more")
}

/// Steps that make more pods again than they have planned to.
fn too_many(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for run in &chronicle.runs {
        for step in run.steps.iter().filter(|step| step.id == "recreate") {
            let count = step
                .planned
                .split(' ')
                .next()
                .and_then(|count| count.parse().ok());
            let planned: usize = count.unwrap_or(1);
            let mut pods: Vec<_> = chronicle
                .calls
                .iter()
                .filter(|call| is_at_work(run, call))
                .filter_map(|call| match &call.deed {
                    Deed::Delete { pod, force: false } => Some(pod),
                    Deed::Delete { force: true, .. }
                    | Deed::Cordon(_)
                    | Deed::Uncordon(_)
                    | Deed::Taint(_)
                    | Deed::Untaint(_)
                    | Deed::Evict(_)
                    | Deed::Detach(_)
                    | Deed::Tolerations(_)
                    | Deed::Memory(_)
                    | Deed::Restart(_)
                    | Deed::Other(_) => None,
                })
                .collect();
            pods.sort();
            pods.dedup();
            if pods.len() > planned {
                violations.push(format!(
                    "{} of {} had {planned} pods made again by its plan, and {} were",
                    step.id,
                    run.id,
                    pods.len()
                ));
            }
        }
    }
    violations
}

fn is_at_work(run: &RunStory, call: &Call) -> bool {
    run.asked_ms <= call.at_ms && run.ended_ms.is_none_or(|ended| call.at_ms <= ended)
}

fn only_planned(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = too_many(chronicle);
    for call in &chronicle.calls {
        let pod = taken(chronicle, call).map(|(_, pod)| pod.as_ref());
        let on = match pod {
            Some(pod) => Some(text(pod, "/spec/nodeName").to_owned()),
            None => declared_dead(chronicle, call),
        };
        let mut named = chronicle
            .runs
            .iter()
            .filter(|run| is_at_work(run, call))
            .flat_map(|run| run.steps.iter().map(move |step| (run, step)))
            .filter(|(run, step)| does(run, step, &call.deed, pod, on.as_deref()))
            .peekable();
        if named.peek().is_none() {
            violations.push(format!(
                "{} at {} ms: no step of a run at work then does that",
                call.deed, call.at_ms
            ));
            continue;
        }
        let approved =
            |step: &StepStory| !step.wants_approval || step.approved_ms.is_some_and(|at| at <= call.at_ms);
        if !named.any(|(_, step)| approved(step)) {
            violations.push(format!(
                "{} at {} ms: nobody had approved of it",
                call.deed, call.at_ms
            ));
        }
    }
    violations
}

fn protected(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for call in &chronicle.calls {
        let Some(object) = call.deed.object() else {
            continue;
        };
        let whose = match object.namespace.as_str() {
            SYSTEM => Some("of the system".to_owned()),
            THEIRS => Some(format!("of namespace {THEIRS}, which nobody asked for")),
            _ => taken(chronicle, call).and_then(|(_, pod)| {
                let owner = pod["metadata"]["ownerReferences"].as_array();
                let owners = owner.into_iter().flatten();
                let mut kinds = owners.map(|owner| text(owner, "/kind"));
                kinds
                    .find(|kind| matches!(*kind, "DaemonSet" | "Node"))
                    .map(|kind| format!("made by a {kind}"))
            }),
        };
        if let Some(whose) = whose {
            violations.push(format!("{} at {} ms: it is {whose}", call.deed, call.at_ms));
        }
    }
    violations
}

fn evidence(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for heard in &chronicle.heard {
        if !heard.steps.is_empty() {
            violations.push(format!(
                "{} was to be refused, and would have done: {}",
                heard.asked,
                heard.steps.join(", ")
            ));
        }
        let mut missing = heard.refusals.iter();
        if !missing.any(|(_, missing)| missing.contains(&heard.expected)) {
            let said: Vec<_> = heard
                .refusals
                .iter()
                .map(|(_, missing)| missing.as_str())
                .collect();
            violations.push(format!(
                "{} was to say that {:?} is missing, and said: {:?}",
                heard.asked,
                heard.expected,
                said.join("; ")
            ));
        }
    }
    for run in &chronicle.runs {
        let unnamed = run
            .refusals
            .iter()
            .filter(|(_, missing)| missing.trim().is_empty());
        violations
            .extend(unnamed.map(|(what, _)| format!("{} refused to {what} without saying why", run.id)));
    }
    violations
}

fn agents(chronicle: &Chronicle) -> Vec<String> {
    let mut violations = Vec::new();
    for machine in &chronicle.machines {
        let name = &machine.name;
        if let Some(why) = &machine.agent_failed {
            violations.push(format!("{name}'s agent ended by itself: {why}"));
        }
        let mut obeyed: Vec<&str> = Vec::new();
        for entry in &machine.ledger {
            let Some(command) = &entry.command else { continue };
            let run = command.split('/').next().unwrap_or_default();
            let known = chronicle
                .runs
                .iter()
                .any(|known| known.id == run && known.node.as_deref() == Some(name));
            if !known {
                violations.push(format!(
                    "{name} obeyed {command} ({}), which no run on it has given",
                    entry.remedy
                ));
            }
            if obeyed.contains(&command.as_str()) {
                violations.push(format!("{name} obeyed {command} twice"));
            }
            obeyed.push(command);
        }
        for pair in machine.ledger.windows(2) {
            let [before, after] = pair else { continue };
            if after.epoch < before.epoch {
                violations.push(format!(
                    "{name} wrote number {} under epoch {} after number {} under epoch {}",
                    after.sequence, after.epoch, before.sequence, before.epoch
                ));
            }
        }
    }
    violations
}

fn end(chronicle: &Chronicle) -> Vec<String> {
    let wrong = chronicle.ends.iter().filter_map(|ending| {
        let why = ending.wrong.as_ref()?;
        Some(format!("{}: {why}", ending.what))
    });
    let stuck = chronicle
        .stuck
        .iter()
        .map(|what| format!("waited in vain for {what}"));
    stuck.chain(wrong).collect()
}

#[cfg(test)]
mod tests;
