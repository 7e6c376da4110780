//! YAML → what is written, each value with its place; then [`lint`], then [`Inventory`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use blackstart_proto::identity::valid_name;
use blackstart_proto::yaml::{self, Item, Problem, Problems, Table};

use crate::power::redfish::is_path;
use crate::power::settings::{BmcSpec, Fingerprint, PORT};

use super::{Cluster, ClusterName, Inventory, NodeName, NodeSpec, Role, lint};

/// An inventory that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The fleet.
    pub inventory: Inventory,
    /// What may be meant and probably is not, in the order of the lines.
    pub warnings: Vec<Problem>,
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file could not be read.
    #[error("read inventory {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It declares a fleet that cannot be.
    #[error("{0}")]
    Invalid(Problems),
}

/// Reads and lints a file.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Loaded, InventoryError> {
    let text = fs::read_to_string(path).map_err(|source| InventoryError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&path.display().to_string(), &text).map_err(InventoryError::Invalid)
}

/// Lints the text of a file that is called `name` in messages.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    yaml::read(name, text, |top| {
        let written = written(top);
        let order = lint::check(&written);
        let mut warnings = lint::warnings(&written);
        warnings.sort_by_key(|problem| (problem.line, problem.column));
        // Of any use only if nothing was wrong; otherwise the reader drops it.
        Loaded {
            inventory: inventory(&written, &order),
            warnings,
        }
    })
}

/// The file, as far as it could be understood.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) clusters: Vec<WrittenCluster>,
    /// The order in the runbook that people hold beside this; `None` if it is not copied here.
    pub(super) power_loss_order: Option<WrittenOrder>,
}

#[derive(Debug)]
pub(super) struct WrittenOrder {
    pub(super) place: Item,
    pub(super) names: Vec<(Item, ClusterName)>,
}

#[derive(Debug)]
pub(super) struct WrittenCluster {
    /// Its name, where it is written; the whole of it if it has none.
    pub(super) place: Item,
    /// `None`: missing, or cannot be one.
    pub(super) name: Option<ClusterName>,
    pub(super) after: Vec<(Item, ClusterName)>,
    pub(super) vip: Option<IpAddr>,
    pub(super) nodes: Vec<WrittenNode>,
}

#[derive(Debug)]
pub(super) struct WrittenNode {
    /// Its address, where it is written; the whole of it if it has none.
    pub(super) place: Item,
    /// `None`: missing, or cannot be one.
    pub(super) address: Option<IpAddr>,
    /// Its name, where it is written; `None` if it is called by its address.
    pub(super) name_place: Option<Item>,
    pub(super) name: Option<NodeName>,
    /// `None`: cannot be one.
    pub(super) role: Option<Role>,
    pub(super) rack: Option<String>,
    pub(super) machine_id: Option<String>,
    pub(super) bmc: Option<WrittenBmc>,
}

#[derive(Debug)]
pub(super) struct WrittenBmc {
    /// Its address, where it is written; the whole of it if it has none.
    pub(super) place: Item,
    /// `None`: it cannot be one.
    pub(super) spec: Option<BmcSpec>,
}

fn written(top: &mut Table) -> Written {
    let clusters: Vec<_> = top
        .required("clusters")
        .and_then(|place| {
            let list = place.clone().list()?;
            if list.is_empty() {
                place.problem("names no cluster");
            }
            Some(list)
        })
        .unwrap_or_default()
        .into_iter()
        .filter_map(cluster)
        .collect();
    let power_loss_order = top.item("power_loss_order").and_then(|place| {
        let names = names(place.clone().list()?);
        Some(WrittenOrder { place, names })
    });
    Written {
        clusters,
        power_loss_order,
    }
}

fn cluster(whole: Item) -> Option<WrittenCluster> {
    let mut table = whole.clone().table()?;
    let name = table.required("name");
    let after = names(table.list("after").unwrap_or_default());
    let vip = table.item("vip").as_ref().and_then(address);
    let nodes = table.required("nodes").and_then(Item::list).unwrap_or_default();
    Some(WrittenCluster {
        name: name.as_ref().and_then(valid).map(ClusterName),
        place: name.unwrap_or(whole),
        after,
        vip,
        nodes: nodes.into_iter().filter_map(node).collect(),
    })
}

fn node(whole: Item) -> Option<WrittenNode> {
    let mut table = whole.clone().table()?;
    let name_place = table.item("name");
    let address_place = table.required("address");
    let address = address_place.as_ref().and_then(address);
    let name = match (&name_place, address) {
        (Some(place), _) => valid(place),
        // An IPv6 address has colons, which no name may have.
        (None, Some(address)) if !valid_name(&address.to_string()) => {
            table.problem("name", "is missing, and the address cannot stand for it");
            None
        }
        (None, address) => address.map(|address| address.to_string()),
    };
    let role = match table.item("role") {
        None => Some(Role::Worker),
        Some(item) => item.choice(&[
            ("control-plane", Role::ControlPlane),
            ("worker", Role::Worker),
            ("etcd", Role::Etcd),
        ]),
    };
    Some(WrittenNode {
        address,
        place: address_place.unwrap_or(whole),
        name: name.map(NodeName),
        name_place,
        role,
        rack: table.string("rack"),
        machine_id: table.item("machine_id").as_ref().and_then(machine_id),
        bmc: table.item("bmc").and_then(bmc),
    })
}

fn bmc(whole: Item) -> Option<WrittenBmc> {
    let mut table = whole.clone().table()?;
    let place = table.required("address");
    let address = place.as_ref().and_then(bmc_address);
    let system = table.item("system").map(|item| {
        let path = item.string().map(|path| path.trim_end().to_owned())?;
        if is_path(&path) {
            return Some(path);
        }
        item.problem("expected the path of a system, such as /redfish/v1/Systems/1 (GET /redfish/v1/Systems lists them)");
        None
    });
    let fingerprint = table.item("fingerprint").map(|item| {
        let fingerprint = Fingerprint::parse(&item.string()?);
        if fingerprint.is_none() {
            item.problem(
                "expected sha256: and 64 hexadecimal digits: openssl s_client -connect ADDRESS:443 </dev/null | openssl x509 -noout \
                 -fingerprint -sha256",
            );
        }
        fingerprint
    });
    let spec = match (address, system, fingerprint) {
        // What is written and wrong was told.
        (None, ..) | (_, Some(None), _) | (.., Some(None)) => None,
        (Some(address), system, fingerprint) => Some(BmcSpec {
            address,
            system: system.flatten(),
            fingerprint: fingerprint.flatten(),
        }),
    };
    Some(WrittenBmc {
        place: place.unwrap_or(whole),
        spec,
    })
}

/// `10.128.48.4`, at the port of HTTPS, or `10.128.48.4:8443`.
fn bmc_address(item: &Item) -> Option<SocketAddr> {
    let text = item.string()?;
    let address = match text.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::from((address, PORT))),
        Err(_) => text.parse::<SocketAddr>().ok(),
    };
    let address = address.map(|address| SocketAddr::from((address.ip().to_canonical(), address.port())));
    let usable = address.filter(|address| {
        !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0
    });
    if usable.is_none() {
        item.problem("expected an address, such as 10.128.48.4 or \"10.128.48.4:8443\"; no name, since DNS may be down");
    }
    usable
}

fn names(items: Vec<Item>) -> Vec<(Item, ClusterName)> {
    items
        .into_iter()
        .filter_map(|item| {
            let name = ClusterName(valid(&item)?);
            Some((item, name))
        })
        .collect()
}

fn valid(item: &Item) -> Option<String> {
    let text = item.string()?;
    if valid_name(&text) {
        return Some(text);
    }
    item.problem("expected 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit");
    None
}

fn address(item: &Item) -> Option<IpAddr> {
    // One machine, however it is written.
    let address = item.ip_address()?.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        item.problem("is no machine's address");
        return None;
    }
    Some(address)
}

fn machine_id(item: &Item) -> Option<String> {
    let text = item.string()?;
    if text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    item.problem("expected the 32 hexadecimal digits of the node's /etc/machine-id");
    None
}

/// What was written, with its clusters in `order`; complete if nothing was wrong.
fn inventory(written: &Written, order: &[usize]) -> Inventory {
    let mut clusters = Vec::new();
    let mut nodes = BTreeMap::new();
    for cluster in order.iter().filter_map(|index| written.clusters.get(*index)) {
        let Some(name) = &cluster.name else { continue };
        let mut members: Vec<_> = cluster
            .nodes
            .iter()
            .filter_map(|node| {
                Some(NodeSpec {
                    name: node.name.clone()?,
                    cluster: name.clone(),
                    role: node.role?,
                    address: node.address?,
                    rack: node.rack.clone(),
                    machine_id: node.machine_id.clone(),
                    bmc: node.bmc.as_ref().and_then(|bmc| bmc.spec.clone()),
                })
            })
            .collect();
        members.sort_by_key(|node| match node.role {
            Role::ControlPlane => 0,
            Role::Etcd => 1,
            Role::Worker => 2,
        });
        clusters.push(Cluster {
            name: name.clone(),
            after: cluster.after.iter().map(|(_, name)| name.clone()).collect(),
            vip: cluster.vip,
            nodes: members.iter().map(|node| node.name.clone()).collect(),
        });
        nodes.extend(members.into_iter().map(|node| (node.name.clone(), node)));
    }
    Inventory { clusters, nodes }
}
