//! Who may begin: the budget of runbooks. Pure.
//!
//! Control planes of a cluster go one at a time; workers a few at a time; a node is in one run's hands; and where a cold start is at
//! work, nothing else is. Local remedies draw on budgets of their own, on their nodes.

use super::plan::{Runbook, RunbookPlan};
use super::status::RunbookStatus;
use crate::execute::Runs;
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};

/// So many workers of a cluster may be in runs that take pods away, at once. More at a time is what budgets of workloads are for; this
/// bounds what they do not cover.
pub const WORKERS: usize = 3;

/// Why a run may not begin now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The node is in another run's hands.
    #[error("run {run} is at work on {node}; abort it first, or wait for its end")]
    Node {
        /// Which run.
        run: String,
        /// Which node.
        node: NodeName,
    },
    /// Another control plane of the cluster is out.
    #[error("run {run} is at work on {node}, another control plane of {cluster}: they go one at a time")]
    ControlPlane {
        /// Which run.
        run: String,
        /// Which node.
        node: NodeName,
        /// Of which cluster.
        cluster: ClusterName,
    },
    /// Another control plane of the cluster is out, whoever took it.
    #[error("{node}, another control plane of {cluster}, is {phase:?}: they go one at a time")]
    NotReady {
        /// Which node.
        node: NodeName,
        /// What it is doing.
        phase: Phase,
        /// Of which cluster.
        cluster: ClusterName,
    },
    /// Enough workers of the cluster are out.
    #[error("{count} workers of {cluster} are in runs already ({runs}): wait for the end of one")]
    Workers {
        /// So many.
        count: usize,
        /// Of which cluster.
        cluster: ClusterName,
        /// Which runs.
        runs: String,
    },
    /// Another run mends pods of the same namespace.
    #[error("run {run} is at work on {subject}, in the same namespace; abort it first, or wait for its end")]
    Subject {
        /// Which run.
        run: String,
        /// On what.
        subject: String,
    },
    /// A cold start goes first.
    #[error("{run} is bringing cluster {cluster} back: wait for its end (blackstart coldstart watch)")]
    ColdStart {
        /// Which run.
        run: String,
        /// Which cluster.
        cluster: ClusterName,
    },
}

/// Whether a run may begin beside those at work.
///
/// # Errors
/// Who is in its way.
pub fn admit<'a>(
    plan: &RunbookPlan,
    runs: impl Iterator<Item = &'a RunbookStatus>,
    cold_starts: &Runs,
    inventory: &Inventory,
    view: &FleetView,
) -> Result<(), Busy> {
    if let Some(run) = cold_start(&plan.cluster, cold_starts, inventory) {
        return Err(Busy::ColdStart {
            run,
            cluster: plan.cluster.clone(),
        });
    }
    let active: Vec<_> = runs
        .filter(|run| run.state.is_active() && run.plan.cluster == plan.cluster)
        .collect();
    let id = |run: &RunbookStatus| (run.id.clone(), run.plan.request.node.clone());
    if let Some(run) = active
        .iter()
        .find(|run| plan.request.subject.is_none() && run.plan.request.node == plan.request.node)
    {
        let (run, node) = id(run);
        return Err(Busy::Node { run, node });
    }
    if let Some(subject) = &plan.request.subject {
        let other = active.iter().find_map(|run| {
            let of = run.plan.request.subject.as_ref().filter(|of| of.meets(subject))?;
            Some((run.id.clone(), of.to_string()))
        });
        if let Some((run, subject)) = other {
            return Err(Busy::Subject { run, subject });
        }
    }
    let takes = |runbook: Runbook| match runbook {
        Runbook::Drain | Runbook::MaintenanceBegin | Runbook::NodeDown => true,
        Runbook::MaintenanceEnd | Runbook::PodsHeal | Runbook::WorkloadHeal | Runbook::NodeComponent => false,
    };
    if !takes(plan.request.runbook) {
        return Ok(());
    }
    let others: Vec<_> = active
        .iter()
        .filter(|run| takes(run.plan.request.runbook) && run.plan.role == plan.role)
        .collect();
    match plan.role {
        Role::ControlPlane | Role::Etcd => match others.first() {
            Some(run) => {
                let (run, node) = id(run);
                Err(Busy::ControlPlane {
                    run,
                    node,
                    cluster: plan.cluster.clone(),
                })
            }
            // A master that is down may be mended whatever the others do.
            None if plan.request.runbook == Runbook::NodeDown => Ok(()),
            None => others_ready(plan, inventory, view),
        },
        Role::Worker if others.len() >= WORKERS => Err(Busy::Workers {
            count: others.len(),
            cluster: plan.cluster.clone(),
            runs: others
                .iter()
                .map(|run| run.id.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        }),
        Role::Worker => Ok(()),
    }
}

fn others_ready(plan: &RunbookPlan, inventory: &Inventory, view: &FleetView) -> Result<(), Busy> {
    let others = inventory
        .members(&plan.cluster)
        .filter(|spec| spec.role == plan.role && spec.name != plan.request.node);
    for spec in others {
        let phase = view
            .nodes
            .get(&spec.name)
            .map_or(Phase::Unknown, |node| node.phase);
        if phase != Phase::Ready {
            return Err(Busy::NotReady {
                node: spec.name.clone(),
                phase,
                cluster: plan.cluster.clone(),
            });
        }
    }
    Ok(())
}

/// The cold start that is at work in a cluster, if one is.
pub fn cold_start(cluster: &ClusterName, cold_starts: &Runs, inventory: &Inventory) -> Option<String> {
    let here = |node: &NodeName| inventory.node(node).is_some_and(|spec| spec.cluster == *cluster);
    cold_starts
        .iter()
        .find(|run| run.state.is_active() && run.plan.releases().any(here))
        .map(|run| run.id.clone())
}
