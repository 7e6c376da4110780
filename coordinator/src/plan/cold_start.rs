//! The runbook of a cold start: clusters in the order of their dependence, masters before workers, each behind the evidence
//! that what it needs is there.
//!
//! Masters of one cluster are all released together: etcd needs a quorum of them to form, so that one at a time would never pass
//! a gate. Workers draw on a lane. External etcd members are released with the masters.
//!
//! Controller managers and schedulers are set aside before the kubelet of their master is released, and put back once enough kubelets of the
//! cluster run: until then they would act on leases that are old, and evict the pods of workers whose turn has not come.
//!
//! A dependency that is not among the clusters asked for is not started, but its gates are in the plan: no cluster is begun before
//! what it depends on serves.

use std::collections::BTreeSet;
use std::time::Duration;

use blackstart_proto::component::Component;

use super::{Lane, LaneId, OnFailure, Plan, Step, StepId, StepKind};
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec, Role};
use crate::policy::ColdStartPolicy;

/// The name of this runbook.
pub const RUNBOOK: &str = "cold-start";

/// So many nodes are named in a note; the others are counted.
const NAMED: usize = 8;

/// Plans the start of `clusters` (none: of all), from what is known now. Clusters that are not declared are named in a note
/// and left out.
pub fn plan(
    inventory: &Inventory,
    view: &FleetView,
    policy: &ColdStartPolicy,
    clusters: &[ClusterName],
) -> Plan {
    let chosen: BTreeSet<_> = inventory
        .clusters
        .iter()
        .map(|cluster| &cluster.name)
        .filter(|name| clusters.is_empty() || clusters.contains(name))
        .collect();
    let mut plan = Plan {
        runbook: RUNBOOK.to_owned(),
        steps: Vec::with_capacity(inventory.nodes.len() + 4 * inventory.clusters.len()),
        lanes: Vec::new(),
        notes: notes(inventory, view, clusters, &chosen),
    };
    let mut only_gates = BTreeSet::new();
    for cluster in inventory
        .clusters
        .iter()
        .filter(|cluster| chosen.contains(&cluster.name))
    {
        for dependency in cluster.after.iter().filter(|name| !chosen.contains(name)) {
            if only_gates.insert(dependency) {
                plan.steps.extend(gates(inventory, policy, dependency, &[]));
            }
        }
        let begin: Vec<_> = cluster.after.iter().map(StepId::serving).collect();
        start(inventory, policy, &cluster.name, &begin, &mut plan);
    }
    plan
}

/// The two gates of a cluster, the first of them looked at after `begin`.
pub(super) fn gates(
    inventory: &Inventory,
    policy: &ColdStartPolicy,
    cluster: &ClusterName,
    begin: &[StepId],
) -> [Step; 2] {
    let workers: Vec<_> = inventory.workers(cluster).map(|node| node.name.clone()).collect();
    let serving = Step {
        id: StepId::serving(cluster),
        after: vec![StepId::control_plane(cluster)],
        lane: None,
        deadline: serving_deadline(policy, workers.len()),
        on_failure: OnFailure::Halt,
        kind: StepKind::ServingGate {
            cluster: cluster.clone(),
            quorum: (workers.len() * policy.serving_percent as usize)
                .div_ceil(100)
                .min(workers.len()),
            workers,
        },
    };
    [control_plane_gate(inventory, policy, cluster, begin), serving]
}

/// The gate that a cluster's control plane passes, looked at after `begin`.
pub(super) fn control_plane_gate(
    inventory: &Inventory,
    policy: &ColdStartPolicy,
    cluster: &ClusterName,
    begin: &[StepId],
) -> Step {
    let masters: Vec<_> = inventory.masters(cluster).map(|node| node.name.clone()).collect();
    Step {
        id: StepId::control_plane(cluster),
        after: begin.to_vec(),
        lane: None,
        deadline: policy.control_plane_deadline,
        on_failure: OnFailure::Halt,
        kind: StepKind::ControlPlaneGate {
            cluster: cluster.clone(),
            quorum: masters.len() / 2 + 1,
            masters,
        },
    }
}

/// The release of one node, after `after`. Workers draw on their cluster's lane.
pub(super) fn release(policy: &ColdStartPolicy, node: &NodeSpec, after: Vec<StepId>) -> Step {
    Step {
        id: StepId::release(&node.name),
        kind: StepKind::ReleaseKubelet {
            node: node.name.clone(),
        },
        after,
        lane: match node.role {
            Role::Worker => Some(LaneId::workers(&node.cluster)),
            Role::ControlPlane | Role::Etcd => None,
        },
        deadline: policy.return_deadline,
        // Whether a cluster can do without it is what the gates judge.
        on_failure: OnFailure::Residue,
    }
}

/// Sets a component of a master aside, before its kubelet is released.
fn hold(policy: &ColdStartPolicy, node: &NodeSpec, component: Component, after: Vec<StepId>) -> Step {
    Step {
        id: StepId::hold(&node.name, component),
        kind: StepKind::HoldManifest {
            node: node.name.clone(),
            component,
        },
        after,
        lane: None,
        deadline: policy.return_deadline,
        // A master with its controller manager is better than none.
        on_failure: OnFailure::Residue,
    }
}

/// Puts a component of a master back, behind the gate of its cluster's kubelets.
fn put_back(policy: &ColdStartPolicy, node: &NodeSpec, component: Component, behind: StepId) -> Step {
    Step {
        id: StepId::put_back(&node.name, component),
        kind: StepKind::ReleaseManifest {
            node: node.name.clone(),
            component,
        },
        after: vec![behind],
        lane: None,
        deadline: policy.return_deadline,
        // An agent that nobody speaks to puts back by itself.
        on_failure: OnFailure::Residue,
    }
}

/// The gate behind which what was set aside is put back. It opens after `max_hold` whatever it sees: nodes may need their controller
/// manager to become healthy at all, as for their pod network.
fn kubelets_gate(inventory: &Inventory, policy: &ColdStartPolicy, cluster: &ClusterName) -> Step {
    let nodes = inventory.masters(cluster).chain(inventory.workers(cluster));
    Step {
        id: StepId::kubelets(cluster),
        kind: StepKind::KubeletsGate {
            cluster: cluster.clone(),
            nodes: nodes.map(|node| node.name.clone()).collect(),
            share: policy.set_aside.release_share.clamp(1, 100),
        },
        after: vec![StepId::control_plane(cluster)],
        lane: None,
        deadline: policy.set_aside.max_hold,
        on_failure: OnFailure::Residue,
    }
}

/// The lane of a cluster's workers.
pub(super) fn lane(policy: &ColdStartPolicy, cluster: &ClusterName) -> Lane {
    let initial = policy.wave.initial.max(1);
    Lane {
        id: LaneId::workers(cluster),
        initial,
        max: policy.wave.max.max(initial),
    }
}

fn start(
    inventory: &Inventory,
    policy: &ColdStartPolicy,
    cluster: &ClusterName,
    begin: &[StepId],
    plan: &mut Plan,
) {
    let mut releases = Vec::new();
    let mut add = |plan: &mut Plan, step: Step| {
        releases.push(step.id.clone());
        plan.steps.push(step);
    };
    for node in inventory.etcd(cluster) {
        add(plan, release(policy, node, begin.to_vec()));
    }
    let aside: &[Component] = if policy.set_aside.enabled {
        &Component::ALL
    } else {
        &[]
    };
    for component in aside {
        let hold = |node| hold(policy, node, *component, begin.to_vec());
        plan.steps.extend(inventory.masters(cluster).map(hold));
    }
    for node in inventory.masters(cluster) {
        let held = aside.iter().map(|component| StepId::hold(&node.name, *component));
        add(
            plan,
            release(policy, node, begin.iter().cloned().chain(held).collect()),
        );
    }
    let [control_plane, serving] = gates(inventory, policy, cluster, begin);
    let behind = vec![control_plane.id.clone()];
    plan.steps.push(control_plane);
    let before = plan.steps.len();
    for node in inventory.workers(cluster) {
        add(plan, release(policy, node, behind.clone()));
    }
    if plan.steps.len() > before {
        plan.lanes.push(lane(policy, cluster));
    }
    let mut after = vec![serving.id.clone()];
    plan.steps.push(serving);
    after.extend(releases);
    if policy.set_aside.enabled {
        let kubelets = kubelets_gate(inventory, policy, cluster);
        let behind = kubelets.id.clone();
        plan.steps.push(kubelets);
        for component in aside {
            for node in inventory.masters(cluster) {
                let step = put_back(policy, node, *component, behind.clone());
                after.push(step.id.clone());
                plan.steps.push(step);
            }
        }
    }
    plan.steps.push(Step {
        id: StepId::verify(cluster),
        kind: StepKind::VerifyCluster {
            cluster: cluster.clone(),
        },
        after,
        lane: None,
        deadline: policy.release_deadline,
        on_failure: OnFailure::Halt,
    });
}

/// Long enough for every wave to take as long as it may: a window that doubles each wave up to its maximum, and then
/// as many full waves as the others need. One that an API server keeps small for longer than that is for a person to see.
fn serving_deadline(policy: &ColdStartPolicy, workers: usize) -> Duration {
    let most = policy.wave.max.max(1);
    let growing = most.div_ceil(policy.wave.initial.max(1)).ilog2() + 1;
    let waves = growing.saturating_add(u32::try_from(workers.div_ceil(most)).unwrap_or(u32::MAX));
    policy
        .release_deadline
        .saturating_mul(waves)
        .saturating_add(policy.return_deadline)
}

fn notes(
    inventory: &Inventory,
    view: &FleetView,
    asked: &[ClusterName],
    chosen: &BTreeSet<&ClusterName>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let order: Vec<_> = inventory
        .clusters
        .iter()
        .filter(|cluster| chosen.contains(&cluster.name))
        .map(|cluster| {
            let (masters, workers) = (
                inventory.masters(&cluster.name).count(),
                inventory.workers(&cluster.name).count(),
            );
            format!("{} (masters: {masters}, workers: {workers})", cluster.name)
        })
        .collect();
    notes.push(format!("order: {}", order.join(", then ")));
    for name in asked.iter().filter(|name| !chosen.contains(name)) {
        notes.push(format!("cluster {name} is not in the inventory, and is left out"));
    }
    for cluster in inventory
        .clusters
        .iter()
        .filter(|cluster| chosen.contains(&cluster.name))
    {
        for dependency in cluster.after.iter().filter(|name| !chosen.contains(name)) {
            notes.push(format!(
                "{} waits until {dependency} serves, which this plan does not start",
                cluster.name
            ));
        }
    }
    let in_phase = |phases: &[Phase]| {
        inventory
            .clusters
            .iter()
            .filter(|cluster| chosen.contains(&cluster.name))
            .flat_map(|cluster| &cluster.nodes)
            .filter(|node| {
                let phase = view.nodes.get(node).map_or(Phase::Unknown, |node| node.phase);
                phases.contains(&phase)
            })
            .collect::<Vec<_>>()
    };
    for (phases, what) in [
        (&[Phase::Unknown][..], "never heard of: residue unless they come"),
        (&[Phase::Silent, Phase::Stopped][..], "down now"),
        (&[Phase::Ready][..], "ready already: nothing is done to them"),
    ] {
        let found = in_phase(phases);
        if !found.is_empty() {
            notes.push(format!("{what}: {}", list(&found)));
        }
    }
    notes
}

fn list(nodes: &[&NodeName]) -> String {
    let named: Vec<_> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
    let more = nodes.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{} ({}{more})", nodes.len(), named.join(", "))
}
