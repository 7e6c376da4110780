//! Runbooks on the wire.

use blackstart_proto::v1;

use super::milliseconds;
use crate::kubernetes::detail::Workload;
use crate::runbooks::declared::Declared;
use crate::runbooks::diagnosis::Diagnosis;
use crate::runbooks::mends::BEFORE;
use crate::runbooks::plan::{Refusal, Request, RunbookPlan};
use crate::runbooks::record::{Phase, RunState, StepRecord};
use crate::runbooks::status::RunbookStatus;

/// What a runbook is going to do.
pub(in crate::api) fn plan(plan: &RunbookPlan) -> v1::RunbookPlan {
    v1::RunbookPlan {
        runbook: plan.request.runbook.to_string(),
        node: plan.request.node.0.clone(),
        cluster: plan.cluster.0.clone(),
        steps: plan
            .steps
            .iter()
            .map(|step| v1::RunbookStep {
                id: step.id(),
                evidence: step.evidence.clone(),
                deadline_ms: milliseconds(step.deadline),
                approval: step.approval.clone().unwrap_or_default(),
                phase: v1::RunbookPhase::Open.into(),
                approved_by: String::new(),
            })
            .collect(),
        refusals: plan.refusals.iter().map(refusal).collect(),
        notes: plan.notes.clone(),
        subject: subject(&plan.request),
    }
}

fn subject(request: &Request) -> String {
    request
        .subject
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn refusal(refusal: &Refusal) -> v1::RunbookRefusal {
    v1::RunbookRefusal {
        what: refusal.what.clone(),
        missing: refusal.missing.clone(),
    }
}

/// A run as it stands.
pub(in crate::api) fn run(run: &RunbookStatus) -> v1::RunbookRun {
    let current = run.current.map(|at| &run.steps[at]);
    v1::RunbookRun {
        id: run.id.clone(),
        runbook: run.plan.request.runbook.to_string(),
        node: run.plan.request.node.0.clone(),
        cluster: run.plan.cluster.0.clone(),
        state: match run.state {
            RunState::Running => v1::RunbookState::Running,
            RunState::Halted => v1::RunbookState::Halted,
            RunState::Undoing => v1::RunbookState::Undoing,
            RunState::Succeeded => v1::RunbookState::Succeeded,
            RunState::Aborted => v1::RunbookState::Aborted,
        }
        .into(),
        by: run.plan.request.by.clone(),
        reason: run.plan.request.reason.clone(),
        started_unix_ms: run.started_unix_ms,
        changed_unix_ms: run.changed_unix_ms,
        steps: run.steps.iter().map(step).collect(),
        current: current.map(StepRecord::id).unwrap_or_default(),
        waiting_on: run.waiting.as_ref().map(ToString::to_string).unwrap_or_default(),
        wants_approval: run.wants_approval(),
        leaves: run.leaves.clone(),
        refusals: run.plan.refusals.iter().map(refusal).collect(),
        notes: run.plan.notes.clone(),
        proposal: run.is_proposal,
        asks: run.asks.as_ref().map(ToString::to_string).unwrap_or_default(),
        subject: subject(&run.plan.request),
    }
}

fn step(step: &StepRecord) -> v1::RunbookStep {
    v1::RunbookStep {
        id: step.id(),
        evidence: if step.evidence.is_empty() {
            step.step.evidence.clone()
        } else {
            step.evidence.clone()
        },
        deadline_ms: milliseconds(step.step.deadline),
        approval: step.step.approval.clone().unwrap_or_default(),
        phase: match step.phase {
            Phase::Open => v1::RunbookPhase::Open,
            Phase::Begun => v1::RunbookPhase::Begun,
            Phase::Done => v1::RunbookPhase::Done,
            Phase::Failed => v1::RunbookPhase::Failed,
            Phase::Cancelled => v1::RunbookPhase::Cancelled,
        }
        .into(),
        approved_by: step.approved.clone().unwrap_or_default(),
    }
}

/// What is wrong with a pod or a workload.
pub(in crate::api) fn diagnosis(one: Diagnosis) -> v1::PodDiagnosis {
    let findings = one.findings.into_iter().map(|finding| v1::PodFinding {
        cause: finding.cause.as_str().to_owned(),
        container: finding.container.unwrap_or_default(),
        advice: finding.cause.advice(),
        evidence: finding.evidence,
    });
    v1::PodDiagnosis {
        findings: findings.collect(),
        kind: one.kind,
        namespace: one.key.namespace,
        name: one.key.name,
        node: one.node,
        controller: one.controller.unwrap_or_default(),
        state: one.state.as_str().to_owned(),
        restarts: one.restarts,
    }
}

/// A declared workload as it stands.
pub(in crate::api) fn workload(
    declared: Declared,
    known: Result<(Workload, u64), String>,
) -> v1::WorkloadState {
    let mut wire = v1::WorkloadState {
        name: declared.name,
        cluster: declared.cluster.0,
        namespace: declared.namespace,
        kind: declared.kind.to_string(),
        object: declared.object,
        ..v1::WorkloadState::default()
    };
    match known {
        Ok((workload, restarts)) => {
            wire.desired = workload.desired;
            wire.updated = workload.updated;
            wire.available = workload.available;
            wire.restarts = restarts;
            wire.whole = workload.is_whole();
            wire.changed = workload.annotations.contains_key(BEFORE);
        }
        Err(trouble) => wire.trouble = trouble,
    }
    wire
}
