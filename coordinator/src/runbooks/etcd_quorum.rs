//! An etcd that has lost its quorum, the chapter etcd 节点故障, 2: the others in place first, then what is left as a cluster of one. Pure.
//!
//! ```text
//!  bounce each that is down ─ ─ quorum? ─► every step after it finds nothing to do
//!     └ no ─► snapshot of what is left ─► (approval of a second person) fence the others ─► stop all control planes
//!            ─► restore the one that has most ─► it is well ─► its control plane ─► then, by etcd-member, one after the other
//! ```
//! The others are fenced before anything is restored: of the old cluster two that came back would be a quorum beside the new one. Control planes
//! are stopped because what they have read is from a future that is no more.

use std::time::Duration;

use super::etcd_lists;
use super::etcd_snapshot::{NOT_TOLD, steps};
use super::maintenance::{empty, refused, step};
use super::plan::{Action, Replaced, Request, RunbookPlan, Step};
use super::world::World;
use crate::inventory::NodeName;
use crate::quorum::judge::{Seen, View, survivor};
use crate::quorum::sources::{expired, lacks, room};
use crate::quorum::spare::is_spare;
use crate::quorum::told::Manifest;

/// As in [`super::etcd_member`].
const BOUNCE: Duration = Duration::from_mins(10);
/// A pod ends within its grace period, 30 s.
const STOP: Duration = Duration::from_mins(10);
/// The tool has 20 minutes.
pub(super) const RESTORE: Duration = Duration::from_mins(40);
/// A member of its own needs nobody.
const ALONE: Duration = Duration::from_mins(10);

/// `blackstart runbook run etcd-quorum --cluster CLUSTER`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    const WHAT: &str = "restore the quorum of etcd";
    let plan = empty(request, world);
    let Some(glance) = &world.etcd else {
        return refused(plan, WHAT, NOT_TOLD.to_owned());
    };
    let view = &glance.view;
    if view.has_quorum() {
        let missing = format!(
            "a lost quorum: {}; one member that is not well: blackstart runbook plan etcd-member NODE",
            view.words()
        );
        return refused(plan, WHAT, missing);
    }
    // A restored member would show the same ones. Whoever is kept from its peers may not even answer: etcd that finds no leader takes no clients.
    if let Some(missing) = renew(view) {
        return refused(plan, WHAT, missing);
    }
    let Some(left) = survivor(view) else {
        let missing = format!(
            "a member that answers: {}; start etcd on one master at least, or blackstart runbook plan etcd-all --cluster {}",
            view.words(),
            world.cluster
        );
        return refused(plan, WHAT, missing);
    };
    match (
        left.node.as_ref(),
        left.told.as_ref().and_then(|told| told.manifest.as_ref()),
    ) {
        (Some(node), Some(manifest)) => write(plan, world, view, (left, node, manifest)),
        _ => refused(plan, WHAT, format!("the manifest of {}", left.words())),
    }
}

fn write(
    mut plan: RunbookPlan,
    world: &World,
    view: &View,
    (left, node, manifest): (&Seen, &NodeName, &Manifest),
) -> RunbookPlan {
    let status = left.status().cloned().unwrap_or_default();
    let (spoken, silent) = others(view, left);
    if let Some(missing) = unproved(&plan, &silent) {
        return refused(plan, "fence the others", missing);
    }
    let free = left.told.as_ref().map_or(0, |told| told.data_bytes_available);
    if let Some(lacks) = lacks(free, room(status.db_bytes)) {
        let missing = format!(
            "room in {} of {}: {lacks}, since the old data is kept beside a copy and what is restored; its data is whole where it is",
            manifest.data_dir,
            left.words()
        );
        return refused(plan, "restore it", missing);
    }
    if let Some(missing) = no_wal_dir(manifest) {
        return refused(plan, "restore it", missing);
    }
    bounces(&mut plan, &spoken);
    plan.steps.extend(steps(view));
    let first_fence = plan.steps.len();
    take_down(&mut plan, &spoken, node);
    plan.steps.push(on(
        Action::RestoreEtcd,
        node,
        format!(
            "it has seen most: term {}, index {}, revision {}; {}/member is kept, and a tool of etcd {} works on a copy",
            status.term, status.applied_index, status.revision, manifest.data_dir, status.version
        ),
        RESTORE,
    ));
    alone(&mut plan, node);
    spares(&mut plan, world, view, &spoken);
    let named = one_named(&mut plan, world, node, &manifest.peer_urls);
    if let Some(fence) = plan.steps.get_mut(first_fence) {
        fence.approval = Some(format!(
            "if the quorum is not back by now: {} becomes a cluster of one at revision {}; what was written and had not reached it is lost for good, and the others may not come back as they are{named}",
            left.words(),
            status.revision
        ));
    }
    notes(&mut plan, world, left, &spoken, &silent);
    plan.etcd = Some(Replaced {
        cluster_id: view.cluster_id.unwrap_or_default(),
        member_id: left.id,
        peer_urls: manifest.peer_urls.clone(),
        learner: false,
        initial_cluster: String::new(),
        needs_bytes: 0,
        version: status.version,
        out_of: None,
        others: Vec::new(),
        newcomer: None,
    });
    plan
}

/// A log outside the data directory is not restored: it would have to be replaced as well, in the same step.
pub(super) fn no_wal_dir(manifest: &Manifest) -> Option<String> {
    manifest.wal_dir.as_ref().map(|wal| {
        format!(
            "etcd's log in its data directory: {} says --wal-dir={wal}, which a restore would have to replace as well; by hand: move the log to member/wal below {}, and take the flag out, while etcd does not run",
            manifest.path, manifest.data_dir
        )
    })
}

/// The certificates that keep members from each other, and what to do about it.
pub(super) fn renew(view: &View) -> Option<String> {
    let expired = expired(view);
    (!expired.is_empty()).then(|| {
        format!(
            "certificates that are good: {} expired, and nothing says that any data is lost; compare the clocks, renew them (kubeadm certs renew etcd-server etcd-peer etcd-healthcheck-client) and bounce etcd",
            expired.join(", ")
        )
    })
}

/// Those beside one: with an agent that speaks, and without.
pub(super) fn others<'a>(view: &'a View, left: &Seen) -> (Vec<&'a Seen>, Vec<&'a Seen>) {
    view.members
        .iter()
        .filter(|seen| (seen.id, &seen.node) != (left.id, &left.node))
        .partition(|seen| seen.node.is_some() && seen.told.is_some())
}

/// What is missing for a restore beside members whose agents are away.
pub(super) fn unproved(plan: &RunbookPlan, silent: &[&Seen]) -> Option<String> {
    if silent.is_empty() || plan.request.proof.is_some() {
        return None;
    }
    let names: Vec<_> = silent.iter().map(|seen| seen.words()).collect();
    Some(format!(
        "proof that {} cannot come back as a member of the old cluster, since no agent there speaks: --proof 'how you know that it is off'",
        names.join(", ")
    ))
}

pub(super) fn on(action: Action, node: &NodeName, evidence: impl Into<String>, deadline: Duration) -> Step {
    Step {
        on: Some(node.clone()),
        ..step(action, evidence, deadline)
    }
}

/// In place first.
pub(super) fn bounces(plan: &mut RunbookPlan, lost: &[&Seen]) {
    for seen in lost {
        if let (Some(node), Err(why)) = (&seen.node, &seen.health)
            && seen.status().is_none()
            && is_in_place(seen)
        {
            plan.steps.push(on(Action::BounceEtcd, node, why.clone(), BOUNCE));
        }
    }
}

/// The others are fenced, and then every control plane is stopped, that of `node` last.
pub(super) fn take_down(plan: &mut RunbookPlan, others: &[&Seen], node: &NodeName) {
    for seen in others {
        if let Some(node) = &seen.node {
            let evidence = seen
                .health
                .clone()
                .err()
                .unwrap_or_else(|| "it is of the old cluster".to_owned());
            plan.steps.push(on(Action::FenceEtcd, node, evidence, STOP));
        }
    }
    let masters = others.iter().filter_map(|seen| seen.node.as_ref()).chain([node]);
    for master in masters {
        let evidence = "what it has read is of the old cluster";
        plan.steps
            .push(on(Action::StopControlPlane, master, evidence, STOP));
    }
}

/// It is well, and its control plane is back.
pub(super) fn alone(plan: &mut RunbookPlan, node: &NodeName) {
    plan.steps
        .push(step(Action::AwaitEtcdHealthy, "a cluster of one", ALONE));
    plan.steps.push(on(
        Action::StartControlPlane,
        node,
        "its API server asks its own member",
        STOP,
    ));
}

/// Masters that are to have no member are started again as well: no other run would.
pub(super) fn spares(plan: &mut RunbookPlan, world: &World, view: &View, others: &[&Seen]) {
    let spare = others
        .iter()
        .filter(|seen| is_spare(view, seen, world.last.as_ref()));
    for node in spare.filter_map(|seen| seen.node.as_ref()) {
        plan.steps.push(on(
            Action::StartControlPlane,
            node,
            "it has no member, and none is to join there",
            STOP,
        ));
    }
}

/// The API server of the only member that is left asks that one alone, where it names others as well; what is added to the approval.
pub(super) fn one_named(
    plan: &mut RunbookPlan,
    world: &World,
    node: &NodeName,
    peer_urls: &[String],
) -> String {
    let told = world.control_plane.as_ref().map(|glance| &glance.view);
    let Some(change) = told.and_then(|told| etcd_lists::alone(told, node, peer_urls)) else {
        return String::new();
    };
    let words = etcd_lists::words(&change, "etcd-servers");
    plan.flags = vec![change];
    plan.steps.append(&mut etcd_lists::steps(&[], &plan.flags));
    format!(
        "; then its API server asks it alone, until etcd-member has brought three together again: {words}"
    )
}

/// What is left to do by hand, and afterwards.
pub(super) fn notes(plan: &mut RunbookPlan, world: &World, left: &Seen, spoken: &[&Seen], silent: &[&Seen]) {
    let proof = plan
        .request
        .proof
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    for seen in silent {
        plan.notes.push(format!(
            "{} is not fenced, since no agent there speaks ({proof}): before it boots, move its manifest of etcd out",
            seen.words()
        ));
    }
    let view = world.etcd.as_ref().map(|glance| glance.view.as_ref());
    for seen in spoken
        .iter()
        .filter(|seen| !view.is_some_and(|view| is_spare(view, seen, world.last.as_ref())))
    {
        plan.notes.push(format!(
            "afterwards: blackstart runbook run etcd-member {} joins it anew, and starts its control plane",
            seen.words()
        ));
    }
    plan.notes.push(format!(
        "cluster {} serves from {} alone until others are back",
        world.cluster,
        left.words()
    ));
}

fn is_in_place(seen: &Seen) -> bool {
    let manifest = seen.told.as_ref().and_then(|told| told.manifest.as_ref());
    manifest.is_some_and(|manifest| manifest.set_aside_by.is_none())
}
