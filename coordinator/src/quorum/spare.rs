//! A node that may have a member of etcd, and that nobody counts on: a master that never had one, or whose member was replaced on another node. Pure.
//!
//! Nobody tells it from one that has lost its manifest but the lists of the others: where all of them say the same, and leave it out, it is none.
//! kubeadm's own lists differ, since each master's has those that were there when it joined; then it counts, as one that is lost.

use std::collections::BTreeSet;

use super::judge::{Seen, View};
use super::told::{Manifest, TroubleKind};

/// The runs that replace a member.
const REPLACES: &str = "etcd-member-";

/// Nobody counts on a member there.
pub fn is_spare(view: &View, seen: &Seen) -> bool {
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
    let others = view.members.iter().filter(|other| other.node != seen.node);
    let lists: Vec<BTreeSet<_>> = others
        .filter_map(|other| other.told.as_ref()?.manifest.as_ref())
        .filter(|manifest| manifest.set_aside_by.is_none())
        .map(list)
        .collect();
    lists.len() > 1
        && lists.iter().all(|list| *list == lists[0])
        && lists[0].iter().all(|(name, url)| {
            !is_named(name) && !own.is_some_and(|own| own.peer_urls.iter().any(|own| own == url))
        })
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
        ] {
            let mut answers: Answers = (1..)
                .zip(lists)
                .map(|(number, list)| (NodeName(format!("m{number}")), Ok(told(number, list, None))))
                .collect();
            answers.insert(NodeName("m4".to_owned()), Ok(fourth.clone()));
            let view = judge(&answers, 0);
            let seen = view.on(&NodeName("m4".to_owned())).unwrap();
            assert_eq!(is_spare(&view, seen), expected, "{lists:?} {fourth:?}");
            let first = view.on(&NodeName("m1".to_owned())).unwrap();
            assert!(!is_spare(&view, first));
        }
    }
}
