//! Who a certificate speaks for: one URI name, `blackstart://ROLE/NAME`.

use std::fmt;
use std::str::FromStr;

/// The DNS name in the coordinator's certificate, which clients verify instead of an address: an address may change, and
/// nothing on the way back up resolves a name.
pub const COORDINATOR_DNS_NAME: &str = "coordinator.blackstart";

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerIdentity {
    /// A node's agent: speaks only for this node.
    Node(String),
    /// A person with the command.
    Operator(String),
    /// A coordinator.
    Coordinator(String),
}

impl PeerIdentity {
    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            Self::Node(name) | Self::Operator(name) | Self::Coordinator(name) => name,
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self {
            Self::Node(_) => "node",
            Self::Operator(_) => "operator",
            Self::Coordinator(_) => "coordinator",
        };
        write!(f, "blackstart://{role}/{}", self.name())
    }
}

/// A text that is not a peer's identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not blackstart://node/NAME, blackstart://operator/NAME or blackstart://coordinator/NAME")]
pub struct NotAnIdentity(String);

impl FromStr for PeerIdentity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let bad = || NotAnIdentity(text.to_owned());
        let rest = text.strip_prefix("blackstart://").ok_or_else(bad)?;
        let (role, name) = rest.split_once('/').ok_or_else(bad)?;
        if !valid_name(name) {
            return Err(bad());
        }
        match role {
            "node" => Ok(Self::Node(name.to_owned())),
            "operator" => Ok(Self::Operator(name.to_owned())),
            "coordinator" => Ok(Self::Coordinator(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// A name of a node, cluster or person: 1 to 63 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit. It can stand in a
/// file name, a URI and a terminal without harm.
pub fn valid_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_being_written_and_read() {
        for peer in [
            PeerIdentity::Node("10.128.38.1".into()),
            PeerIdentity::Operator("ann".into()),
            PeerIdentity::Coordinator("c1".into()),
        ] {
            assert_eq!(peer.to_string().parse(), Ok(peer));
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "blackstart://node/",
            "blackstart://node/../x",
            "blackstart://root/x",
            "https://node/x",
            "blackstart://node/a b",
        ] {
            assert!(text.parse::<PeerIdentity>().is_err(), "{text}");
        }
    }
}
