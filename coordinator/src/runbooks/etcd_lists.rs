//! What manifests say of the members of an etcd, brought up to date after a change of who is in it: `--initial-cluster` of the other members, and
//! `--etcd-servers` of API servers that name several. Pure.
//!
//! etcd reads `--initial-cluster` only while it has no data, so nothing hangs on it today: it is what the next person reads, and what a member
//! is started with whose disk is new. So it is done last, one at a time, and only while one member more may be away.

use std::collections::BTreeSet;
use std::time::Duration;

use blackstart_proto::part::Part;

use super::maintenance::step;
use super::plan::{Action, FlagChange, Step};
use crate::control_plane::judge::View as ControlPlane;
use crate::inventory::NodeName;
use crate::quorum::judge::{Seen, View};
use crate::quorum::newcomer::host;

/// A bounce waits for the pod to end, and to be well again, both twice where a value is taken back.
const BOUNCE: Duration = Duration::from_mins(10);
/// With fewer voters none may be away.
const ENOUGH: usize = 3;

/// The other members whose manifests name others than these, `name=url,…`. None while fewer than three are in it.
pub(super) fn members(view: &View, lost: &NodeName, to: &str) -> Vec<FlagChange> {
    if set(to).len() < ENOUGH {
        return Vec::new();
    }
    let of = |seen: &Seen| {
        // One that was removed has its old manifest still.
        seen.id?;
        let node = seen.node.clone().filter(|node| node != lost)?;
        let manifest = seen.told.as_ref()?.manifest.as_ref()?;
        // One without the flag has nothing that is out of date.
        let is_old = manifest.set_aside_by.is_none()
            && !manifest.initial_cluster.is_empty()
            && set(&manifest.initial_cluster) != set(to);
        is_old.then(|| FlagChange {
            node,
            from: manifest.initial_cluster.clone(),
            to: to.to_owned(),
        })
    };
    view.members.iter().filter_map(of).collect()
}

/// The API servers that are to name all of these members again, by the longest list that one of them has: after a restore had one named alone,
/// or since a member is on another node (`moved`: the old host, and the new). Those that ask their own member alone stay as they are.
pub(super) fn api_servers(
    told: &ControlPlane,
    initial_cluster: &str,
    moved: Option<(&str, &str)>,
) -> Vec<FlagChange> {
    let all = servers(told);
    let longest = all.iter().map(|(_, list)| urls(list)).max_by_key(Vec::len);
    let Some(longest) = longest.filter(|list| list.len() > 1) else {
        return Vec::new();
    };
    let members: BTreeSet<_> = initial_cluster
        .split(',')
        .filter_map(|one| one.split_once('='))
        .map(|(_, url)| host(url).to_owned())
        .collect();
    let to: Vec<_> = longest
        .iter()
        .map(|url| match moved {
            Some((old, new)) if host(url) == old => url.replacen(old, new, 1),
            Some(_) | None => (*url).to_owned(),
        })
        .collect();
    // A list that names somebody else is not understood: a proxy, or an etcd for events.
    if to.iter().map(|url| host(url).to_owned()).collect::<BTreeSet<_>>() != members {
        return Vec::new();
    }
    let to = to.join(",");
    all.into_iter()
        .filter(|(_, list)| *list != to && urls(list).iter().all(|url| longest.contains(url)))
        .map(|(node, list)| FlagChange {
            node: node.clone(),
            from: list.to_owned(),
            to: to.clone(),
        })
        .collect()
}

/// The API server of the only member that is left, where it names others as well.
pub(super) fn alone(told: &ControlPlane, node: &NodeName, peer_urls: &[String]) -> Option<FlagChange> {
    let list = servers(told).into_iter().find(|(of, _)| *of == node)?.1;
    let urls = urls(list);
    let own = |url: &&&str| peer_urls.iter().any(|peer| host(peer) == host(url));
    let own = urls.iter().find(own)?;
    (urls.len() > 1).then(|| FlagChange {
        node: node.clone(),
        from: list.to_owned(),
        to: (*own).to_owned(),
    })
}

fn servers(told: &ControlPlane) -> Vec<(&NodeName, &str)> {
    let of = |node| {
        let list = told.told(node, Part::ApiServer)?.etcd_servers.as_str();
        (!list.is_empty()).then_some((node, list))
    };
    told.masters.keys().filter_map(of).collect()
}

/// One step each, members first.
pub(super) fn steps(members: &[FlagChange], api_servers: &[FlagChange]) -> Vec<Step> {
    let members = members.iter().map(|change| Step {
        on: Some(change.node.clone()),
        ..step(
            Action::SetInitialCluster,
            words(change, "initial-cluster"),
            BOUNCE,
        )
    });
    let servers = api_servers.iter().map(|change| Step {
        on: Some(change.node.clone()),
        part: Some(Part::ApiServer),
        ..step(Action::SetEtcdServers, words(change, "etcd-servers"), BOUNCE)
    });
    members.chain(servers).collect()
}

/// Why somebody has to approve of it.
pub(super) fn approval(members: &[FlagChange], api_servers: &[FlagChange]) -> String {
    let members = members.iter().map(|change| words(change, "initial-cluster"));
    let servers = api_servers.iter().map(|change| words(change, "etcd-servers"));
    let all: Vec<_> = members.chain(servers).collect();
    format!(
        "each pod is stopped and started with another manifest, one after the other, while one member more may be away: {}",
        all.join("; ")
    )
}

pub(super) fn words(change: &FlagChange, flag: &str) -> String {
    format!(
        "{}: - --{flag}={} + --{flag}={}",
        change.node, change.from, change.to
    )
}

/// All of them with this one in place of the one that is lost.
pub(super) fn initial_cluster(view: &View, lost: &Seen, name: &str, peer_urls: &[String]) -> String {
    let others = view
        .members
        .iter()
        .filter(|seen| seen.id.is_some() && seen.id != lost.id && !seen.name.is_empty());
    let mut all: Vec<_> = others
        .flat_map(|seen| seen.peer_urls.iter().map(|url| format!("{}={url}", seen.name)))
        .chain(peer_urls.iter().map(|url| format!("{name}={url}")))
        .collect();
    all.sort();
    all.dedup();
    all.join(",")
}

fn set(list: &str) -> BTreeSet<&str> {
    list.split(',').filter(|one| !one.is_empty()).collect()
}

fn urls(list: &str) -> Vec<&str> {
    list.split(',').filter(|url| !url.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::told::{Health, PartTold, Told};

    fn masters(lists: &[(&str, &str)]) -> ControlPlane {
        let told = |list: &str| Told {
            parts: vec![PartTold {
                part: Part::ApiServer,
                manifest: "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned(),
                out_by: None,
                url: String::new(),
                health: Health::Healthy,
                health_words: String::new(),
                not_running: Vec::new(),
                certificates: Vec::new(),
                log: Vec::new(),
                etcd_servers: list.to_owned(),
            }],
            ..Told::default()
        };
        ControlPlane {
            masters: lists
                .iter()
                .map(|(node, list)| (NodeName((*node).to_owned()), Ok(told(list))))
                .collect(),
            vip: None,
        }
    }

    const ALL: &str = "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379";
    const MEMBERS: &str = "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380";

    fn changed(changes: &[FlagChange]) -> Vec<(&str, &str)> {
        changes
            .iter()
            .map(|change| (change.node.0.as_str(), change.to.as_str()))
            .collect()
    }

    #[test]
    fn api_servers_that_name_all_members_are_told_of_one_and_then_of_all_again() {
        let before = masters(&[("m1", ALL), ("m2", ALL), ("m3", ALL)]);
        let m1 = NodeName("m1".to_owned());
        let one = alone(&before, &m1, &["https://10.0.0.1:2380".to_owned()]).unwrap();
        assert_eq!(
            (one.from.as_str(), one.to.as_str()),
            (ALL, "https://10.0.0.1:2379")
        );
        let grown = masters(&[("m1", &one.to), ("m2", ALL), ("m3", ALL)]);
        assert_eq!(changed(&api_servers(&grown, MEMBERS, None)), [("m1", ALL)]);
        assert_eq!(api_servers(&before, MEMBERS, None), []);
    }

    #[test]
    fn a_member_that_has_moved_is_named_where_it_is_and_what_is_not_understood_is_left_alone() {
        let before = masters(&[("m1", ALL), ("m2", ALL), ("m4", ALL)]);
        let members = MEMBERS.replace("m3=https://10.0.0.3", "m4=https://10.0.0.4");
        let to = ALL.replace("10.0.0.3", "10.0.0.4");
        assert_eq!(
            changed(&api_servers(&before, &members, Some(("10.0.0.3", "10.0.0.4")))),
            [("m1", to.as_str()), ("m2", to.as_str()), ("m4", to.as_str())]
        );
        // Each asks its own.
        let own = masters(&[("m1", "https://127.0.0.1:2379"), ("m2", "https://127.0.0.1:2379")]);
        assert_eq!(api_servers(&own, MEMBERS, None), []);
        let m1 = NodeName("m1".to_owned());
        assert_eq!(alone(&own, &m1, &["https://10.0.0.1:2380".to_owned()]), None);
        let proxied = masters(&[("m1", "https://10.9.9.9:2379,https://10.9.9.8:2379")]);
        assert_eq!(api_servers(&proxied, MEMBERS, None), []);
    }
}
