//! The one place in the CLI with wire types. What a newer coordinator says that this command does not know becomes
//! `Unknown`, never an error: an operator at night wants to see the rest.

use std::collections::HashMap;

use blackstart_proto::component::{self, Component};
use blackstart_proto::leader::{Route, Way};
use blackstart_proto::v1;
use jiff::Timestamp;

use super::{
    Attestation, Boot, Cluster, Condition, Coordinator, Disk, Event, Freeze, GateState, Hold, Lane, Node,
    NodeDetail, NodePhase, Permit, PermitState, Plan, PlanStep, PreviousShutdown, Ready, Remedy,
    RemedyOutcome, Role, Run, RunDetail, RunState, Severity, Step, StepState, Storm, Unit, Via,
};

pub(super) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn at(unix_ms: u64) -> Option<Timestamp> {
    if unix_ms == 0 {
        return None;
    }
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
}

fn nonzero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn severity(wire: i32) -> Severity {
    match v1::Severity::try_from(wire).unwrap_or_default() {
        v1::Severity::Unspecified => Severity::Unknown,
        v1::Severity::Info => Severity::Info,
        v1::Severity::Warning => Severity::Warning,
        v1::Severity::Critical => Severity::Critical,
    }
}

fn role(wire: i32) -> Role {
    match v1::Role::try_from(wire).unwrap_or_default() {
        v1::Role::Unspecified => Role::Unknown,
        v1::Role::ControlPlane => Role::ControlPlane,
        v1::Role::Worker => Role::Worker,
        v1::Role::Etcd => Role::Etcd,
    }
}

fn phase(wire: i32) -> NodePhase {
    match v1::NodePhase::try_from(wire).unwrap_or_default() {
        v1::NodePhase::Unspecified | v1::NodePhase::Unknown => NodePhase::Unknown,
        v1::NodePhase::Ready => NodePhase::Ready,
        v1::NodePhase::NotReady => NodePhase::NotReady,
        v1::NodePhase::Held => NodePhase::Held,
        v1::NodePhase::Silent => NodePhase::Silent,
        v1::NodePhase::Stopped => NodePhase::Stopped,
    }
}

fn gate(wire: i32) -> GateState {
    match v1::GateState::try_from(wire).unwrap_or_default() {
        v1::GateState::Unspecified => GateState::Unknown,
        v1::GateState::Absent => GateState::Absent,
        v1::GateState::Held => GateState::Held,
        v1::GateState::Released => GateState::Released,
        v1::GateState::Passed => GateState::Passed,
        v1::GateState::DeadMan => GateState::DeadMan,
    }
}

fn run_state(wire: i32) -> RunState {
    match v1::RunState::try_from(wire).unwrap_or_default() {
        v1::RunState::Unspecified => RunState::Unknown,
        v1::RunState::Running => RunState::Running,
        v1::RunState::Paused => RunState::Paused,
        v1::RunState::Halted => RunState::Halted,
        v1::RunState::Succeeded => RunState::Succeeded,
        v1::RunState::Aborted => RunState::Aborted,
    }
}

fn step_state(wire: i32) -> StepState {
    match v1::StepState::try_from(wire).unwrap_or_default() {
        v1::StepState::Unspecified => StepState::Unknown,
        v1::StepState::Pending => StepState::Pending,
        v1::StepState::Waiting => StepState::Waiting,
        v1::StepState::Started => StepState::Started,
        v1::StepState::Done => StepState::Done,
        v1::StepState::Residue => StepState::Residue,
        v1::StepState::Failed => StepState::Failed,
        v1::StepState::Cancelled => StepState::Cancelled,
    }
}

impl From<v1::Coordinator> for Coordinator {
    fn from(wire: v1::Coordinator) -> Self {
        Self {
            name: wire.name,
            leads: wire.leads,
            addresses: wire.addresses,
            version: wire.version,
        }
    }
}

impl From<v1::ClusterSummary> for Cluster {
    fn from(wire: v1::ClusterSummary) -> Self {
        Self {
            name: wire.name,
            after: wire.after,
            control_planes: Ready {
                declared: wire.control_planes,
                ready: wire.control_planes_ready,
            },
            workers: Ready {
                declared: wire.workers,
                ready: wire.workers_ready,
            },
            silent: wire.silent,
            held: wire.held,
            conditions: wire.conditions,
        }
    }
}

impl From<v1::NodeSummary> for Node {
    fn from(wire: v1::NodeSummary) -> Self {
        Self {
            name: wire.name,
            cluster: wire.cluster,
            role: role(wire.role),
            address: wire.address,
            rack: given(wire.rack),
            phase: phase(wire.phase),
            phase_age_ms: wire.phase_age_ms,
            agent_version: given(wire.agent_version),
            conditions: wire.conditions,
            boot_id: given(wire.boot_id),
            waiting_on: given(wire.waiting_on),
        }
    }
}

fn condition(node: String, cluster: String, wire: v1::Condition) -> Condition {
    Condition {
        node,
        cluster,
        kind: wire.kind,
        subject: wire.subject,
        severity: severity(wire.severity),
        standing_ms: wire.standing_ms,
        evidence: wire.evidence,
        escalated: wire.escalated,
        silenced: wire.silenced,
        waiting_on: given(wire.waiting_on),
    }
}

impl From<v1::NodeCondition> for Condition {
    fn from(wire: v1::NodeCondition) -> Self {
        condition(wire.node, wire.cluster, wire.condition.unwrap_or_default())
    }
}

fn remedy(node: String, cluster: String, wire: v1::RemedyRecord) -> Remedy {
    Remedy {
        node,
        cluster,
        sequence: wire.sequence,
        remedy: wire.remedy,
        subject: wire.subject,
        outcome: match v1::RemedyOutcome::try_from(wire.outcome).unwrap_or_default() {
            v1::RemedyOutcome::Unspecified => RemedyOutcome::Unknown,
            v1::RemedyOutcome::Started => RemedyOutcome::Started,
            v1::RemedyOutcome::Succeeded => RemedyOutcome::Succeeded,
            v1::RemedyOutcome::Failed => RemedyOutcome::Failed,
        },
        reason: wire.reason,
        detail: given(wire.detail),
        at: at(wire.at_unix_ms),
        took_ms: wire.took_ms,
        dry_run: wire.dry_run,
        command_id: given(wire.command_id),
    }
}

impl From<v1::NodeRemedy> for Remedy {
    fn from(wire: v1::NodeRemedy) -> Self {
        remedy(wire.node, wire.cluster, wire.remedy.unwrap_or_default())
    }
}

impl From<v1::NodeDetail> for NodeDetail {
    fn from(wire: v1::NodeDetail) -> Self {
        let mut node = Node::from(wire.summary.unwrap_or_default());
        let (name, cluster) = (node.name.clone(), node.cluster.clone());
        if node.waiting_on.is_none() {
            node.waiting_on = wire
                .attestation
                .as_ref()
                .and_then(|attested| given(attested.waiting_on.clone()));
        }
        Self {
            last_heard_ms: (node.phase != NodePhase::Unknown || wire.last_heard_ms != 0)
                .then_some(wire.last_heard_ms),
            boot: wire
                .boot
                .filter(|boot| !boot.boot_id.is_empty())
                .map(|boot| Boot {
                    boot_id: boot.boot_id,
                    nonce: boot.nonce,
                    previous_shutdown: match v1::PreviousShutdown::try_from(boot.previous_shutdown)
                        .unwrap_or_default()
                    {
                        v1::PreviousShutdown::Unspecified => PreviousShutdown::Unknown,
                        v1::PreviousShutdown::FirstBoot => PreviousShutdown::FirstBoot,
                        v1::PreviousShutdown::Clean => PreviousShutdown::Clean,
                        v1::PreviousShutdown::Unclean => PreviousShutdown::Unclean,
                    },
                }),
            attestation: wire.attestation.map(|attested| Attestation {
                gate: gate(attested.gate),
                kubelet_active: attested.kubelet_active,
                kubelet_healthy: attested.kubelet_healthy,
                apiserver_ready: attested.apiserver_ready,
                apiserver_latency_ms: nonzero(attested.apiserver_latency_ms),
                apiserver_error: apiserver_error(attested.apiserver_error()),
                age_ms: attested.age_ms,
                manifests: component::manifests_from_wire(&attested.manifests)
                    .into_iter()
                    .map(|(component, state)| (component.pod(), state.as_str()))
                    .collect(),
            }),
            highest_epoch: wire.highest_epoch,
            standing_conditions: wire
                .conditions
                .into_iter()
                .map(|wire| condition(name.clone(), cluster.clone(), wire))
                .collect(),
            units: wire
                .units
                .into_iter()
                .map(|unit| Unit {
                    name: unit.name,
                    active_state: unit.active_state,
                    sub_state: unit.sub_state,
                    restarts: unit.restarts,
                })
                .collect(),
            disks: wire
                .disks
                .into_iter()
                .map(|disk| Disk {
                    mount_point: disk.mount_point,
                    bytes_total: disk.bytes_total,
                    bytes_available: disk.bytes_available,
                    inodes_total: disk.inodes_total,
                    inodes_free: disk.inodes_free,
                })
                .collect(),
            remedies: wire
                .remedies
                .into_iter()
                .map(|wire| remedy(name.clone(), cluster.clone(), wire))
                .collect(),
            holds: wire
                .holds
                .into_iter()
                .map(|wire| hold(wire, None, None))
                .collect(),
            freezes: wire
                .freezes
                .into_iter()
                .map(|wire| Freeze {
                    condition: wire.condition,
                    why: wire.why,
                })
                .collect(),
            node,
        }
    }
}

fn hold(wire: v1::Hold, target: Option<String>, made_at: Option<Timestamp>) -> Hold {
    Hold {
        scope: match wire.scope() {
            v1::HoldScope::Unspecified => "unknown",
            v1::HoldScope::Node => "node",
            v1::HoldScope::Cluster => "cluster",
            v1::HoldScope::Fleet => "fleet",
            v1::HoldScope::Local => "local",
        },
        target,
        remedy: given(wire.remedy),
        silence: wire.silence,
        by: wire.by,
        reason: wire.reason,
        made_at,
        ends_in_ms: nonzero(wire.ends_in_ms),
    }
}

impl From<v1::HoldDetail> for Hold {
    fn from(wire: v1::HoldDetail) -> Self {
        hold(
            wire.hold.unwrap_or_default(),
            given(wire.target),
            at(wire.made_unix_ms),
        )
    }
}

impl From<v1::Storm> for Storm {
    fn from(wire: v1::Storm) -> Self {
        Self {
            cluster: wire.cluster,
            condition: wire.condition,
            frozen_ms: wire.frozen_ms,
            threshold: wire.threshold,
            standing: wire.standing,
            evidence: wire.evidence,
        }
    }
}

impl From<v1::PermitDetail> for Permit {
    fn from(wire: v1::PermitDetail) -> Self {
        Self {
            node: wire.node,
            cluster: given(wire.cluster),
            lane: given(wire.lane),
            what: wire.kind,
            subject: wire.subject,
            state: if wire.granted {
                PermitState::Granted
            } else {
                PermitState::Waiting
            },
            age_ms: wire.age_ms,
            term_left_ms: nonzero(wire.term_left_ms),
            waiting_on: given(wire.waiting_on),
            asked_by: wire.asked_by,
            epoch: nonzero(wire.epoch),
            reason: wire.reason,
        }
    }
}

impl From<v1::RunSummary> for Run {
    fn from(wire: v1::RunSummary) -> Self {
        Self {
            id: wire.id,
            runbook: wire.runbook,
            about: None,
            state: run_state(wire.state),
            started_at: at(wire.started_unix_ms),
            elapsed_ms: wire.elapsed_ms,
            steps_total: wire.steps_total,
            steps_done: wire.steps_done,
            residue: wire.residue,
            reason: wire.reason,
            waiting_on: wire.waiting_on,
        }
    }
}

impl From<v1::PlanStep> for PlanStep {
    fn from(wire: v1::PlanStep) -> Self {
        Self {
            component: component::from_wire(wire.component()).map(Component::pod),
            id: wire.id,
            kind: wire.kind,
            cluster: given(wire.cluster),
            node: given(wire.node),
            after: wire.after,
            description: wire.description,
            deadline_ms: nonzero(wire.deadline_ms),
        }
    }
}

impl From<v1::Plan> for Plan {
    fn from(wire: v1::Plan) -> Self {
        Self {
            runbook: wire.runbook,
            steps: wire.steps.into_iter().map(PlanStep::from).collect(),
            notes: wire.notes,
            estimated_ms: nonzero(wire.estimated_ms),
            critical_path: wire.critical_path,
        }
    }
}

const fn apiserver_error(wire: v1::ApiServerError) -> Option<&'static str> {
    match wire {
        v1::ApiServerError::Unspecified => None,
        v1::ApiServerError::Overloaded => Some("overloaded"),
        v1::ApiServerError::Unavailable => Some("unavailable"),
        v1::ApiServerError::TimedOut => Some("timed-out"),
        v1::ApiServerError::Refused => Some("refused"),
    }
}

impl From<v1::LaneStatus> for Lane {
    fn from(wire: v1::LaneStatus) -> Self {
        Self {
            apiserver_error: apiserver_error(wire.apiserver_error()),
            id: wire.id,
            window: wire.window,
            in_flight: wire.in_flight,
            apiserver_latency_ms: nonzero(wire.apiserver_latency_ms),
        }
    }
}

impl From<v1::RunDetail> for RunDetail {
    /// Steps in the order of the plan; a status without a planned step is dropped, a planned step without a status is
    /// pending.
    fn from(wire: v1::RunDetail) -> Self {
        let plan = Plan::from(wire.plan.unwrap_or_default());
        let mut stands: HashMap<String, v1::StepStatus> = wire
            .steps
            .into_iter()
            .map(|status| (status.id.clone(), status))
            .collect();
        let steps = plan.steps.into_iter().map(|plan| {
            let status = stands.remove(&plan.id);
            let known = status.is_some();
            let status = status.unwrap_or_default();
            let state = if known {
                step_state(status.state)
            } else {
                StepState::Pending
            };
            Step {
                plan,
                state,
                waiting_on: given(status.waiting_on),
                evidence: given(status.evidence),
                attempts: status.attempts,
                started_ms: nonzero(status.started_ms),
                ended_ms: nonzero(status.ended_ms),
            }
        });
        Self {
            steps: steps.collect(),
            notes: plan.notes,
            lanes: wire.lanes.into_iter().map(Lane::from).collect(),
            run: Run::from(wire.summary.unwrap_or_default()),
        }
    }
}

impl From<v1::Event> for Event {
    fn from(wire: v1::Event) -> Self {
        Self {
            sequence: wire.sequence,
            at: at(wire.at_unix_ms),
            severity: severity(wire.severity),
            kind: wire.kind,
            cluster: given(wire.cluster),
            node: given(wire.node),
            run: given(wire.run_id),
            message: wire.message,
        }
    }
}

impl From<Route> for Via {
    fn from(route: Route) -> Self {
        let (leader, store_age_ms) = match route.way {
            Way::Forwarded(leader) => (Some(leader), None),
            Way::Store(age) => (None, Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
        };
        Self {
            coordinator: route.follower,
            leader,
            store_age_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_coordinator_says_is_unknown_and_no_error() {
        let node = Node::from(v1::NodeSummary {
            name: "n".into(),
            phase: 99,
            role: 99,
            ..Default::default()
        });
        assert_eq!((node.phase, node.role), (NodePhase::Unknown, Role::Unknown));
        assert_eq!(run_state(99), RunState::Unknown);
    }

    #[test]
    fn steps_come_in_the_order_of_the_plan_whatever_the_order_of_their_states() {
        let planned = |id: &str| v1::PlanStep {
            id: id.into(),
            ..Default::default()
        };
        let stands = |id: &str, state| v1::StepStatus {
            id: id.into(),
            state,
            ..Default::default()
        };
        let run = RunDetail::from(v1::RunDetail {
            plan: Some(v1::Plan {
                steps: vec![planned("a"), planned("b"), planned("c")],
                ..Default::default()
            }),
            steps: vec![
                stands("b", v1::StepState::Waiting.into()),
                stands("a", v1::StepState::Done.into()),
            ],
            ..Default::default()
        });
        let seen: Vec<_> = run
            .steps
            .iter()
            .map(|step| (step.plan.id.as_str(), step.state))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", StepState::Done),
                ("b", StepState::Waiting),
                ("c", StepState::Pending)
            ]
        );
    }

    #[test]
    fn never_heard_of_is_told_from_heard_just_now() {
        let detail = |phase: v1::NodePhase| {
            let summary = v1::NodeSummary {
                phase: phase.into(),
                ..Default::default()
            };
            NodeDetail::from(v1::NodeDetail {
                summary: Some(summary),
                ..Default::default()
            })
            .last_heard_ms
        };
        assert_eq!(detail(v1::NodePhase::Unknown), None);
        assert_eq!(detail(v1::NodePhase::Ready), Some(0));
    }
}
