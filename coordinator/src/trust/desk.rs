//! Makes tokens, lets nodes join and renew, revokes. Everything that it says is durable before it is said.
//!
//! One thing at a time: a token that is for one node must not be used by two at once. Calls block for the disk, so they are made from
//! threads that may.
//!
//! | module | story |
//! |---|---|
//! | `tokens` | made, told once, taken back |
//! | `joining` | nodes that join by a token, and renew |
//! | `revoking` | revoked, and cut |
//! | `operators` | operators who renew |

mod joining;
mod operators;
mod revoking;
mod tokens;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::joining::{Given, is_behind};
pub(crate) use self::revoking::revoked;
pub(crate) use self::tokens::NewToken;
use super::book::{Issued, Refusal, Token};
use super::flood::Flood;
use super::gate::Gate;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::inventory::{Inventory, NodeName};
use crate::pki::{Authority, PkiError};
use crate::store::{Store, StoreError};

/// All tokens, in one value.
pub(crate) const TOKENS: &str = "trust/tokens";
/// What each node was given.
pub(crate) const ISSUED: &str = "trust/issued/";
/// Each revocation.
pub(crate) const REVOKED: &str = "trust/revoked/";

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
}
