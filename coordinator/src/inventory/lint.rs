//! What is wrong with a fleet as it is written, and what is suspicious about it.
//!
//! Errors are noted at the place that is wrong, and name the other place where two contradict each other. The lists that
//! people keep by hand have just these: an address typed into two clusters, a cluster named twice where another was meant.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use blackstart_proto::yaml::{Item, Problem, nearest};

use super::read::{Written, WrittenCluster, WrittenNode, WrittenOrder};
use super::{ClusterName, Role};
use crate::power::settings::PORT;

/// Notes every error. Answers the clusters, by index, in an order in which each comes after those it depends on.
pub(super) fn check(written: &Written) -> Vec<usize> {
    if written.clusters.is_empty() {
        // Told already.
        return Vec::new();
    }
    names_of_clusters(written);
    names_and_addresses_of_nodes(written);
    controllers(written);
    for cluster in &written.clusters {
        members(cluster);
        dependencies(cluster, written);
    }
    let order = order(written);
    if let Some(runbook) = &written.power_loss_order {
        power_loss_order(runbook, written);
    }
    order
}

/// What may be meant and probably is not.
pub(super) fn warnings(written: &Written) -> Vec<Problem> {
    let clusters = &written.clusters;
    let mut warnings = Vec::new();
    for cluster in clusters {
        if let Some((count, what)) = even_members(cluster) {
            warnings.push(cluster.place.finding(format!(
                "has {count} {what}: an even number survives no more losses than {}, and one more can fail",
                count - 1
            )));
        }
        if let Some(rack) = one_rack(cluster) {
            warnings.push(cluster.place.finding(format!(
                "all its masters stand in rack {rack}: its loss takes the whole control plane"
            )));
        }
        if clusters.len() > 1 && cluster.after.is_empty() && !is_depended_on(cluster, written) {
            warnings.push(cluster.place.finding(
                "nobody orders it: it names no cluster in `after`, and none names it; it starts at once, beside the others",
            ));
        }
    }
    warnings
}

fn name(cluster: &WrittenCluster) -> &str {
    cluster.name.as_ref().map_or("without a name", |name| &name.0)
}

fn names_of_clusters(written: &Written) {
    let mut seen = HashMap::new();
    for cluster in &written.clusters {
        let Some(name) = &cluster.name else { continue };
        if let Some(line) = seen.get(name) {
            cluster
                .place
                .problem(format!("cluster {name} is also in line {line}"));
        } else {
            seen.insert(name, cluster.place.line());
        }
    }
}

fn names_and_addresses_of_nodes(written: &Written) {
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    let mut machines = HashMap::new();
    let nodes = written
        .clusters
        .iter()
        .flat_map(|cluster| cluster.nodes.iter().map(move |node| (cluster, node)));
    for (cluster, node) in nodes {
        let mut told = false;
        if let Some(address) = node.address {
            if let Some((line, other)) = addresses.get(&address) {
                told = true;
                node.place.problem(format!(
                    "{address} is also in line {line}, in cluster {other}: one machine cannot be two nodes"
                ));
            } else {
                addresses.insert(address, (node.place.line(), name(cluster)));
            }
        }
        if let Some(machine) = &node.machine_id
            && let Some(line) = machines.insert(machine, node.place.line())
        {
            node.place.problem(format!(
                "machine_id {machine} is also in line {line}: a cloned machine has to be given its own (systemd-machine-id-setup)"
            ));
        }
        let Some(node_name) = &node.name else { continue };
        let place = node.name_place.as_ref().unwrap_or(&node.place);
        if let Some((line, other)) = names.get(node_name) {
            // A node that is called by its address is told of once.
            if !told || node.name_place.is_some() {
                place.problem(format!(
                    "node {node_name} is also in line {line}, in cluster {other}"
                ));
            }
        } else {
            names.insert(node_name, (place.line(), name(cluster)));
        }
    }
}

/// Who is asked whether one machine is off must not answer for another.
fn controllers(written: &Written) {
    let nodes = || written.clusters.iter().flat_map(|cluster| &cluster.nodes);
    let machines: HashMap<_, _> = nodes()
        .filter_map(|node| Some((node.address?, node.place.line())))
        .collect();
    let mut seen: HashMap<SocketAddr, Vec<(&Option<String>, u64)>> = HashMap::new();
    for bmc in nodes().filter_map(|node| node.bmc.as_ref()) {
        let Some(spec) = &bmc.spec else { continue };
        if let Some(line) = machines.get(&spec.address.ip())
            // A proxy on a machine of its own has a port of its own.
            && spec.address.port() == PORT
        {
            bmc.place.problem(format!(
                "{} is the address of a node, in line {line}: its management controller has one of its own",
                spec.address.ip()
            ));
        }
        let others = seen.entry(spec.address).or_default();
        // Several machines may be behind one, if it is said which each is.
        let same = others
            .iter()
            .find(|(system, _)| system.is_none() || spec.system.is_none() || **system == spec.system);
        if let Some((_, line)) = same {
            bmc.place.problem(format!(
                "{} is also in line {line}: it would answer for another machine; if several are behind it, write `system` for each",
                spec.address
            ));
        }
        others.push((&spec.system, bmc.place.line()));
    }
}

fn members(cluster: &WrittenCluster) {
    let roles: Vec<_> = cluster.nodes.iter().map(|node| node.role).collect();
    if roles.is_empty() {
        cluster
            .place
            .problem(format!("cluster {} has no node", name(cluster)));
    } else if !roles
        .iter()
        .any(|role| role.is_none_or(|role| role == Role::ControlPlane))
    {
        cluster.place.problem(format!(
            "cluster {} has no control plane: give its masters `role: control-plane`",
            name(cluster)
        ));
    }
}

/// Says of a name that no cluster has it.
fn unknown(item: &Item, wanted: &ClusterName, written: &Written) {
    let known: BTreeSet<_> = written
        .clusters
        .iter()
        .filter_map(|cluster| cluster.name.as_ref())
        .map(|name| name.0.as_str())
        .collect();
    let known: Vec<_> = known.into_iter().collect();
    item.problem(match nearest(&wanted.0, &known) {
        Some(meant) => format!("there is no cluster {wanted}; did you mean {meant}?"),
        None => format!("there is no cluster {wanted}; there are: {}", known.join(", ")),
    });
}

fn find(written: &Written, wanted: &ClusterName) -> Option<usize> {
    written
        .clusters
        .iter()
        .position(|cluster| cluster.name.as_ref() == Some(wanted))
}

fn dependencies(cluster: &WrittenCluster, written: &Written) {
    let mut seen = BTreeSet::new();
    for (item, before) in &cluster.after {
        if find(written, before).is_none() {
            unknown(item, before, written);
        } else if cluster.name.as_ref() == Some(before) {
            item.problem(format!("cluster {before} cannot come after itself"));
        } else if !seen.insert(before) {
            item.problem(format!("{before} stands here twice"));
        }
    }
}

/// Depth first, in the order of the file. A dependency that leads back is noted with the whole way.
fn order(written: &Written) -> Vec<usize> {
    let mut order = Vec::new();
    let mut done = vec![false; written.clusters.len()];
    for start in 0..written.clusters.len() {
        visit(start, written, &mut Vec::new(), &mut done, &mut order);
    }
    order
}

fn visit(at: usize, written: &Written, way: &mut Vec<usize>, done: &mut [bool], order: &mut Vec<usize>) {
    if done[at] {
        return;
    }
    way.push(at);
    for (item, before) in &written.clusters[at].after {
        let Some(next) = find(written, before).filter(|next| *next != at) else {
            continue;
        };
        if let Some(from) = way.iter().position(|passed| *passed == next) {
            let names = way[from..]
                .iter()
                .chain([&next])
                .map(|index| name(&written.clusters[*index]));
            item.problem(format!(
                "these wait for each other for ever: {}",
                names.collect::<Vec<_>>().join(" after ")
            ));
        } else {
            visit(next, written, way, done, order);
        }
    }
    way.pop();
    done[at] = true;
    order.push(at);
}

/// The order that a runbook gives must name every cluster once, and agree with `after`.
fn power_loss_order(runbook: &WrittenOrder, written: &Written) {
    let mut seen: HashMap<&ClusterName, &Item> = HashMap::new();
    for (item, cluster) in &runbook.names {
        if find(written, cluster).is_none() {
            unknown(item, cluster, written);
        } else if let Some(first) = seen.get(cluster) {
            item.problem(format!(
                "names cluster {cluster} a second time (first in line {})",
                first.line()
            ));
        } else {
            for before in must_stand_before(cluster, written) {
                if before != cluster
                    && !seen.contains_key(before)
                    && runbook.names.iter().any(|(_, other)| other == before)
                {
                    item.problem(format!(
                        "cluster {cluster} stands before {before}, which it comes after"
                    ));
                }
            }
            seen.insert(cluster, item);
        }
    }
    let forgotten: BTreeSet<_> = written
        .clusters
        .iter()
        .filter_map(|cluster| cluster.name.as_ref())
        .filter(|name| !seen.contains_key(name))
        .collect();
    for cluster in forgotten {
        runbook.place.problem(format!("forgets cluster {cluster}"));
    }
}

fn must_stand_before<'a>(
    cluster: &ClusterName,
    written: &'a Written,
) -> impl Iterator<Item = &'a ClusterName> {
    find(written, cluster)
        .into_iter()
        .flat_map(|index| &written.clusters[index].after)
        .map(|(_, before)| before)
}

/// How many members of etcd there are, if that is an even number: external ones, or the control planes.
fn even_members(cluster: &WrittenCluster) -> Option<(usize, &'static str)> {
    let count = |role| {
        cluster
            .nodes
            .iter()
            .filter(|node| node.role == Some(role))
            .count()
    };
    let (members, what) = match count(Role::Etcd) {
        0 => (count(Role::ControlPlane), "control planes"),
        external => (external, "etcd members"),
    };
    (members > 0 && members % 2 == 0).then_some((members, what))
}

/// The rack that all of several masters stand in.
fn one_rack(cluster: &WrittenCluster) -> Option<&str> {
    let is_master = |node: &&WrittenNode| node.role == Some(Role::ControlPlane);
    let racks: Vec<_> = cluster
        .nodes
        .iter()
        .filter(is_master)
        .map(|node| node.rack.as_deref())
        .collect();
    match racks[..] {
        [Some(first), _, ..] if racks.iter().all(|rack| *rack == Some(first)) => Some(first),
        _ => None,
    }
}

fn is_depended_on(cluster: &WrittenCluster, written: &Written) -> bool {
    written
        .clusters
        .iter()
        .flat_map(|other| &other.after)
        .any(|(_, before)| Some(before) == cluster.name.as_ref())
}
