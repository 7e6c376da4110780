//! What operators are shown.

use blackstart_proto::{boot, component, v1};
use tokio::time::Instant;

use super::{brakes, milliseconds};
use crate::events;
use crate::execute::status::{LaneStatus, RunState, RunStatus, StepState, StepStatus};
use crate::fleet::NodeState;
use crate::fleet::message::{Condition, RemedyOutcome, RemedyRecord};
use crate::fleet::view::{ApiServerAnswer, ApiServerError, GateState, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec, Role};
use crate::plan::estimate::Estimate;
use crate::plan::{Plan, Step, StepKind};

/// So many of something, on the wire.
pub(in crate::api) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn since(now: Instant, then: Instant) -> u64 {
    milliseconds(now.saturating_duration_since(then))
}

/// A line of the list of nodes. `waiting_on`: what a run says that the held node waits for.
pub(in crate::api) fn node_summary(
    spec: &NodeSpec,
    node: &NodeState,
    waiting_on: Option<&String>,
    now: Instant,
) -> v1::NodeSummary {
    let view = node.view();
    let own = view
        .attestation
        .as_ref()
        .map(|attestation| &attestation.waiting_on);
    v1::NodeSummary {
        name: spec.name.0.clone(),
        cluster: spec.cluster.0.clone(),
        role: match spec.role {
            Role::ControlPlane => v1::Role::ControlPlane,
            Role::Worker => v1::Role::Worker,
            Role::Etcd => v1::Role::Etcd,
        }
        .into(),
        address: spec.address.to_string(),
        phase: phase(view.phase).into(),
        phase_age_ms: since(now, view.phase_since),
        agent_version: node.agent_version().to_owned(),
        conditions: count(node.conditions().len()),
        boot_id: view
            .boot
            .as_ref()
            .map(|boot| boot.boot_id.clone())
            .unwrap_or_default(),
        waiting_on: waiting_on.or(own).cloned().unwrap_or_default(),
        rack: spec.rack.clone().unwrap_or_default(),
        silenced: node.is_silenced(),
    }
}

fn phase(phase: Phase) -> v1::NodePhase {
    match phase {
        Phase::Unknown => v1::NodePhase::Unknown,
        Phase::Ready => v1::NodePhase::Ready,
        Phase::NotReady => v1::NodePhase::NotReady,
        Phase::Held => v1::NodePhase::Held,
        Phase::Silent => v1::NodePhase::Silent,
        Phase::Stopped => v1::NodePhase::Stopped,
    }
}

/// Everything that is known of a node.
pub(in crate::api) fn node_detail(
    summary: v1::NodeSummary,
    node: &NodeState,
    now: Instant,
) -> v1::NodeDetail {
    let view = node.view();
    v1::NodeDetail {
        summary: Some(summary),
        boot: view.boot.as_ref().map(boot),
        attestation: view.attestation.as_ref().map(|said| v1::Attestation {
            gate: match said.gate {
                GateState::Absent => v1::GateState::Absent,
                GateState::Held => v1::GateState::Held,
                GateState::Released => v1::GateState::Released,
                GateState::Passed => v1::GateState::Passed,
                GateState::DeadMan => v1::GateState::DeadMan,
            }
            .into(),
            kubelet_active: said.kubelet_active,
            kubelet_healthy: said.kubelet_healthy,
            apiserver_ready: said.apiserver_ready,
            apiserver_latency_ms: latency_ms(said.apiserver),
            apiserver_error: apiserver_error(said.apiserver).into(),
            age_ms: since(now, said.observed_at),
            waiting_on: said.waiting_on.clone(),
            manifests: component::manifests_to_wire(&said.manifests),
        }),
        conditions: node.conditions().iter().map(|it| condition(it, now)).collect(),
        units: node
            .units()
            .iter()
            .map(|unit| v1::UnitStatus {
                name: unit.name.clone(),
                active_state: unit.active_state.clone(),
                sub_state: unit.sub_state.clone(),
                restarts: unit.restarts,
            })
            .collect(),
        disks: node
            .disks()
            .iter()
            .map(|disk| v1::DiskStatus {
                mount_point: disk.mount_point.clone(),
                bytes_total: disk.bytes_total,
                bytes_available: disk.bytes_available,
                inodes_total: disk.inodes_total,
                inodes_free: disk.inodes_free,
            })
            .collect(),
        remedies: node.remedies().map(remedy).collect(),
        highest_epoch: view.highest_epoch,
        last_heard_ms: node.last_heard().map_or(0, |heard| since(now, heard)),
        holds: node
            .holds()
            .iter()
            .map(|hold| brakes::own_hold(hold, now))
            .collect(),
        freezes: Vec::new(),
    }
}

/// Zero is for what is not known.
fn latency_ms(answer: Option<ApiServerAnswer>) -> u64 {
    match answer {
        Some(ApiServerAnswer::Ready(took)) => milliseconds(took).max(1),
        Some(ApiServerAnswer::Failed(_)) | None => 0,
    }
}

fn apiserver_error(answer: Option<ApiServerAnswer>) -> v1::ApiServerError {
    match answer {
        Some(ApiServerAnswer::Ready(_)) | None => v1::ApiServerError::Unspecified,
        Some(ApiServerAnswer::Failed(ApiServerError::Overloaded)) => v1::ApiServerError::Overloaded,
        Some(ApiServerAnswer::Failed(ApiServerError::Unavailable)) => v1::ApiServerError::Unavailable,
        Some(ApiServerAnswer::Failed(ApiServerError::TimedOut)) => v1::ApiServerError::TimedOut,
        Some(ApiServerAnswer::Failed(ApiServerError::Refused)) => v1::ApiServerError::Refused,
    }
}

fn boot(boot: &boot::BootIdentity) -> v1::BootIdentity {
    v1::BootIdentity {
        boot_id: boot.boot_id.clone(),
        nonce: boot.nonce.clone(),
        previous_shutdown: match boot.previous_shutdown {
            boot::PreviousShutdown::FirstBoot => v1::PreviousShutdown::FirstBoot,
            boot::PreviousShutdown::Clean => v1::PreviousShutdown::Clean,
            boot::PreviousShutdown::Unclean => v1::PreviousShutdown::Unclean,
        }
        .into(),
    }
}

/// A standing condition.
pub(in crate::api) fn condition(condition: &Condition, now: Instant) -> v1::Condition {
    v1::Condition {
        kind: condition.kind.clone(),
        subject: condition.subject.clone(),
        severity: severity(condition.severity).into(),
        standing_ms: since(now, condition.since),
        evidence: condition.evidence.clone(),
        escalated: condition.escalated,
        silenced: condition.silenced,
        waiting_on: condition.waiting_on.clone(),
        heaviest: condition
            .heaviest
            .iter()
            .map(|pod| v1::HeavyPod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                cpu_millis: pod.cpu_millis,
                memory_bytes: pod.memory_bytes,
            })
            .collect(),
    }
}

/// A storm among the conditions: of its cluster, and of no node.
pub(in crate::api) fn storm_condition(storm: v1::Storm) -> v1::NodeCondition {
    v1::NodeCondition {
        node: String::new(),
        cluster: storm.cluster,
        condition: Some(v1::Condition {
            kind: "Storm".to_owned(),
            subject: storm.condition,
            severity: v1::Severity::Critical.into(),
            standing_ms: storm.frozen_ms,
            evidence: format!("{}; stands on {} now", storm.evidence, storm.standing),
            escalated: false,
            silenced: false,
            waiting_on: "it to pass, or: blackstart storm thaw".to_owned(),
            heaviest: Vec::new(),
        }),
    }
}

/// A remedy.
pub(in crate::api) fn remedy(record: &RemedyRecord) -> v1::RemedyRecord {
    v1::RemedyRecord {
        sequence: record.sequence,
        remedy: record.remedy.clone(),
        subject: record.subject.clone(),
        outcome: match record.outcome {
            RemedyOutcome::Started => v1::RemedyOutcome::Started,
            RemedyOutcome::Succeeded => v1::RemedyOutcome::Succeeded,
            RemedyOutcome::Failed => v1::RemedyOutcome::Failed,
        }
        .into(),
        reason: record.reason.clone(),
        detail: record.detail.clone(),
        at_unix_ms: record.at_unix_ms,
        took_ms: milliseconds(record.took),
        dry_run: record.dry_run,
        command_id: record.command_id.clone(),
    }
}

fn severity(severity: events::Severity) -> v1::Severity {
    match severity {
        events::Severity::Info => v1::Severity::Info,
        events::Severity::Warning => v1::Severity::Warning,
        events::Severity::Critical => v1::Severity::Critical,
    }
}

/// Something that happened.
pub(in crate::api) fn event(event: events::Event) -> v1::Event {
    v1::Event {
        sequence: event.sequence,
        at_unix_ms: event.at_unix_ms,
        severity: severity(event.severity).into(),
        kind: event.kind.as_str().to_owned(),
        cluster: event.cluster.map(|cluster| cluster.0).unwrap_or_default(),
        node: event.node.map(|node| node.0).unwrap_or_default(),
        run_id: event.run.unwrap_or_default(),
        message: event.message,
    }
}

/// A line of the list of runs.
pub(in crate::api) fn run_summary(run: &RunStatus) -> v1::RunSummary {
    let ended = |step: &&StepStatus| match step.state {
        StepState::Done | StepState::Residue => true,
        StepState::Pending
        | StepState::Waiting
        | StepState::Started
        | StepState::Failed
        | StepState::Cancelled => false,
    };
    v1::RunSummary {
        id: run.id.clone(),
        runbook: run.plan.runbook.clone(),
        state: match run.state {
            RunState::Running => v1::RunState::Running,
            RunState::Paused => v1::RunState::Paused,
            RunState::Halted => v1::RunState::Halted,
            RunState::Succeeded => v1::RunState::Succeeded,
            RunState::Aborted => v1::RunState::Aborted,
        }
        .into(),
        started_unix_ms: run.started_unix_ms,
        elapsed_ms: run.elapsed_ms_at(Instant::now()),
        steps_total: count(run.steps.len()),
        steps_done: count(run.steps.iter().filter(ended).count()),
        residue: run.residue.iter().map(|node| node.0.clone()).collect(),
        reason: run.reason.clone(),
        waiting_on: run.waiting_on.clone(),
    }
}

/// A whole run.
pub(in crate::api) fn run_detail(run: &RunStatus, inventory: &Inventory) -> v1::RunDetail {
    v1::RunDetail {
        summary: Some(run_summary(run)),
        plan: Some(plan(&run.plan, inventory)),
        steps: run.steps.iter().map(step_status).collect(),
        lanes: run.lanes.iter().map(lane).collect(),
    }
}

fn lane(lane: &LaneStatus) -> v1::LaneStatus {
    v1::LaneStatus {
        id: lane.lane.0.clone(),
        window: count(lane.window),
        in_flight: count(lane.in_flight),
        apiserver_latency_ms: latency_ms(lane.apiserver),
        apiserver_error: apiserver_error(lane.apiserver).into(),
    }
}

fn step_status(step: &StepStatus) -> v1::StepStatus {
    v1::StepStatus {
        id: step.id.0.clone(),
        state: match step.state {
            StepState::Pending => v1::StepState::Pending,
            StepState::Waiting => v1::StepState::Waiting,
            StepState::Started => v1::StepState::Started,
            StepState::Done => v1::StepState::Done,
            StepState::Residue => v1::StepState::Residue,
            StepState::Failed => v1::StepState::Failed,
            StepState::Cancelled => v1::StepState::Cancelled,
        }
        .into(),
        waiting_on: step.waiting_on.clone(),
        evidence: step.evidence.clone(),
        attempts: step.attempts,
        started_ms: step.started_ms.unwrap_or(0),
        ended_ms: step.ended_ms.unwrap_or(0),
    }
}

/// A plan.
pub(in crate::api) fn plan(plan: &Plan, inventory: &Inventory) -> v1::Plan {
    v1::Plan {
        runbook: plan.runbook.clone(),
        steps: plan.steps.iter().map(|it| step(it, inventory)).collect(),
        notes: plan.notes.clone(),
        estimated_ms: 0,
        critical_path: Vec::new(),
    }
}

/// A plan that is only looked at, with what it is going to take.
pub(in crate::api) fn estimated(looked_at: &Plan, estimate: &Estimate, inventory: &Inventory) -> v1::Plan {
    let mut wire = plan(looked_at, inventory);
    wire.estimated_ms = milliseconds(estimate.makespan);
    wire.critical_path = estimate.critical_path.iter().map(|id| id.0.clone()).collect();
    wire.notes.extend(estimate.notes());
    wire
}

fn step(step: &Step, inventory: &Inventory) -> v1::PlanStep {
    let of_node = |node: &NodeName| {
        let cluster = inventory.node(node).map(|spec| spec.cluster.clone());
        cluster.unwrap_or_else(|| ClusterName(String::new()))
    };
    let (kind, cluster, node, description) = match &step.kind {
        StepKind::ReleaseKubelet { node } => (
            "release-kubelet",
            of_node(node),
            Some(node),
            format!("release the kubelet of {node} once it is back; done when it is healthy"),
        ),
        StepKind::ControlPlaneGate {
            cluster,
            masters,
            quorum,
        } => (
            "control-plane-gate",
            cluster.clone(),
            None,
            format!(
                "wait until {quorum} of {} control planes of {cluster} attest kubelet and API server",
                masters.len()
            ),
        ),
        StepKind::ServingGate {
            cluster,
            workers,
            quorum,
        } => (
            "serving-gate",
            cluster.clone(),
            None,
            format!(
                "wait until {cluster} serves: its control plane, and {quorum} of {} workers",
                workers.len()
            ),
        ),
        StepKind::HoldManifest { node, component } => (
            step.kind.as_str(),
            of_node(node),
            Some(node),
            format!("set {component} of {node} aside before its kubelet starts"),
        ),
        StepKind::KubeletsGate {
            cluster,
            nodes,
            share,
        } => (
            step.kind.as_str(),
            cluster.clone(),
            None,
            format!(
                "wait until the API servers of {cluster} are ready and {share} % of its {} nodes run their kubelet; after {} s go on all \
                 the same",
                nodes.len(),
                step.deadline.as_secs()
            ),
        ),
        StepKind::ReleaseManifest { node, component } => (
            step.kind.as_str(),
            of_node(node),
            Some(node),
            format!("put {component} of {node} back"),
        ),
        StepKind::VerifyCluster { cluster } => (
            "verify-cluster",
            cluster.clone(),
            None,
            format!("say what of {cluster} came back and what did not"),
        ),
    };
    v1::PlanStep {
        id: step.id.0.clone(),
        kind: kind.to_owned(),
        cluster: cluster.0,
        node: node.map(|node| node.0.clone()).unwrap_or_default(),
        after: step.after.iter().map(|id| id.0.clone()).collect(),
        description,
        deadline_ms: milliseconds(step.deadline),
        component: step
            .kind
            .component()
            .map_or(v1::Component::Unspecified, v1::Component::from)
            .into(),
    }
}
