//! An etcd of which no member answers, the chapter etcd 节点故障, 3: in place first, then from what loses least. Pure.
//!
//! ```text
//!  bounce each ─ ─ one answers? ─► every step after it finds nothing to do, and etcd-quorum goes on from that one
//!     └ no ─► (approval of a second person, who is told what is lost) fence the others ─► stop all control planes
//!            ─► restore, on the node where it is: the data of any master that opens and has most, or else the newest snapshot that is whole
//!            ─► it is well ─► its control plane ─► then, by etcd-member, one after the other
//! ```
//! A master's data that opens comes before a snapshot unless that has more. What is of another cluster than the one that was lost is never taken.

use super::etcd_quorum::{
    RESTORE, alone, bounces, no_wal_dir, notes, on, one_named, others, renew, spares, take_down, unproved,
};
use super::etcd_snapshot::NOT_TOLD;
use super::maintenance::{empty, refused};
use super::plan::{Action, Replaced, Request, RunbookPlan};
use super::world::World;
use crate::quorum::judge::{Seen, View};
use crate::quorum::sources::{Choice, Source, choose};
use crate::quorum::told::TroubleKind;

const WHAT: &str = "restore etcd";

/// `blackstart runbook run etcd-all --cluster CLUSTER`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let plan = empty(request, world);
    let Some(glance) = &world.etcd else {
        return refused(plan, WHAT, NOT_TOLD.to_owned());
    };
    let view = &glance.view;
    if view.cluster_id.is_some() {
        let missing = format!(
            "a cluster of which no member answers: {}; a lost quorum: blackstart runbook plan etcd-quorum --cluster {}; one member that is not well: blackstart runbook plan etcd-member NODE",
            view.words(),
            world.cluster
        );
        return refused(plan, WHAT, missing);
    }
    if let Some(missing) = unreadable(view).or_else(|| renew(view)) {
        return refused(plan, WHAT, missing);
    }
    let Some(found) = &world.found else {
        let missing = "what agents find on the disks of the masters: they were not asked yet".to_owned();
        return refused(plan, WHAT, missing);
    };
    match choose(&found.sources, view, world.last.as_ref()) {
        Ok(choice) => write(plan, world, view, &choice),
        Err(all) => {
            let missing = format!(
                "a member's data that opens, or a snapshot that is whole, on any master{}",
                if all.is_empty() {
                    ": there is none".to_owned()
                } else {
                    format!(": {}", all.join("; "))
                }
            );
            refused(plan, WHAT, missing)
        }
    }
}

/// Members that may be well, and that nobody can ask.
fn unreadable(view: &View) -> Option<String> {
    view.members.iter().find_map(|seen| {
        let trouble = seen.told.as_ref()?.trouble.as_ref()?;
        match trouble.kind {
            TroubleKind::Expired | TroubleKind::Certificate => Some(format!(
                "certificates that are good: {}, on {}; the member may be well, and cannot be asked (kubeadm certs renew etcd-server etcd-peer etcd-healthcheck-client, then bounce etcd)",
                trouble.detail,
                seen.words()
            )),
            TroubleKind::NoManifest
            | TroubleKind::Manifest
            | TroubleKind::Refused
            | TroubleKind::Silent
            | TroubleKind::Other => None,
        }
    })
}

fn write(mut plan: RunbookPlan, world: &World, view: &View, choice: &Choice) -> RunbookPlan {
    let Choice {
        node,
        source,
        cluster_id,
        version,
        others: rest,
    } = choice;
    let Some(left) = view.on(node) else {
        return refused(plan, WHAT, format!("the agent of {node}"));
    };
    let (spoken, silent) = others(view, left);
    if let Some(missing) = unproved(&plan, &silent) {
        return refused(plan, "fence the others", missing);
    }
    let manifest = left.told.as_ref().and_then(|told| told.manifest.as_ref());
    if let Some(missing) = manifest.and_then(no_wal_dir) {
        return refused(plan, WHAT, missing);
    }
    let all: Vec<&Seen> = spoken.iter().copied().chain([left]).collect();
    bounces(&mut plan, &all);
    let first_fence = plan.steps.len();
    take_down(&mut plan, &spoken, node);
    plan.steps.push(on(
        Action::RestoreEtcd,
        node,
        format!(
            "{}, of cluster {cluster_id:x}, loses least; it is kept, and a tool of etcd {version} works on a copy",
            source.words(node)
        ),
        RESTORE,
    ));
    alone(&mut plan, node);
    spares(&mut plan, world, view, &spoken);
    let named = manifest.map(|manifest| one_named(&mut plan, world, node, &manifest.peer_urls));
    let named = named.unwrap_or_default();
    let loss = choice.loss(world.last.as_ref(), world.unix_ms);
    if let Some(fence) = plan.steps.get_mut(first_fence) {
        fence.approval = Some(format!(
            "if no member answers by now: {node} becomes a cluster of one, from {}; {loss}; the others may not come back as they are{named}",
            source.words(node)
        ));
    }
    plan.notes.push(format!("from {}: {loss}", source.words(node)));
    plan.notes
        .extend(rest.iter().map(|other| format!("not from {other}")));
    notes(&mut plan, world, left, &spoken, &silent);
    plan.etcd = Some(replaced(source, *cluster_id, version));
    plan
}

fn replaced(source: &Source, cluster_id: u64, version: &str) -> Replaced {
    Replaced {
        cluster_id,
        member_id: None,
        peer_urls: Vec::new(),
        learner: false,
        initial_cluster: String::new(),
        needs_bytes: 0,
        version: version.to_owned(),
        out_of: Some(source.out_of.clone()),
        others: Vec::new(),
        newcomer: None,
    }
}
