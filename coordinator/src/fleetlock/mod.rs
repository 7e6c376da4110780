//! `FleetLock` v1: reboot tools (Zincati, and whatever else speaks it) draw on the lanes of [`permit`](crate::permit).
//!
//! ```text
//!  POST /v1/pre-reboot    {client_params: {id, group}} ─► permits.lock       200: boot now; 409: not yet, ask again
//!  POST /v1/steady-state  the same                     ─► permits.give_back  200, also when nothing was held
//! ```
//! <https://coreos.github.io/zincati/development/fleetlock/protocol/>. `group` is the cluster; `id` the node's name, its machine id
//! (`machine_id` in the inventory), or what Zincati makes of that. Whoever reaches the listener may hold up a cluster's reboots and is believed on whose behalf it
//! asks, so without TLS it is bound to addresses that are named.

mod serve;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use ring::hmac;
use serde::Deserialize;

use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::permit::{Asker, PermitId, PermitKind, Wish};

pub use serve::{Door, serve};
pub use tls::{TlsError, acceptor};

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetLockSettings {
    /// An address that is named, unless there is TLS.
    pub listen: SocketAddr,
    /// `None`: plain HTTP, which is what Zincati speaks by default.
    pub tls: Option<FleetLockTls>,
}

/// Its own certificate, and whose certificates it wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetLockTls {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM: clients have to show a certificate of this authority. `None`: nobody has to show any.
    pub ca: Option<PathBuf>,
}

/// Zincati's application id: its clients do not tell the machine's id itself.
/// <https://github.com/coreos/zincati/blob/main/src/identity/mod.rs>
const ZINCATI: [u8; 16] = [
    0xde, 0x35, 0x10, 0x6b, 0x6e, 0xc2, 0x46, 0x88, 0xb6, 0x3a, 0xfd, 0xda, 0xa1, 0x56, 0x67, 0x9b,
];
/// The name of a node's one request.
const REQUEST: &str = "fleetlock";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// May it reboot?
    PreReboot,
    /// It is up, and wants nothing.
    SteadyState,
}

impl Operation {
    /// By the path of the request.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/pre-reboot" => Some(Self::PreReboot),
            "/v1/steady-state" => Some(Self::SteadyState),
            _ => None,
        }
    }
}

/// Why it is not done: `kind` and `value` of the answer, and its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub kind: &'static str,
    /// For people.
    pub value: String,
}

impl Refused {
    fn new(status: u16, kind: &'static str, value: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            value: value.into(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Body {
    client_params: Params,
}

#[derive(Debug, Deserialize)]
struct Params {
    id: String,
    group: String,
}

/// The node that a request is for.
///
/// # Errors
/// It is none, or it is another cluster's.
pub fn node(inventory: &Inventory, body: &[u8]) -> Result<NodeName, Refused> {
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        let why = format!("expected {{\"client_params\": {{\"id\": …, \"group\": …}}}}: {error}");
        Refused::new(400, "bad_request", why)
    })?;
    let Params { id, group } = body.client_params;
    let named = inventory.nodes.values().find(|spec| spec.name.0 == id);
    let spec = named.or_else(|| {
        let id = plain(&id);
        let is = |machine: &str| plain(machine) == id || zincati(machine).is_some_and(|made| made == id);
        let mut nodes = inventory.nodes.values();
        nodes.find(|spec| spec.machine_id.as_deref().is_some_and(is))
    });
    let Some(spec) = spec else {
        let why = format!("no node of the inventory has {id:?} for its name or machine_id");
        return Err(Refused::new(404, "unknown_id", why));
    };
    if spec.cluster != ClusterName(group.clone()) {
        let why = format!(
            "node {} is of cluster {}; its group has to be that, not {group:?}",
            spec.name, spec.cluster
        );
        return Err(Refused::new(400, "wrong_group", why));
    }
    Ok(spec.name.clone())
}

/// Its request for a permit.
pub(crate) fn wish(node: NodeName) -> Wish {
    Wish {
        id: PermitId {
            node,
            request: REQUEST.to_owned(),
        },
        kind: PermitKind::Reboot,
        asker: Asker::FleetLock,
        subject: "machine".to_owned(),
        reason: "FleetLock pre-reboot".to_owned(),
    }
}

/// Ids are written with and without dashes.
fn plain(id: &str) -> String {
    id.chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase()
}

/// What Zincati makes of a machine's id: `sd_id128_get_machine_app_specific`. `None`: it is no machine id.
fn zincati(machine: &str) -> Option<String> {
    let id = u128::from_str_radix(&plain(machine), 16).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &id.to_be_bytes());
    let tag = hmac::sign(&key, &ZINCATI);
    let mut made: [u8; 16] = tag.as_ref().get(..16)?.try_into().ok()?;
    // A UUID of version 4, variant DCE.
    made[6] = (made[6] & 0x0f) | 0x40;
    made[8] = (made[8] & 0x3f) | 0x80;
    Some(format!("{:032x}", u128::from_be_bytes(made)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(id: &str, group: &str) -> Result<NodeName, &'static str> {
        let text = "clusters:\n\
             - name: a\n  nodes:\n  - {name: a-1, address: 10.0.0.1, role: control-plane, machine_id: e0f3745b108f471cbd4883c6fbed8cdd}\n\
             - name: b\n  nodes:\n  - {name: b-1, address: 10.0.0.3, role: control-plane}\n";
        let inventory = crate::inventory::parse("f", text).unwrap().inventory;
        let body = format!("{{\"client_params\":{{\"id\":\"{id}\",\"group\":\"{group}\"}}}}");
        node(&inventory, body.as_bytes()).map_err(|refused| refused.kind)
    }

    #[test]
    fn a_client_is_known_by_name_by_machine_id_and_by_what_zincati_makes_of_that() {
        let a = NodeName("a-1".to_owned());
        // `systemd-id128 machine-id --app-specific=de35106b6ec24688b63afddaa156679b` on that machine.
        for id in [
            "a-1",
            "e0f3745b108f471cbd4883c6fbed8cdd",
            "E0F3745B-108F-471C-BD48-83C6FBED8CDD",
            "8f040e49ad9a45a8b0c617313becf153",
        ] {
            assert_eq!(ask(id, "a"), Ok(a.clone()), "{id}");
        }
        assert_eq!(ask("a-1", "b"), Err("wrong_group"));
        assert_eq!(ask("a-1", "default"), Err("wrong_group"));
        assert_eq!(ask("e0f3745b108f471cbd4883c6fbed8cde", "a"), Err("unknown_id"));
        assert_eq!(ask("a-1\", \"id\": 7, \"x\": \"", "a"), Err("bad_request"));
    }
}
