//! How long steps took in earlier runs. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::status::{RunState, RunStatus, StepState, StepStatus};
use crate::plan::{StepId, StepKind};
use crate::policy::Typical;

/// The medians of the runs that succeeded; the configured values for what none of them tells. Steps that took more than one attempt
/// do not count: they tell of what went wrong. How long machines take to come back is never learned: a run sees when a node is there, not
/// when its power was.
pub fn typical(runs: &[Arc<RunStatus>], configured: &Typical) -> Typical {
    let (mut kubelets, mut control_planes) = (Vec::new(), Vec::new());
    for run in runs.iter().filter(|run| run.state == RunState::Succeeded) {
        for (step, planned) in run.steps.iter().zip(&run.plan.steps) {
            match &planned.kind {
                StepKind::ReleaseKubelet { .. } => kubelets.extend(took(step)),
                StepKind::ControlPlaneGate { masters, quorum, .. } => {
                    let mut healthy: Vec<_> = masters
                        .iter()
                        .filter_map(|node| find(run, &StepId::release(node)))
                        .filter(|step| took(step).is_some())
                        .filter_map(|step| step.ended_ms)
                        .collect();
                    healthy.sort_unstable();
                    let last = quorum.checked_sub(1).and_then(|last| healthy.get(last));
                    if let (Some(passed), Some(last)) = (step.ended_ms, last) {
                        control_planes.push(passed.saturating_sub(*last));
                    }
                }
                StepKind::ServingGate { .. } | StepKind::VerifyCluster { .. } => {}
            }
        }
    }
    Typical {
        node_return: configured.node_return,
        kubelet: median(kubelets).unwrap_or(configured.kubelet),
        control_plane: median(control_planes).unwrap_or(configured.control_plane),
    }
}

fn find<'a>(run: &'a RunStatus, id: &StepId) -> Option<&'a StepStatus> {
    run.steps.iter().find(|step| step.id == *id)
}

/// Milliseconds from the dispatch of a step to its verification.
fn took(step: &StepStatus) -> Option<u64> {
    let usual = step.state == StepState::Done && step.attempts == 1;
    let (started, ended) = (step.started_ms?, step.ended_ms?);
    usual.then(|| ended.saturating_sub(started))
}

fn median(mut milliseconds: Vec<u64>) -> Option<Duration> {
    milliseconds.sort_unstable();
    let middle = milliseconds.get(milliseconds.len() / 2)?;
    Some(Duration::from_millis(*middle))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::inventory::{ClusterName, NodeName};
    use crate::plan::{OnFailure, Plan, Step};

    fn planned(id: StepId, kind: StepKind) -> Step {
        Step {
            id,
            kind,
            after: Vec::new(),
            lane: None,
            deadline: Duration::ZERO,
            on_failure: OnFailure::Residue,
        }
    }

    /// Three masters, whose kubelets took `kubelets` seconds each, and a gate that passed at 100 s.
    fn run(state: RunState, kubelets: [(u64, u32); 3]) -> Arc<RunStatus> {
        let cluster = ClusterName("biz".into());
        let masters: Vec<_> = (1..=3).map(|index| NodeName(format!("m{index}"))).collect();
        let mut steps: Vec<_> = masters
            .iter()
            .map(|node| {
                planned(
                    StepId::release(node),
                    StepKind::ReleaseKubelet { node: node.clone() },
                )
            })
            .collect();
        steps.push(planned(
            StepId::control_plane(&cluster),
            StepKind::ControlPlaneGate {
                cluster,
                masters,
                quorum: 2,
            },
        ));
        let plan = Plan {
            runbook: "cold-start".into(),
            steps,
            lanes: Vec::new(),
            notes: Vec::new(),
        };
        let ends = kubelets
            .iter()
            .map(|(took, attempts)| (1000, 1000 + took * 1000, *attempts));
        let steps = plan.steps.iter().zip(ends.chain([(0, 100_000, 0)]));
        let steps = steps
            .map(|(step, (started, ended, attempts))| StepStatus {
                id: step.id.clone(),
                state: StepState::Done,
                waiting_on: String::new(),
                evidence: String::new(),
                attempts,
                started_ms: Some(started),
                ended_ms: Some(ended),
            })
            .collect();
        Arc::new(RunStatus {
            request: None,
            id: "cold-start-1".into(),
            state,
            reason: String::new(),
            started_unix_ms: 0,
            elapsed_ms: 0,
            at: Instant::now(),
            plan: Arc::new(plan),
            steps,
            residue: Vec::new(),
            waiting_on: Vec::new(),
            lanes: Vec::new(),
        })
    }

    #[test]
    fn what_earlier_runs_took_is_believed_before_what_is_configured() {
        let configured = Typical::default();
        assert_eq!(typical(&[], &configured), configured);
        let aborted = run(RunState::Aborted, [(5, 1), (6, 1), (7, 1)]);
        assert_eq!(typical(&[Arc::clone(&aborted)], &configured), configured);
        let seconds = Duration::from_secs;
        let learned = typical(
            &[aborted, run(RunState::Succeeded, [(20, 1), (40, 1), (500, 2)])],
            &configured,
        );
        // The third was tried twice. The second of a quorum of two was healthy at 41 s.
        assert_eq!(learned.kubelet, seconds(40));
        assert_eq!(learned.control_plane, seconds(100 - 41));
        assert_eq!(learned.node_return, configured.node_return);
    }
}
