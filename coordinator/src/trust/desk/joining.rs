//! Nodes that join by a token, and renew what they were given.

use std::collections::BTreeMap;

use blackstart_proto::identity::PeerIdentity;

use super::{Books, Desk, DeskError, ISSUED, REVOKED, TOKENS};
use crate::events::{EventKind, Severity};
use crate::inventory::{ClusterName, NodeName, Role};
use crate::pki::{CertificateRequest, Certified, Shown, authority_hash};
use crate::trust::book::{Asks, Issued, Joins, Refusal, Revocation, Revoked, Subject, may_join, may_renew};

/// How long an operator's word lets a node renew.
const WORD: u64 = 24 * 3600;

/// What a node is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) certified: Certified,
    pub(crate) authority: Vec<u8>,
    pub(crate) role: Role,
    pub(crate) cluster: ClusterName,
}

impl Desk {
    /// By which nodes know the authority.
    pub(crate) fn ca_hash(&self) -> Result<String, DeskError> {
        authority_hash(&self.authority()?.0.certificate()).map_err(DeskError::Invalid)
    }

    /// Lets a node join. A token counts as used once that is durable, before anything is issued: who gets no answer asks again with the
    /// same key.
    pub(crate) fn join(
        &self,
        token: &str,
        node: &NodeName,
        machine: &str,
        request: &CertificateRequest,
    ) -> Result<Given, DeskError> {
        let done = self.join_by(token, node, machine, request);
        if let Err(error) = &done {
            let id: String = token
                .chars()
                .take_while(char::is_ascii_hexdigit)
                .take(8)
                .collect();
            tracing::warn!(%node, token = id, why = %error, "a node may not join");
            self.tell_refusal(
                self.inventory.node(node).map(|spec| &spec.name),
                format!("joining as {node} by token {id}: {error}"),
            );
        }
        done
    }

    fn join_by(
        &self,
        token: &str,
        node: &NodeName,
        machine: &str,
        request: &CertificateRequest,
    ) -> Result<Given, DeskError> {
        self.authority()?;
        let machine = machine_name(machine)?;
        let (id, secret) = token.trim().split_once('.').ok_or(Refusal::BadToken)?;
        let now = self.now();
        let key = request.key();
        let spec = self.inventory.node(node);
        let asks = Asks {
            node,
            cluster: spec.map(|spec| &spec.cluster),
            key: &key,
            machine,
        };
        let mut books = self.books();
        let token = books.tokens.iter().find(|token| token.id == id);
        let token = token
            .filter(|token| token.is_secret(secret))
            .ok_or(Refusal::BadToken)?;
        let subject = Subject::peer(&PeerIdentity::Node(node.0.clone()));
        let revoked = self.gate.revoked();
        let revocation = revoked.0.get(&subject);
        let joins = may_join(token, books.issued.get(node), revocation, asks, now)?;
        if joins == Joins::New {
            let mut tokens = books.tokens.clone();
            for token in tokens.iter_mut().filter(|token| token.id == id) {
                token.left -= 1;
            }
            self.keep(TOKENS, &tokens)?;
            books.tokens = tokens;
        }
        if let Some(revocation) = revocation {
            // All of its older certificates stay revoked.
            let anew = Revocation {
                except: Some(key.clone()),
                ..revocation.clone()
            };
            self.keep(&format!("{REVOKED}{subject}"), &anew)?;
            let mut revoked = Revoked::clone(&revoked);
            revoked.0.insert(subject, anew);
            self.gate.put_in_force(revoked);
        }
        let given = self.issue(&mut books, asks, request, Some(id.to_owned()), (now, true))?;
        drop(books);
        let serial = &given.certified.serial;
        tracing::info!(%node, token = id, serial, again = joins == Joins::Again, "a node joins");
        let text = format!("joined by token {id}; certificate {serial}");
        self.tell(Severity::Info, EventKind::Enrolled, Some(node), text);
        Ok(given)
    }

    /// Renews a certificate that an authority has issued that is trusted; `keeps`: the agent keeps the authorities that it is answered with.
    pub(crate) fn renew(
        &self,
        certificate: &[u8],
        machine: &str,
        request: &CertificateRequest,
        keeps: bool,
    ) -> Result<Given, DeskError> {
        let (authority, settings) = self.authority()?;
        let machine = machine_name(machine)?;
        let shown = Shown::read(certificate).map_err(DeskError::Invalid)?;
        let now = self.now();
        // It may have ended: that is what the grace is for.
        authority
            .vouches_for(certificate, now.min(shown.ends))
            .map_err(DeskError::Invalid)?;
        let PeerIdentity::Node(name) = &shown.peer else {
            return Err(DeskError::Invalid(format!(
                "only nodes renew by themselves, and the certificate is {}'s",
                shown.peer
            )));
        };
        let node = NodeName(name.clone());
        let key = request.key();
        let asks = Asks {
            node: &node,
            cluster: self.inventory.node(&node).map(|spec| &spec.cluster),
            key: &key,
            machine,
        };
        let mut books = self.books();
        let revoked = self.gate.revoked();
        let known = books.issued.get(&node);
        let revocation = revoked.of_renewal(&shown, known);
        if let Err(refusal) = may_renew(&shown, known, revocation, asks, now, settings.grace) {
            drop(books);
            tracing::warn!(%node, why = %refusal, "a certificate is not renewed");
            if !matches!(refusal, Refusal::JustNow(..)) {
                let text = format!("renewal of certificate {}: {refusal}", shown.serial);
                self.tell_refusal(Some(&node), text);
            }
            return Err(refusal.into());
        }
        let token = known.and_then(|known| known.token.clone());
        let given = self.issue(&mut books, asks, request, token, (now, keeps))?;
        drop(books);
        let late = now.saturating_sub(shown.ends);
        let serial = &given.certified.serial;
        tracing::info!(%node, serial, late_by_s = late, "a certificate is renewed");
        let text = format!("certificate renewed: {serial}, in place of {}", shown.serial);
        self.tell(Severity::Info, EventKind::Enrolled, Some(&node), text);
        Ok(given)
    }

    /// Signs, and writes down what was signed before it is given away; `keeps`: as for [`Self::renew`].
    fn issue(
        &self,
        books: &mut Books,
        asks: Asks<'_>,
        request: &CertificateRequest,
        token: Option<String>,
        (now, keeps): (u64, bool),
    ) -> Result<Given, DeskError> {
        let (authority, settings) = self.authority()?;
        let Some(spec) = self.inventory.node(asks.node) else {
            return Err(Refusal::NotDeclared(asks.node.clone()).into());
        };
        let certified =
            authority.certify_node(&asks.node.0, asks.machine, request, now, settings.lifetime)?;
        let issued = Issued {
            key: asks.key.to_owned(),
            machine: asks.machine.to_owned(),
            serial: certified.serial.clone(),
            issued_at: now,
            ends_at: certified.ends,
            token,
            renewable_until: None,
            trusts: if keeps { self.trusts.clone() } else { Vec::new() },
        };
        self.keep(&format!("{ISSUED}{}", asks.node), &issued)?;
        books.issued.insert(asks.node.clone(), issued);
        Ok(Given {
            certified,
            authority: authority.certificate(),
            role: spec.role,
            cluster: spec.cluster.clone(),
        })
    }

    /// The authorities that nodes are given to trust, the one that issues last; none where nothing is issued.
    pub(crate) fn trusts(&self) -> &[String] {
        &self.trusts
    }

    /// Is this node to renew before it is due, since it does not trust the authorities that it should?
    pub(crate) fn is_behind(&self, node: &NodeName) -> bool {
        is_behind(self.books().issued.get(node), &self.trusts)
    }

    /// What nodes were given.
    pub(crate) fn issued(&self) -> BTreeMap<NodeName, Issued> {
        self.books().issued.clone()
    }

    /// Lets a node renew whose certificate ended too long ago.
    pub(crate) fn allow_renewal(&self, node: &NodeName, by: &str, reason: &str) -> Result<Issued, DeskError> {
        let mut books = self.books();
        let Some(known) = books.issued.get(node) else {
            return Err(DeskError::NotFound(format!(
                "node {node} was never given a certificate by this coordinator; let it join: blackstart token create --node {node}"
            )));
        };
        let issued = Issued {
            renewable_until: Some(self.now().saturating_add(WORD)),
            ..known.clone()
        };
        self.keep(&format!("{ISSUED}{node}"), &issued)?;
        books.issued.insert(node.clone(), issued.clone());
        drop(books);
        tracing::info!(%node, by, reason, "an operator lets a node renew its certificate");
        let text = format!("operator {by} lets it renew its certificate for a day: {reason}");
        self.tell(Severity::Warning, EventKind::Enrolled, Some(node), text);
        Ok(issued)
    }
}

/// Does whoever was given this lack one of the authorities that are trusted, or trust one that is not any more?
pub(crate) fn is_behind(issued: Option<&Issued>, trusts: &[String]) -> bool {
    match issued {
        // A certificate that was made before this was written down is of the only authority that there was.
        Some(issued) if issued.trusts.is_empty() => trusts.len() > 1,
        None => trusts.len() > 1,
        Some(issued) => issued.trusts != trusts,
    }
}

/// As [`blackstart_proto::machine::name`] makes it.
fn machine_name(machine: &str) -> Result<&str, DeskError> {
    if machine.len() == 32 && machine.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(machine);
    }
    Err(DeskError::Invalid("that is no name of a machine".to_owned()))
}
