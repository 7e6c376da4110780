//! An etcd member that is replaced on another node, or on its own whose manifest is gone: a machine that was set up anew. Pure.
//!
//! ```text
//!  two snapshots ─► (approval) remove ─► add as learner
//!                ─► the manifest of a member that is well, with another name and address, on the new node ─► in sync ─► promote ─► all well
//!                ─► what the manifests of the others say of the members, one after the other ─► the old manifest out, where its agent speaks
//! ```
//! Certificates are not made here: whoever sets a master up makes them (`kubeadm init phase certs etcd-server`, and its peers). What the new node
//! lacks is told before anything is changed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::etcd_lists;
use super::etcd_member::{CHANGE, changes, has_learners, joins, leader, lists, needs_bytes};
use super::etcd_snapshot::steps;
use super::maintenance::{refused, step};
use super::plan::{Action, Refusal, Replaced, RunbookPlan, Step};
use super::world::{Agent, World};
use crate::inventory::NodeName;
use crate::quorum::change::may_remove;
use crate::quorum::judge::{Seen, View, majority};
use crate::quorum::newcomer::{NewManifest, Newcomer, Wanted, host, in_url, is_at, lost};
use crate::quorum::told::TroubleKind;

const WHAT: &str = "replace its etcd member";

/// What the agent of the new node is to be asked for the plan; `None`: nothing, since the member stays where it is, or there is nobody to ask.
pub(super) fn wanted(
    view: &View,
    node: &NodeName,
    on: Option<&NodeName>,
    addresses: &BTreeMap<NodeName, IpAddr>,
) -> Option<Wanted> {
    let on = on.unwrap_or(node);
    let is_free = if on == node {
        is_gone(view.on(node)?)
    } else {
        takes(view, view.on(on)?, addresses.get(on).copied()).is_ok()
    };
    let address = in_url(*addresses.get(on)?);
    let lost = lost(view, node, addresses.get(node).copied())?;
    let like = view.members.iter().find(|seen| {
        seen.health.is_ok() && seen.votes() && seen.id != lost.id && seen.node.as_ref() != Some(on)
    })?;
    let manifest = like.told.as_ref()?.manifest.as_ref()?;
    let peer_urls: Vec<_> = manifest
        .peer_urls
        .iter()
        .map(|url| url.replacen(host(url), &address, 1))
        .collect();
    (is_free && view.has_quorum() && !peer_urls.is_empty()).then(|| Wanted {
        lost: node.clone(),
        on: on.clone(),
        like: like.node.clone().unwrap_or_else(|| NodeName(like.name.clone())),
        initial_cluster: etcd_lists::initial_cluster(view, lost, &on.0, &peer_urls),
        needs_bytes: needs_bytes(db_bytes(view)),
        peer_urls,
        address,
    })
}

/// Its agent speaks, and its node has no manifest of etcd any more.
pub(super) fn is_gone(seen: &Seen) -> bool {
    seen.told.as_ref().is_some_and(|told| {
        let trouble = told.trouble.as_ref().map(|trouble| trouble.kind);
        told.manifest.is_none() && trouble == Some(TroubleKind::NoManifest)
    })
}

/// Whether a member may be put on a node.
pub(super) fn takes(view: &View, seen: &Seen, address: Option<IpAddr>) -> Result<(), String> {
    let node = seen.words();
    // One whose manifest is gone is a member still, and votes with the data that it had.
    let there = view.members.iter().find(|other| {
        other.id.is_some()
            && (other.id == seen.id
                || Some(&other.name) == seen.node.as_ref().map(|node| &node.0)
                || address.is_some_and(|address| is_at(other, address)))
    });
    if let Some(member) = there {
        let state = if member.is_learner {
            "a learner"
        } else {
            "a member"
        };
        return Err(format!(
            "a node without a member: {node} has {state} of this cluster already (blackstart runbook run etcd-member {node} goes on with it)"
        ));
    }
    let Some(told) = &seen.told else {
        let why = seen.health.clone().err().unwrap_or_default();
        return Err(format!(
            "the agent of {node}, which is to write its manifest: {why}"
        ));
    };
    match &told.manifest {
        Some(manifest) if manifest.set_aside_by.is_none() => Err(format!(
            "a node without a member: {} is there on {node}",
            manifest.path
        )),
        None if !is_gone(seen) => Err(format!(
            "a node without a manifest of etcd: that of {node} is not understood: {}",
            seen.health.clone().err().unwrap_or_default()
        )),
        Some(_) | None => Ok(()),
    }
}

/// The size of the database, bytes.
fn db_bytes(view: &View) -> u64 {
    let bytes = |seen: &Seen| seen.status().map(|status| status.db_bytes);
    view.members.iter().filter_map(bytes).max().unwrap_or_default()
}

/// `blackstart runbook run etcd-member NODE --on OTHER`, and the same without `--on` where NODE has no manifest of etcd.
pub(super) fn plan(mut plan: RunbookPlan, world: &World, view: &View) -> RunbookPlan {
    let on = plan
        .request
        .options
        .on
        .clone()
        .unwrap_or_else(|| world.node.clone());
    let seen = match may(world, view, &on) {
        Ok(seen) => seen,
        Err(missing) => return refused(plan, WHAT, missing),
    };
    let newcomer = match prepared(world, &on) {
        Ok(newcomer) => newcomer,
        Err(all) => {
            for missing in all {
                plan = refused(plan, WHAT, missing);
            }
            return plan;
        }
    };
    let (status, through) = match leader(view) {
        Ok((seen, through)) => (seen.status().cloned().unwrap_or_default(), through),
        Err(missing) => return refused(plan, WHAT, missing),
    };
    let safe = match seen.id {
        Some(id) if !seen.is_learner => may_remove(view, id),
        Some(_) | None => Ok(view.words()),
    };
    let evidence = match safe {
        Ok(evidence) => evidence,
        Err(missing) => return refused(plan, WHAT, missing),
    };
    let Newcomer { wanted, told } = newcomer;
    let (file, prepared) = told.clone().unwrap_or_default();
    let replaced = Replaced {
        cluster_id: view.cluster_id.unwrap_or_default(),
        member_id: seen.id,
        peer_urls: wanted.peer_urls.clone(),
        learner: has_learners(&status.version),
        others: etcd_lists::members(view, &world.node, &wanted.initial_cluster),
        initial_cluster: wanted.initial_cluster.clone(),
        needs_bytes: wanted.needs_bytes,
        version: status.version.clone(),
        out_of: None,
        newcomer: Some(NewManifest {
            file: file.clone(),
            text: prepared.text.clone(),
        }),
    };
    plan.steps = steps(view);
    let mut changes = changes(view, &replaced, evidence);
    for change in &mut changes {
        change.on = Some(through.clone());
    }
    let why = why(view, &replaced, seen, wanted);
    let first = usize::from(replaced.member_id.is_none());
    changes[first].approval = Some(match changes[first].approval.take().filter(|_| first > 0) {
        Some(more) => format!("{why}; {more}"),
        None => why,
    });
    plan.steps.append(&mut changes);
    let place = format!(
        "{file} is that of {} with {}",
        wanted.like,
        prepared.changed.len()
    );
    let mut joins = joins(
        view,
        &replaced,
        format!("{place} lines changed, written where there is none"),
        status.raft_index,
    );
    for step in &mut joins {
        if step.action == Action::PromoteEtcdMember {
            step.on = Some(through.clone());
        } else if step.action == Action::RebuildEtcdMember && on != world.node {
            step.on = Some(on.clone());
        }
    }
    plan.steps.append(&mut joins);
    plan.steps.extend(starts(view, &on));
    plan.notes.push(format!(
        "{file} on {on} is going to be that of {} with other lines: {}",
        wanted.like,
        prepared.changed.join("; ")
    ));
    plan.notes
        .extend(prepared.notes.iter().map(|note| format!("{on}: {note}")));
    afterwards(&mut plan, world, seen, &on);
    let own = world.addresses.get(&world.node).copied().map(in_url);
    let from = seen.peer_urls.first().map(|url| host(url).to_owned()).or(own);
    let moved = from.as_deref().map(|from| (from, wanted.address.as_str()));
    lists(&mut plan, world, &replaced, moved);
    plan.steps.extend(fence(world, seen, &on));
    plan.etcd = Some(replaced);
    plan
}

/// The member that is to be replaced, if it may be.
fn may<'a>(world: &World, view: &'a View, on: &NodeName) -> Result<&'a Seen, String> {
    let address = world.addresses.get(&world.node).copied();
    let Some(seen) = lost(view, &world.node, address) else {
        return Err(format!("a member: {} has none of etcd's roles", world.node));
    };
    if seen.health.is_ok() && seen.is_learner {
        return Err(format!(
            "a member that is lost: {} is a learner that is well (blackstart runbook run etcd-member {} goes on with it)",
            seen.words(),
            world.node
        ));
    }
    if seen.health.is_ok() {
        return Err(format!(
            "something that is wrong with it: it is well ({})",
            view.words()
        ));
    }
    if !view.has_quorum() {
        return Err(format!(
            "a quorum ({}): bring the others back in place first, or blackstart runbook plan etcd-quorum --cluster {}",
            view.words(),
            world.cluster
        ));
    }
    if on != &world.node {
        let Some(to) = view.on(on) else {
            return Err(format!(
                "a node that may have a member: {on} is none of cluster {} with a role of etcd in the inventory (control-plane, or etcd where there are such)",
                world.cluster
            ));
        };
        takes(view, to, world.addresses.get(on).copied())?;
    }
    match world.masters.get(on) {
        Some(Agent::Speaks {
            kubelet_healthy: false,
            ..
        }) => Err(format!(
            "a kubelet on {on} that is healthy (blackstart runbook run node-component {on})"
        )),
        Some(_) | None => Ok(seen),
    }
}

/// What the new node's agent told, if nothing is missing there.
fn prepared<'a>(world: &'a World, on: &NodeName) -> Result<&'a Newcomer, Vec<String>> {
    let newcomer = world.newcomer.as_ref();
    let glance = world.etcd.as_ref();
    let wanted = glance.and_then(|glance| wanted(&glance.view, &world.node, Some(on), &world.addresses));
    let same = |then: &Wanted, now: &Wanted| {
        (&then.lost, &then.on, &then.address, &then.initial_cluster)
            == (&now.lost, &now.on, &now.address, &now.initial_cluster)
    };
    let newcomer = newcomer.filter(|newcomer| wanted.is_some_and(|wanted| same(&newcomer.wanted, &wanted)));
    let Some(newcomer) = newcomer else {
        return Err(vec![format!(
            "a member that is well and whose agent tells its manifest, to make that of {on} of"
        )]);
    };
    match &newcomer.told {
        Err(why) => Err(vec![why.clone()]),
        Ok((_, prepared)) if !prepared.missing.is_empty() => Err(prepared
            .missing
            .iter()
            .map(|missing| format!("on {on}: {missing}"))
            .collect()),
        Ok((_, prepared)) if prepared.text.is_empty() => {
            Err(vec![format!("a manifest for {on}: its agent made none")])
        }
        Ok(_) => Ok(newcomer),
    }
}

/// What is asked of whoever approves.
fn why(view: &View, replaced: &Replaced, seen: &Seen, wanted: &Wanted) -> String {
    let (on, like) = (&wanted.on, &wanted.like);
    let manifest = format!("with the manifest of {like} under another name and address");
    if replaced.member_id.is_none() {
        let voters = view.voters() + 1;
        return format!(
            "a member on {on} is added, {manifest}: one more, since {} is in the list of members no more; there are {voters} voters then, of which {} make a quorum",
            wanted.lost,
            majority(voters)
        );
    }
    let silent = if seen.told.is_none() {
        format!(
            "; the agent of {} is silent: its etcd may be well, and serve its API server",
            wanted.lost
        )
    } else {
        String::new()
    };
    format!(
        "a member on {on} takes its place, {manifest}; until it has, one more loss may stop all writes ({}{silent})",
        view.words()
    )
}

/// Parts of its control plane that a restore has stopped.
fn starts(view: &View, on: &NodeName) -> Option<Step> {
    let stopped = view.on(on)?.told.as_ref()?.stopped.join(", ");
    (!stopped.is_empty()).then(|| Step {
        on: Some(on.clone()),
        ..step(
            Action::StartControlPlane,
            format!("set aside by a run: {stopped}"),
            CHANGE,
        )
    })
}

/// One that was removed ends by itself, again and again while its manifest is there.
fn fence(world: &World, seen: &Seen, on: &NodeName) -> Option<Step> {
    let manifest = seen.told.as_ref()?.manifest.as_ref()?;
    let is_elsewhere = *on != world.node && manifest.set_aside_by.is_none();
    is_elsewhere.then(|| {
        let evidence = format!(
            "{} would start it again and again, once it is removed",
            manifest.path
        );
        step(Action::FenceEtcd, evidence, CHANGE)
    })
}

/// What is left for people.
fn afterwards(plan: &mut RunbookPlan, world: &World, seen: &Seen, on: &NodeName) {
    let node = &world.node;
    if *on != *node {
        if seen.told.is_none() {
            plan.notes.push(format!(
                "{node}: if it comes back, its etcd finds itself removed, and ends: take its manifest of etcd away then"
            ));
        }
        plan.notes.push(format!(
            "{node} stays a master of the inventory: take it out there, or give it another role, if it is to stay away (masters that are waited for, and permits, are counted by it)"
        ));
        plan.notes.push(format!(
            "the API server of {node}, if it asks the etcd of its own node alone, has none any more"
        ));
    }
    let snapshots = plan
        .steps
        .iter()
        .filter(|step| step.action == Action::SnapshotEtcd);
    if snapshots.count() < 2 {
        plan.refusals.push(Refusal {
            what: "keep the snapshot on two masters".to_owned(),
            missing: "a second member that answers".to_owned(),
        });
    }
}
