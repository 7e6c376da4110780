//! What happened in a drill: the API server double's record of requests and of writes, the machines' records, the agents' ledgers. What
//! [`super::laws`] judges and [`super::report`] tells.
//!
//! Times are milliseconds on the drill's clock. What the coordinator says of itself stands in [`RunStory`] and [`Heard`] alone: what it
//! planned is what it promised, and it is held to that.

use std::sync::Arc;

use blackstart_apiserver::store::Change;
use blackstart_proto::v1::RunbookRequest;
use serde_json::Value;

use super::super::history::Entry;
use super::deed::{Deed, Object};
use super::objects::OURS;
use super::script::Left;
use crate::view::{RunbookRun, RunbookStep};

/// One drill.
#[derive(Debug, Clone, Default)]
pub(super) struct Chronicle {
    pub(super) machines: Vec<MachineStory>,
    /// Every change that the coordinator asked of the API, in order, whatever became of it.
    pub(super) calls: Vec<Call>,
    /// Every write to the API server's store, in order, whoever made it.
    pub(super) changes: Vec<Change>,
    pub(super) runs: Vec<RunStory>,
    /// Who said of which machine that it is off, and when.
    pub(super) proofs: Vec<Proof>,
    /// What was to be refused.
    pub(super) heard: Vec<Heard>,
    /// What was to be true at the end.
    pub(super) ends: Vec<Ending>,
    /// What the chapter says that it leaves.
    pub(super) leaves: Vec<Left>,
    /// What was waited for in vain: the drill went no further.
    pub(super) stuck: Option<String>,
    /// What the operator, the machines and the cluster did.
    pub(super) told: Vec<(u64, Option<String>, String)>,
    /// When the trouble began.
    pub(super) trouble_ms: Option<u64>,
    /// When all that was to be true at the end was.
    pub(super) ended_ms: Option<u64>,
}

/// Somebody said that a machine is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) machine: String,
    pub(super) at_ms: u64,
    /// Who: `operator`, or `management controller` by that one's own record.
    pub(super) by: &'static str,
}

/// One machine.
#[derive(Debug, Clone, Default)]
pub(super) struct MachineStory {
    pub(super) name: String,
    /// From when until when it had no power; `None`: to the end.
    pub(super) dark: Vec<(u64, Option<u64>)>,
    /// Its agent's ledger, oldest first.
    pub(super) ledger: Vec<Entry>,
    /// What should never happen to an agent, if it did.
    pub(super) agent_failed: Option<String>,
}

/// A change that was asked of the API.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) at_ms: u64,
    /// The newest revision when it was asked.
    pub(super) revision: u64,
    pub(super) deed: Deed,
    /// The status of the answer.
    pub(super) code: u16,
}

impl Call {
    /// It was done.
    pub(super) fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// A run, as the coordinator told it.
#[derive(Debug, Clone, Default)]
pub(super) struct RunStory {
    pub(super) id: String,
    pub(super) runbook: String,
    /// The node that it is about.
    pub(super) node: Option<String>,
    /// The namespace that it is about.
    pub(super) namespace: Option<String>,
    pub(super) state: String,
    /// When it was asked for.
    pub(super) asked_ms: u64,
    pub(super) ended_ms: Option<u64>,
    pub(super) steps: Vec<StepStory>,
    pub(super) refusals: Vec<(String, String)>,
    pub(super) waiting_on: Option<String>,
}

impl RunStory {
    /// It came to its end.
    pub(super) fn succeeded(&self) -> bool {
        self.state == "succeeded"
    }
}

/// A step of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct StepStory {
    pub(super) id: String,
    /// What it was planned on.
    pub(super) planned: String,
    /// What came of it.
    pub(super) said: String,
    pub(super) phase: String,
    pub(super) wants_approval: bool,
    /// When the operator approved of it.
    pub(super) approved_ms: Option<u64>,
    /// When it was first seen to have ended so.
    pub(super) ended_ms: Option<u64>,
}

/// A plan that was to refuse something.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// Of which runbook.
    pub(super) asked: String,
    /// A part of what was to be said to be missing.
    pub(super) expected: String,
    /// What was said: what is not done, and what is missing for it.
    pub(super) refusals: Vec<(String, String)>,
    /// It was to do nothing at all, and would have done this.
    pub(super) steps: Vec<String>,
}

/// Something that was to be true at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    pub(super) what: String,
    /// Why it is not.
    pub(super) wrong: Option<String>,
}

/// Something of Blackstart's that is in the cluster at the end and was not before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remains {
    pub(super) object: Object,
    /// As [`Left`] names it.
    pub(super) what: String,
    pub(super) before: Value,
    pub(super) after: Value,
    /// The chapter says so.
    pub(super) expected: bool,
}

impl Chronicle {
    /// An object as it was at a revision.
    pub(super) fn object_at(&self, object: &Object, revision: u64) -> Option<&Arc<Value>> {
        let mut writes = self.changes.iter().rev();
        writes
            .find(|change| change.revision <= revision && is_of(change, object))
            .and_then(|change| change.after.as_ref())
    }

    /// The objects of a resource in a namespace, as they were at a revision.
    pub(super) fn objects_at<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
        revision: u64,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let mut seen = Vec::new();
        let writes = self.changes.iter().rev();
        writes
            .filter(move |change| {
                change.revision <= revision
                    && change.key.resource == resource
                    && change.key.namespace == namespace
            })
            .filter_map(move |change| {
                let is_newest = !seen.contains(&&change.key);
                seen.push(&change.key);
                change.after.as_ref().filter(|_| is_newest)
            })
    }

    /// The write by which a pod was told to go, after a revision.
    pub(super) fn told_to_go(&self, pod: &Object, after: u64) -> Option<&Change> {
        let goes = |object: &Option<Arc<Value>>| {
            object
                .as_ref()
                .is_none_or(|object| !object["metadata"]["deletionTimestamp"].is_null())
        };
        let mut writes = self.changes.iter();
        writes.find(|change| change.revision > after && is_of(change, pod) && goes(&change.after))
    }

    /// The machine had no power then.
    pub(super) fn is_dark(&self, machine: &str, at_ms: u64) -> bool {
        let mut machines = self.machines.iter();
        machines.find(|known| known.name == machine).is_some_and(|known| {
            let mut dark = known.dark.iter();
            dark.any(|(from, until)| *from <= at_ms && until.is_none_or(|until| at_ms < until))
        })
    }

    /// Somebody had said by then that it is off.
    pub(super) fn is_proved(&self, machine: &str, at_ms: u64) -> bool {
        let mut proofs = self.proofs.iter();
        proofs.any(|proof| proof.machine == machine && proof.at_ms <= at_ms)
    }

    /// What the coordinator's own changes came to in the end: of each object that it changed, what is not as it was before the first.
    pub(super) fn remains(&self) -> Vec<Remains> {
        let mut touched: Vec<(&Object, u64)> = Vec::new();
        for call in self.calls.iter().filter(|call| call.is_done()) {
            let object = call.deed.object().filter(|object| object.resource != "pods");
            if let Some(object) = object
                && touched.iter().all(|(known, _)| *known != object)
            {
                touched.push((object, call.revision));
            }
        }
        let mut remains = Vec::new();
        for (object, revision) in touched {
            let (Some(before), Some(after)) =
                (self.object_at(object, revision), self.object_at(object, u64::MAX))
            else {
                continue;
            };
            let (before, after) = (traces(object, before), traces(object, after));
            let mut names: Vec<_> = before.iter().chain(&after).map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            for name in names {
                let of = |traces: &[(String, Value)]| {
                    let found = traces.iter().find(|(known, _)| known == name);
                    found.map_or(Value::Null, |(_, value)| value.clone())
                };
                let (before, after) = (of(&before), of(&after));
                if before != after {
                    let mut leaves = self.leaves.iter();
                    remains.push(Remains {
                        expected: leaves.any(|left| {
                            left.resource == object.resource && left.name == object.name && left.what == name
                        }),
                        object: object.clone(),
                        what: name.clone(),
                        before,
                        after,
                    });
                }
            }
        }
        remains
    }
}

fn is_of(change: &Change, object: &Object) -> bool {
    change.key.resource == object.resource
        && change.key.name == object.name
        && change.key.namespace == object.namespace
}

/// What runbooks change of an object, by name.
fn traces(object: &Object, value: &Value) -> Vec<(String, Value)> {
    use blackstart_coordinator::kubernetes::detail::RESTARTED_AT;
    use blackstart_coordinator::kubernetes::objects::OUT_OF_SERVICE;

    let mut traces = Vec::new();
    let annotations = value["metadata"]["annotations"].as_object();
    for (name, mark) in annotations.into_iter().flatten() {
        if name.starts_with("blackstart.io/") {
            traces.push((name.clone(), mark.clone()));
        }
    }
    if object.resource == "nodes" {
        traces.push((
            "cordon".to_owned(),
            Value::Bool(value["spec"]["unschedulable"] == true),
        ));
        let taints = value["spec"]["taints"].as_array().into_iter().flatten();
        // Others of this prefix come and go with the node's conditions.
        let kept = taints.filter(|taint| {
            taint["key"] == OUT_OF_SERVICE
                || !taint["key"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with("node.kubernetes.io/")
        });
        traces.push(("taints".to_owned(), kept.cloned().collect()));
        return traces;
    }
    let template = &value["spec"]["template"];
    traces.push((
        "restarted-at".to_owned(),
        template["metadata"]["annotations"][RESTARTED_AT].clone(),
    ));
    traces.push(("tolerations".to_owned(), template["spec"]["tolerations"].clone()));
    let containers = template["spec"]["containers"].as_array().into_iter().flatten();
    let memory = containers.map(|container| {
        let resources = &container["resources"];
        serde_json::json!([resources["requests"]["memory"], resources["limits"]["memory"]])
    });
    traces.push(("memory".to_owned(), memory.collect()));
    traces
}

impl RunStory {
    /// As it is when it has begun.
    pub(super) fn new(run: &RunbookRun, request: &RunbookRequest, asked_ms: u64) -> Self {
        let refusals = run.refusals.iter();
        Self {
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
            steps: run
                .steps
                .iter()
                .map(|step| StepStory::new(step, asked_ms))
                .collect(),
            refusals: refusals
                .map(|one| (one.what.clone(), one.missing.clone()))
                .collect(),
            waiting_on: run.waiting_on.clone(),
        }
    }
}

impl StepStory {
    /// As it is seen first.
    pub(super) fn new(step: &RunbookStep, now: u64) -> Self {
        let has_ended = matches!(step.phase, "done" | "failed" | "cancelled");
        Self {
            id: step.id.clone(),
            planned: step.evidence.clone().unwrap_or_default(),
            said: String::new(),
            phase: step.phase.to_owned(),
            wants_approval: step.approval.is_some(),
            approved_ms: None,
            ended_ms: has_ended.then_some(now),
        }
    }
}
