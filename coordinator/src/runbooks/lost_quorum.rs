//! What is to be done about a control plane that a cold start waits for in vain, since its etcd has no quorum. Pure.
//!
//! | who should have a member | etcd | → |
//! |---|---|---|
//! | somebody is on the way back, or its kubelet is held | | wait |
//! | all are back, or were given up by the cold start | not told | wait; what was proposed stays |
//! | 〃 | a cause is found where a member does not answer | name it, and propose nothing |
//! | 〃 | no quorum, for less than the chance | wait: members form it from their disks |
//! | 〃 | no quorum, for the chance, one answers | propose `etcd-quorum` |
//! | 〃 | no quorum, for the chance, none answers | propose `etcd-all` |
//! | 〃 | a quorum, and for the chance a member is not well | propose `etcd-member` for it |
//! | 〃 | all are well | nothing: it is not etcd |
//!
//! A member that was started without a quorum answers nobody: etcd serves its clients once the cluster has taken note of it. So when all masters lost
//! their power it is `etcd-all`, which looks at what is on the disks, and `etcd-quorum` where somebody went on running.
//!
//! A cause is what nothing is to be restored for: certificates that have expired, a full disk, a manifest that is set aside or gone, a kubelet or
//! a container runtime that does not run. With it gone, the data that is there may be a quorum.

use std::time::Duration;

use super::plan::Runbook;
use super::world::seconds;
use crate::inventory::{ClusterName, NodeName};
use crate::quorum::judge::{Seen, View, survivor};
use crate::quorum::sources::Last;
use crate::quorum::spare::is_spare;
use crate::quorum::told::{Told, TroubleKind};

/// etcd writes its log in segments of so many bytes (`SegmentSizeBytes`, server/storage/wal/wal.go), and makes the next one before it begins.
const SEGMENT: u64 = 64 << 20;

/// Conditions of an agent with which no pod is started on its node, or etcd cannot write.
const HINDER: [&str; 4] = [
    "RuntimeHung",
    "KubeletUnhealthy",
    "KubeletPlegUnhealthy",
    "FilesystemReadOnly",
];
/// The same, of units that pods need.
const UNIT_DOWN: [&str; 5] = [
    "UnitFailed",
    "UnitInactive",
    "UnitMasked",
    "UnitFlapping",
    "UnitJobHung",
];
const UNITS: [&str; 4] = ["containerd", "docker", "crio", "kubelet"];

/// How a node stands that should have a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Its agent speaks, and its kubelet is healthy.
    Back,
    /// Its agent speaks; its kubelet is not healthy, or held.
    KubeletDown {
        /// It is waited for no longer.
        given_up: bool,
    },
    /// Its agent does not speak.
    Away {
        /// It is waited for no longer.
        given_up: bool,
    },
}

/// A node that should have a member.
#[derive(Debug, Clone)]
pub struct Host {
    /// Which.
    pub node: NodeName,
    /// How it stands.
    pub stands: Stands,
    /// What its agent finds wrong.
    pub found: Vec<Found>,
}

/// Something that an agent finds wrong.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which kind of condition.
    pub kind: String,
    /// What it is about: a unit, a mount point.
    pub subject: String,
    /// What was seen.
    pub evidence: String,
}

impl Found {
    fn hinders(&self) -> bool {
        let is = |kinds: &[&str]| kinds.contains(&self.kind.as_str());
        is(&HINDER) || is(&UNIT_DOWN) && UNITS.iter().any(|unit| self.subject.starts_with(unit))
    }
}

/// All that is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Whose.
    pub cluster: &'a ClusterName,
    /// Every node that should have a member.
    pub hosts: &'a [Host],
    /// What their agents tell now; `None`: nothing yet.
    pub view: Option<&'a View>,
    /// What was seen of it while it was well.
    pub last: Option<&'a Last>,
    /// For so long all of them have been back, or were given up, while etcd was not well.
    pub standing: Duration,
    /// They have so long.
    pub chance: Duration,
    /// Something is proposed already, after that chance.
    pub is_proposed: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known, so nothing changes.
    Unclear,
    /// Somebody is still on the way back.
    NotBack,
    /// Members have their chance.
    Waits(String),
    /// Something else is the cause.
    Ails(String),
    /// This is to be proposed.
    Propose {
        /// Which runbook.
        runbook: Runbook,
        /// For which node; `None`: for the cluster.
        node: Option<NodeName>,
        /// How it stands, for people.
        evidence: String,
    },
    /// It is not etcd.
    Well,
}

/// Decides. See the module.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let is_awaited = |host: &Host| match host.stands {
        Stands::Back => false,
        Stands::KubeletDown { given_up } | Stands::Away { given_up } => !given_up,
    };
    if scene.hosts.iter().any(is_awaited) {
        return Verdict::NotBack;
    }
    let Some(view) = scene.view else {
        return Verdict::Unclear;
    };
    let is_host = |host: &&Host| {
        view.on(&host.node)
            .is_none_or(|seen| !is_spare(view, seen, scene.last))
    };
    let hosts: Vec<_> = scene.hosts.iter().filter(is_host).cloned().collect();
    let scene = &Scene {
        hosts: &hosts,
        ..*scene
    };
    if view.has_quorum() {
        return member(scene, view);
    }
    let lost = scene.hosts.iter().filter(|host| !is_well(view, &host.node));
    let causes: Vec<_> = lost.filter_map(|host| cause(host, view, false)).collect();
    let words = words(scene, view);
    if !causes.is_empty() {
        return Verdict::Ails(format!(
            "{words}; nothing is proposed before this is mended, since with it gone there may be a quorum: {}",
            causes.join("; ")
        ));
    }
    if let Some(waits) = waits(scene) {
        return Verdict::Waits(format!("{words}; {waits}"));
    }
    let runbook = if survivor(view).is_some() {
        Runbook::EtcdQuorum
    } else {
        Runbook::EtcdAll
    };
    Verdict::Propose {
        runbook,
        node: None,
        evidence: words,
    }
}

/// The first member that is not well beside a quorum.
fn member(scene: &Scene<'_>, view: &View) -> Verdict {
    let lost = |host: &&Host| host.stands == Stands::Back && !is_well(view, &host.node);
    let Some(host) = scene.hosts.iter().find(lost) else {
        return Verdict::Well;
    };
    let why = view.on(&host.node).and_then(|seen| seen.health.clone().err());
    let why = why.unwrap_or_else(|| "it is a learner still".to_owned());
    let words = format!("{}; the member of {} is not well: {why}", view.words(), host.node);
    if let Some(cause) = cause(host, view, true) {
        return Verdict::Ails(format!(
            "{words}; nothing is proposed before this is mended: {cause}"
        ));
    }
    if let Some(waits) = waits(scene) {
        return Verdict::Waits(format!("{words}; {waits}"));
    }
    Verdict::Propose {
        runbook: Runbook::EtcdMember,
        node: Some(host.node.clone()),
        evidence: words,
    }
}

fn waits(scene: &Scene<'_>) -> Option<String> {
    let left = scene.chance.saturating_sub(scene.standing);
    (!left.is_zero() && !scene.is_proposed).then(|| {
        // To ten seconds: each other word is an event for whoever watches.
        let left = Duration::from_secs(left.as_secs().div_ceil(10) * 10);
        format!("members have {} more to form one from their disks", seconds(left))
    })
}

fn is_well(view: &View, node: &NodeName) -> bool {
    view.on(node)
        .is_some_and(|seen| seen.health.is_ok() && !seen.is_learner)
}

/// Why a member does not run that its data is not the reason of. `by_run`: one that a run has fenced is what `etcd-member` brings back.
fn cause(host: &Host, view: &View, by_run: bool) -> Option<String> {
    let node = &host.node;
    if let Stands::KubeletDown { .. } = host.stands {
        return Some(format!(
            "{node}: its kubelet does not run (blackstart runbook run node-component {node})"
        ));
    }
    let seen = view.on(node)?;
    // Who answers is there, whatever else is found.
    if seen.status().is_some() {
        return None;
    }
    let told = seen.told.as_ref()?;
    if let Some(why) = of_member(node, told, by_run) {
        return Some(format!("{node}: {why}"));
    }
    let found = host.found.iter().find(|found| found.hinders());
    found.map(|found| format!("{node}: {} {}: {}", found.kind, found.subject, found.evidence))
}

fn of_member(node: &NodeName, told: &Told, by_run: bool) -> Option<String> {
    const RENEW: &str =
        "kubeadm certs renew etcd-server etcd-peer etcd-healthcheck-client, after a look at the clocks";
    if let Some(bad) = told
        .certificates
        .iter()
        .find(|one| one.expired || one.trouble.is_some())
    {
        let how = bad.trouble.clone().map_or_else(
            || "has expired".to_owned(),
            |why| format!("cannot be used: {why}"),
        );
        return Some(format!("{} {how} ({RENEW})", bad.path));
    }
    if let Some(manifest) = &told.manifest {
        if let Some(run) = manifest.set_aside_by.as_ref().filter(|_| !by_run) {
            return Some(format!(
                "its manifest of etcd was set aside by run {run}: it is in {}",
                manifest.path
            ));
        }
        if told.has_data && told.data_bytes_available < SEGMENT {
            return Some(format!(
                "the disk of {} is full: {} MiB are left, and etcd makes {} before it begins",
                manifest.data_dir,
                told.data_bytes_available >> 20,
                SEGMENT >> 20
            ));
        }
    }
    let trouble = told.trouble.as_ref()?;
    match trouble.kind {
        TroubleKind::Expired | TroubleKind::Certificate => Some(format!("{} ({RENEW})", trouble.detail)),
        TroubleKind::NoManifest if !by_run || told.manifest.is_none() => Some(format!(
            "{}: put it back (kubeadm init phase etcd local), or while there is a quorum: blackstart runbook run etcd-member {node}",
            trouble.detail
        )),
        TroubleKind::Manifest => Some(trouble.detail.clone()),
        TroubleKind::NoManifest | TroubleKind::Refused | TroubleKind::Silent | TroubleKind::Other => None,
    }
}

/// Who answers, who does not, and what each data directory is worth.
fn words(scene: &Scene<'_>, view: &View) -> String {
    let of = |host: &Host| match (host.stands, view.on(&host.node)) {
        (Stands::Away { .. }, _) => format!("{} did not come back", host.node),
        (Stands::Back | Stands::KubeletDown { .. }, Some(seen)) => format!("{} {}", host.node, worth(seen)),
        (Stands::Back | Stands::KubeletDown { .. }, None) => {
            format!("of {} nothing is told", host.node)
        }
    };
    let each: Vec<_> = scene.hosts.iter().map(of).collect();
    let lack = match view.cluster_id {
        Some(_) => format!("etcd has no quorum ({})", view.words()),
        None => "no member of etcd answers".to_owned(),
    };
    format!("{lack}: {}", each.join("; "))
}

fn worth(seen: &Seen) -> String {
    if let Some(status) = seen.status() {
        return format!(
            "answers, with revision {} of cluster {:x} (term {}, index {})",
            status.revision, status.cluster_id, status.term, status.applied_index
        );
    }
    let why = seen.health.clone().err().unwrap_or_default();
    let Some(told) = &seen.told else {
        return format!("does not tell: {why}");
    };
    let place = told.manifest.as_ref().map(|manifest| manifest.data_dir.as_str());
    match place {
        Some(place) if told.has_data => {
            format!("has data in {place} that no member comes up with: {why}")
        }
        Some(place) => format!("has no data in {place}: {why}"),
        None => format!("does not run etcd: {why}"),
    }
}

#[cfg(test)]
mod tests;
