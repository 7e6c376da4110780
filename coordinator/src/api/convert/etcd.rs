//! What agents tell of etcd members, and what operators see of it.

use blackstart_proto::v1;

use super::agent::clipped;
use super::milliseconds;
use crate::fleet::{Ask, EtcdAct, EtcdAnswer, Question};
use crate::inventory::{ClusterName, NodeName};
use crate::quorum::eyes::Verified;
use crate::quorum::judge::{Level, Seen, View};
use crate::quorum::newcomer::{Prepared, Template};
use crate::quorum::sources::{OutOf, Source};
use crate::quorum::told::{Certificate, Manifest, Member, Snapshot, Status, Told, Trouble, TroubleKind};

/// A manifest that is larger is none, bytes: kubeadm's has two thousand.
const MANIFEST: usize = 64 << 10;
/// Items of one kind that an agent may tell.
const ITEMS: usize = 256;

/// A question, for an agent.
pub(in crate::api) fn question(question: &Question) -> v1::coordinator_message::Body {
    v1::coordinator_message::Body::EtcdQuestion(v1::EtcdQuestion {
        question_id: question.id,
        within_ms: milliseconds(question.within),
        ask: Some(match &question.ask {
            Ask::Look => v1::etcd_question::Ask::Look(v1::EtcdLook {}),
            Ask::Verify => v1::etcd_question::Ask::Verify(v1::EtcdVerify {}),
            Ask::Search => v1::etcd_question::Ask::Search(v1::EtcdSearch {}),
            Ask::Template => v1::etcd_question::Ask::Template(v1::EtcdTemplate {}),
            Ask::Newcomer(asked) => v1::etcd_question::Ask::Newcomer(v1::EtcdNewcomer {
                like: Some(v1::EtcdTemplateTold {
                    file: asked.like.file.clone(),
                    text: asked.like.text.clone(),
                    authorities: asked.like.authorities.clone(),
                    trouble: String::new(),
                }),
                name: asked.name.clone(),
                address: asked.address.clone(),
                initial_cluster: asked.initial_cluster.clone(),
                needs_bytes: asked.needs_bytes,
            }),
            Ask::Read {
                file,
                offset,
                at_most,
            } => v1::etcd_question::Ask::Read(v1::EtcdRead {
                file: file.clone(),
                offset: *offset,
                at_most: *at_most,
            }),
        }),
    })
}

/// What an agent is to do.
pub(super) fn change(act: EtcdAct) -> v1::etcd_change::Change {
    use v1::etcd_change::Change;
    match act {
        EtcdAct::TakeSnapshot => Change::TakeSnapshot(v1::EtcdTakeSnapshot {}),
        EtcdAct::Bounce => Change::Bounce(v1::EtcdBounce {}),
        EtcdAct::RemoveMember { id } => Change::RemoveMember(v1::EtcdRemoveMember { member_id: id }),
        EtcdAct::AddMember { peer_urls, learner } => {
            Change::AddMember(v1::EtcdAddMember { peer_urls, learner })
        }
        EtcdAct::PromoteMember { id } => Change::PromoteMember(v1::EtcdPromoteMember { member_id: id }),
        EtcdAct::Rebuild {
            initial_cluster,
            needs_bytes,
            manifest,
        } => {
            let (file, manifest) = manifest.map(|new| (new.file, new.text)).unwrap_or_default();
            Change::Rebuild(v1::EtcdRebuild {
                initial_cluster,
                needs_bytes,
                manifest,
                file,
            })
        }
        EtcdAct::SetInitialCluster { from, to } => {
            Change::SetInitialCluster(v1::EtcdSetInitialCluster { from, to })
        }
        EtcdAct::Fence => Change::Fence(v1::EtcdFence {}),
        EtcdAct::StopControlPlane => Change::StopControlPlane(v1::EtcdStopControlPlane {}),
        EtcdAct::StartControlPlane => Change::StartControlPlane(v1::EtcdStartControlPlane {}),
        EtcdAct::Restore { version, out_of } => {
            let (from, name, revision) = match out_of {
                None => (v1::EtcdSourceKind::Unspecified, String::new(), 0),
                Some(OutOf::Data { directory, revision }) => (v1::EtcdSourceKind::Data, directory, revision),
                Some(OutOf::Snapshot { file, revision }) => (v1::EtcdSourceKind::Snapshot, file, revision),
            };
            Change::Restore(v1::EtcdRestore {
                version,
                from: from.into(),
                name,
                revision,
            })
        }
    }
}

/// An agent's answer; `None`: of a later version.
pub(crate) fn answer(wire: v1::EtcdAnswer) -> Option<EtcdAnswer> {
    match wire.body? {
        v1::etcd_answer::Body::Report(report) => Some(EtcdAnswer::Told(Box::new(told(*report)))),
        v1::etcd_answer::Body::Verified(verified) => {
            let checks = verified.checks.into_iter().take(ITEMS).filter_map(|check| {
                let damage = (!check.damage.is_empty()).then(|| clipped(check.damage));
                Some((snapshot(check.snapshot?), damage))
            });
            Some(EtcdAnswer::Verified(checks.collect()))
        }
        v1::etcd_answer::Body::Piece(piece) => Some(EtcdAnswer::Piece(if piece.trouble.is_empty() {
            Ok((piece.data.to_vec(), piece.bytes))
        } else {
            Err(clipped(piece.trouble))
        })),
        v1::etcd_answer::Body::Found(found) => {
            let sources = found.sources.into_iter().take(ITEMS).filter_map(source);
            let trouble = (!found.trouble.is_empty()).then(|| clipped(found.trouble));
            Some(EtcdAnswer::Found(sources.collect(), trouble))
        }
        v1::etcd_answer::Body::Template(told) => Some(EtcdAnswer::Template(template(told))),
        v1::etcd_answer::Body::Newcomer(told) => Some(EtcdAnswer::Newcomer(prepared(told))),
    }
}

fn told(wire: v1::EtcdReport) -> Told {
    Told {
        manifest: wire.manifest.map(|wire| Manifest {
            path: clipped(wire.path),
            name: clipped(wire.name),
            data_dir: clipped(wire.data_dir),
            client_url: clipped(wire.client_url),
            peer_urls: texts(wire.peer_urls),
            initial_cluster: clipped(wire.initial_cluster),
            initial_cluster_state: clipped(wire.initial_cluster_state),
            image: clipped(wire.image),
            set_aside_by: (!wire.set_aside_by.is_empty()).then(|| clipped(wire.set_aside_by)),
            wal_dir: (!wire.wal_dir.is_empty()).then(|| clipped(wire.wal_dir)),
        }),
        status: wire.status.map(|wire| Status {
            cluster_id: wire.cluster_id,
            member_id: wire.member_id,
            version: clipped(wire.version),
            leader: wire.leader,
            term: wire.term,
            raft_index: wire.raft_index,
            applied_index: wire.applied_index,
            revision: wire.revision,
            db_bytes: wire.db_bytes,
            db_bytes_in_use: wire.db_bytes_in_use,
            is_learner: wire.is_learner,
            alarms: wire
                .alarms
                .into_iter()
                .take(ITEMS)
                .map(|alarm| (alarm.member_id, clipped(alarm.alarm)))
                .collect(),
        }),
        trouble: wire.trouble.map(|wire| Trouble {
            kind: match wire.kind() {
                v1::EtcdTroubleKind::NoManifest => TroubleKind::NoManifest,
                v1::EtcdTroubleKind::Manifest => TroubleKind::Manifest,
                v1::EtcdTroubleKind::Expired => TroubleKind::Expired,
                v1::EtcdTroubleKind::Certificate => TroubleKind::Certificate,
                v1::EtcdTroubleKind::Refused => TroubleKind::Refused,
                v1::EtcdTroubleKind::Silent => TroubleKind::Silent,
                v1::EtcdTroubleKind::Unspecified | v1::EtcdTroubleKind::Other => TroubleKind::Other,
            },
            detail: clipped(wire.detail),
        }),
        members: wire
            .members
            .into_iter()
            .take(ITEMS)
            .map(|wire| Member {
                id: wire.id,
                name: clipped(wire.name),
                peer_urls: texts(wire.peer_urls),
                is_learner: wire.is_learner,
            })
            .collect(),
        certificates: wire
            .certificates
            .into_iter()
            .take(ITEMS)
            .map(|wire| Certificate {
                path: clipped(wire.path),
                not_after_unix: wire.not_after_unix,
                expired: wire.expired,
                trouble: (!wire.trouble.is_empty()).then(|| clipped(wire.trouble)),
            })
            .collect(),
        snapshots: wire.snapshots.into_iter().take(ITEMS).map(snapshot).collect(),
        snapshot_trouble: (!wire.snapshot_trouble.is_empty()).then(|| clipped(wire.snapshot_trouble)),
        has_data: wire.has_data,
        data_bytes_available: wire.data_bytes_available,
        snapshot_bytes_available: wire.snapshot_bytes_available,
        stopped: texts(wire.stopped),
    }
}

fn template(wire: v1::EtcdTemplateTold) -> Result<Template, String> {
    if !wire.trouble.is_empty() {
        return Err(clipped(wire.trouble));
    }
    if wire.text.len() > MANIFEST {
        return Err(format!("its manifest is larger than {} KiB", MANIFEST >> 10));
    }
    Ok(Template {
        file: clipped(wire.file),
        text: wire.text,
        authorities: texts(wire.authorities),
    })
}

fn prepared(wire: v1::EtcdNewcomerTold) -> Prepared {
    let is_small = wire.text.len() <= MANIFEST;
    let mut prepared = Prepared {
        text: if is_small { wire.text } else { String::new() },
        changed: texts(wire.changed),
        missing: texts(wire.missing),
        notes: texts(wire.notes),
    };
    if !is_small {
        let words = format!("a manifest of no more than {} KiB", MANIFEST >> 10);
        prepared.missing.push(words);
    }
    prepared
}

fn texts(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().take(ITEMS).map(clipped).collect()
}

fn snapshot(wire: v1::EtcdSnapshot) -> Snapshot {
    Snapshot {
        file: clipped(wire.file),
        cluster_id: wire.cluster_id,
        member: clipped(wire.member),
        revision: wire.revision,
        bytes: wire.bytes,
        taken_at_unix_ms: wire.taken_at_unix_ms,
        sha256: clipped(wire.sha256),
        version: clipped(wire.version),
        age_ms: wire.age_ms,
    }
}

/// `None`: of a later version.
fn source(wire: v1::EtcdSource) -> Option<Source> {
    let (kind, name, revision) = (wire.kind(), clipped(wire.name), wire.revision);
    Some(Source {
        out_of: match kind {
            v1::EtcdSourceKind::Unspecified => return None,
            v1::EtcdSourceKind::Data => OutOf::Data {
                directory: name,
                revision,
            },
            v1::EtcdSourceKind::Snapshot => OutOf::Snapshot { file: name, revision },
        },
        path: clipped(wire.path),
        cluster_id: (wire.cluster_id != 0).then_some(wire.cluster_id),
        revision,
        bytes: wire.bytes,
        written_unix_ms: wire.written_unix_ms,
        age_ms: wire.age_ms,
        version: clipped(wire.version),
        damage: (!wire.damage.is_empty()).then(|| clipped(wire.damage)),
    })
}

/// A snapshot and what is wrong with it, for an operator.
pub(in crate::api) fn check((snapshot, damage): &(Snapshot, Option<String>)) -> v1::EtcdSnapshotCheck {
    v1::EtcdSnapshotCheck {
        snapshot: Some(snapshot_told(snapshot)),
        damage: damage.clone().unwrap_or_default(),
    }
}

/// What was read again on each node, for operators.
pub(in crate::api) fn checks(nodes: Verified) -> v1::VerifyEtcdSnapshotsResponse {
    let of = |(node, checked): (NodeName, Result<Vec<_>, String>)| {
        let (checks, trouble) = match checked {
            Ok(checks) => (checks.iter().map(check).collect(), String::new()),
            Err(why) => (Vec::new(), why),
        };
        v1::EtcdNodeChecks {
            node: node.0,
            checks,
            trouble,
        }
    };
    v1::VerifyEtcdSnapshotsResponse {
        nodes: nodes.into_iter().map(of).collect(),
    }
}

/// How a cluster's etcd is, for operators.
pub(crate) fn view(cluster: &ClusterName, view: &View) -> v1::EtcdView {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::EtcdView {
        cluster: cluster.0.clone(),
        cluster_id: view.cluster_id.unwrap_or_default(),
        members: view.members.iter().map(seen).collect(),
        leader: view.leader.unwrap_or_default(),
        has_quorum: view.has_quorum(),
        voters: count(view.voters()),
        voters_healthy: count(view.healthy()),
        quorum: count(view.quorum()),
        findings: view
            .findings
            .iter()
            .map(|finding| v1::EtcdFinding {
                level: match finding.level {
                    Level::Warning => v1::EtcdFindingLevel::Warning,
                    Level::Critical => v1::EtcdFindingLevel::Critical,
                }
                .into(),
                node: finding.node.as_ref().map(ToString::to_string).unwrap_or_default(),
                text: finding.text.clone(),
            })
            .collect(),
    }
}

fn seen(seen: &Seen) -> v1::EtcdMemberView {
    v1::EtcdMemberView {
        node: seen.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        id: seen.id.unwrap_or_default(),
        name: seen.name.clone(),
        healthy: seen.health.is_ok(),
        why_not: seen.health.clone().err().unwrap_or_default(),
        report: seen.told.as_ref().map(told_back),
        revisions_behind: seen.revisions_behind,
        indices_behind: seen.indices_behind,
        is_learner: seen.is_learner,
    }
}

fn told_back(told: &Told) -> v1::EtcdReport {
    v1::EtcdReport {
        manifest: told.manifest.as_ref().map(|told| v1::EtcdManifest {
            path: told.path.clone(),
            name: told.name.clone(),
            data_dir: told.data_dir.clone(),
            client_url: told.client_url.clone(),
            peer_urls: told.peer_urls.clone(),
            initial_cluster: told.initial_cluster.clone(),
            initial_cluster_state: told.initial_cluster_state.clone(),
            image: told.image.clone(),
            set_aside_by: told.set_aside_by.clone().unwrap_or_default(),
            wal_dir: told.wal_dir.clone().unwrap_or_default(),
        }),
        status: told.status.as_ref().map(|told| v1::EtcdStatus {
            cluster_id: told.cluster_id,
            member_id: told.member_id,
            version: told.version.clone(),
            leader: told.leader,
            term: told.term,
            raft_index: told.raft_index,
            applied_index: told.applied_index,
            revision: told.revision,
            db_bytes: told.db_bytes,
            db_bytes_in_use: told.db_bytes_in_use,
            is_learner: told.is_learner,
            alarms: told
                .alarms
                .iter()
                .map(|(member_id, alarm)| v1::EtcdAlarm {
                    member_id: *member_id,
                    alarm: alarm.clone(),
                })
                .collect(),
        }),
        trouble: told.trouble.as_ref().map(|told| v1::EtcdTrouble {
            kind: match told.kind {
                TroubleKind::NoManifest => v1::EtcdTroubleKind::NoManifest,
                TroubleKind::Manifest => v1::EtcdTroubleKind::Manifest,
                TroubleKind::Expired => v1::EtcdTroubleKind::Expired,
                TroubleKind::Certificate => v1::EtcdTroubleKind::Certificate,
                TroubleKind::Refused => v1::EtcdTroubleKind::Refused,
                TroubleKind::Silent => v1::EtcdTroubleKind::Silent,
                TroubleKind::Other => v1::EtcdTroubleKind::Other,
            }
            .into(),
            detail: told.detail.clone(),
        }),
        members: told
            .members
            .iter()
            .map(|told| v1::EtcdMember {
                id: told.id,
                name: told.name.clone(),
                peer_urls: told.peer_urls.clone(),
                client_urls: Vec::new(),
                is_learner: told.is_learner,
            })
            .collect(),
        certificates: told
            .certificates
            .iter()
            .map(|told| v1::EtcdCertificate {
                path: told.path.clone(),
                not_after_unix: told.not_after_unix,
                expired: told.expired,
                trouble: told.trouble.clone().unwrap_or_default(),
            })
            .collect(),
        snapshots: told.snapshots.iter().map(snapshot_told).collect(),
        snapshot_trouble: told.snapshot_trouble.clone().unwrap_or_default(),
        has_data: told.has_data,
        data_bytes_available: told.data_bytes_available,
        snapshot_bytes_available: told.snapshot_bytes_available,
        stopped: told.stopped.clone(),
    }
}

pub(in crate::api) fn snapshot_told(told: &Snapshot) -> v1::EtcdSnapshot {
    v1::EtcdSnapshot {
        file: told.file.clone(),
        cluster_id: told.cluster_id,
        member: told.member.clone(),
        revision: told.revision,
        bytes: told.bytes,
        taken_at_unix_ms: told.taken_at_unix_ms,
        sha256: told.sha256.clone(),
        version: told.version.clone(),
        age_ms: told.age_ms,
    }
}
