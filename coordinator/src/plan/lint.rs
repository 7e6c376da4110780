//! What is wrong with a plan, found before anything is done. A plan with findings is refused.
//!
//! The linter knows nothing of how plans are made: it checks the law of order on the graph itself, so that a mistake in a runbook
//! (or in one that is written later) stops here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::{LaneId, OnFailure, Plan, StepId, StepKind};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finding {
    /// There is nothing to do.
    Empty,
    /// Two steps have one name.
    DuplicateStep(StepId),
    /// A step comes after one that is not in the plan.
    UnknownStep {
        /// Which.
        step: StepId,
        /// What it comes after.
        after: StepId,
    },
    /// These steps wait for each other.
    Cycle(Vec<StepId>),
    /// A step is listed before one that it comes after.
    OutOfOrder(StepId),
    /// A step names a node that is not declared.
    UnknownNode {
        /// Which.
        step: StepId,
        /// The node.
        node: NodeName,
    },
    /// A step names a cluster that is not declared.
    UnknownCluster {
        /// Which.
        step: StepId,
        /// The cluster.
        cluster: ClusterName,
    },
    /// A node would be released by two steps.
    ReleasedTwice(NodeName),
    /// A worker would be released, or a cluster said to serve, without its control plane.
    NotBehindControlPlane {
        /// Which.
        step: StepId,
        /// Whose.
        cluster: ClusterName,
    },
    /// Something of a cluster would be released before a cluster that it depends on serves.
    NotBehindDependency {
        /// Which.
        step: StepId,
        /// What has to serve.
        dependency: ClusterName,
    },
    /// A worker's release draws on no budget.
    NoLane(StepId),
    /// A step draws on a budget that is not in the plan.
    UnknownLane {
        /// Which.
        step: StepId,
        /// The budget.
        lane: LaneId,
    },
    /// Nothing can pass through a lane.
    ClosedLane(LaneId),
    /// A gate takes less than a majority of the masters, or more than there are candidates, or candidates of another cluster or
    /// role.
    Quorum {
        /// Which.
        step: StepId,
        /// What is wrong with it.
        why: String,
    },
    /// A gate that has not passed would let through what is behind it.
    LeakyGate(StepId),
    /// Something is set aside on a node that is no master.
    NotAMaster(StepId),
    /// What a step sets aside is put back by none.
    NeverPutBack(StepId),
    /// Something would be put back before the kubelets of its cluster run.
    NotBehindKubelets(StepId),
    /// A kubelet would wait for controllers that wait for kubelets.
    WaitsForKubelets(StepId),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the plan has no steps"),
            Self::DuplicateStep(step) => write!(f, "two steps are called {step}"),
            Self::UnknownStep { step, after } => {
                write!(f, "{step} comes after {after}, which is not in the plan")
            }
            Self::Cycle(steps) => {
                let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
                write!(f, "these steps wait for each other: {}", steps.join(", "))
            }
            Self::OutOfOrder(step) => write!(f, "{step} is listed before a step that it comes after"),
            Self::UnknownNode { step, node } => {
                write!(f, "{step} names {node}, which is not in the inventory")
            }
            Self::UnknownCluster { step, cluster } => {
                write!(f, "{step} names cluster {cluster}, which is not in the inventory")
            }
            Self::ReleasedTwice(node) => write!(f, "two steps release {node}"),
            Self::NotBehindControlPlane { step, cluster } => {
                write!(f, "{step} is not behind the control-plane gate of {cluster}")
            }
            Self::NotBehindDependency { step, dependency } => {
                write!(f, "{step} is not behind the serving gate of {dependency}")
            }
            Self::NoLane(step) => write!(f, "{step} releases a worker and draws on no lane"),
            Self::UnknownLane { step, lane } => {
                write!(f, "{step} draws on lane {lane}, which is not in the plan")
            }
            Self::ClosedLane(lane) => write!(f, "lane {lane} lets nothing through"),
            Self::Quorum { step, why } => write!(f, "{step}: {why}"),
            Self::LeakyGate(step) => {
                write!(f, "{step} would be skipped at its deadline; a gate has to halt")
            }
            Self::NotAMaster(step) => write!(f, "{step} sets something aside on a node that is no master"),
            Self::NeverPutBack(step) => write!(f, "what {step} sets aside is put back by no step"),
            Self::NotBehindKubelets(step) => {
                write!(f, "{step} is not behind the gate of the kubelets of its cluster")
            }
            Self::WaitsForKubelets(step) => {
                write!(f, "{step} would wait for kubelets that may wait for it")
            }
        }
    }
}

/// Everything that is wrong with a plan for this fleet, sorted.
pub fn lint(plan: &Plan, inventory: &Inventory) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    if plan.steps.is_empty() {
        found.insert(Finding::Empty);
    }
    let mut index = HashMap::with_capacity(plan.steps.len());
    for (at, step) in plan.steps.iter().enumerate() {
        if index.insert(&step.id, at).is_some() {
            found.insert(Finding::DuplicateStep(step.id.clone()));
        }
    }
    let edges = edges(plan, &index, &mut found);
    lanes(plan, inventory, &mut found);
    names(plan, inventory, &mut found);
    set_aside(plan, inventory, &mut found);
    match topological(&edges) {
        Ok(order) => {
            let early = edges
                .iter()
                .enumerate()
                .filter(|(at, after)| after.iter().any(|before| before > at));
            found.extend(early.map(|(at, _)| Finding::OutOfOrder(plan.steps[at].id.clone())));
            law_of_order(plan, inventory, &edges, &order, &mut found);
        }
        Err(stuck) => {
            let steps = stuck.into_iter().map(|at| plan.steps[at].id.clone()).collect();
            found.insert(Finding::Cycle(steps));
        }
    }
    found.into_iter().collect()
}

/// For each step the places of those it comes after.
fn edges(plan: &Plan, index: &HashMap<&StepId, usize>, found: &mut BTreeSet<Finding>) -> Vec<Vec<usize>> {
    let mut edges = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let mut after = Vec::with_capacity(step.after.len());
        for id in &step.after {
            if let Some(at) = index.get(id) {
                after.push(*at);
            } else {
                found.insert(Finding::UnknownStep {
                    step: step.id.clone(),
                    after: id.clone(),
                });
            }
        }
        edges.push(after);
    }
    edges
}

/// An order in which each step comes after those it depends on, or the steps that have none.
fn topological(edges: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut waits: Vec<_> = edges.iter().map(Vec::len).collect();
    let mut behind = vec![Vec::new(); edges.len()];
    for (at, after) in edges.iter().enumerate() {
        for before in after {
            behind[*before].push(at);
        }
    }
    let mut order: Vec<_> = (0..edges.len()).filter(|at| waits[*at] == 0).collect();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        next += 1;
        for follower in &behind[at] {
            waits[*follower] -= 1;
            if waits[*follower] == 0 {
                order.push(*follower);
            }
        }
    }
    if order.len() == edges.len() {
        Ok(order)
    } else {
        Err((0..edges.len()).filter(|at| waits[*at] > 0).collect())
    }
}

fn lanes(plan: &Plan, inventory: &Inventory, found: &mut BTreeSet<Finding>) {
    let declared: BTreeSet<_> = plan.lanes.iter().map(|lane| &lane.id).collect();
    for lane in &plan.lanes {
        if lane.initial == 0 || lane.max < lane.initial {
            found.insert(Finding::ClosedLane(lane.id.clone()));
        }
    }
    for step in &plan.steps {
        if let Some(lane) = step.lane.as_ref().filter(|lane| !declared.contains(lane)) {
            found.insert(Finding::UnknownLane {
                step: step.id.clone(),
                lane: lane.clone(),
            });
        }
        let worker = step
            .kind
            .node()
            .and_then(|node| inventory.node(node))
            .is_some_and(|node| node.role == Role::Worker);
        if worker && step.lane.is_none() {
            found.insert(Finding::NoLane(step.id.clone()));
        }
    }
}

/// Nodes and clusters that steps name, and what gates count.
fn names(plan: &Plan, inventory: &Inventory, found: &mut BTreeSet<Finding>) {
    let mut released = BTreeSet::new();
    for step in &plan.steps {
        let (nodes, gate) = match &step.kind {
            StepKind::ReleaseKubelet { node } => {
                if !released.insert(node) {
                    found.insert(Finding::ReleasedTwice(node.clone()));
                }
                (std::slice::from_ref(node), None)
            }
            StepKind::ControlPlaneGate { masters, quorum, .. } => {
                let least = masters.len() / 2 + 1;
                (masters.as_slice(), Some((Role::ControlPlane, *quorum, least)))
            }
            StepKind::ServingGate { workers, quorum, .. } => {
                (workers.as_slice(), Some((Role::Worker, *quorum, 0)))
            }
            StepKind::HoldManifest { node, .. } | StepKind::ReleaseManifest { node, .. } => {
                (std::slice::from_ref(node), None)
            }
            StepKind::KubeletsGate { nodes, .. } => (nodes.as_slice(), None),
            StepKind::VerifyCluster { .. } => (&[][..], None),
        };
        let cluster = step.kind.cluster();
        if let Some(cluster) = cluster.filter(|name| inventory.cluster(name).is_none()) {
            found.insert(Finding::UnknownCluster {
                step: step.id.clone(),
                cluster: cluster.clone(),
            });
        }
        for node in nodes.iter().filter(|node| inventory.node(node).is_none()) {
            found.insert(Finding::UnknownNode {
                step: step.id.clone(),
                node: node.clone(),
            });
        }
        let Some((role, quorum, least)) = gate else {
            continue;
        };
        if step.on_failure == OnFailure::Residue {
            found.insert(Finding::LeakyGate(step.id.clone()));
        }
        let mut wrong = |why: String| {
            found.insert(Finding::Quorum {
                step: step.id.clone(),
                why,
            });
        };
        if quorum < least {
            wrong(format!("{quorum} of {} is no majority", nodes.len()));
        }
        if quorum > nodes.len() {
            wrong(format!("wants {quorum} of {}", nodes.len()));
        }
        let stranger = nodes.iter().find(|node| {
            inventory
                .node(node)
                .is_some_and(|node| Some(&node.cluster) != cluster || node.role != role)
        });
        if let Some(node) = stranger {
            wrong(format!("{node} is not a candidate"));
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() < nodes.len() {
            wrong("counts a node twice".to_owned());
        }
    }
}

/// What is set aside is of masters, and comes back: behind the gate of its cluster's kubelets, for which no kubelet waits.
fn set_aside(plan: &Plan, inventory: &Inventory, found: &mut BTreeSet<Finding>) {
    let back: BTreeSet<_> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::ReleaseManifest { node, component } => Some((node, *component)),
            StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ControlPlaneGate { .. }
            | StepKind::ServingGate { .. }
            | StepKind::KubeletsGate { .. }
            | StepKind::VerifyCluster { .. } => None,
        })
        .collect();
    let late: BTreeSet<_> = plan
        .steps
        .iter()
        .filter(|step| match step.kind {
            StepKind::KubeletsGate { .. } | StepKind::ReleaseManifest { .. } => true,
            StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ControlPlaneGate { .. }
            | StepKind::ServingGate { .. }
            | StepKind::VerifyCluster { .. } => false,
        })
        .map(|step| &step.id)
        .collect();
    let cluster = |node: &NodeName| inventory.node(node).map(|spec| &spec.cluster);
    for step in &plan.steps {
        let behind = |name: &ClusterName| step.after.contains(&StepId::kubelets(name));
        match &step.kind {
            StepKind::HoldManifest { node, component } => {
                if inventory
                    .node(node)
                    .is_some_and(|spec| spec.role != Role::ControlPlane)
                {
                    found.insert(Finding::NotAMaster(step.id.clone()));
                }
                if !back.contains(&(node, *component)) {
                    found.insert(Finding::NeverPutBack(step.id.clone()));
                }
            }
            StepKind::ReleaseManifest { node, .. } => {
                if cluster(node).is_some_and(|cluster| !behind(cluster)) {
                    found.insert(Finding::NotBehindKubelets(step.id.clone()));
                }
            }
            StepKind::KubeletsGate { cluster, .. } => {
                if !step.after.contains(&StepId::control_plane(cluster)) {
                    found.insert(Finding::NotBehindControlPlane {
                        step: step.id.clone(),
                        cluster: cluster.clone(),
                    });
                }
            }
            StepKind::ReleaseKubelet { .. }
            | StepKind::ControlPlaneGate { .. }
            | StepKind::ServingGate { .. } => {
                if step.after.iter().any(|id| late.contains(id)) {
                    found.insert(Finding::WaitsForKubelets(step.id.clone()));
                }
            }
            StepKind::VerifyCluster { .. } => {}
        }
    }
}

/// No worker before its cluster's control plane; nothing of a cluster that this plan starts before its dependencies serve.
fn law_of_order(
    plan: &Plan,
    inventory: &Inventory,
    edges: &[Vec<usize>],
    order: &[usize],
    found: &mut BTreeSet<Finding>,
) {
    // Gates alone are followed through the graph: they are few, so a set of them for each step stays small.
    let mut control_planes = BTreeMap::new();
    let mut serving = BTreeMap::new();
    let mut bit_of = HashMap::new();
    for (at, step) in plan.steps.iter().enumerate() {
        let bit = bit_of.len();
        match &step.kind {
            StepKind::ControlPlaneGate { cluster, .. } => {
                control_planes.insert(cluster, bit);
            }
            StepKind::ServingGate { cluster, .. } => {
                serving.insert(cluster, bit);
            }
            StepKind::ReleaseKubelet { .. }
            | StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::KubeletsGate { .. }
            | StepKind::VerifyCluster { .. } => continue,
        }
        bit_of.insert(at, bit);
    }
    let words = bit_of.len().div_ceil(64);
    let mut behind = vec![vec![0_u64; words]; plan.steps.len()];
    for at in order {
        let mut own = std::mem::take(&mut behind[*at]);
        for before in &edges[*at] {
            for (word, more) in own.iter_mut().zip(&behind[*before]) {
                *word |= more;
            }
            if let Some(bit) = bit_of.get(before) {
                own[bit / 64] |= 1 << (bit % 64);
            }
        }
        behind[*at] = own;
    }
    let is_behind = |at: usize, gate: Option<&usize>| {
        gate.is_some_and(|bit| behind[at][bit / 64] & (1 << (bit % 64)) != 0)
    };

    let started: BTreeSet<_> = plan
        .releases()
        .filter_map(|node| inventory.node(node))
        .filter(|node| node.role != Role::Worker)
        .map(|node| &node.cluster)
        .collect();
    for (at, step) in plan.steps.iter().enumerate() {
        if let StepKind::ServingGate { cluster, .. } = &step.kind
            && !is_behind(at, control_planes.get(cluster))
        {
            found.insert(Finding::NotBehindControlPlane {
                step: step.id.clone(),
                cluster: cluster.clone(),
            });
        }
        let Some(node) = step.kind.node().and_then(|node| inventory.node(node)) else {
            continue;
        };
        if node.role == Role::Worker && !is_behind(at, control_planes.get(&node.cluster)) {
            found.insert(Finding::NotBehindControlPlane {
                step: step.id.clone(),
                cluster: node.cluster.clone(),
            });
        }
        // A lone worker joins a cluster that stands; what that cluster depended on is its control plane's business.
        if !started.contains(&node.cluster) {
            continue;
        }
        let dependencies = inventory
            .cluster(&node.cluster)
            .map_or(&[][..], |cluster| &cluster.after);
        for dependency in dependencies {
            if !is_behind(at, serving.get(dependency)) {
                found.insert(Finding::NotBehindDependency {
                    step: step.id.clone(),
                    dependency: dependency.clone(),
                });
            }
        }
    }
}
