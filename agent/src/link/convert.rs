//! Between the wire and the agent's own types. Wire types go no further.

use std::time::Duration;

use blackstart_proto::boot::{BootIdentity, PreviousShutdown};
use blackstart_proto::component;
use blackstart_proto::part;
use blackstart_proto::remedy::RemedyKind;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_message::Body as Up;
use tokio::time::Instant;

use crate::brakes::book::LONGEST_FREEZE;
use crate::brakes::{Freeze, Held, Hold, Scope, Word};
use crate::condition::{Condition, Severity};
use crate::control_plane;
use crate::etcd::{Act, Change, NewManifest, OutOf, Restore};
use crate::explain::kind;
use crate::gate::GateState;
use crate::ledger::{Outcome, Record};
use crate::order::{Order, OrderAnswer, OrderStatus};
use crate::permit::{Answer, PermitKind, Said, Saying, Use, Verdict};
use crate::picture::{ApiServerAnswer, Attestation, Picture};
use crate::remedy::Remedy;
use crate::signal::{ActiveState, CgroupCpu, DiskSignal, UnitSignal};

use super::Goodbye;

/// More conditions than this are not told, the worst first; a report stays well below what a coordinator takes.
const MAX_CONDITIONS: usize = 128;
/// Longer texts are cut, bytes.
const MAX_TEXT: usize = 1024;
/// More holds, or freezes, than this are not taken from the coordinator.
const MAX_BRAKES: usize = 256;
/// A command that may wait longer may as well wait this long: an instant must stay representable.
const MAX_EXPIRY: Duration = Duration::from_hours(24);

pub(super) fn boot(boot: &BootIdentity) -> wire::BootIdentity {
    let previous = match boot.previous_shutdown {
        PreviousShutdown::FirstBoot => wire::PreviousShutdown::FirstBoot,
        PreviousShutdown::Clean => wire::PreviousShutdown::Clean,
        PreviousShutdown::Unclean => wire::PreviousShutdown::Unclean,
    };
    wire::BootIdentity {
        boot_id: boot.boot_id.clone(),
        nonce: boot.nonce.clone(),
        previous_shutdown: previous.into(),
    }
}

/// What is said of a request for a permit.
pub(super) fn wish(said: &Said) -> Up {
    let request_id = said.id.clone();
    match &said.what {
        Saying::Ask(wish) => Up::PermitRequest(wire::PermitRequest {
            request_id,
            kind: match wish.kind {
                PermitKind::ControlPlaneRepair => wire::PermitKind::ControlPlaneRepair,
                PermitKind::RuntimeRestart => wire::PermitKind::RuntimeRestart,
            }
            .into(),
            subject: cut(&wish.subject),
            reason: cut(&wish.reason),
        }),
        Saying::Return(how) => {
            let (outcome, detail) = match how {
                Use::Succeeded { detail } => (wire::PermitOutcome::Succeeded, cut(detail)),
                Use::Failed { detail } => (wire::PermitOutcome::Failed, cut(detail)),
                Use::Unused => (wire::PermitOutcome::Unused, String::new()),
            };
            Up::PermitReturn(wire::PermitReturn {
                request_id,
                outcome: outcome.into(),
                detail,
            })
        }
    }
}

/// What the coordinator says of one; `None`: nothing that is known.
pub(crate) fn permit(wire: wire::PermitAnswer, now: Instant) -> Option<Answer> {
    let within = Duration::from_millis(wire.begin_within_ms).min(MAX_EXPIRY);
    Some(Answer {
        verdict: match wire.verdict() {
            wire::PermitVerdict::Unspecified => return None,
            wire::PermitVerdict::Granted => Verdict::Granted { until: now + within },
            wire::PermitVerdict::Wait => Verdict::Wait {
                on: cut(&wire.reason),
            },
            wire::PermitVerdict::Refused => Verdict::Refused {
                why: cut(&wire.reason),
            },
            wire::PermitVerdict::Returned => Verdict::Returned,
        },
        id: wire.request_id,
        epoch: wire.epoch,
    })
}

pub(super) fn report(picture: &Picture, remedies: &[Record], sequence: u64, now: Instant) -> wire::Report {
    let mut conditions: Vec<_> = picture.conditions.iter().collect();
    conditions.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
    wire::Report {
        attestation: Some(attestation(&picture.attestation, now)),
        conditions: conditions
            .into_iter()
            .take(MAX_CONDITIONS)
            .map(|found| condition(picture, found, now))
            .collect(),
        units: picture.units.iter().map(unit).collect(),
        disks: picture.disks.iter().map(disk).collect(),
        remedies: remedies.iter().map(remedy).collect(),
        sequence,
        holds: picture.brakes.holds.iter().map(|held| hold(held, now)).collect(),
        freezes: picture
            .brakes
            .freezes
            .iter()
            .map(|frozen| freeze(frozen, now))
            .collect(),
    }
}

fn attestation(attestation: &Attestation, now: Instant) -> wire::Attestation {
    let gate = match attestation.gate {
        GateState::Absent => wire::GateState::Absent,
        GateState::Held => wire::GateState::Held,
        GateState::Released => wire::GateState::Released,
        GateState::Passed => wire::GateState::Passed,
        GateState::DeadMan => wire::GateState::DeadMan,
    };
    let (latency, error) = match attestation.api_server {
        None => (0, wire::ApiServerError::Unspecified),
        // Zero is for what is not known.
        Some(ApiServerAnswer::Ready(took)) => (millis_up(took).max(1), wire::ApiServerError::Unspecified),
        Some(ApiServerAnswer::Overloaded) => (0, wire::ApiServerError::Overloaded),
        Some(ApiServerAnswer::Unavailable) => (0, wire::ApiServerError::Unavailable),
        Some(ApiServerAnswer::TimedOut) => (0, wire::ApiServerError::TimedOut),
        Some(ApiServerAnswer::Refused) => (0, wire::ApiServerError::Refused),
    };
    wire::Attestation {
        gate: gate.into(),
        kubelet_active: attestation.kubelet_active,
        kubelet_healthy: attestation.kubelet_healthy,
        apiserver_ready: attestation.apiserver_ready,
        apiserver_latency_ms: latency,
        apiserver_error: error.into(),
        age_ms: millis(now.saturating_duration_since(attestation.observed_at)),
        waiting_on: cut(&attestation.waiting_on),
        manifests: component::manifests_to_wire(&attestation.manifests),
    }
}

fn condition(picture: &Picture, condition: &Condition, now: Instant) -> wire::Condition {
    let severity = match condition.severity {
        Severity::Info => wire::Severity::Info,
        Severity::Warning => wire::Severity::Warning,
        Severity::Critical => wire::Severity::Critical,
    };
    wire::Condition {
        kind: condition.key.kind.as_str().to_owned(),
        subject: condition.key.subject.clone(),
        severity: severity.into(),
        standing_ms: millis(now.saturating_duration_since(condition.since)),
        evidence: cut(&condition.evidence),
        escalated: condition.escalated,
        silenced: picture.brakes.silence(now).is_some(),
        waiting_on: picture
            .waiting_on(condition)
            .map_or_else(String::new, |waiting| cut(&waiting.on.to_string())),
        heaviest: condition.heaviest.iter().filter_map(heavy).collect(),
    }
}

/// A pod that weighs; what is none has nowhere else to go.
fn heavy(group: &CgroupCpu) -> Option<wire::HeavyPod> {
    let uid = group.uid.clone()?;
    let (namespace, name) = group.cgroup.name.split_once('/').unwrap_or_default();
    Some(wire::HeavyPod {
        namespace: cut(namespace),
        name: cut(name),
        uid: cut(&uid),
        cpu_millis: group.percent.saturating_mul(10),
        memory_bytes: group.bytes.unwrap_or_default(),
    })
}

fn unit(unit: &UnitSignal) -> wire::UnitStatus {
    let active = match unit.active {
        ActiveState::Active => "active",
        ActiveState::Reloading => "reloading",
        ActiveState::Inactive => "inactive",
        ActiveState::Failed => "failed",
        ActiveState::Activating => "activating",
        ActiveState::Deactivating => "deactivating",
        ActiveState::NotFound => "not-found",
        ActiveState::Unknown => "unknown",
    };
    wire::UnitStatus {
        name: unit.unit.clone(),
        active_state: active.to_owned(),
        sub_state: unit.sub.clone(),
        restarts: unit.restarts,
    }
}

fn disk(disk: &DiskSignal) -> wire::DiskStatus {
    wire::DiskStatus {
        mount_point: disk.mount_point.display().to_string(),
        bytes_total: disk.bytes_total,
        bytes_available: disk.bytes_available,
        inodes_total: disk.inodes_total,
        inodes_free: disk.inodes_free,
    }
}

fn remedy(record: &Record) -> wire::RemedyRecord {
    let (outcome, detail) = match &record.outcome {
        None => (wire::RemedyOutcome::Started, String::new()),
        Some(Outcome::Succeeded { detail }) => (wire::RemedyOutcome::Succeeded, cut(detail)),
        Some(Outcome::Failed { detail }) => (wire::RemedyOutcome::Failed, cut(detail)),
    };
    wire::RemedyRecord {
        sequence: record.sequence.0,
        remedy: record.intent.remedy.clone(),
        subject: record.intent.subject.clone(),
        outcome: outcome.into(),
        reason: cut(&record.intent.reason),
        detail,
        at_unix_ms: record.at_unix_ms,
        took_ms: record.took_ms,
        dry_run: record.intent.dry_run,
        command_id: record.intent.command_id.clone().unwrap_or_default(),
    }
}

pub(super) fn result(answer: &OrderAnswer) -> wire::CommandResult {
    let status = match answer.status {
        OrderStatus::Done => wire::CommandStatus::Done,
        OrderStatus::Failed => wire::CommandStatus::Failed,
        OrderStatus::RefusedEpoch => wire::CommandStatus::RefusedEpoch,
        OrderStatus::Refused => wire::CommandStatus::Refused,
    };
    wire::CommandResult {
        command_id: answer.command_id.clone(),
        status: status.into(),
        detail: cut(&answer.detail),
    }
}

pub(super) fn goodbye(reason: Goodbye) -> wire::Goodbye {
    let reason = match reason {
        Goodbye::AgentStop => wire::GoodbyeReason::AgentStop,
        Goodbye::Shutdown => wire::GoodbyeReason::Shutdown,
    };
    wire::Goodbye {
        reason: reason.into(),
    }
}

/// The order that a command is; or its refusal, if this agent does not know what it asks for.
pub(crate) fn order(command: wire::Command, now: Instant) -> Result<Order, OrderAnswer> {
    let asked = match command.action {
        Some(wire::command::Action::ReleaseKubelet(asked)) => {
            Some((Remedy::ReleaseKubelet { run_id: asked.run_id }, asked.reason))
        }
        Some(wire::command::Action::RestartUnit(asked)) => {
            Some((Remedy::RestartUnit { unit: asked.unit }, asked.reason))
        }
        Some(wire::command::Action::StopKubelet(asked)) => {
            Some((Remedy::StopKubelet { run_id: asked.run_id }, asked.reason))
        }
        Some(wire::command::Action::StartKubelet(asked)) => {
            Some((Remedy::StartKubelet { run_id: asked.run_id }, asked.reason))
        }
        Some(wire::command::Action::HoldManifest(asked)) => {
            component::from_wire(asked.component()).map(|component| {
                let reason = asked.reason.clone();
                let remedy = Remedy::HoldManifest {
                    component,
                    run_id: asked.run_id,
                    reason: cut(&asked.reason),
                };
                (remedy, reason)
            })
        }
        Some(wire::command::Action::ReleaseManifest(asked)) => component::from_wire(asked.component())
            .map(|component| (Remedy::ReleaseManifest { component }, asked.reason)),
        Some(wire::command::Action::EtcdChange(asked)) => {
            let reason = asked.reason.clone();
            etcd(asked).map(|change| (Remedy::Etcd(change), reason))
        }
        Some(wire::command::Action::ControlPlaneChange(asked)) => {
            let reason = asked.reason.clone();
            control_plane(asked).map(|change| (Remedy::ControlPlane(change), reason))
        }
        None => None,
    };
    let Some((remedy, reason)) = asked else {
        return Err(OrderAnswer {
            command_id: command.command_id,
            status: OrderStatus::Refused,
            detail: format!(
                "agent {} does not know what this command asks for",
                env!("CARGO_PKG_VERSION")
            ),
        });
    };
    Ok(Order {
        command_id: command.command_id,
        epoch: command.epoch,
        expires_at: now + Duration::from_millis(command.expires_in_ms).min(MAX_EXPIRY),
        remedy,
        reason,
    })
}

/// `None`: of a later version.
fn etcd(asked: wire::EtcdChange) -> Option<Change> {
    use wire::etcd_change::Change as Wire;
    let act = match asked.change? {
        Wire::TakeSnapshot(wire::EtcdTakeSnapshot {}) => Act::TakeSnapshot,
        Wire::Bounce(wire::EtcdBounce {}) => Act::Bounce,
        Wire::RemoveMember(of) => Act::RemoveMember { id: of.member_id },
        Wire::AddMember(of) => Act::AddMember {
            peer_urls: of.peer_urls,
            learner: of.learner,
        },
        Wire::PromoteMember(of) => Act::PromoteMember { id: of.member_id },
        Wire::Rebuild(of) => Act::Rebuild {
            initial_cluster: of.initial_cluster,
            needs_bytes: of.needs_bytes,
            manifest: (!of.manifest.is_empty()).then_some(NewManifest {
                file: of.file,
                text: of.manifest,
            }),
        },
        Wire::SetInitialCluster(of) => Act::SetInitialCluster {
            from: of.from,
            to: of.to,
        },
        Wire::Fence(wire::EtcdFence {}) => Act::Fence,
        Wire::StopControlPlane(wire::EtcdStopControlPlane {}) => Act::StopControlPlane,
        Wire::StartControlPlane(wire::EtcdStartControlPlane {}) => Act::StartControlPlane,
        Wire::Restore(of) => {
            let out_of = match wire::EtcdSourceKind::try_from(of.from).ok()? {
                wire::EtcdSourceKind::Unspecified => None,
                wire::EtcdSourceKind::Data => Some(OutOf::Data {
                    directory: of.name,
                    revision: of.revision,
                }),
                wire::EtcdSourceKind::Snapshot => Some(OutOf::Snapshot {
                    file: of.name,
                    revision: of.revision,
                }),
            };
            Act::Restore(Restore {
                version: of.version,
                out_of,
            })
        }
    };
    Some(Change {
        run_id: asked.run_id,
        cluster_id: asked.cluster_id,
        act,
    })
}

/// `None`: of a later version.
fn control_plane(asked: wire::ControlPlaneChange) -> Option<control_plane::Change> {
    use wire::control_plane_change::Change as Wire;

    let part = part::from_wire(asked.part())?;
    let act = match asked.change? {
        Wire::Bounce(wire::PartBounce {}) => control_plane::Act::Bounce,
        Wire::SetFlag(set) => control_plane::Act::SetFlag {
            flag: match set.flag() {
                wire::PartFlag::EtcdServers => control_plane::Flag::EtcdServers,
                wire::PartFlag::Unspecified => return None,
            },
            from: set.from,
            to: set.to,
        },
    };
    Some(control_plane::Change {
        run_id: asked.run_id,
        part,
        act,
    })
}

fn hold(hold: &Hold, now: Instant) -> wire::Hold {
    let scope = match hold.scope {
        Scope::Local => wire::HoldScope::Local,
        Scope::Node => wire::HoldScope::Node,
        Scope::Cluster => wire::HoldScope::Cluster,
        Scope::Fleet => wire::HoldScope::Fleet,
    };
    wire::Hold {
        scope: scope.into(),
        remedy: match hold.what {
            Held::Remedy(kind) => kind.as_str().to_owned(),
            Held::Every | Held::Silence => String::new(),
        },
        silence: hold.what == Held::Silence,
        by: cut(&hold.by),
        reason: cut(&hold.reason),
        ends_in_ms: hold.until.map_or(0, |until| left(until, now)),
    }
}

fn freeze(freeze: &Freeze, now: Instant) -> wire::Freeze {
    wire::Freeze {
        condition: freeze.kind.as_str().to_owned(),
        why: cut(&freeze.why),
        ends_in_ms: left(freeze.until, now),
    }
}

/// Never 0, which means no end.
fn left(until: Instant, now: Instant) -> u64 {
    millis(until.saturating_duration_since(now)).max(1)
}

/// All that the coordinator holds back here. What this version does not have needs no brake, and is passed over.
pub(crate) fn word(brakes: wire::Brakes, now: Instant) -> Word {
    let hold = |told: wire::Hold| {
        let scope = match told.scope() {
            wire::HoldScope::Cluster => Scope::Cluster,
            wire::HoldScope::Fleet => Scope::Fleet,
            // Whatever it is of, it holds here.
            wire::HoldScope::Unspecified | wire::HoldScope::Node | wire::HoldScope::Local => Scope::Node,
        };
        let what = match (told.silence, told.remedy.as_str()) {
            (true, _) => Held::Silence,
            (false, "") => Held::Every,
            (false, name) => Held::Remedy(RemedyKind::named(name)?),
        };
        let until = match told.ends_in_ms {
            0 => None,
            millis => now.checked_add(Duration::from_millis(millis)),
        };
        Some(Hold {
            scope,
            what,
            by: cut(&told.by),
            reason: cut(&told.reason),
            until,
        })
    };
    let freeze = |told: wire::Freeze| {
        Some(Freeze {
            kind: kind(&told.condition).ok()?,
            why: cut(&told.why),
            until: now + Duration::from_millis(told.ends_in_ms).min(LONGEST_FREEZE),
        })
    };
    Word {
        epoch: brakes.epoch,
        holds: brakes
            .holds
            .into_iter()
            .take(MAX_BRAKES)
            .filter_map(hold)
            .collect(),
        freezes: brakes
            .freezes
            .into_iter()
            .take(MAX_BRAKES)
            .filter_map(freeze)
            .collect(),
    }
}

fn millis_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A text that is too long ends between two characters, with a mark.
fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_TEXT)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brakes::Standing;
    use crate::condition::{ConditionKey, ConditionKind};

    #[tokio::test(start_paused = true)]
    async fn a_report_tells_ages_and_the_worst_conditions_and_stays_small() {
        let seen = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        let standing = |number: usize, severity| Condition {
            key: ConditionKey {
                kind: ConditionKind::LogRunaway,
                subject: format!("/var/log/{number}{}", "x".repeat(4000)),
            },
            severity,
            since: seen,
            evidence: "é".repeat(4000),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        };
        let mut conditions: Vec<_> = (0..500).map(|n| standing(n, Severity::Warning)).collect();
        conditions.push(standing(999, Severity::Critical));
        let picture = Picture {
            attestation: Attestation {
                gate: GateState::Held,
                kubelet_active: false,
                kubelet_healthy: false,
                apiserver_ready: false,
                api_server: Some(ApiServerAnswer::Ready(Duration::from_micros(181_200))),
                observed_at: seen,
                waiting_on: "wave 2".into(),
                manifests: component::Manifests::new(),
            },
            conditions,
            units: Vec::new(),
            helpers: Vec::new(),
            disks: Vec::new(),
            brakes: Standing::default(),
            set_aside: std::sync::Arc::default(),
            waiting: Vec::new(),
        };
        let report = report(&picture, &[], 4, Instant::now());
        let attested = report.attestation.unwrap();
        assert_eq!((attested.age_ms, attested.apiserver_latency_ms), (3000, 182));
        assert_eq!(attested.apiserver_error(), wire::ApiServerError::Unspecified);
        assert_eq!(report.conditions.len(), MAX_CONDITIONS);
        assert!(report.conditions[0].subject.contains("999"));
        assert_eq!(report.conditions[0].standing_ms, 3000);
        let bytes: usize = report
            .conditions
            .iter()
            .map(|found| found.subject.len() + found.evidence.len() + 64)
            .sum();
        assert!(bytes < 1 << 20, "{bytes}");
    }

    #[tokio::test(start_paused = true)]
    async fn commands_become_orders_and_unknown_ones_are_refused() {
        let now = Instant::now();
        let command = |action, expires_in_ms| wire::Command {
            command_id: "run/1".into(),
            epoch: 7,
            expires_in_ms,
            action,
        };
        let release = wire::command::Action::ReleaseKubelet(wire::ReleaseKubelet {
            run_id: "run".into(),
            reason: "its turn".into(),
        });
        let taken = order(command(Some(release.clone()), 1500), now).unwrap();
        let expected = Order {
            command_id: "run/1".into(),
            epoch: 7,
            expires_at: now + Duration::from_millis(1500),
            remedy: Remedy::ReleaseKubelet { run_id: "run".into() },
            reason: "its turn".into(),
        };
        assert_eq!(taken, expected);
        assert!(order(command(Some(release), u64::MAX), now).is_ok());
        let refused = order(command(None, 1500), now).unwrap_err();
        assert_eq!(
            (refused.command_id.as_str(), refused.status),
            ("run/1", OrderStatus::Refused)
        );
    }
}
