//! The etcd of a cluster, as it stands in JSON.

use blackstart_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::convert::{at, given};
use super::{Resource, Severity};

/// How a cluster's etcd is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Etcd {
    pub(crate) cluster: String,
    /// In hexadecimal digits, as etcdctl writes it; `null`: no member answered.
    pub(crate) cluster_id: Option<String>,
    pub(crate) has_quorum: bool,
    pub(crate) voters: u32,
    pub(crate) voters_healthy: u32,
    /// So many voters make one.
    pub(crate) quorum: u32,
    /// Whom all hold for the leader.
    pub(crate) leader: Option<String>,
    pub(crate) members: Vec<EtcdMember>,
    /// The worst first.
    pub(crate) findings: Vec<EtcdFinding>,
    /// The age of the youngest verified snapshot of this cluster.
    pub(crate) last_snapshot_age_ms: Option<u64>,
}

/// One member, or a node that should have one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EtcdMember {
    pub(crate) node: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) healthy: bool,
    pub(crate) why_not: Option<String>,
    /// `no-manifest`, `manifest`, `expired`, `certificate`, `refused`, `silent` or `other`; `null`: it answered, or its agent did not.
    pub(crate) trouble: Option<&'static str>,
    pub(crate) leads: bool,
    pub(crate) is_learner: bool,
    pub(crate) version: Option<String>,
    pub(crate) term: Option<u64>,
    pub(crate) revision: Option<i64>,
    pub(crate) revisions_behind: u64,
    pub(crate) indices_behind: u64,
    pub(crate) db_bytes: Option<u64>,
    pub(crate) db_bytes_in_use: Option<u64>,
    pub(crate) alarms: Vec<String>,
    pub(crate) manifest: Option<String>,
    pub(crate) client_url: Option<String>,
    pub(crate) data_dir: Option<String>,
    pub(crate) initial_cluster: Option<String>,
    pub(crate) certificates: Vec<EtcdCertificate>,
    pub(crate) snapshots: Vec<EtcdSnapshot>,
}

/// A certificate that a member's manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EtcdCertificate {
    pub(crate) path: String,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) expired: bool,
    /// Why it cannot be read.
    pub(crate) trouble: Option<String>,
}

/// What a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EtcdFinding {
    pub(crate) severity: Severity,
    pub(crate) node: Option<String>,
    pub(crate) text: String,
}

/// A snapshot on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EtcdSnapshot {
    pub(crate) node: String,
    pub(crate) file: String,
    pub(crate) cluster_id: String,
    pub(crate) member: Option<String>,
    pub(crate) revision: i64,
    pub(crate) bytes: u64,
    pub(crate) taken_at: Option<Timestamp>,
    pub(crate) age_ms: u64,
    pub(crate) sha256: String,
    pub(crate) version: Option<String>,
    /// `null`: it was verified when it was taken, and not read again now.
    pub(crate) damage: Option<String>,
}

impl Resource for EtcdSnapshot {
    const KIND: &'static str = "EtcdSnapshot";
    const NOUN: &'static str = "snapshot";

    fn key(&self) -> String {
        format!("{}/{}", self.node, self.file)
    }

    fn settled(&self) -> Self {
        Self {
            age_ms: 0,
            ..self.clone()
        }
    }
}

fn id(id: u64) -> Option<String> {
    (id != 0).then(|| format!("{id:x}"))
}

impl EtcdSnapshot {
    pub(crate) fn of(node: &str, wire: v1::EtcdSnapshot, damage: String) -> Self {
        Self {
            node: node.to_owned(),
            file: wire.file,
            cluster_id: id(wire.cluster_id).unwrap_or_default(),
            member: given(wire.member),
            revision: wire.revision,
            bytes: wire.bytes,
            taken_at: at(wire.taken_at_unix_ms),
            age_ms: wire.age_ms,
            sha256: wire.sha256,
            version: given(wire.version),
            damage: given(damage),
        }
    }
}

impl From<v1::EtcdView> for Etcd {
    fn from(wire: v1::EtcdView) -> Self {
        let leader = wire.leader;
        let of_cluster = id(wire.cluster_id);
        let members: Vec<_> = wire
            .members
            .into_iter()
            .map(|member| EtcdMember::of(member, leader))
            .collect();
        let snapshots = members.iter().flat_map(|member| &member.snapshots);
        Self {
            last_snapshot_age_ms: snapshots
                .filter(|one| of_cluster.as_ref().is_none_or(|id| *id == one.cluster_id))
                .map(|one| one.age_ms)
                .min(),
            cluster: wire.cluster,
            cluster_id: of_cluster,
            has_quorum: wire.has_quorum,
            voters: wire.voters,
            voters_healthy: wire.voters_healthy,
            quorum: wire.quorum,
            leader: id(leader),
            members,
            findings: wire
                .findings
                .into_iter()
                .map(|finding| EtcdFinding {
                    severity: match finding.level() {
                        v1::EtcdFindingLevel::Unspecified => Severity::Unknown,
                        v1::EtcdFindingLevel::Warning => Severity::Warning,
                        v1::EtcdFindingLevel::Critical => Severity::Critical,
                    },
                    node: given(finding.node),
                    text: finding.text,
                })
                .collect(),
        }
    }
}

impl EtcdMember {
    fn of(wire: v1::EtcdMemberView, leader: u64) -> Self {
        let report = wire.report.unwrap_or_default();
        let status = report.status;
        let manifest = report.manifest;
        let said = status.as_ref();
        let node = wire.node.clone();
        Self {
            leads: wire.id != 0 && wire.id == leader,
            node: given(wire.node),
            id: id(wire.id),
            name: given(wire.name),
            healthy: wire.healthy,
            why_not: given(wire.why_not),
            trouble: report.trouble.as_ref().and_then(|trouble| kind(trouble.kind())),
            is_learner: wire.is_learner,
            version: said.and_then(|said| given(said.version.clone())),
            term: said.map(|said| said.term),
            revision: said.map(|said| said.revision),
            revisions_behind: wire.revisions_behind,
            indices_behind: wire.indices_behind,
            db_bytes: said.map(|said| said.db_bytes),
            db_bytes_in_use: said.map(|said| said.db_bytes_in_use),
            alarms: said
                .iter()
                .flat_map(|said| &said.alarms)
                .map(|alarm| format!("{} of {:x}", alarm.alarm, alarm.member_id))
                .collect(),
            client_url: manifest.as_ref().and_then(|told| given(told.client_url.clone())),
            data_dir: manifest.as_ref().and_then(|told| given(told.data_dir.clone())),
            initial_cluster: manifest
                .as_ref()
                .and_then(|told| given(told.initial_cluster.clone())),
            manifest: manifest.and_then(|told| given(told.path)),
            certificates: report
                .certificates
                .into_iter()
                .map(|wire| EtcdCertificate {
                    path: wire.path,
                    expires_at: Timestamp::from_second(wire.not_after_unix)
                        .ok()
                        .filter(|_| wire.not_after_unix != 0),
                    expired: wire.expired,
                    trouble: given(wire.trouble),
                })
                .collect(),
            snapshots: report
                .snapshots
                .into_iter()
                .map(|one| EtcdSnapshot::of(&node, one, String::new()))
                .collect(),
        }
    }
}

fn kind(kind: v1::EtcdTroubleKind) -> Option<&'static str> {
    match kind {
        v1::EtcdTroubleKind::Unspecified => None,
        v1::EtcdTroubleKind::NoManifest => Some("no-manifest"),
        v1::EtcdTroubleKind::Manifest => Some("manifest"),
        v1::EtcdTroubleKind::Expired => Some("expired"),
        v1::EtcdTroubleKind::Certificate => Some("certificate"),
        v1::EtcdTroubleKind::Refused => Some("refused"),
        v1::EtcdTroubleKind::Silent => Some("silent"),
        v1::EtcdTroubleKind::Other => Some("other"),
    }
}
