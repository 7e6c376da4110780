//! Makes tokens, lets nodes join and renew, revokes. Everything that it says is durable before it is said.
//!
//! One thing at a time: a token that is for one node must not be used by two at once. Calls block for the disk, so they are made from
//! threads that may.

mod operators;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::machine::hex;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::book::{
    Asks, Issued, Joins, Refusal, Revocation, Revoked, Subject, Token, may_join, may_renew, secret_digest,
};
use super::flood::Flood;
use super::gate::Gate;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};
use crate::pki::{Authority, CertificateRequest, Certified, PkiError, Shown, authority_hash};
use crate::store::{Store, StoreError};

/// All tokens, in one value.
pub(crate) const TOKENS: &str = "trust/tokens";
/// What each node was given.
pub(crate) const ISSUED: &str = "trust/issued/";
/// Each revocation.
pub(crate) const REVOKED: &str = "trust/revoked/";

/// More tokens than anybody needs at once.
const MOST_TOKENS: usize = 500;
/// A token that is over is shown for so long, seconds.
const SHOWN_FOR: u64 = 7 * 24 * 3600;
/// A token is for no more nodes.
pub(crate) const MOST_NODES: u32 = 10_000;
/// No token lasts longer.
pub(crate) const LONGEST_TTL: Duration = Duration::from_hours(30 * 24);
/// How long an operator's word lets a node renew.
const WORD: u64 = 24 * 3600;

/// How certificates are issued to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentSettings {
    /// The directory of the authority, as `blackstart pki init` makes it.
    pub authority: std::path::PathBuf,
    /// How long a certificate is valid; it is renewed at half of it.
    pub lifetime: Duration,
    /// So long after its end it can still be renewed.
    pub grace: Duration,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// This coordinator has no authority, or none that it could use when it began.
    #[error(
        "this coordinator issues no certificates: `enrolment` in its configuration names no authority that it can use (blackstart-coordinator init makes one; its log says more)"
    )]
    NoAuthority,
    /// It may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was asked cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is nothing like that.
    #[error("{0}")]
    NotFound(String),
    /// The authority failed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store failed: nothing was issued.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a token is to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewToken {
    pub(crate) ttl: Duration,
    pub(crate) node: Option<NodeName>,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) count: u32,
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// What a node is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) certified: Certified,
    pub(crate) authority: Vec<u8>,
    pub(crate) role: Role,
    pub(crate) cluster: ClusterName,
}

/// The desk of the coordinator that leads.
#[derive(Debug)]
pub struct Desk {
    store: Keeper,
    inventory: Arc<Inventory>,
    authority: Option<(Authority, EnrolmentSettings)>,
    /// The digests of the authorities that nodes are given to trust.
    trusts: Vec<String>,
    gate: Arc<Gate>,
    clock: Arc<ClockFloor>,
    events: Events,
    books: Mutex<Books>,
    flood: Mutex<Flood>,
}

struct Keeper(Arc<dyn Store>);

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

#[derive(Debug, Default)]
struct Books {
    tokens: Vec<Token>,
    issued: BTreeMap<NodeName, Issued>,
}

/// What is revoked, of a store. One that cannot be read counts: see [`Revocation`]'s owner for how it is told.
pub(crate) fn revoked(store: &dyn Store) -> Result<Revoked, StoreError> {
    let mut revoked = Revoked::default();
    for (key, value) in store.scan(REVOKED)? {
        let Some(revocation) = read::<Revocation>(&key, &value) else {
            // Fails towards keeping out: whose it is stands in the key as well.
            if let Some(subject) = key
                .strip_prefix(REVOKED)
                .and_then(|text| text.parse::<Subject>().ok())
            {
                let of = Revocation {
                    subject: subject.clone(),
                    by: "somebody".to_owned(),
                    reason: "the entry in the store cannot be read".to_owned(),
                    at: 0,
                    except: None,
                };
                revoked.0.insert(subject, of);
            }
            continue;
        };
        revoked.0.insert(revocation.subject.clone(), revocation);
    }
    Ok(revoked)
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| tracing::error!(key, %error, "an entry of the store cannot be read"))
        .ok()
}

impl Desk {
    /// Reads what the store has, and puts its revocations in force.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        inventory: Arc<Inventory>,
        enrolment: Option<&EnrolmentSettings>,
        gate: Arc<Gate>,
        clock: Arc<ClockFloor>,
        events: Events,
    ) -> Result<Self, StoreError> {
        // A fleet that is to be brought back does not wait for it.
        let authority = enrolment.and_then(|settings| match Authority::open(&settings.authority) {
            Ok(authority) => Some((authority, settings.clone())),
            Err(error) => {
                tracing::error!(%error, "no node can join or renew");
                let text = format!("no node can join or renew: {error}");
                events.emit(NewEvent::new(Severity::Critical, EventKind::Refused, text));
                None
            }
        });
        let tokens = store.get(TOKENS)?;
        let tokens = tokens.and_then(|value| read(TOKENS, &value)).unwrap_or_default();
        let mut issued = BTreeMap::new();
        for (key, value) in store.scan(ISSUED)? {
            if let (Some(name), Some(of)) = (key.strip_prefix(ISSUED), read::<Issued>(&key, &value)) {
                issued.insert(NodeName(name.to_owned()), of);
            }
        }
        gate.put_in_force(revoked(store.as_ref())?);
        let trusts = authority.as_ref().map(|(authority, _)| authority.trusted());
        let trusts = trusts.unwrap_or_default().into_iter().map(|one| one.hash);
        Ok(Self {
            store: Keeper(store),
            inventory,
            authority,
            trusts: trusts.collect(),
            gate,
            clock,
            events,
            books: Mutex::new(Books { tokens, issued }),
            flood: Mutex::default(),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Io {
            action: "encode for",
            path: key.into(),
            why: error.to_string(),
        })?;
        self.store.0.put(key, &bytes)
    }

    fn authority(&self) -> Result<&(Authority, EnrolmentSettings), DeskError> {
        self.authority.as_ref().ok_or(DeskError::NoAuthority)
    }

    fn tell(&self, severity: Severity, kind: EventKind, node: Option<&NodeName>, text: String) {
        let mut event = NewEvent::new(severity, kind, text);
        if let Some(node) = node {
            event = event.node(node);
            if let Some(spec) = self.inventory.node(node) {
                event = event.cluster(&spec.cluster);
            }
        }
        self.events.emit(event);
    }

    /// A refusal, unless there were many just before.
    fn tell_refusal(&self, node: Option<&NodeName>, text: String) {
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = flood.one_more(self.now());
        drop(flood);
        let text = match untold {
            None => return,
            Some(0) => text,
            Some(untold) => format!("{text}; {untold} more refusals before this one were not told"),
        };
        self.tell(Severity::Warning, EventKind::Refused, node, text);
    }

    /// The later of clock and floor.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// By which nodes know the authority.
    pub(crate) fn ca_hash(&self) -> Result<String, DeskError> {
        authority_hash(&self.authority()?.0.certificate()).map_err(DeskError::Invalid)
    }

    /// Makes a token; its text is told this once.
    pub(crate) fn create_token(&self, new: NewToken) -> Result<(String, Token), DeskError> {
        self.authority()?;
        let now = self.now();
        if new.ttl.as_secs() == 0 || new.ttl > LONGEST_TTL {
            return Err(DeskError::Invalid("a token lasts from 1 s to 30 days".to_owned()));
        }
        let most = if new.node.is_some() { 1 } else { MOST_NODES };
        if !(1..=most).contains(&new.count) {
            return Err(DeskError::Invalid(format!(
                "a token that is {} is for 1 to {most} of them",
                if new.node.is_some() {
                    "for a named node"
                } else {
                    "for any nodes"
                }
            )));
        }
        let (id, secret) = (random(4)?, random(16)?);
        let token = Token {
            digest: secret_digest(&secret),
            id: id.clone(),
            made_at: now,
            ends_at: now.saturating_add(new.ttl.as_secs()),
            by: new.by,
            reason: new.reason,
            node: new.node,
            cluster: new.cluster,
            count: new.count,
            left: new.count,
            revoked_by: None,
        };
        let mut books = self.books();
        let mut tokens = books.tokens.clone();
        tokens.retain(|token| now < token.ends_at.saturating_add(SHOWN_FOR));
        if tokens.len() >= MOST_TOKENS {
            tokens.retain(|token| token.over(now).is_none());
        }
        if tokens.len() >= MOST_TOKENS {
            return Err(DeskError::Invalid(format!(
                "there are {MOST_TOKENS} tokens already; take some back: blackstart token revoke ID"
            )));
        }
        tokens.push(token.clone());
        self.keep(TOKENS, &tokens)?;
        books.tokens = tokens;
        Ok((format!("{id}.{secret}"), token))
    }

    /// All that are kept.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.books().tokens.clone()
    }

    /// The one with this id.
    pub(crate) fn token(&self, id: &str) -> Result<Token, DeskError> {
        let books = self.books();
        let token = books.tokens.iter().find(|token| token.id == id);
        token
            .cloned()
            .ok_or_else(|| DeskError::NotFound(format!("there is no token {id:?}")))
    }

    /// Takes one back.
    pub(crate) fn revoke_token(&self, id: &str, by: &str) -> Result<(), DeskError> {
        let mut books = self.books();
        let mut tokens = books.tokens.clone();
        let token = tokens.iter_mut().find(|token| token.id == id);
        let token = token.ok_or_else(|| DeskError::NotFound(format!("there is no token {id:?}")))?;
        if token.revoked_by.is_none() {
            token.revoked_by = Some(by.to_owned());
            self.keep(TOKENS, &tokens)?;
            books.tokens = tokens;
        }
        Ok(())
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

    /// What is revoked.
    pub(crate) fn revocations(&self) -> Arc<Revoked> {
        self.gate.revoked()
    }

    /// Revokes, and cuts. Durable once it has returned; also if it was revoked before.
    pub(crate) fn revoke(
        &self,
        subject: &Subject,
        by: &str,
        reason: &str,
    ) -> Result<(Revocation, usize), DeskError> {
        let books = self.books();
        let revocation = Revocation {
            subject: subject.clone(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            at: self.now(),
            except: None,
        };
        self.keep(&format!("{REVOKED}{subject}"), &revocation)?;
        let mut revoked = Revoked::clone(&self.gate.revoked());
        revoked.0.insert(subject.clone(), revocation.clone());
        let cut = self.gate.put_in_force(revoked);
        drop(books);
        tracing::warn!(%subject, by, reason, cut, "certificates are revoked");
        let text = format!("{subject} revoked by {by}: {reason}");
        self.tell(Severity::Warning, EventKind::Revoked, None, text);
        Ok((revocation, cut))
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

/// `bytes` random ones, hexadecimal.
fn random(bytes: usize) -> Result<String, DeskError> {
    let mut random = vec![0; bytes];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| DeskError::Invalid("the system gives no random numbers".to_owned()))?;
    Ok(hex(&random))
}

/// As [`blackstart_proto::machine::name`] makes it.
fn machine_name(machine: &str) -> Result<&str, DeskError> {
    if machine.len() == 32 && machine.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(machine);
    }
    Err(DeskError::Invalid("that is no name of a machine".to_owned()))
}
