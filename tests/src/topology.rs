//! Which nodes a bed has.

use std::net::Ipv4Addr;

use crate::network::Network;

/// The only cluster of a bed.
pub const CLUSTER: &str = "bed";
/// Host part of the first node's address; the gateway is 1.
const FIRST_HOST: u8 = 10;
/// So many nodes have an address; the last of a /24 is everybody's.
pub const MOST_NODES: u8 = 254 - FIRST_HOST + 1;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs an API server's stand-in beside its kubelet's.
    Master,
    /// Runs a kubelet's stand-in.
    Worker,
}

impl Role {
    /// As inventory and agent call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Master => "control-plane",
            Self::Worker => "worker",
        }
    }
}

/// A node that is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// `master-1`, `worker-1`, …
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
}

/// How many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Masters.
    pub masters: u8,
    /// Workers.
    pub workers: u8,
}

impl Topology {
    /// Every node, masters first.
    pub fn nodes(self, network: &Network) -> Vec<Declared> {
        let masters = (1..=self.masters).map(|number| (format!("master-{number}"), Role::Master));
        let workers = (1..=self.workers).map(|number| (format!("worker-{number}"), Role::Worker));
        masters
            .chain(workers)
            .zip(FIRST_HOST..)
            .map(|((name, role), host)| Declared {
                name,
                role,
                address: network.address(host),
            })
            .collect()
    }
}

/// The inventory that declares them.
pub fn inventory(nodes: &[Declared]) -> String {
    let lines: Vec<_> = nodes
        .iter()
        .map(|Declared { name, role, address }| {
            format!(
                "      - {{name: {name}, role: {}, address: {address}}}\n",
                role.word()
            )
        })
        .collect();
    format!("clusters:\n  - name: {CLUSTER}\n    nodes:\n{}", lines.concat())
}
