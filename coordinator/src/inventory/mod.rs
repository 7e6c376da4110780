//! The declared fleet, as an operator wrote it and the linter let it pass.
//!
//! ```text
//!  inventory.yaml ──read──► what is written, each with its place ──lint──► Inventory, warnings
//!                                                                    └──► every error, with line and field
//! ```

mod lint;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::power::settings::BmcSpec;

pub use read::{InventoryError, Loaded, load, parse};

/// Name of a node: unique in the fleet, equal to the name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterName(pub String);

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// API server, controller manager, scheduler, stacked etcd.
    ControlPlane,
    /// Runs workloads.
    Worker,
    /// External etcd.
    Etcd,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// What it is for.
    pub role: Role,
    /// Where it is reached; never resolved by name.
    pub address: IpAddr,
    /// Where it stands, for telling a rack loss from a datacenter's.
    pub rack: Option<String>,
    /// Its `/etc/machine-id`, for reboot tools that call it so.
    pub machine_id: Option<String>,
    /// Its management controller, which says whether it has power.
    pub bmc: Option<BmcSpec>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Clusters that must serve before this one is begun.
    pub after: Vec<ClusterName>,
    /// The address that keepalived moves between its masters, if it has one.
    pub vip: Option<IpAddr>,
    /// Its nodes, control planes first, each group in the order written.
    pub nodes: Vec<NodeName>,
}

/// The declared fleet. Free of the linter's errors by construction: dependencies exist and have no cycle,
/// names and addresses are unique, every cluster has a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Clusters in an order in which each comes after those it depends on.
    pub clusters: Vec<Cluster>,
    /// Every node.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
}

impl Inventory {
    /// The cluster of this name.
    pub fn cluster(&self, name: &ClusterName) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.name == *name)
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeName) -> Option<&NodeSpec> {
        self.nodes.get(name)
    }

    /// The nodes of a cluster, control planes first; none if there is no such cluster.
    pub fn members(&self, cluster: &ClusterName) -> impl Iterator<Item = &NodeSpec> {
        self.cluster(cluster)
            .into_iter()
            .flat_map(|cluster| &cluster.nodes)
            .filter_map(|name| self.nodes.get(name))
    }

    /// The control planes of a cluster, in the order written.
    pub fn masters(&self, cluster: &ClusterName) -> impl Iterator<Item = &NodeSpec> {
        self.members(cluster)
            .filter(|node| node.role == Role::ControlPlane)
    }

    /// The workers of a cluster, in the order written.
    pub fn workers(&self, cluster: &ClusterName) -> impl Iterator<Item = &NodeSpec> {
        self.members(cluster).filter(|node| node.role == Role::Worker)
    }

    /// The external etcd members of a cluster, in the order written.
    pub fn etcd(&self, cluster: &ClusterName) -> impl Iterator<Item = &NodeSpec> {
        self.members(cluster).filter(|node| node.role == Role::Etcd)
    }

    /// Must `other` serve before `cluster` is begun, directly or by way of others?
    pub fn depends_on(&self, cluster: &ClusterName, other: &ClusterName) -> bool {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<_> = self.cluster(cluster).into_iter().collect();
        while let Some(cluster) = ahead.pop() {
            for before in &cluster.after {
                if before == other {
                    return true;
                }
                if seen.insert(before) {
                    ahead.extend(self.cluster(before));
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clusters in a row, each with a master and a worker.
    fn chain() -> Inventory {
        let mut inventory = Inventory {
            clusters: Vec::new(),
            nodes: BTreeMap::new(),
        };
        for (index, (name, after)) in [("a", None), ("b", Some("a")), ("c", Some("b"))]
            .into_iter()
            .enumerate()
        {
            let cluster = ClusterName(name.to_owned());
            let mut nodes = Vec::new();
            for (suffix, role) in [(1, Role::ControlPlane), (2, Role::Worker)] {
                let node = NodeSpec {
                    name: NodeName(format!("{name}-{suffix}")),
                    cluster: cluster.clone(),
                    role,
                    address: format!("10.0.{index}.{suffix}").parse().unwrap(),
                    rack: None,
                    machine_id: None,
                    bmc: None,
                };
                nodes.push(node.name.clone());
                inventory.nodes.insert(node.name.clone(), node);
            }
            inventory.clusters.push(Cluster {
                name: cluster,
                vip: None,
                after: after
                    .map(|name| ClusterName(name.to_owned()))
                    .into_iter()
                    .collect(),
                nodes,
            });
        }
        inventory
    }

    #[test]
    fn dependence_reaches_through_others_and_one_way_only() {
        let inventory = chain();
        let [a, b, c] = ["a", "b", "c"].map(|name| ClusterName(name.to_owned()));
        assert!(inventory.depends_on(&b, &a) && inventory.depends_on(&c, &a));
        assert!(!inventory.depends_on(&a, &c) && !inventory.depends_on(&a, &a));
        assert!(!inventory.depends_on(&ClusterName("unknown".to_owned()), &a));
    }

    #[test]
    fn masters_and_workers_of_one_cluster_alone() {
        let inventory = chain();
        let b = ClusterName("b".to_owned());
        let names =
            |nodes: Vec<&NodeSpec>| nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(inventory.masters(&b).collect()), ["b-1"]);
        assert_eq!(names(inventory.workers(&b).collect()), ["b-2"]);
        assert_eq!(inventory.etcd(&b).count(), 0);
    }

    #[test]
    fn each_machine_has_a_management_controller_of_its_own_or_a_path_of_its_own_behind_one() {
        let read = |nodes: &[&str]| {
            let nodes: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(number, bmc)| {
                    let role = if number == 0 { ", role: control-plane" } else { "" };
                    format!("      - {{name: n{number}, address: 10.0.0.{number}{role}{bmc}}}\n")
                })
                .collect();
            parse(
                "f",
                &format!("clusters:\n  - name: biz\n    nodes:\n{}", nodes.concat()),
            )
        };
        let digits = "ab".repeat(32);
        let pinned = format!(
            ", bmc: {{address: 10.1.0.1, system: /redfish/v1/Systems/1, fingerprint: \"sha256:{digits}\"}}"
        );
        let behind_one = ", bmc: {address: 10.1.0.1, system: /redfish/v1/Systems/2}";
        let inventory = read(&["", &pinned, behind_one, ", bmc: {address: \"10.1.0.3:8443\"}"])
            .unwrap()
            .inventory;
        let of = |name: &str| inventory.node(&NodeName(name.to_owned())).unwrap().bmc.clone();
        assert_eq!(of("n0"), None);
        let first = of("n1").unwrap();
        assert_eq!(first.address, "10.1.0.1:443".parse().unwrap());
        assert_eq!(first.fingerprint.unwrap().to_string(), format!("sha256:{digits}"));
        assert_eq!(of("n3").unwrap().address.port(), 8443);
        for (bmc, field, words) in [
            (behind_one, "address", "also in line 5"),
            (", bmc: {address: 10.1.0.1}", "address", "also in line 5"),
            (
                ", bmc: {address: 10.0.0.0}",
                "address",
                "is the address of a node",
            ),
            (
                ", bmc: {address: bmc.lan}",
                "address",
                "no name, since DNS may be down",
            ),
            (
                ", bmc: {address: 10.1.0.9, system: \"https://x/redfish\"}",
                "system",
                "path of a system",
            ),
            (
                ", bmc: {address: 10.1.0.9, fingerprint: \"sha1:00\"}",
                "fingerprint",
                "64 hexadecimal digits",
            ),
            (
                ", bmc: {address: 10.1.0.9, password: x}",
                "password",
                "is not known",
            ),
            (", bmc: {}", "address", "is missing"),
        ] {
            let problems = read(&["", behind_one, bmc]).unwrap_err();
            let found = problems.list.iter().any(|one| {
                one.line == 6
                    && one.field == format!("clusters[0].nodes[2].bmc.{field}")
                    && one.message.contains(words)
            });
            assert!(found, "{bmc}: {problems}");
        }
    }
}
