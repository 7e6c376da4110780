//! The fleet, the brakes and the runs → what each cluster is like, as far as permits care.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ClusterState, FleetState, Health, Member, PermitKind};
use crate::brakes::{BrakesHandle, Held};
use crate::execute::Executor;
use crate::fleet::Fleet;
use crate::fleet::view::{ApiServerAnswer, NodeView};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec, Role};
use crate::outage::{self, Verdict as Outage};
use crate::policy::OutagePolicy;
use crate::storm::guard::silenced;

/// Where it looks.
#[derive(Debug, Clone)]
pub(super) struct Eyes {
    pub(super) inventory: Arc<Inventory>,
    pub(super) outage: OutagePolicy,
    /// Older words of an agent say nothing.
    pub(super) fresh: Duration,
    pub(super) fleet: Fleet,
    pub(super) executor: Executor,
    pub(super) brakes: BrakesHandle,
    pub(super) in_hand: watch::Receiver<BTreeSet<NodeName>>,
}

impl Eyes {
    /// Every cluster. Of nodes in `ended` only what they said afterwards counts.
    pub(super) fn look(&self, ended: &BTreeMap<NodeName, Instant>, now: Instant) -> FleetState {
        let silenced = silenced(&self.brakes, &self.fleet);
        let view = Arc::clone(&self.fleet.view().borrow());
        let power: BTreeSet<_> = outage::assess_without(&view, &self.inventory, &self.outage, &silenced)
            .into_iter()
            .filter(|outage| matches!(outage.verdict, Outage::PowerEvent { .. }))
            .map(|outage| outage.cluster)
            .collect();
        let runs = self.runs();
        let book = self.brakes.book();
        let in_hand = self.in_hand.borrow().clone();
        let health = self.health(ended, now);
        let mut fleet = FleetState::new();
        for cluster in &self.inventory.clusters {
            let members = self.inventory.members(&cluster.name).map(|spec| {
                // A node that a run drains is away before it is down, and stays so while its run has it silenced.
                let is_away = in_hand.contains(&spec.name);
                let known = health.get(&spec.name).copied().unwrap_or(Health::Unknown);
                let member = Member {
                    role: spec.role,
                    health: if is_away { Health::Down } else { known },
                    silenced: silenced.contains(&spec.name) && !is_away,
                    held: held(&book.of(spec, now).holds),
                };
                (spec.name.clone(), member)
            });
            let storms = book.storms.keys().filter(|(of, _)| *of == cluster.name);
            let storms: Vec<_> = storms.map(|(_, condition)| condition.as_str()).collect();
            let state = ClusterState {
                members: members.collect(),
                power_event: power.contains(&cluster.name),
                run: runs.get(&cluster.name).cloned(),
                storm: (!storms.is_empty()).then(|| storms.join(", ")),
            };
            fleet.insert(cluster.name.clone(), state);
        }
        fleet
    }

    /// When a node last attested that it is up, if it does now.
    pub(super) fn well(&self, node: &NodeName) -> Option<Instant> {
        let spec = self.inventory.node(node)?;
        self.fleet.read(|state| {
            let view = state.node(node)?.view();
            let at = view.attestation.as_ref()?.observed_at;
            (health_of(spec, view) == Health::Up).then_some(at)
        })
    }

    fn health(&self, ended: &BTreeMap<NodeName, Instant>, now: Instant) -> BTreeMap<NodeName, Health> {
        self.fleet.read(|state| {
            let nodes = self.inventory.nodes.values().filter_map(|spec| {
                let view = state.node(&spec.name)?.view();
                let observed = view.attestation.as_ref()?.observed_at;
                let fresh = now.saturating_duration_since(observed) <= self.fresh;
                let since = ended.get(&spec.name).is_none_or(|ended| observed > *ended);
                (fresh && since).then(|| (spec.name.clone(), health_of(spec, view)))
            });
            nodes.collect()
        })
    }

    /// The clusters that a run is at work on.
    fn runs(&self) -> BTreeMap<ClusterName, String> {
        let mut runs = BTreeMap::new();
        for run in self.executor.runs().iter().filter(|run| run.state.is_active()) {
            for node in run.plan.releases() {
                if let Some(spec) = self.inventory.node(node) {
                    runs.insert(spec.cluster.clone(), run.id.clone());
                }
            }
        }
        runs
    }
}

/// What an attestation says of a node. A master serves when its API server does, whatever its kubelet is like: it is etcd that has a
/// quorum to lose. An external etcd member is up when its agent is there: it may have neither.
fn health_of(spec: &NodeSpec, view: &NodeView) -> Health {
    let Some(attestation) = view.attestation.as_ref().filter(|_| view.in_session) else {
        return Health::Unknown;
    };
    match spec.role {
        Role::ControlPlane if attestation.apiserver_ready => Health::Up,
        Role::ControlPlane => match attestation.apiserver {
            Some(ApiServerAnswer::Failed(_)) => Health::Down,
            // Its agent does not look, or has not yet.
            Some(ApiServerAnswer::Ready(_)) | None => Health::Unknown,
        },
        Role::Worker if attestation.kubelet_healthy => Health::Up,
        Role::Worker => Health::Down,
        Role::Etcd => Health::Up,
    }
}

fn held(holds: &[crate::brakes::Hold]) -> BTreeMap<PermitKind, String> {
    let mut held = BTreeMap::new();
    for hold in holds {
        let kinds: &[PermitKind] = match hold.what {
            Held::Every | Held::Silence => &PermitKind::ALL,
            Held::Remedy(RemedyKind::BounceStaticPod) => &[PermitKind::ControlPlaneRepair],
            Held::Remedy(RemedyKind::RestartRuntime) => &[PermitKind::RuntimeRestart],
            Held::Remedy(
                RemedyKind::RestartUnit
                | RemedyKind::KillRestartUnit
                | RemedyKind::ReclaimLog
                | RemedyKind::Prune
                | RemedyKind::VacuumJournal
                | RemedyKind::RestartContainer
                | RemedyKind::RelieveMemory
                | RemedyKind::ProtectUnits,
            ) => &[],
        };
        for kind in kinds {
            held.insert(*kind, format!("{}: {}", hold.by, hold.reason));
        }
    }
    held
}
