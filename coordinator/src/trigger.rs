//! What the coordinator begins by itself. Pure: (what the clusters tell, nodes, runs, policy, now) → [`Decision`]s.
//!
//! ```text
//!  node held or not ready after an unclean boot, in nobody's charge        ("fresh")
//!     │
//!     ├─ its cluster is in a power event that no run has dealt with, or so many are fresh that it is another one
//!     │      trigger: auto ► Start (with the clusters that were lost with it)
//!     │               propose ► Propose
//!     └─ else, once it was held for SETTLE: it fell alone, or came late ► Rejoin
//!
//!  nothing:  trigger off; a run has the node in charge; a run had it in charge in this very boot ("attended": it was given
//!            up, or an operator aborted the run); the cluster's last run was aborted just now
//! ```
//!
//! *Attended* is what makes this safe to ask again and again: whatever was begun for a boot is never begun by itself for the
//! same boot once more. A node whose power fails anew comes back in another boot, and is fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::execute::status::{RunState, RunStatus, StepState};
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::outage::{ClusterOutage, Verdict};
use crate::plan::rejoin;
use crate::policy::{ColdStartPolicy, OutagePolicy, Trigger};

/// A node that is held alone is let go after this: long enough for its neighbours to show that it is not alone.
pub const SETTLE: Duration = Duration::from_secs(30);

/// What is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The declared fleet.
    pub inventory: &'a Inventory,
    /// The live picture; its `at` is now.
    pub view: &'a FleetView,
    /// What each cluster tells.
    pub outages: &'a [ClusterOutage],
    /// Every run, oldest first.
    pub runs: &'a [Arc<RunStatus>],
    /// Nodes that a run has had in charge in their present boot.
    pub attended: &'a BTreeSet<NodeName>,
    /// What begins a cold start, and how many nodes at once.
    pub policy: &'a ColdStartPolicy,
    /// What makes an outage.
    pub outage: &'a OutagePolicy,
    /// Wall clock, milliseconds since the Unix epoch: tells how long ago a run ended, also one of an earlier process. A
    /// wall clock that lies makes that long ago.
    pub now_unix_ms: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Begin a cold start.
    Start {
        /// Of these clusters.
        clusters: Vec<ClusterName>,
        /// Why.
        evidence: String,
    },
    /// Say that an operator should begin one.
    Propose {
        /// Of these clusters.
        clusters: Vec<ClusterName>,
        /// Why.
        evidence: String,
    },
    /// Bring back one node.
    Rejoin {
        /// Which.
        node: NodeName,
        /// Why.
        evidence: String,
    },
}

/// The nodes whose release is ahead in an active run: once begun for their present boot, it is not begun again.
pub fn ahead(runs: &[Arc<RunStatus>]) -> impl Iterator<Item = &NodeName> {
    runs.iter().filter(|run| run.state.is_active()).flat_map(|run| {
        run.plan
            .steps
            .iter()
            .zip(&run.steps)
            .filter(|(_, status)| match status.state {
                StepState::Pending | StepState::Waiting | StepState::Started | StepState::Failed => true,
                StepState::Done | StepState::Residue | StepState::Cancelled => false,
            })
            .filter_map(|(step, _)| step.kind.releases())
    })
}

/// What the coordinator begins now: at most one cold start or proposal, and the nodes to rejoin, masters first.
pub fn decide(input: &Input<'_>) -> Vec<Decision> {
    match input.policy.trigger {
        Trigger::Auto | Trigger::Propose => {}
        Trigger::Off => return Vec::new(),
    }
    let active = input.runs.iter().filter(|run| run.state.is_active());
    // Also those that it is done with: it takes up again whoever falls while it is at work.
    let charge: BTreeSet<_> = active.flat_map(|run| run.plan.releases()).collect();
    let covered = covered(input);
    let mut cold = BTreeSet::new();
    let mut alone = Vec::new();
    for outage in input.outages {
        let fresh = fresh(input, outage, &charge);
        let last = covered.get(&outage.cluster).copied();
        if fresh.is_empty() || last.is_some_and(|run| just_aborted(run, input)) {
            continue;
        }
        if is_power_event(input, outage, &fresh, last) {
            cold.insert(&outage.cluster);
        } else {
            alone.extend(fresh.into_iter().filter_map(|node| rejoin(input, node)));
        }
    }
    let mut decisions = Vec::new();
    if !cold.is_empty() {
        decisions.push(begin(input, cold, &charge));
    }
    decisions.extend(alone.into_iter().take(rejoins_left(input)));
    decisions
}

/// The last run of each cluster, other than a rejoin.
fn covered<'a>(input: &Input<'a>) -> BTreeMap<&'a ClusterName, &'a RunStatus> {
    let mut covered = BTreeMap::new();
    for run in input
        .runs
        .iter()
        .filter(|run| run.plan.runbook != rejoin::RUNBOOK)
    {
        for spec in run.plan.releases().filter_map(|node| input.inventory.node(node)) {
            covered.insert(&spec.cluster, run.as_ref());
        }
    }
    covered
}

/// The nodes of a cluster that are back from an unclean end and that nobody has or had in charge, masters first.
fn fresh<'a>(input: &Input<'a>, outage: &ClusterOutage, charge: &BTreeSet<&NodeName>) -> Vec<&'a NodeName> {
    let unclean: &[NodeName] = match &outage.verdict {
        Verdict::PowerEvent { unclean, .. } => unclean,
        Verdict::Suspicion { .. } | Verdict::Normal => &[],
    };
    let waits = |node: &NodeName| match input.view.nodes.get(node).map(|node| node.phase) {
        Some(Phase::Held) => true,
        Some(Phase::NotReady) => unclean.contains(node),
        Some(Phase::Unknown | Phase::Ready | Phase::Silent | Phase::Stopped) | None => false,
    };
    let members = input.inventory.cluster(&outage.cluster);
    members
        .iter()
        .flat_map(|cluster| &cluster.nodes)
        .filter(|node| waits(node) && !charge.contains(node) && !input.attended.contains(*node))
        .collect()
}

/// A power event that no run has dealt with.
fn is_power_event(
    input: &Input<'_>,
    outage: &ClusterOutage,
    fresh: &[&NodeName],
    last: Option<&RunStatus>,
) -> bool {
    let Verdict::PowerEvent { unclean, .. } = &outage.verdict else {
        return false;
    };
    let members = input.inventory.members(&outage.cluster).count();
    let many = fresh.len() * 100 >= members * input.outage.share_percent as usize;
    match last {
        None => true,
        Some(run) if run.state.is_active() => false,
        Some(_) => many || !unclean.iter().any(|node| input.attended.contains(node)),
    }
}

/// A node that was held alone for long enough.
fn rejoin(input: &Input<'_>, node: &NodeName) -> Option<Decision> {
    let view = input.view.nodes.get(node)?;
    let held = input.view.at.saturating_duration_since(view.phase_since);
    (view.phase == Phase::Held && held >= SETTLE).then(|| Decision::Rejoin {
        node: node.clone(),
        evidence: format!(
            "{node} is back from an unclean end, has been held for {} s, and no run has it in charge",
            held.as_secs()
        ),
    })
}

/// Rejoins have no lane in common, so their number is bounded here.
fn rejoins_left(input: &Input<'_>) -> usize {
    let active = input
        .runs
        .iter()
        .filter(|run| run.state.is_active() && run.plan.runbook == rejoin::RUNBOOK);
    input.policy.wave.max.saturating_sub(active.count())
}

/// An operator ended it, and that was within the window of one event.
fn just_aborted(run: &RunStatus, input: &Input<'_>) -> bool {
    let ended = run.started_unix_ms.saturating_add(run.elapsed_ms);
    run.state == RunState::Aborted
        && input
            .now_unix_ms
            .checked_sub(ended)
            .is_some_and(|ago| u128::from(ago) <= input.outage.window.as_millis())
}

/// The cold start of these clusters, and of those that were lost with them.
fn begin<'a>(
    input: &Input<'a>,
    mut cold: BTreeSet<&'a ClusterName>,
    charge: &BTreeSet<&NodeName>,
) -> Decision {
    for outage in input.outages {
        // Nobody of it is back yet: its steps wait for whoever comes.
        if let Verdict::Suspicion { lost, .. } = &outage.verdict
            && !lost.iter().any(|node| charge.contains(node))
        {
            cold.insert(&outage.cluster);
        }
        // A coordinator that lost its own power saw no session end. Who was known and is not heard of was lost with it, and one
        // event is to be one run.
        if input.view.own_unclean_boot && is_dark(input, &outage.cluster, charge) {
            cold.insert(&outage.cluster);
        }
    }
    let evidence: Vec<_> = input
        .outages
        .iter()
        .filter(|outage| cold.contains(&outage.cluster))
        .map(|outage| match &outage.verdict {
            Verdict::PowerEvent { evidence, .. } | Verdict::Suspicion { evidence, .. } => {
                format!("{}: {evidence}", outage.cluster)
            }
            Verdict::Normal => format!(
                "{}: not heard of since the coordinator's own unclean boot",
                outage.cluster
            ),
        })
        .collect();
    let evidence = evidence.join(" | ");
    let clusters = cold.into_iter().cloned().collect();
    match input.policy.trigger {
        Trigger::Auto => Decision::Start { clusters, evidence },
        Trigger::Propose | Trigger::Off => Decision::Propose { clusters, evidence },
    }
}

/// Its nodes were known before, none is in session, and no run has one in charge.
fn is_dark(input: &Input<'_>, cluster: &ClusterName, charge: &BTreeSet<&NodeName>) -> bool {
    let mut known = false;
    for node in input.inventory.members(cluster) {
        let Some(view) = input.view.nodes.get(&node.name) else {
            continue;
        };
        if view.in_session || charge.contains(&node.name) {
            return false;
        }
        known |= view.boot.is_some();
    }
    known
}

#[cfg(test)]
mod tests;
