//! Who may begin: the budget of runbooks. Pure.
//!
//! Control planes of a cluster go one at a time; workers a few at a time; a node is in one run's hands; who restores a cluster's etcd has its
//! masters alone; and where a cold start is at work, nothing else is. Permits that agents have for disruptive remedies count on the same lanes, and nodes in the hands of runs count
//! where permits are given.

use std::sync::Arc;

use super::plan::{Request, Runbook, RunbookPlan};
use super::policy::RunbookPolicy;
use super::status::RunbookStatus;
use super::weather::Sky;
use crate::execute::Runs;
use crate::execute::status::{RunStatus, StepState};
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};
use crate::permit::{Book, Lane, Line, Standing};
use crate::plan::StepKind;

/// So many workers of a cluster may be in runs that take pods away, at once. More at a time is what budgets of workloads are for; this
/// bounds what they do not cover.
pub const WORKERS: usize = 3;
/// A run of `node-down` may ask its API so much in a second: a wave of ten deletions now and then, and little else.
const REQUESTS_PER_RUN: u32 = 5;

/// How many workers of a cluster may be in such runs at once. In a declared power event it is known why they are down, and each that is
/// given up serves again elsewhere: more of them go at a time, by policy and as far as the budget of requests of the cluster reaches.
pub fn width(runbook: Runbook, sky: &Sky, policy: &RunbookPolicy, requests_per_second: u32) -> usize {
    if runbook != Runbook::NodeDown || sky.power_event.is_none() {
        return WORKERS;
    }
    let affordable = usize::try_from(requests_per_second / REQUESTS_PER_RUN).unwrap_or(usize::MAX);
    policy.power_event_workers.min(affordable).max(WORKERS)
}

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
    /// Its etcd is being restored, or is about to be.
    #[error(
        "run {run} restores the etcd of {cluster}, or waits for the word to: until its end nothing else changes masters there (blackstart runbook status {run})"
    )]
    Restore {
        /// Which run.
        run: String,
        /// Of which cluster.
        cluster: ClusterName,
    },
    /// A restore wants all masters.
    #[error(
        "run {run} is at work on {node}, a master of {cluster}, and a restore of etcd wants them alone: wait for its end, or abort it"
    )]
    Masters {
        /// Which run.
        run: String,
        /// On what.
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
    /// Another node of its kind is away by a permit.
    #[error(
        "{node}, of the same kind in {cluster}, has a permit ({what}): wait for its end (blackstart get permits)"
    )]
    Permit {
        /// Which node.
        node: NodeName,
        /// What for.
        what: String,
        /// Of which cluster.
        cluster: ClusterName,
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

/// Whether a run may begin beside those at work, where so many workers may be in runs; see [`width`].
///
/// # Errors
/// Who is in its way.
pub fn admit<'a>(
    plan: &RunbookPlan,
    runs: impl Iterator<Item = &'a RunbookStatus>,
    cold_starts: &Runs,
    inventory: &Inventory,
    view: &FleetView,
    book: &Book,
    workers: usize,
) -> Result<(), Busy> {
    if let Some(run) = cold_start(plan, false, cold_starts, inventory) {
        return Err(Busy::ColdStart {
            run,
            cluster: plan.cluster.clone(),
        });
    }
    // What is only proposed is at work nowhere.
    let active: Vec<_> = runs
        .filter(|run| run.state.is_active() && !run.is_proposal && run.plan.cluster == plan.cluster)
        .collect();
    let id = |run: &RunbookStatus| (run.id.clone(), NodeName(run.plan.request.about()));
    let is_of_node = !plan.request.node.0.is_empty();
    let same_runbook = |run: &RunbookStatus| run.plan.request.runbook == plan.request.runbook;
    if let Some(run) = active
        .iter()
        .filter(|_| plan.request.subject.is_none())
        .find(|run| run.plan.request.has_subject_of(&plan.request) && (is_of_node || same_runbook(run)))
    {
        let (run, node) = id(run);
        return Err(Busy::Node { run, node });
    }
    let side = (plan.request.runbook, plan.role);
    if let Some(run) = active
        .iter()
        .find(|run| are_apart(side, (run.plan.request.runbook, run.plan.role)))
    {
        let cluster = plan.cluster.clone();
        let restores = restores(run.plan.request.runbook);
        let (run, node) = id(run);
        return Err(if restores {
            Busy::Restore { run, cluster }
        } else {
            Busy::Masters { run, node, cluster }
        });
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
    if !takes(plan.request.runbook) {
        return Ok(());
    }
    let others: Vec<_> = active
        .iter()
        .filter(|run| takes(run.plan.request.runbook) && run.plan.role == plan.role)
        .collect();
    // Repairs of a node that is down are no disruption of it, and are not to wait for another's.
    let repairs = matches!(
        plan.request.runbook,
        Runbook::NodeDown | Runbook::NetworkLoss | Runbook::EtcdMember
    ) || plan.request.runbook == Runbook::ControlPlane && !plan.request.options.restart;
    let away = away(plan, inventory, book);
    let limit = match plan.role {
        Role::ControlPlane | Role::Etcd => 1,
        Role::Worker => workers,
    };
    if let Some(line) = away
        .first()
        .filter(|_| !repairs && others.len() + away.len() >= limit)
    {
        return Err(Busy::Permit {
            node: line.wish.id.node.clone(),
            what: format!("{} of {}", line.wish.kind.as_str(), line.wish.subject),
            cluster: plan.cluster.clone(),
        });
    }
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
            None if repairs => Ok(()),
            None => others_ready(plan, inventory, view),
        },
        Role::Worker if others.len() >= workers => Err(Busy::Workers {
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

/// The permits of other nodes on the same lane.
fn away<'a>(plan: &RunbookPlan, inventory: &Inventory, book: &'a Book) -> Vec<&'a Line> {
    let lane = Lane::of(&plan.cluster, plan.role);
    let is_other = |line: &&Line| {
        let node = &line.wish.id.node;
        *node != plan.request.node
            && inventory
                .node(node)
                .is_some_and(|spec| Lane::of(&spec.cluster, spec.role) == lane)
    };
    let granted = |line: &&Line| matches!(line.standing, Standing::Granted { .. });
    book.lines.iter().filter(granted).filter(is_other).collect()
}

/// It changes nothing while too much of its cluster is not well at once: what takes a node away, and what mends pods, workloads and node
/// components, since the pods of many nodes that do not run are not the pods' fault. What only gives back, or only looks, goes on.
pub const fn minds_storm(request: &Request) -> bool {
    match request.runbook {
        Runbook::PodsHeal | Runbook::WorkloadHeal => !request.mending.rollback,
        Runbook::NodeComponent
        | Runbook::Drain
        | Runbook::MaintenanceBegin
        | Runbook::NodeDown
        | Runbook::NetworkLoss
        | Runbook::Overload => true,
        // Data is brought to safety, and a quorum is not waited for, whatever the weather.
        Runbook::MaintenanceEnd
        | Runbook::ResourceShortage
        | Runbook::ColdStartVerify
        | Runbook::EtcdSnapshot
        | Runbook::EtcdMember
        | Runbook::EtcdQuorum
        | Runbook::EtcdAll
        | Runbook::ControlPlane => false,
    }
}

/// It makes another cluster of etcd's members: whoever else were at work on one of them could bring back what is fenced.
const fn restores(runbook: Runbook) -> bool {
    matches!(runbook, Runbook::EtcdQuorum | Runbook::EtcdAll)
}

/// It changes something on a master.
fn changes_masters((runbook, role): (Runbook, Role)) -> bool {
    match runbook {
        Runbook::EtcdQuorum | Runbook::EtcdAll | Runbook::EtcdMember | Runbook::ControlPlane => true,
        Runbook::Drain
        | Runbook::MaintenanceBegin
        | Runbook::MaintenanceEnd
        | Runbook::NodeDown
        | Runbook::NetworkLoss
        | Runbook::Overload
        | Runbook::NodeComponent => matches!(role, Role::ControlPlane | Role::Etcd),
        Runbook::EtcdSnapshot
        | Runbook::ResourceShortage
        | Runbook::ColdStartVerify
        | Runbook::PodsHeal
        | Runbook::WorkloadHeal => false,
    }
}

/// These two are never at work in a cluster at once.
fn are_apart(one: (Runbook, Role), other: (Runbook, Role)) -> bool {
    restores(one.0) && changes_masters(other) || restores(other.0) && changes_masters(one)
}

/// It takes a node, or pods of it, away.
pub const fn takes(runbook: Runbook) -> bool {
    match runbook {
        Runbook::Drain
        | Runbook::MaintenanceBegin
        | Runbook::NodeDown
        | Runbook::NetworkLoss
        | Runbook::Overload
        | Runbook::EtcdMember
        | Runbook::ControlPlane => true,
        Runbook::MaintenanceEnd
        | Runbook::EtcdSnapshot
        | Runbook::EtcdQuorum
        | Runbook::EtcdAll
        | Runbook::ResourceShortage
        | Runbook::ColdStartVerify
        | Runbook::PodsHeal
        | Runbook::WorkloadHeal
        | Runbook::NodeComponent => false,
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

/// The cold start that is at work in a cluster and goes first, if one does. What it waits for goes before it: a run that brings the control plane
/// back, from when the masters are released on. One that has begun goes on when the cold start does: half a member is worse than either.
pub fn cold_start(
    plan: &RunbookPlan,
    has_begun: bool,
    cold_starts: &Runs,
    inventory: &Inventory,
) -> Option<String> {
    let here = |node: &NodeName| {
        let spec = inventory.node(node);
        spec.is_some_and(|spec| spec.cluster == plan.cluster)
    };
    let goes_first =
        |run: &&Arc<RunStatus>| !is_waited_for(plan.request.runbook, has_begun, gate_of(run, &plan.cluster));
    cold_starts
        .iter()
        .filter(|run| run.state.is_active() && run.plan.releases().any(here))
        .find(goes_first)
        .map(|run| run.id.clone())
}

/// A cold start whose gate stands so waits for what such a run does.
const fn is_waited_for(runbook: Runbook, has_begun: bool, gate: Option<StepState>) -> bool {
    brings_control_plane(runbook)
        && match gate {
            Some(StepState::Waiting | StepState::Failed) => true,
            Some(StepState::Done) => has_begun,
            Some(StepState::Pending | StepState::Started | StepState::Residue | StepState::Cancelled)
            | None => false,
        }
}

/// How the gate of a cluster's control plane stands in a cold start.
pub fn gate_of(run: &RunStatus, cluster: &ClusterName) -> Option<StepState> {
    let mut steps = run.plan.steps.iter().zip(&run.steps);
    steps.find_map(|(step, status)| match &step.kind {
        StepKind::ControlPlaneGate { cluster: of, .. } if of == cluster => Some(status.state),
        StepKind::ControlPlaneGate { .. }
        | StepKind::ReleaseKubelet { .. }
        | StepKind::HoldManifest { .. }
        | StepKind::ReleaseManifest { .. }
        | StepKind::KubeletsGate { .. }
        | StepKind::ServingGate { .. }
        | StepKind::VerifyCluster { .. } => None,
    })
}

/// It brings back what a cold start waits for before it goes on.
const fn brings_control_plane(runbook: Runbook) -> bool {
    runbook.wants_etcd() || matches!(runbook, Runbook::ControlPlane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_restores_an_etcd_has_the_masters_alone() {
        use Runbook as R;
        let (master, worker) = (Role::ControlPlane, Role::Worker);
        for restore in [(R::EtcdQuorum, worker), (R::EtcdAll, worker)] {
            for other in [
                (R::EtcdQuorum, worker),
                (R::EtcdAll, worker),
                (R::EtcdMember, master),
                (R::ControlPlane, worker),
                (R::NodeDown, master),
                (R::MaintenanceEnd, master),
                (R::NodeComponent, Role::Etcd),
            ] {
                assert!(
                    are_apart(restore, other) && are_apart(other, restore),
                    "{restore:?} {other:?}"
                );
            }
            // Workers are mended, and data is brought to safety, meanwhile.
            for other in [
                (R::NodeDown, worker),
                (R::Drain, worker),
                (R::EtcdSnapshot, worker),
            ] {
                assert!(
                    !are_apart(restore, other) && !are_apart(other, restore),
                    "{restore:?} {other:?}"
                );
            }
        }
        assert!(!are_apart((R::EtcdMember, master), (R::ControlPlane, master)));
    }

    #[test]
    fn what_brings_a_control_plane_back_goes_before_the_cold_start_that_waits_for_it() {
        use StepState as S;
        for (runbook, has_begun, gate, expected) in [
            (Runbook::EtcdQuorum, false, Some(S::Waiting), true),
            (Runbook::EtcdMember, false, Some(S::Failed), true),
            (Runbook::ControlPlane, false, Some(S::Waiting), true),
            // Its masters are not released yet, or it is up.
            (Runbook::EtcdQuorum, true, Some(S::Pending), false),
            (Runbook::EtcdMember, false, Some(S::Done), false),
            (Runbook::EtcdMember, true, Some(S::Done), true),
            (Runbook::EtcdMember, false, None, false),
            (Runbook::Drain, true, Some(S::Waiting), false),
            (Runbook::NodeDown, false, Some(S::Waiting), false),
        ] {
            let is = is_waited_for(runbook, has_begun, gate);
            assert_eq!(is, expected, "{runbook} {has_begun} {gate:?}");
        }
    }

    #[test]
    fn only_a_declared_power_event_widens_the_lane_and_only_as_far_as_the_budget_of_requests_reaches() {
        let policy = RunbookPolicy {
            power_event_workers: 20,
            ..RunbookPolicy::default()
        };
        let declared = Sky {
            power_event: Some("5 of 9 nodes".to_owned()),
            storm: None,
        };
        for (runbook, sky, requests, expected) in [
            (Runbook::NodeDown, &Sky::default(), 1000, WORKERS),
            (Runbook::NodeDown, &declared, 1000, 20),
            (Runbook::NodeDown, &declared, 75, 15),
            (Runbook::NodeDown, &declared, 5, WORKERS),
            (Runbook::Drain, &declared, 1000, WORKERS),
        ] {
            assert_eq!(
                width(runbook, sky, &policy, requests),
                expected,
                "{runbook} {requests}"
            );
        }
    }
}
