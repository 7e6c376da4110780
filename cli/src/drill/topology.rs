//! The fleet that is rehearsed on: the drill plan's clusters (with the address that it gives to two machines put right),
//! or a part of them, or the same with more workers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use blackstart_apiserver::bmc::Bmc;
use blackstart_tests::topology::{CLUSTER, Declared, Role as BedRole};

use crate::failure::Failure;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Master,
    Worker,
}

impl Role {
    /// As inventory, reports and `get nodes` call it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Master => "control-plane",
            Self::Worker => "worker",
        }
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: IpAddr,
}

/// One cluster: masters first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) machines: Vec<Machine>,
}

impl Cluster {
    pub(crate) fn count(&self, role: Role) -> usize {
        self.machines
            .iter()
            .filter(|machine| machine.role == role)
            .count()
    }

    /// Masters that it takes for etcd to accept a write.
    pub(crate) fn quorum(&self) -> usize {
        self.count(Role::Master) / 2 + 1
    }
}

/// Clusters in an order in which each comes after those it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) clusters: Vec<Cluster>,
}

/// Of each cluster.
pub(crate) const MASTERS: usize = 3;

/// A cluster of the plan.
struct Planned {
    name: &'static str,
    /// Of its machines' names.
    prefix: &'static str,
    after: &'static [&'static str],
    workers: usize,
    /// Address of its first machine; the others follow.
    first: Ipv4Addr,
}

const PLAN: [Planned; 3] = [
    Planned {
        name: "management",
        prefix: "mgmt",
        after: &[],
        workers: 2,
        first: Ipv4Addr::new(10, 128, 38, 1),
    },
    Planned {
        name: "business",
        prefix: "biz",
        after: &["management"],
        workers: 4,
        first: Ipv4Addr::new(10, 128, 38, 6),
    },
    Planned {
        name: "paas",
        prefix: "paas",
        after: &["management"],
        workers: 3,
        first: Ipv4Addr::new(10, 128, 39, 1),
    },
];

/// Machines that are asked for at most: each is a thread and a TLS session of this process.
const MOST: usize = 500;

impl Topology {
    /// The plan's clusters, or those of `only`; with `nodes` machines in all, if given: masters stay three a cluster, and
    /// workers keep their proportions.
    pub(crate) fn new(only: &[String], nodes: Option<usize>) -> Result<Self, Failure> {
        let known = PLAN.map(|planned| planned.name);
        if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Failure::Usage {
                what: format!("the drill plan has no cluster {unknown:?}"),
                advice: Some(format!("one or more of: {}", known.join(", "))),
            });
        }
        let is_here = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
        let chosen: Vec<_> = PLAN.into_iter().filter(|planned| is_here(planned.name)).collect();
        let planned: Vec<_> = chosen.iter().map(|planned| planned.workers).collect();
        let workers = match nodes {
            Some(nodes) => share(nodes, &planned)?,
            None => planned.clone(),
        };
        let as_planned = workers == planned;
        let clusters = chosen.iter().zip(workers).enumerate();
        let clusters = clusters.map(|(index, (planned, workers))| {
            let first = if as_planned {
                planned.first
            } else {
                // Larger than planned: each in a network of its own.
                Ipv4Addr::new(10, 128 + u8::try_from(index).unwrap_or(0), 0, 1)
            };
            let machine = |at: usize| Machine {
                name: format!("{}-{}", planned.prefix, at + 1),
                role: if at < MASTERS { Role::Master } else { Role::Worker },
                address: IpAddr::V4(Ipv4Addr::from_bits(
                    first.to_bits() + u32::try_from(at).unwrap_or(0),
                )),
            };
            let after = planned.after.iter().filter(|name| is_here(name));
            Cluster {
                name: planned.name.to_owned(),
                after: after.map(|&name| name.to_owned()).collect(),
                machines: (0..MASTERS + workers).map(machine).collect(),
            }
        });
        Ok(Self {
            clusters: clusters.collect(),
        })
    }

    /// The one cluster of a bed.
    pub(crate) fn of_bed(declared: &[Declared]) -> Self {
        let machine = |declared: &Declared| Machine {
            name: declared.name.clone(),
            role: match declared.role {
                BedRole::Master => Role::Master,
                BedRole::Worker => Role::Worker,
            },
            address: IpAddr::V4(declared.address),
        };
        Self {
            clusters: vec![Cluster {
                name: CLUSTER.to_owned(),
                after: Vec::new(),
                machines: declared.iter().map(machine).collect(),
            }],
        }
    }

    /// Every machine with its cluster, in order.
    pub(crate) fn machines(&self) -> impl Iterator<Item = (&Cluster, &Machine)> {
        let of = |cluster| Cluster::machines_of(cluster);
        self.clusters.iter().flat_map(of)
    }

    /// As the coordinator's inventory file says it.
    pub(crate) fn inventory(&self, bmc: Option<SocketAddr>) -> String {
        let clusters = self.clusters.iter().map(|cluster| {
            let machines = cluster.machines.iter().map(|machine| {
                let bmc = bmc.map_or_else(String::new, |bmc| {
                    let system = Bmc::system(&machine.name);
                    format!(", bmc: {{address: \"{bmc}\", system: {system}}}")
                });
                format!(
                    "      - {{name: {}, role: {}, address: {}{bmc}}}\n",
                    machine.name,
                    machine.role.word(),
                    machine.address
                )
            });
            format!(
                "  - name: {}\n    after: [{}]\n    nodes:\n{}",
                cluster.name,
                cluster.after.join(", "),
                machines.collect::<String>()
            )
        });
        format!("clusters:\n{}", clusters.collect::<String>())
    }
}

impl Cluster {
    fn machines_of(&self) -> impl Iterator<Item = (&Self, &Machine)> {
        self.machines.iter().map(move |machine| (self, machine))
    }
}

/// Shares the workers among clusters in the plan's proportions, at least one each.
fn share(nodes: usize, planned: &[usize]) -> Result<Vec<usize>, Failure> {
    let clusters = planned.len();
    let least = clusters * (MASTERS + 1);
    if !(least..=MOST).contains(&nodes) {
        return Err(Failure::Usage {
            what: format!("{nodes} nodes cannot be {clusters} clusters with three masters each"),
            advice: Some(format!("--nodes {least} to {MOST}")),
        });
    }
    let workers = nodes - clusters * MASTERS;
    let whole: usize = planned.iter().sum();
    // Each has one; the rest by proportion, rounded down, and what is left over goes round.
    let spare = workers - clusters;
    let mut shares: Vec<_> = planned
        .iter()
        .map(|planned| 1 + spare * planned / whole)
        .collect();
    let left = workers - shares.iter().sum::<usize>();
    for index in (0..clusters).rev().cycle().take(left) {
        shares[index] += 1;
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_plan_has_eighteen_machines_with_addresses_of_their_own() {
        let plan = Topology::new(&[], None).unwrap();
        let sizes: Vec<_> = plan.clusters.iter().map(|c| c.machines.len()).collect();
        assert_eq!(sizes, [5, 7, 6]);
        let addresses: HashSet<_> = plan.machines().map(|(_, machine)| machine.address).collect();
        assert_eq!(addresses.len(), 18);
        // The plan itself says 10.128.38.4 here, which is a machine of the management cluster.
        let fourth = &plan.clusters[2].machines[3];
        assert_eq!(
            (fourth.name.as_str(), fourth.address.to_string().as_str()),
            ("paas-4", "10.128.39.4")
        );
    }

    #[test]
    fn the_coordinator_takes_its_inventory() {
        for nodes in [None, Some(60)] {
            let text = Topology::new(&[], nodes).unwrap().inventory(None);
            let loaded = blackstart_coordinator::inventory::parse("inventory.yaml", &text).unwrap();
            assert_eq!(loaded.inventory.nodes.len(), nodes.unwrap_or(18));
            assert_eq!(loaded.warnings.len(), 0, "{:?}", loaded.warnings);
            assert_eq!(loaded.inventory.clusters[0].name.0, "management");
        }
    }

    #[test]
    fn any_number_of_nodes_is_shared_out_whole() {
        for nodes in 12..=200 {
            let scaled = Topology::new(&[], Some(nodes)).unwrap();
            assert_eq!(scaled.machines().count(), nodes);
            for cluster in &scaled.clusters {
                assert_eq!(cluster.count(Role::Master), 3);
                assert!(cluster.count(Role::Worker) > 0);
            }
        }
        assert!(Topology::new(&[], Some(11)).is_err());
    }

    #[test]
    fn a_part_of_the_plan_depends_on_nothing_outside_it() {
        let part = Topology::new(&["paas".to_owned()], None).unwrap();
        assert_eq!(part.clusters.len(), 1);
        assert!(part.clusters[0].after.is_empty());
        let unknown = Topology::new(&["pass".to_owned()], None).unwrap_err();
        assert!(
            unknown.details()[0].contains("management, business, paas"),
            "{unknown:?}"
        );
    }
}
