//! Answers of API servers for the fuzzer: whatever a server says of an object, reading it ends, and it becomes the reading that allows least.

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::asked::Usage;
use super::capabilities::{Capabilities, GroupList, VersionInfo};
use super::connection::refusal;
use super::detail::{self, Event, PodDetail, Room};
use super::objects::workload::{Workload, WorkloadKind};
use super::objects::{Attachment, Budget, Kept, Lease, Node, Object, Pod};
use crate::runbooks::case::Case;
use crate::runbooks::diagnosis;

/// Lists of objects by their kinds, as a document; as it stands also one object of each kind, and a refusal.
pub(crate) fn answers(bytes: &[u8]) {
    for status in [404, 409, 429, 500, 503] {
        let status = StatusCode::from_u16(status).expect("a status");
        let _why = refusal(status, None, bytes).to_string();
    }
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    abilities(&document);
    objects(&document);
    let list = |name: &str| document[name].as_array().map(Vec::as_slice).unwrap_or_default();
    for object in list("objects") {
        objects(object);
    }
    let _usage = Usage::read(list("usageOfNodes"), list("usageOfPods"));
    let kinds = WorkloadKind::ALL.into_iter().cycle();
    let case = Case {
        pods: list("pods").iter().filter_map(PodDetail::read).collect(),
        events: list("events").iter().map(Event::read).collect(),
        workloads: kinds
            .zip(list("workloads"))
            .map(|(kind, object)| detail::Workload::read(kind, object))
            .collect(),
        bounds: list("ranges").iter().flat_map(detail::memory_bounds).collect(),
        quotas: list("quotas").iter().map(detail::quota_room).collect(),
        claims: list("claims").iter().map(detail::claim).collect(),
        rooms: list("nodes").iter().map(Room::read).collect(),
        ..Case::default()
    };
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(500_000);
    for found in diagnosis::all(&case, now) {
        assert!(!found.words().is_empty());
    }
}

fn abilities(document: &Value) {
    let Ok(version) = VersionInfo::deserialize(&document["version"]) else {
        return;
    };
    let groups = GroupList::deserialize(&document["groups"]);
    if let (Some(version), Ok(groups)) = (version.version(), groups) {
        let _can = Capabilities::new(version, &groups);
    }
}

fn objects(object: &Value) {
    fn kept<T: Kept>(object: &Value) -> Option<T> {
        let kept = T::keep(Object::deserialize(object).ok()?)?;
        let _name = kept.key().to_string();
        let _where = (kept.node().map(str::to_owned), kept.pulse());
        Some(kept)
    }
    let _lease = kept::<Lease>(object);
    let _attachment = kept::<Attachment>(object);
    let budget = kept::<Budget>(object);
    let node = kept::<Node>(object);
    let pod = kept::<Pod>(object);
    if let (Some(pod), Some(budget)) = (&pod, &budget) {
        let _covers = budget.covers(pod);
        for kind in WorkloadKind::ALL {
            if let Some(workload) = Workload::read(kind, object) {
                let _covers = workload.covers(pod);
            }
        }
    }
    if let (Some(pod), Some(node)) = (pod, node) {
        let mut taken = pod.requests.clone();
        taken.add(&node.allocatable);
        let _short = node.allocatable.short(&taken, &pod.requests);
        if let Some(wants) = pod.wants {
            let _chosen = (
                wants.untolerated(&node.taints).is_some(),
                wants.choose(&node.name, &node.labels),
            );
        }
    }
}
