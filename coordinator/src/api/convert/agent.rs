//! What agents say, and what they are told.
//!
//! What a sender did not say, or says in a word that this version does not know, becomes the reading that does least: a
//! gate that is not known to hold does not, a boot whose past is not known is no evidence. Lists and texts are cut at a
//! limit, because they are kept: a node that says too much is still heard.

use std::time::Duration;

use blackstart_proto::{boot, component, v1};
use tokio::time::Instant;
use tonic::Status;

use super::{control_plane, etcd, milliseconds};
use crate::events;
use crate::fleet::message::{
    Condition, DiskStatus, HeavyPod, Hello, Leave, NodeHold, RemedyOutcome, RemedyRecord, Report, UnitStatus,
};
use crate::fleet::view::{ApiServerAnswer, ApiServerError, Attestation, GateState};
use crate::fleet::{Acknowledgement, Action, Answer, Order, OrderResult};
use crate::inventory::NodeName;

/// Items of one kind that a report may have.
const ITEMS: usize = 256;
/// Bytes that a text of an agent may have.
const TEXT: usize = 2048;
/// Nothing on the wire is older than this: what claims to be is.
const OLDEST: Duration = Duration::from_hours(24 * 365);

/// The first word of a session, and the node that it names.
pub(crate) fn hello(wire: v1::Hello) -> Result<(NodeName, Hello), Status> {
    let boot = wire
        .boot
        .filter(|boot| !boot.boot_id.is_empty() && !boot.nonce.is_empty())
        .ok_or_else(|| Status::invalid_argument("the hello names no boot"))?;
    let hello = Hello {
        agent_version: clipped(wire.agent_version),
        highest_epoch: wire.highest_epoch,
        report_interval: Duration::from_millis(wire.report_interval_ms).min(OLDEST),
        boot: boot::BootIdentity {
            previous_shutdown: match boot.previous_shutdown() {
                v1::PreviousShutdown::Unspecified | v1::PreviousShutdown::FirstBoot => {
                    boot::PreviousShutdown::FirstBoot
                }
                v1::PreviousShutdown::Clean => boot::PreviousShutdown::Clean,
                v1::PreviousShutdown::Unclean => boot::PreviousShutdown::Unclean,
            },
            boot_id: clipped(boot.boot_id),
            nonce: clipped(boot.nonce),
        },
    };
    Ok((NodeName(wire.node), hello))
}

/// A report that arrived at `now`.
pub(crate) fn report(wire: v1::Report, now: Instant) -> Result<Report, Status> {
    let attestation = wire
        .attestation
        .ok_or_else(|| Status::invalid_argument("the report has no attestation"))?;
    Ok(Report {
        attestation: Attestation {
            gate: match attestation.gate() {
                v1::GateState::Unspecified | v1::GateState::Absent => GateState::Absent,
                v1::GateState::Held => GateState::Held,
                v1::GateState::Released => GateState::Released,
                v1::GateState::Passed => GateState::Passed,
                v1::GateState::DeadMan => GateState::DeadMan,
            },
            kubelet_active: attestation.kubelet_active,
            kubelet_healthy: attestation.kubelet_healthy,
            apiserver_ready: attestation.apiserver_ready,
            apiserver: apiserver(&attestation),
            observed_at: ago(now, attestation.age_ms),
            manifests: component::manifests_from_wire(&attestation.manifests),
            waiting_on: clipped(attestation.waiting_on),
        },
        conditions: wire
            .conditions
            .into_iter()
            .take(ITEMS)
            .map(|wire| condition(wire, now))
            .collect(),
        units: wire.units.into_iter().take(ITEMS).map(unit).collect(),
        disks: wire.disks.into_iter().take(ITEMS).map(disk).collect(),
        remedies: wire.remedies.into_iter().take(ITEMS).map(remedy).collect(),
        silenced: wire.holds.iter().any(|hold| hold.silence),
        holds: wire
            .holds
            .into_iter()
            .filter(|hold| hold.scope() == v1::HoldScope::Local)
            .take(ITEMS)
            .map(|wire| hold(wire, now))
            .collect(),
        sequence: wire.sequence,
    })
}

fn apiserver(attestation: &v1::Attestation) -> Option<ApiServerAnswer> {
    let error = match attestation.apiserver_error() {
        v1::ApiServerError::Unspecified => {
            let latency = Duration::from_millis(attestation.apiserver_latency_ms);
            return (!latency.is_zero()).then_some(ApiServerAnswer::Ready(latency));
        }
        v1::ApiServerError::Overloaded => ApiServerError::Overloaded,
        v1::ApiServerError::Unavailable => ApiServerError::Unavailable,
        v1::ApiServerError::TimedOut => ApiServerError::TimedOut,
        v1::ApiServerError::Refused => ApiServerError::Refused,
    };
    Some(ApiServerAnswer::Failed(error))
}

/// No more pods of a condition are kept, whatever an agent sends.
const HEAVIEST: usize = 16;

fn condition(wire: v1::Condition, now: Instant) -> Condition {
    Condition {
        severity: match wire.severity() {
            v1::Severity::Info => events::Severity::Info,
            v1::Severity::Unspecified | v1::Severity::Warning => events::Severity::Warning,
            v1::Severity::Critical => events::Severity::Critical,
        },
        kind: clipped(wire.kind),
        subject: clipped(wire.subject),
        since: ago(now, wire.standing_ms),
        evidence: clipped(wire.evidence),
        escalated: wire.escalated,
        silenced: wire.silenced,
        waiting_on: clipped(wire.waiting_on),
        heaviest: wire
            .heaviest
            .into_iter()
            .take(HEAVIEST)
            .map(|pod| HeavyPod {
                namespace: clipped(pod.namespace),
                name: clipped(pod.name),
                uid: clipped(pod.uid),
                cpu_millis: pod.cpu_millis,
                memory_bytes: pod.memory_bytes,
            })
            .collect(),
    }
}

fn hold(wire: v1::Hold, now: Instant) -> NodeHold {
    NodeHold {
        remedy: clipped(wire.remedy),
        silence: wire.silence,
        by: clipped(wire.by),
        reason: clipped(wire.reason),
        until: (wire.ends_in_ms != 0).then(|| now + Duration::from_millis(wire.ends_in_ms).min(OLDEST)),
    }
}

fn unit(wire: v1::UnitStatus) -> UnitStatus {
    UnitStatus {
        name: clipped(wire.name),
        active_state: clipped(wire.active_state),
        sub_state: clipped(wire.sub_state),
        restarts: wire.restarts,
    }
}

fn disk(wire: v1::DiskStatus) -> DiskStatus {
    DiskStatus {
        mount_point: clipped(wire.mount_point),
        bytes_total: wire.bytes_total,
        bytes_available: wire.bytes_available,
        inodes_total: wire.inodes_total,
        inodes_free: wire.inodes_free,
    }
}

fn remedy(wire: v1::RemedyRecord) -> RemedyRecord {
    RemedyRecord {
        outcome: match wire.outcome() {
            v1::RemedyOutcome::Unspecified | v1::RemedyOutcome::Started => RemedyOutcome::Started,
            v1::RemedyOutcome::Succeeded => RemedyOutcome::Succeeded,
            v1::RemedyOutcome::Failed => RemedyOutcome::Failed,
        },
        sequence: wire.sequence,
        remedy: clipped(wire.remedy),
        subject: clipped(wire.subject),
        reason: clipped(wire.reason),
        detail: clipped(wire.detail),
        at_unix_ms: wire.at_unix_ms,
        took: Duration::from_millis(wire.took_ms),
        dry_run: wire.dry_run,
        command_id: clipped(wire.command_id),
    }
}

/// The answer of `node` to a command; `None` if it does not say how the command ended.
pub(crate) fn answer(node: &NodeName, wire: v1::CommandResult) -> Option<OrderResult> {
    let answer = match wire.status() {
        v1::CommandStatus::Unspecified => return None,
        v1::CommandStatus::Done => Answer::Done,
        v1::CommandStatus::Failed => Answer::Failed,
        v1::CommandStatus::RefusedEpoch => Answer::RefusedEpoch,
        v1::CommandStatus::Refused => Answer::Refused,
    };
    Some(OrderResult {
        node: node.clone(),
        command_id: wire.command_id,
        answer,
        detail: clipped(wire.detail),
    })
}

/// Why an agent leaves.
pub(crate) fn leave(wire: v1::Goodbye) -> Leave {
    match wire.reason() {
        v1::GoodbyeReason::Unspecified | v1::GoodbyeReason::AgentStop => Leave::AgentStop,
        v1::GoodbyeReason::Shutdown => Leave::Shutdown,
    }
}

/// The instant that was `milliseconds` before `now`.
fn ago(now: Instant, milliseconds: u64) -> Instant {
    let age = Duration::from_millis(milliseconds).min(OLDEST);
    // Fails only on a machine whose clock began later than that: its beginning is the oldest there is.
    now.checked_sub(age).unwrap_or(now)
}

pub(in crate::api) fn clipped(mut text: String) -> String {
    if text.len() > TEXT {
        let end = (0..=TEXT).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.shrink_to_fit();
    }
    text
}

/// The answer to a report.
pub(in crate::api) fn ack(ack: Acknowledgement) -> v1::coordinator_message::Body {
    v1::coordinator_message::Body::Ack(v1::Ack {
        sequence: ack.sequence,
        hold: ack.hold,
        waiting_on: ack.waiting_on,
    })
}

/// An order to a node.
pub(in crate::api) fn command(order: Order) -> v1::coordinator_message::Body {
    let action = match order.action {
        Action::ReleaseKubelet { run, reason } => {
            v1::command::Action::ReleaseKubelet(v1::ReleaseKubelet { run_id: run, reason })
        }
        Action::HoldManifest {
            component,
            run,
            reason,
        } => v1::command::Action::HoldManifest(v1::HoldManifest {
            component: v1::Component::from(component).into(),
            run_id: run,
            reason,
        }),
        Action::ReleaseManifest {
            component,
            run,
            reason,
        } => v1::command::Action::ReleaseManifest(v1::ReleaseManifest {
            component: v1::Component::from(component).into(),
            run_id: run,
            reason,
        }),
        Action::RestartUnit { unit, reason } => {
            v1::command::Action::RestartUnit(v1::RestartUnit { unit, reason })
        }
        Action::StopKubelet { run, reason } => {
            v1::command::Action::StopKubelet(v1::StopKubelet { run_id: run, reason })
        }
        Action::StartKubelet { run, reason } => {
            v1::command::Action::StartKubelet(v1::StartKubelet { run_id: run, reason })
        }
        Action::Etcd {
            run,
            reason,
            cluster_id,
            act,
        } => v1::command::Action::EtcdChange(v1::EtcdChange {
            run_id: run,
            reason,
            cluster_id,
            change: Some(etcd::change(act)),
        }),
        Action::ControlPlane {
            run,
            reason,
            part,
            act,
        } => v1::command::Action::ControlPlaneChange(v1::ControlPlaneChange {
            run_id: run,
            reason,
            part: v1::ControlPlanePart::from(part).into(),
            change: Some(control_plane::change(act)),
        }),
    };
    v1::coordinator_message::Body::Command(v1::Command {
        command_id: order.command_id,
        epoch: order.epoch,
        expires_in_ms: milliseconds(order.expires_in),
        action: Some(action),
    })
}
