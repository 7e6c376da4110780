//! What was read of some pods and what belongs to them, as one value: diagnoses, plans and steps that are about pods are decided on it.

pub(super) mod read;

use std::collections::{BTreeMap, BTreeSet};

use super::mends::Awaited;
use super::node_down::NotDead;
use crate::kubernetes::detail::{Claim, Event, MemoryBound, PodDetail, QuotaRoom, Room, Workload};
use crate::kubernetes::objects::workload::{WorkloadKind, WorkloadName};
use crate::kubernetes::objects::{Key, PodKind, PodPhase};

/// See the module. What could not be read is empty, and named in `lacks`.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// The pods.
    pub pods: Vec<PodDetail>,
    /// Warnings and others, of pods and those who make them.
    pub events: Vec<Event>,
    /// Those who make them.
    pub workloads: Vec<Workload>,
    /// What limit ranges say of memory.
    pub bounds: Vec<MemoryBound>,
    /// What quotas leave.
    pub quotas: Vec<QuotaRoom>,
    /// Claims of volumes.
    pub claims: Vec<Claim>,
    /// Nodes.
    pub rooms: Vec<Room>,
    /// Whether services that declared workloads need have a ready address; by `namespace/name`.
    pub needs: BTreeMap<String, Result<bool, String>>,
    /// Pods of the whole cluster that hold ports of their nodes, where that was asked.
    pub holders: Vec<PodDetail>,
    /// What could not be read, and why.
    pub lacks: Vec<String>,
    /// Of nodes whose pods are ending: the evidence that they are down, or why they do not count as such.
    pub down: BTreeMap<String, Result<String, NotDead>>,
}

/// Whether pods are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wellness {
    /// All run and are ready; which, and how often each was started again.
    Well(BTreeSet<(String, u64)>),
    /// Which are not, and how.
    Not(String),
}

impl Case {
    /// A workload of it.
    pub fn workload(&self, name: &WorkloadName) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == *name)
    }

    /// A pod of it.
    pub fn pod(&self, key: &Key, uid: &str) -> Option<&PodDetail> {
        self.pods.iter().find(|pod| pod.key == *key && pod.uid == uid)
    }

    /// Who makes a pod, seen through its replica set.
    pub fn maker(&self, pod: &PodDetail) -> Option<Awaited> {
        let owner = pod.controller.as_ref()?;
        let key = |name: &str| Key {
            namespace: pod.key.namespace.clone(),
            name: name.to_owned(),
        };
        let set = WorkloadKind::named(&owner.kind).and_then(|kind| {
            self.workload(&WorkloadName {
                kind,
                key: key(&owner.name),
            })
        });
        let (kind, name) = match set.and_then(|set| set.owner.as_ref()) {
            Some((kind, name)) => (kind.clone(), name.clone()),
            None => (owner.kind.clone(), owner.name.clone()),
        };
        Some(Awaited {
            kind,
            key: key(&name),
            node: None,
        })
    }

    /// The workload that makes a pod, if it is one whose template can be changed.
    pub fn template(&self, pod: &PodDetail) -> Option<&Workload> {
        let maker = self.maker(pod)?;
        let kind = WorkloadKind::named(&maker.kind)?;
        self.workload(&WorkloadName { kind, key: maker.key })
    }

    /// The pods that are awaited.
    pub fn pods_of<'a>(&'a self, awaited: &'a Awaited) -> impl Iterator<Item = &'a PodDetail> {
        self.pods.iter().filter(move |pod| {
            awaited.node.as_ref().is_none_or(|node| *node == pod.node)
                && self
                    .maker(pod)
                    .is_some_and(|maker| maker.kind == awaited.kind && maker.key == awaited.key)
        })
    }

    /// Whether all that is awaited is well.
    pub fn wellness(&self, all: &[Awaited]) -> Wellness {
        let mut well = BTreeSet::new();
        for awaited in all {
            let mut here = 0;
            for pod in self.pods_of(awaited) {
                if pod.phase == PodPhase::Succeeded {
                    continue;
                }
                if pod.deleted.is_some() || pod.phase == PodPhase::Failed {
                    // It serves nobody, and its successor is looked at by itself.
                    continue;
                }
                if !pod.is_ready || pod.phase != PodPhase::Running {
                    return Wellness::Not(not_ready(pod));
                }
                here += 1;
                well.insert((pod.uid.clone(), pod.restarts()));
            }
            let name = WorkloadKind::named(&awaited.kind).map(|kind| WorkloadName {
                kind,
                key: awaited.key.clone(),
            });
            let workload = name.and_then(|name| self.workload(&name));
            match (workload, &awaited.node) {
                (Some(_), Some(node)) if here == 0 => {
                    return Wellness::Not(format!("{} {} has no pod on {node}", awaited.kind, awaited.key));
                }
                (Some(workload), None) if here < workload.desired => {
                    return Wellness::Not(format!(
                        "{here} of the {} pods of {} {} are there",
                        workload.desired, awaited.kind, awaited.key
                    ));
                }
                (Some(_) | None, _) => {}
            }
        }
        Wellness::Well(well)
    }
}

fn not_ready(pod: &PodDetail) -> String {
    use crate::kubernetes::detail::ContainerState;
    let why = pod
        .containers
        .iter()
        .find_map(|container| match &container.state {
            ContainerState::Waiting { reason, .. } if !reason.is_empty() => Some(reason.as_str()),
            ContainerState::Waiting { .. } | ContainerState::Running | ContainerState::Terminated(_) => None,
        });
    let scheduled = pod
        .condition("PodScheduled")
        .filter(|said| said.status == "False");
    match (why, scheduled) {
        (Some(why), _) => format!("pod {} is not ready: {why}", pod.key),
        (None, Some(said)) => format!("pod {} is not scheduled: {}", pod.key, said.message),
        (None, None) => format!("pod {} is not ready ({:?})", pod.key, pod.phase),
    }
}

/// It could run elsewhere, or be made again on its node: it is no static pod's shadow.
pub(super) fn is_real(pod: &PodDetail) -> bool {
    match pod.kind {
        PodKind::Plain | PodKind::Daemon => true,
        PodKind::Mirror => false,
    }
}
