//! One etcd member that is not well, the chapter etcd 节点故障, 1: in place first, then replaced on its node. Pure.
//!
//! ```text
//!  two snapshots ─► bounce its manifest ─ ─ well? ─► end
//!                     └ no ─► (approval) remove ─► add as learner ─► data aside, manifest anew ─► in sync ─► promote ─► all well
//!                            ─► (approval) what the manifests of the others say of the members, one after the other
//! ```
//! The lost member is taken out before the new one is added: with the old one still counted, another voter that does not run yet would raise
//! the quorum (etcd's FAQ, "Should I add a member before removing an unhealthy member?").

use std::time::Duration;

use super::etcd_lists;
use super::etcd_newcomer;
use super::etcd_quorum::renew;
use super::etcd_snapshot::{NOT_TOLD, steps};
use super::maintenance::{empty, refused, step};
use super::plan::{Action, Refusal, Replaced, Request, RunbookPlan, Step};
use super::world::{Agent, World};
use crate::inventory::NodeName;
use crate::quorum::change::may_remove;
use crate::quorum::judge::{Seen, View};
use crate::quorum::sources::expired_of;
use crate::quorum::told::{Manifest, TroubleKind};

/// A bounce waits for the pod to end, and to be well again: 90 s and 3 min by default.
const BOUNCE: Duration = Duration::from_mins(10);
/// A change of who is in the cluster is written down by a majority, within seconds where there is one.
pub(super) const CHANGE: Duration = Duration::from_mins(5);
/// The kubelet stops one pod and starts another.
const REBUILD: Duration = Duration::from_mins(10);
/// A learner fetches the whole database: 8 GiB over a slow network.
const SYNC: Duration = Duration::from_hours(1);
/// Beside twice the database, of which one copy is on its way, bytes.
const MARGIN: u64 = 256 << 20;

/// `blackstart runbook run etcd-member NODE`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    const WHAT: &str = "mend its etcd member";
    let plan = empty(request, world);
    let Some(glance) = &world.etcd else {
        return refused(plan, WHAT, NOT_TOLD.to_owned());
    };
    let view = &glance.view;
    let on = plan.request.options.on.as_ref();
    if on.is_some_and(|on| *on != world.node) || view.on(&world.node).is_some_and(etcd_newcomer::is_gone) {
        return etcd_newcomer::plan(plan, world, view);
    }
    let Some(lost) = view.on(&world.node) else {
        return refused(
            plan,
            WHAT,
            format!("a member: {} has none of etcd's roles", world.node),
        );
    };
    if lost.health.is_ok() && !lost.is_learner {
        return refused(
            plan,
            WHAT,
            format!("something that is wrong with it: it is well ({})", view.words()),
        );
    }
    if matches!(world.agent, Agent::Silent { .. }) || lost.told.is_none() {
        return refused(
            plan,
            WHAT,
            format!(
                "its agent, which writes its manifest: {}; blackstart runbook plan node-down {}",
                world.agent_words(),
                world.node
            ),
        );
    }
    if let Some(missing) = renew(view).filter(|_| !view.has_quorum()) {
        return refused(plan, WHAT, missing);
    }
    if !view.has_quorum() {
        return refused(
            plan,
            WHAT,
            format!(
                "a quorum ({}): bring the others back in place first (power, network, kubelet, certificates), or blackstart runbook plan etcd-quorum --cluster {}",
                view.words(),
                world.cluster
            ),
        );
    }
    match replaceable(lost) {
        Ok(manifest) => write(plan, world, view, lost, manifest),
        Err(missing) => refused(plan, WHAT, missing),
    }
}

/// What its manifest says, if it can be made to join anew.
fn replaceable(lost: &Seen) -> Result<&Manifest, String> {
    let told = lost.told.as_ref().ok_or("what its agent tells")?;
    if let Some(trouble) = &told.trouble {
        match trouble.kind {
            TroubleKind::Expired | TroubleKind::Certificate => {
                return Err(format!(
                    "certificates that are good: {}; a new member would show the same ones (kubeadm certs renew etcd-server etcd-peer etcd-healthcheck-client)",
                    trouble.detail
                ));
            }
            TroubleKind::Manifest => {
                return Err(format!("a manifest that is understood: {}", trouble.detail));
            }
            TroubleKind::NoManifest | TroubleKind::Refused | TroubleKind::Silent | TroubleKind::Other => {}
        }
    }
    // It answers its own agent, and its peers refuse it.
    let expired = expired_of(lost);
    if !expired.is_empty() {
        return Err(format!(
            "certificates that are good: {} expired; a new member would show the same ones (kubeadm certs renew etcd-server etcd-peer etcd-healthcheck-client, then bounce etcd)",
            expired.join(", ")
        ));
    }
    let manifest = told.manifest.as_ref().ok_or(
        "its manifest, which is gone: put it back (kubeadm init phase etcd local, or from another master with its own name and addresses)",
    )?;
    if manifest.peer_urls.is_empty() {
        return Err(format!("--initial-advertise-peer-urls in {}", manifest.path));
    }
    Ok(manifest)
}

fn write(mut plan: RunbookPlan, world: &World, view: &View, lost: &Seen, manifest: &Manifest) -> RunbookPlan {
    const WHAT: &str = "replace its etcd member";
    let (leader, through) = match leader(view) {
        Ok(leader) => leader,
        Err(missing) => return refused(plan, WHAT, missing),
    };
    let status = leader.status().cloned().unwrap_or_default();
    let needs_bytes = needs_bytes(status.db_bytes);
    let free = lost.told.as_ref().map_or(0, |told| told.data_bytes_available);
    if free < needs_bytes {
        return refused(
            plan,
            WHAT,
            format!(
                "room in {}: {} MiB are free and {} are needed, since the old data is kept beside the new",
                manifest.data_dir,
                free >> 20,
                needs_bytes >> 20
            ),
        );
    }
    let safe = match lost.id {
        Some(id) if !lost.is_learner => may_remove(view, id),
        Some(_) | None => Ok(view.words()),
    };
    let evidence = match safe {
        Ok(evidence) => evidence,
        Err(missing) => return refused(plan, WHAT, missing),
    };
    let initial_cluster = etcd_lists::initial_cluster(view, lost, &manifest.name, &manifest.peer_urls);
    let replaced = Replaced {
        cluster_id: view.cluster_id.unwrap_or_default(),
        member_id: lost.id,
        peer_urls: manifest.peer_urls.clone(),
        learner: has_learners(&status.version),
        others: etcd_lists::members(view, &world.node, &initial_cluster),
        initial_cluster,
        needs_bytes,
        version: status.version.clone(),
        out_of: None,
        newcomer: None,
    };
    plan.steps = steps(view);
    if manifest.set_aside_by.is_none() {
        let why = lost.health.clone().err();
        let why = why.unwrap_or_else(|| "it never became a voter".to_owned());
        plan.steps.push(step(Action::BounceEtcd, why, BOUNCE));
    }
    let mut changes = changes(view, &replaced, evidence);
    for change in &mut changes {
        change.on = Some(through.clone());
    }
    plan.steps.append(&mut changes);
    let free = lost.told.as_ref().map_or(0, |told| told.data_bytes_available) >> 20;
    let place = format!(
        "{}/member is renamed to member.set-aside.RUN, {free} MiB are free",
        manifest.data_dir
    );
    plan.steps
        .append(&mut joins(view, &replaced, place, status.raft_index));
    let stopped = lost.told.as_ref().map(|told| told.stopped.join(", "));
    if let Some(stopped) = stopped.filter(|stopped| !stopped.is_empty()) {
        let evidence = format!("set aside by a run: {stopped}");
        plan.steps.push(step(Action::StartControlPlane, evidence, CHANGE));
    }
    // The leader's agent makes this change as well.
    for promote in &mut plan.steps {
        if promote.action == Action::PromoteEtcdMember {
            promote.on = Some(through.clone());
        }
    }
    plan.notes.push(format!(
        "{}: --initial-cluster={} becomes {}, --initial-cluster-state={} becomes existing; the old one is kept in blackstart-etcd beside the manifests",
        manifest.path, manifest.initial_cluster, replaced.initial_cluster, manifest.initial_cluster_state
    ));
    lists(&mut plan, world, &replaced, None);
    if plan
        .steps
        .iter()
        .filter(|step| step.action == Action::SnapshotEtcd)
        .count()
        < 2
    {
        plan.refusals.push(Refusal {
            what: "keep the snapshot on two masters".to_owned(),
            missing: "a second member that answers".to_owned(),
        });
    }
    plan.etcd = Some(replaced);
    plan
}

/// So many bytes have to be free for a member of a database of this size.
pub(super) fn needs_bytes(db_bytes: u64) -> u64 {
    db_bytes.saturating_mul(2).saturating_add(MARGIN)
}

/// The leader, and the node whose agent makes changes through it.
pub(super) fn leader(view: &View) -> Result<(&Seen, NodeName), String> {
    let leader = view.leader.and_then(|id| view.member(id));
    // The others may not have missed it yet: it is the leader by their word, and cannot be taken out through itself.
    if leader.is_some_and(|leader| leader.status().is_none()) {
        return Err(format!(
            "a leader that answers ({}): if its etcd is down the others choose one within seconds; if it stays the leader, it runs, and its agent has to be back first",
            view.words()
        ));
    }
    leader
        .and_then(|seen| Some((seen, seen.node.clone()?)))
        .ok_or_else(|| "the leader's agent, which makes the change".to_owned())
}

/// Out of the cluster, and in again.
pub(super) fn changes(view: &View, replaced: &Replaced, evidence: String) -> Vec<Step> {
    let remove = Step {
        // One that is out already is not taken out: nobody is asked.
        approval: replaced.member_id.map(|_| {
            format!(
                "if it is not well after the bounce, it is taken out, its data is set aside, and it joins anew; until it has, one more loss may stop all writes ({})",
                view.words()
            )
        }),
        ..step(Action::RemoveEtcdMember, evidence, CHANGE)
    };
    let kind = if replaced.learner { "learner" } else { "voter" };
    let what = format!("as a {kind}, with {}", replaced.peer_urls.join(", "));
    let add = Step {
        approval: (!replaced.learner).then(|| {
            format!(
                "etcd {} has no learners: the new member counts for the quorum before it has the data",
                replaced.version
            )
        }),
        ..step(Action::AddEtcdMember, what, CHANGE)
    };
    vec![remove, add]
}

/// From its empty data directory, at this place, to a vote.
pub(super) fn joins(view: &View, replaced: &Replaced, place: String, entries: u64) -> Vec<Step> {
    let mut steps = vec![
        step(Action::RebuildEtcdMember, place, REBUILD),
        step(
            Action::AwaitEtcdSync,
            format!("the leader has {entries} entries"),
            SYNC,
        ),
    ];
    if replaced.learner {
        let when = "once it has nine tenths of the leader's log";
        steps.push(step(Action::PromoteEtcdMember, when, CHANGE));
    }
    let voters = format!("{} voters", view.voters());
    steps.push(step(Action::AwaitEtcdHealthy, voters, CHANGE));
    steps
}

/// What other manifests say of the members, at the end.
/// `moved`: the host that the member was on, and the one that it is on.
pub(super) fn lists(plan: &mut RunbookPlan, world: &World, replaced: &Replaced, moved: Option<(&str, &str)>) {
    let told = world.control_plane.as_ref().map(|glance| &glance.view);
    let enough = replaced.initial_cluster.split(',').count() > 2;
    plan.flags = told
        .filter(|_| enough)
        .map(|told| etcd_lists::api_servers(told, &replaced.initial_cluster, moved))
        .unwrap_or_default();
    let mut steps = etcd_lists::steps(&replaced.others, &plan.flags);
    if let Some(first) = steps.first_mut() {
        let words = etcd_lists::approval(&replaced.others, &plan.flags);
        // Who approves of a member's removal approves of what follows from it; one that is out already is not removed.
        let removal = plan
            .steps
            .iter_mut()
            .find(|step| step.action == Action::RemoveEtcdMember);
        match removal.and_then(|step| step.approval.as_mut()) {
            Some(approval) => *approval = format!("{approval}; at the end {words}"),
            None => first.approval = Some(words),
        }
        plan.notes.push(
            "the manifests of the others are brought up to date at the end; the old ones are kept in blackstart-edits/RUN beside the directory of \
             manifests that are out, and one that is not well with the new one gets the old one back"
                .to_owned(),
        );
    }
    plan.steps.append(&mut steps);
    if !plan.flags.is_empty() {
        plan.steps
            .push(step(Action::AwaitControlPlane, "after the last of them", CHANGE));
    }
}

/// Learners came with etcd 3.4 (<https://etcd.io/docs/v3.4/learning/design-learner/>).
pub(super) fn has_learners(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= (3, 4)
}
