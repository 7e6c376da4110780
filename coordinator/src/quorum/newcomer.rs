//! A member on a node that has none: what the agent there is asked, and what it tells. The manifest is that of a member that is well, with another
//! name and another address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::judge::{Seen, View};
use crate::inventory::NodeName;

/// The manifest of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name in the directory.
    pub file: String,
    /// All of it.
    pub text: String,
    /// The authorities that it trusts, each the SHA-256 of a certificate in hexadecimal digits.
    pub authorities: Vec<String>,
}

/// What an agent is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The manifest of a member of the same cluster.
    pub like: Template,
    /// What the new member is to be called.
    pub name: String,
    /// An address of its node, as a URL has it.
    pub address: String,
    /// `name=url,…`.
    pub initial_cluster: String,
    /// So many bytes have to be free where its data is going to be.
    pub needs_bytes: u64,
}

/// What an agent tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The manifest; empty where none could be made.
    pub text: String,
    /// Its lines that are others, with `- ` and `+ ` before them.
    pub changed: Vec<String>,
    /// What a member there would need, and how to give it.
    pub missing: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A manifest for a node that has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewManifest {
    /// Its name in the directory.
    pub file: String,
    /// All of it.
    pub text: String,
}

/// A member that is to be, before its agent is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The node of the member that it replaces.
    pub lost: NodeName,
    /// Where it is to be.
    pub on: NodeName,
    /// The node whose manifest its own is made of.
    pub like: NodeName,
    /// An address of its node, as a URL has it.
    pub address: String,
    /// Where its peers are going to find it.
    pub peer_urls: Vec<String>,
    /// `name=url,…`, of all of them.
    pub initial_cluster: String,
    /// So many bytes have to be free.
    pub needs_bytes: u64,
}

/// The same, and what its agent tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// What is wanted.
    pub wanted: Wanted,
    /// The manifest's name in the directory, and what the agent tells; or why it is not known.
    pub told: Result<(String, Prepared), String>,
}

/// The member that was on a node. Where its agent is silent, or its node was set up anew, it is told by the node's address, or by its name.
pub fn lost<'a>(view: &'a View, node: &NodeName, address: Option<IpAddr>) -> Option<&'a Seen> {
    let own = view.on(node)?;
    if own.id.is_some() {
        return Some(own);
    }
    let nowhere = || view.members.iter().filter(|seen| seen.node.is_none());
    nowhere()
        .find(|seen| address.is_some_and(|address| is_at(seen, address)))
        .or_else(|| nowhere().find(|seen| seen.name == node.0))
        .or(Some(own))
}

/// Its peers find it at this address.
pub fn is_at(seen: &Seen, address: IpAddr) -> bool {
    let address = in_url(address);
    seen.peer_urls.iter().any(|url| host(url) == address)
}

/// An address as a URL has it.
pub fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// `10.0.0.1` of `https://10.0.0.1:2379`.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_from_urls() {
        for (url, expected) in [
            ("https://10.0.0.1:2379", "10.0.0.1"),
            ("https://[fd00::1]:2379/", "[fd00::1]"),
            ("http://etcd-1", "etcd-1"),
            ("https://[fd00::1]", "[fd00::1]"),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
        assert_eq!(in_url("fd00::1".parse().unwrap()), "[fd00::1]");
    }
}
