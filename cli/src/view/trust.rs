//! Tokens and what nodes were given, as they stand in JSON.

use blackstart_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::Resource;
use super::convert::{at, given};

/// Lets nodes join. Its secret is not here: it is told once, by [`NewToken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) node: Option<String>,
    pub(crate) cluster: Option<String>,
    /// For so many nodes…
    pub(crate) count: u32,
    /// …of which so many may still come.
    pub(crate) left: u32,
    pub(crate) made_at: Option<Timestamp>,
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// `used`, `expired` or `taken back`.
    pub(crate) over: Option<String>,
}

impl Resource for Token {
    const KIND: &'static str = "Token";
    const NOUN: &'static str = "token";

    fn key(&self) -> String {
        self.id.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// A token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NewToken {
    /// `ID.SECRET`
    pub(crate) token: String,
    pub(crate) ca_hash: String,
    pub(crate) addresses: Vec<String>,
    /// What is typed on the node.
    pub(crate) join: String,
    #[serde(flatten)]
    pub(crate) made: Token,
}

/// What a node was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeCertificate {
    pub(crate) node: String,
    pub(crate) cluster: Option<String>,
    pub(crate) serial: String,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) ends_at: Option<Timestamp>,
    /// By an operator's word it may be renewed until then.
    pub(crate) renewable_until_at: Option<Timestamp>,
    /// It does not trust the authorities that it should.
    pub(crate) behind: bool,
    pub(crate) revoked: Option<String>,
}

impl Resource for NodeCertificate {
    const KIND: &'static str = "NodeCertificate";
    const NOUN: &'static str = "certificate";

    fn key(&self) -> String {
        self.node.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// That certificates count no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Revocation {
    /// `blackstart://ROLE/NAME` or `serial:HEX`
    pub(crate) subject: String,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) revoked_at: Option<Timestamp>,
    /// Connections that were cut.
    pub(crate) cut: u32,
    /// Its holder has joined anew since.
    pub(crate) joined_anew: bool,
}

impl Resource for Revocation {
    const KIND: &'static str = "Revocation";
    const NOUN: &'static str = "revocation";

    fn key(&self) -> String {
        self.subject.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// Whether the audit is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct AuditReport {
    pub(crate) records: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// `SEQUENCE:HASH` of the last record.
    pub(crate) head: String,
    /// Bytes of a last record that a crash cut off.
    pub(crate) torn_bytes: u64,
    pub(crate) problems: Vec<String>,
}

fn seconds(unix: u64) -> Option<Timestamp> {
    at(unix.saturating_mul(1000))
}

impl From<v1::Token> for Token {
    fn from(wire: v1::Token) -> Self {
        Self {
            id: wire.id,
            node: given(wire.node),
            cluster: given(wire.cluster),
            count: wire.count,
            left: wire.left,
            made_at: seconds(wire.made_unix_s),
            ends_at: seconds(wire.ends_unix_s),
            by: wire.by,
            reason: wire.reason,
            over: given(wire.over),
        }
    }
}

impl From<v1::NodeCertificate> for NodeCertificate {
    fn from(wire: v1::NodeCertificate) -> Self {
        Self {
            node: wire.node,
            cluster: given(wire.cluster),
            serial: wire.serial,
            issued_at: seconds(wire.issued_unix_s),
            ends_at: seconds(wire.ends_unix_s),
            renewable_until_at: seconds(wire.renewable_until_unix_s),
            behind: wire.behind,
            revoked: None,
        }
    }
}

impl From<v1::Revocation> for Revocation {
    fn from(wire: v1::Revocation) -> Self {
        Self {
            subject: wire.subject,
            by: wire.by,
            reason: wire.reason,
            revoked_at: seconds(wire.at_unix_s),
            cut: wire.cut,
            joined_anew: wire.joined_anew,
        }
    }
}
