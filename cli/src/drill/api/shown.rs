//! A run of a runbook as the terminal shows those of cold starts.

use crate::view::{PlanStep, RunDetail, RunState, RunbookRun, Step, StepState};

/// After so long, milliseconds.
pub(super) fn detail(run: &RunbookRun, elapsed_ms: u64) -> RunDetail {
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
