//! How permits stand in the store: one value, written whole.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Asker, Grant, PermitId, PermitKind, Wish};
use crate::inventory::NodeName;
use crate::store::{Store, StoreError};

/// The value's key.
pub(crate) const PERMITS: &str = "permits";

/// Permits that stand, and requests that are over: one of those that is repeated late is never granted again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) grants: Vec<Grant>,
    pub(super) over: VecDeque<PermitId>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    grants: Vec<WrittenGrant>,
    over: Vec<(NodeName, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenGrant {
    node: NodeName,
    request: String,
    kind: String,
    fleetlock: bool,
    subject: String,
    reason: String,
    epoch: u64,
    granted_unix_ms: u64,
    term_ms: u64,
}

/// Durable once it has returned.
pub(super) fn save(store: &dyn Store, kept: &Kept) -> Result<(), StoreError> {
    let grants = kept.grants.iter().map(|grant| WrittenGrant {
        node: grant.wish.id.node.clone(),
        request: grant.wish.id.request.clone(),
        kind: grant.wish.kind.as_str().to_owned(),
        fleetlock: grant.wish.asker == Asker::FleetLock,
        subject: grant.wish.subject.clone(),
        reason: grant.wish.reason.clone(),
        epoch: grant.epoch,
        granted_unix_ms: grant.granted_unix_ms,
        term_ms: u64::try_from(grant.term.as_millis()).unwrap_or(u64::MAX),
    });
    let written = Written {
        grants: grants.collect(),
        over: kept
            .over
            .iter()
            .map(|id| (id.node.clone(), id.request.clone()))
            .collect(),
    };
    // Strings, flags and numbers: there is nothing that JSON cannot say.
    store.put(PERMITS, &serde_json::to_vec(&written).unwrap_or_default())
}

/// What was kept; terms begin anew at `now`. What cannot be read is as good as nothing, and is told: a fleet must not stay without a
/// coordinator for it, and no control plane goes below its quorum all the same.
pub(super) fn load(store: &dyn Store, now: Instant) -> Result<Kept, StoreError> {
    let Some(value) = store.get(PERMITS)? else {
        return Ok(Kept::default());
    };
    Ok(read(&value, now).unwrap_or_else(|error| {
        tracing::error!(
            error,
            "permits cannot be read from the store; none of them counts"
        );
        Kept::default()
    }))
}

/// Understands the value.
pub(crate) fn understand(value: &[u8]) -> Result<(), String> {
    read(value, Instant::now()).map(drop)
}

fn read(value: &[u8], now: Instant) -> Result<Kept, String> {
    let written: Written = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let grant = |grant: WrittenGrant| {
        let kind = PermitKind::named(&grant.kind)
            .ok_or_else(|| format!("{:?} is no kind of permit that this version knows", grant.kind))?;
        Ok(Grant {
            wish: Wish {
                id: PermitId {
                    node: grant.node,
                    request: grant.request,
                },
                kind,
                asker: if grant.fleetlock {
                    Asker::FleetLock
                } else {
                    Asker::Agent
                },
                subject: grant.subject,
                reason: grant.reason,
            },
            epoch: grant.epoch,
            granted_unix_ms: grant.granted_unix_ms,
            since: now,
            term: Duration::from_millis(grant.term_ms),
        })
    };
    let over = written.over.into_iter();
    Ok(Kept {
        grants: written
            .grants
            .into_iter()
            .map(grant)
            .collect::<Result<_, String>>()?,
        over: over.map(|(node, request)| PermitId { node, request }).collect(),
    })
}
