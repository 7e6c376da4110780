//! Tokens, issued certificates and revocations; and who may join and renew, as plain functions of them.
//!
//! A token is for one node, for the nodes of one cluster, or for any. Only one that names its node takes the place of an identity that
//! is there: whoever steals another one cannot become a node that has joined already.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::machine::hex;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::inventory::{ClusterName, NodeName};
use crate::pki::Shown;

/// Who renews more often than this is not served: an answer that was lost is asked for again later.
const RENEWED_JUST_NOW: u64 = 60;

/// Lets nodes join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it, without being secret.
    pub id: String,
    /// The digest of its secret, hexadecimal. The secret has 128 random bits, so a plain digest keeps it.
    pub digest: String,
    /// Seconds since the Unix epoch, as all times here.
    pub made_at: u64,
    /// It cannot be used from then on.
    pub ends_at: u64,
    /// The operator who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// For this node only…
    pub node: Option<NodeName>,
    /// …or nodes of this cluster only.
    pub cluster: Option<ClusterName>,
    /// For so many nodes…
    pub count: u32,
    /// …of which so many may still come.
    pub left: u32,
    /// The operator who took it back.
    #[serde(default)]
    pub revoked_by: Option<String>,
}

impl Token {
    /// Is this its secret? Digests of it are compared, so how long that takes tells nothing of use.
    pub fn is_secret(&self, secret: &str) -> bool {
        self.digest == secret_digest(secret)
    }

    /// Why nobody can join by it any more.
    pub fn over(&self, now: u64) -> Option<&'static str> {
        if self.revoked_by.is_some() {
            Some("taken back")
        } else if self.left == 0 {
            Some("used")
        } else if now >= self.ends_at {
            Some("expired")
        } else {
            None
        }
    }
}

/// How a secret is kept.
pub fn secret_digest(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// The certificate that a node has by joining or renewing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The digest of its key.
    pub key: String,
    /// The machine that it is bound to.
    pub machine: String,
    /// Its number, hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub issued_at: u64,
    /// When it ends.
    pub ends_at: u64,
    /// The id of the token that its key came by; `None`: its first certificate was made by hand.
    pub token: Option<String>,
    /// By an operator's word it may be renewed until then, whenever it ended.
    #[serde(default)]
    pub renewable_until: Option<u64>,
    /// The digests of the authorities that it was given to trust, of which the last issued it; empty: not known to keep them.
    #[serde(default)]
    pub trusts: Vec<String>,
}

/// Whose certificates, or which one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// All of a peer, by its URI.
    Peer(String),
    /// The one of this number, hexadecimal.
    Serial(String),
}

impl Subject {
    /// All certificates of a peer.
    pub fn peer(peer: &PeerIdentity) -> Self {
        Self::Peer(peer.to_string())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(uri) => f.write_str(uri),
            Self::Serial(serial) => write!(f, "serial:{serial}"),
        }
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// A text that names nothing that can be revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither blackstart://ROLE/NAME nor serial:HEX")]
pub struct NotASubject(String);

impl FromStr for Subject {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Self, NotASubject> {
        let bad = || NotASubject(text.chars().take(100).collect());
        if let Some(serial) = text.strip_prefix("serial:") {
            let serial = serial.replace(':', "").to_ascii_lowercase();
            let is_serial = (1..=40).contains(&serial.len()) && serial.chars().all(|c| c.is_ascii_hexdigit());
            return is_serial.then_some(Self::Serial(serial)).ok_or_else(bad);
        }
        let peer: PeerIdentity = text.parse().map_err(|_| bad())?;
        Ok(Self::peer(&peer))
    }
}

impl TryFrom<String> for Subject {
    type Error = NotASubject;

    fn try_from(text: String) -> Result<Self, NotASubject> {
        text.parse()
    }
}

/// An operator's word that certificates count no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which.
    pub subject: Subject,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: u64,
    /// The digest of the key by which its holder has joined anew since.
    #[serde(default)]
    pub except: Option<String>,
}

/// All that is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked(pub BTreeMap<Subject, Revocation>);

impl Revoked {
    /// Why this certificate does not count.
    pub(crate) fn of(&self, shown: &Shown) -> Option<&Revocation> {
        let by_serial = self.0.get(&Subject::Serial(shown.serial.clone()));
        by_serial.or_else(|| {
            let of_peer = self.0.get(&Subject::peer(&shown.peer))?;
            (of_peer.except.as_ref() != Some(&shown.key)).then_some(of_peer)
        })
    }

    /// Why the holder of this certificate gets no other one: it does not count, or the last that was given for its key does not. Whoever has
    /// the key may have kept an older certificate of it.
    pub(crate) fn of_renewal(&self, shown: &Shown, known: Option<&Issued>) -> Option<&Revocation> {
        let last = || {
            let known = known.filter(|known| known.key == shown.key)?;
            self.0.get(&Subject::Serial(known.serial.clone()))
        };
        self.of(shown).or_else(last)
    }

    /// All certificates of this peer are revoked, as far as can be told without one.
    pub(crate) fn of_peer(&self, peer: &PeerIdentity) -> Option<&Revocation> {
        let of_peer = self.0.get(&Subject::peer(peer));
        of_peer.filter(|revocation| revocation.except.is_none())
    }
}

/// Who wants a certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks<'a> {
    pub(crate) node: &'a NodeName,
    /// Its cluster; `None`: it is not in the inventory.
    pub(crate) cluster: Option<&'a ClusterName>,
    /// The digest of the key that it holds.
    pub(crate) key: &'a str,
    pub(crate) machine: &'a str,
}

/// Why there is no certificate. Said to whoever asked; so nothing of a token is told to those who do not know its secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown, or its secret is wrong.
    #[error("this token is not known here")]
    BadToken,
    /// It was taken back.
    #[error("token {0} was taken back by {1}")]
    TakenBack(String, String),
    /// Its time is over.
    #[error("token {0} expired {1} s ago")]
    Expired(String, u64),
    /// All its uses are used.
    #[error("token {0} is used up: it was for {1}")]
    UsedUp(String, String),
    /// It names another node.
    #[error("token {0} is for node {1} only")]
    OtherNode(String, NodeName),
    /// It names another cluster.
    #[error("token {0} is for nodes of cluster {1} only")]
    OtherCluster(String, ClusterName),
    /// Nobody expects it.
    #[error("node {0} is not in the inventory; add it there and restart the coordinator")]
    NotDeclared(NodeName),
    /// It has an identity already, or had one.
    #[error(
        "node {0} has joined before: only a token that names it takes its place (blackstart token create --node {0})"
    )]
    Known(NodeName),
    /// Its certificates are revoked, and the token is older than that.
    #[error("certificates of {0} were revoked by {1}: {2}")]
    Revoked(String, String, String),
    /// It holds another key than the certificate's.
    #[error("the key is not the one of node {0}'s certificate")]
    OtherKey(NodeName),
    /// It is another machine.
    #[error(
        "node {0} is bound to another machine; if the machine was replaced, join it with a token that names it"
    )]
    OtherMachine(NodeName),
    /// It ended too long ago.
    #[error(
        "the certificate ended {0} days ago, beyond the grace of {1} days; an operator can allow it: blackstart node allow-renewal {2}"
    )]
    BeyondGrace(u64, u64, NodeName),
    /// It has just been renewed.
    #[error("node {0} was given a certificate {1} s ago; ask again in a minute")]
    JustNow(NodeName, u64),
}

/// How it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joins {
    /// For the first time by this token, which is used for it.
    New,
    /// Its answer was lost: the token was used for it already.
    Again,
}

/// May it join by this token, whose secret it has shown?
pub(crate) fn may_join(
    token: &Token,
    known: Option<&Issued>,
    revoked: Option<&Revocation>,
    asks: Asks<'_>,
    now: u64,
) -> Result<Joins, Refusal> {
    let id = || token.id.clone();
    if let Some(by) = &token.revoked_by {
        return Err(Refusal::TakenBack(id(), by.clone()));
    }
    if let Some(node) = token.node.as_ref().filter(|node| *node != asks.node) {
        return Err(Refusal::OtherNode(id(), node.clone()));
    }
    let Some(declared) = asks.cluster else {
        return Err(Refusal::NotDeclared(asks.node.clone()));
    };
    if let Some(cluster) = token.cluster.as_ref().filter(|cluster| *cluster != declared) {
        return Err(Refusal::OtherCluster(id(), cluster.clone()));
    }
    if now >= token.ends_at {
        return Err(Refusal::Expired(id(), now - token.ends_at));
    }
    let same_key = known.is_some_and(|known| known.key == asks.key);
    let again = same_key
        && known
            .is_some_and(|known| known.machine == asks.machine && known.token.as_ref() == Some(&token.id));
    // A key that was revoked stays so, whatever the token: others may have it. One that joined after that may ask again.
    if let Some(revocation) = revoked.filter(|revocation| {
        let joined_since = revocation.except.as_deref() == Some(asks.key);
        (same_key && !joined_since) || (token.made_at < revocation.at && !(again && joined_since))
    }) {
        return Err(of(revocation));
    }
    if again {
        return Ok(Joins::Again);
    }
    if token.left == 0 {
        let plural = if token.count == 1 { "" } else { "s" };
        return Err(Refusal::UsedUp(id(), format!("{} node{plural}", token.count)));
    }
    if token.node.is_none() && (known.is_some() || revoked.is_some()) {
        return Err(Refusal::Known(asks.node.clone()));
    }
    Ok(Joins::New)
}

/// May the holder of this certificate, which our authority has issued, have it renewed?
pub(crate) fn may_renew(
    shown: &Shown,
    known: Option<&Issued>,
    revoked: Option<&Revocation>,
    asks: Asks<'_>,
    now: u64,
    grace: Duration,
) -> Result<(), Refusal> {
    const DAY: u64 = 24 * 3600;
    let node = || asks.node.clone();
    if asks.cluster.is_none() {
        return Err(Refusal::NotDeclared(node()));
    }
    if shown.key != asks.key || known.is_some_and(|known| known.key != asks.key) {
        return Err(Refusal::OtherKey(node()));
    }
    if let Some(revocation) = revoked {
        return Err(of(revocation));
    }
    let bound = known.map(|known| &known.machine).or(shown.machine.as_ref());
    if bound.is_some_and(|bound| bound != asks.machine) {
        return Err(Refusal::OtherMachine(node()));
    }
    let by_word = known.and_then(|known| known.renewable_until);
    if by_word.is_some_and(|until| now <= until) {
        return Ok(());
    }
    if now > shown.ends.saturating_add(grace.as_secs()) {
        return Err(Refusal::BeyondGrace(
            (now - shown.ends) / DAY,
            grace.as_secs() / DAY,
            node(),
        ));
    }
    if let Some(known) = known
        && now < known.issued_at.saturating_add(RENEWED_JUST_NOW)
    {
        return Err(Refusal::JustNow(node(), now.saturating_sub(known.issued_at)));
    }
    Ok(())
}

fn of(revocation: &Revocation) -> Refusal {
    Refusal::Revoked(
        revocation.subject.to_string(),
        revocation.by.clone(),
        revocation.reason.clone(),
    )
}

#[cfg(test)]
mod tests;
