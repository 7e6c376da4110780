//! Snapshots of a cluster's etcd, kept by the agents of two masters. Pure.

use std::time::Duration;

use super::maintenance::{empty, refused, step};
use super::plan::{Action, Request, RunbookPlan, Step};
use super::world::World;
use crate::inventory::NodeName;
use crate::quorum::judge::{Seen, View};

/// One copy is lost with its disk.
pub const COPIES: usize = 2;
/// At 64 MiB a second, etcd's largest database (8 GiB) takes two minutes; a slow disk many times that.
const TAKING: Duration = Duration::from_mins(30);

/// `blackstart etcd snapshot take`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let Some(glance) = &world.etcd else {
        return refused(plan, "take a snapshot", NOT_TOLD.to_owned());
    };
    let steps = steps(&glance.view);
    if steps.is_empty() {
        let missing = format!("a member that answers: {}", glance.view.words());
        return refused(plan, "take a snapshot", missing);
    }
    if steps.len() < COPIES {
        plan.notes.push(format!(
            "only {} member answers: there will be one copy, on the disk that may be lost with it",
            steps.len()
        ));
    }
    if !glance.view.has_quorum() {
        plan.notes.push(format!(
            "there is no quorum ({}): the snapshot has what that member has",
            glance.view.words()
        ));
    }
    plan.steps = steps;
    plan
}

/// In a plan: nobody was asked.
pub(super) const NOT_TOLD: &str = "what the agents of the masters tell of etcd: they were not asked yet";

/// One for each copy: those who have most first, and not the leader if others can.
pub(super) fn steps(view: &View) -> Vec<Step> {
    let mut able: Vec<_> = view
        .members
        .iter()
        .filter_map(|seen| able(seen, view).map(|node| (seen, node)))
        .collect();
    able.sort_by_key(|(seen, _)| (seen.id == view.leader, seen.revisions_behind));
    able.into_iter()
        .take(COPIES)
        .map(|(seen, node)| {
            let status = seen.status().cloned().unwrap_or_default();
            let evidence = format!(
                "of {}: revision {}, {} MiB, its hash verified as it is written",
                seen.words(),
                status.revision,
                status.db_bytes.div_ceil(1 << 20)
            );
            Step {
                on: Some(node.clone()),
                ..step(Action::SnapshotEtcd, evidence, TAKING)
            }
        })
        .collect()
}

/// Its data is that of the cluster, and its agent can be told.
fn able<'a>(seen: &'a Seen, view: &View) -> Option<&'a NodeName> {
    let status = seen.status()?;
    let ours = Some(status.cluster_id) == view.cluster_id;
    let corrupt = |(member, alarm): &(u64, String)| *member == status.member_id && alarm == "CORRUPT";
    seen.node
        .as_ref()
        .filter(|_| ours && !seen.is_learner && !status.alarms.iter().any(corrupt))
}
