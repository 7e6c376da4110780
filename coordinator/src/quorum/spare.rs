//! A node that may have a member of etcd, and that nobody counts on: a master that never had one, or whose member was replaced on another node. Pure.
//!
//! | there is | it is told by |
//! |---|---|
//! | a quorum | its list of members |
//! | none, and one was seen before | the list as it was then |
//! | neither | what the manifests of the others say, where they all say the same |
//!
//! kubeadm's own lists differ, since each master's has those that were there when it joined; where nothing else is known, it counts as one that is lost.

use std::collections::BTreeSet;

use super::judge::{Seen, View};
use super::sources::Last;
use super::told::{Manifest, TroubleKind};

/// The runs that replace a member.
const REPLACES: &str = "etcd-member-";

/// Nobody counts on a member there. `last`: what was seen of the cluster while it was well.
pub fn is_spare(view: &View, seen: &Seen, last: Option<&Last>) -> bool {
    let (Some(node), Some(told)) = (&seen.node, &seen.told) else {
        return false;
    };
    let trouble = told.trouble.as_ref().map(|trouble| trouble.kind);
    let is_out = match &told.manifest {
        None => trouble == Some(TroubleKind::NoManifest),
        // One that was fenced for a restore joins again.
        Some(manifest) => manifest
            .set_aside_by
            .as_ref()
            .is_some_and(|run| run.starts_with(REPLACES)),
    };
    let own = told.manifest.as_ref();
    let is_named = |name: &str| name == node.0 || own.is_some_and(|own| own.name == name);
    let in_list = |other: &Seen| other.id.is_some() && is_named(&other.name);
    if !is_out || seen.id.is_some() || view.members.iter().any(in_list) {
        return false;
    }
    let is_at = |urls: &[String]| own.is_some_and(|own| own.peer_urls.iter().any(|url| urls.contains(url)));
    if view.has_quorum() {
        return true;
    }
    if let Some(last) = last.filter(|last| !last.members.is_empty()) {
        let mut members = last.members.iter();
        return !members.any(|(name, urls)| is_named(name) || is_at(urls));
    }
    let others = view.members.iter().filter(|other| other.node != seen.node);
    let lists: Vec<BTreeSet<_>> = others
        .filter_map(|other| other.told.as_ref()?.manifest.as_ref())
        .filter(|manifest| manifest.set_aside_by.is_none())
        .map(list)
        .collect();
    lists.len() > 1
        && !lists[0].is_empty()
        && lists.iter().all(|list| *list == lists[0])
        && lists[0]
            .iter()
            .all(|(name, url)| !is_named(name) && !is_at(&[(*url).to_owned()]))
}

fn list(manifest: &Manifest) -> BTreeSet<(&str, &str)> {
    let members = manifest.initial_cluster.split(',');
    members.filter_map(|one| one.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::super::judge::{Answers, judge};
    use super::super::told::{Told, Trouble};
    use super::*;
    use crate::inventory::NodeName;
    use crate::runbooks::plan::Runbook;

    fn told(number: u64, initial_cluster: &str, set_aside_by: Option<&str>) -> Told {
        Told {
            manifest: Some(Manifest {
                name: format!("m{number}"),
                peer_urls: vec![format!("https://10.0.0.{number}:2380")],
                initial_cluster: initial_cluster.to_owned(),
                set_aside_by: set_aside_by.map(str::to_owned),
                ..Manifest::default()
            }),
            trouble: Some(Trouble {
                kind: TroubleKind::Refused,
                detail: "nobody listens".to_owned(),
            }),
            ..Told::default()
        }
    }

    fn none() -> Told {
        Told {
            trouble: Some(Trouble {
                kind: TroubleKind::NoManifest,
                detail: "no manifest".to_owned(),
            }),
            ..Told::default()
        }
    }

    const THREE: &str = "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380";

    #[test]
    fn the_runs_that_replace_a_member_are_known_by_the_runbooks_own_name() {
        assert_eq!(
            Runbook::of_run(&format!("{REPLACES}1")),
            Some(Runbook::EtcdMember)
        );
    }

    #[test]
    fn who_is_in_nobodys_list_is_spare_and_who_was_fenced_or_may_have_lost_its_manifest_is_not() {
        let four = format!("{THREE},m4=https://10.0.0.4:2380");
        let as_kubeadm = ["m1=https://10.0.0.1:2380", THREE, THREE];
        let same = [THREE; 3];
        for (lists, fourth, expected) in [
            (same, none(), true),
            (same, told(4, THREE, Some("etcd-member-2")), true),
            (same, told(4, THREE, Some("etcd-quorum-1")), false),
            (same, told(4, THREE, None), false),
            ([four.as_str(); 3], none(), false),
            (as_kubeadm, none(), false),
            ([""; 3], none(), false),
        ] {
            let mut answers: Answers = (1..)
                .zip(lists)
                .map(|(number, list)| (NodeName(format!("m{number}")), Ok(told(number, list, None))))
                .collect();
            answers.insert(NodeName("m4".to_owned()), Ok(fourth.clone()));
            let view = judge(&answers, 0);
            let seen = view.on(&NodeName("m4".to_owned())).unwrap();
            assert_eq!(is_spare(&view, seen, None), expected, "{lists:?} {fourth:?}");
            let first = view.on(&NodeName("m1".to_owned())).unwrap();
            assert!(!is_spare(&view, first, None));
            // Whoever was in the list while there was a quorum counts, whatever manifests say.
            let last = |members: &[&str]| Last {
                cluster_id: 0xc,
                revision: 1,
                version: String::new(),
                at_unix_ms: 0,
                members: members
                    .iter()
                    .map(|name| ((*name).to_owned(), Vec::new()))
                    .collect(),
            };
            assert!(!is_spare(&view, seen, Some(&last(&["m1", "m2", "m4"]))));
            let is_out = fourth.manifest.as_ref().is_none_or(|own| {
                own.set_aside_by
                    .as_deref()
                    .is_some_and(|run| run.starts_with(REPLACES))
            });
            assert_eq!(is_spare(&view, seen, Some(&last(&["m1", "m2", "m3"]))), is_out);
        }
    }
}
