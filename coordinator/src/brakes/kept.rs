//! How holds and storms stand in the store: two values, each written whole.

use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::handle::millis;
use super::{Book, Held, Hold, Scope};
use crate::inventory::{ClusterName, NodeName};
use crate::store::{Store, StoreError};
use crate::storm::Frozen;

pub(crate) const HOLDS: &str = "brakes/holds";
pub(crate) const STORMS: &str = "brakes/storms";

#[derive(Debug, Serialize, Deserialize)]
struct KeptHold {
    node: Option<String>,
    cluster: Option<String>,
    remedy: Option<String>,
    silence: bool,
    by: String,
    reason: String,
    made_unix_ms: u64,
    length_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptStorm {
    cluster: String,
    condition: String,
    threshold: usize,
    evidence: String,
}

/// Writes the holds. Durable once it has returned.
pub(super) fn save_holds(store: &dyn Store, holds: &[Hold]) -> Result<(), StoreError> {
    let kept: Vec<_> = holds
        .iter()
        .map(|hold| {
            let (node, cluster) = match &hold.scope {
                Scope::Node(name) => (Some(name.0.clone()), None),
                Scope::Cluster(name) => (None, Some(name.0.clone())),
                Scope::Fleet => (None, None),
            };
            KeptHold {
                node,
                cluster,
                remedy: match hold.what {
                    Held::Remedy(kind) => Some(kind.as_str().to_owned()),
                    Held::Every | Held::Silence => None,
                },
                silence: hold.what == Held::Silence,
                by: hold.by.clone(),
                reason: hold.reason.clone(),
                made_unix_ms: hold.made_unix_ms,
                length_ms: hold.length.map(millis),
            }
        })
        .collect();
    // Strings, flags and numbers: there is nothing that JSON cannot say.
    store.put(HOLDS, &serde_json::to_vec(&kept).unwrap_or_default())
}

/// Writes the storms. Durable once it has returned.
pub(super) fn save_storms(store: &dyn Store, book: &Book) -> Result<(), StoreError> {
    let kept: Vec<_> = book
        .storms
        .iter()
        .map(|((cluster, condition), frozen)| KeptStorm {
            cluster: cluster.0.clone(),
            condition: condition.clone(),
            threshold: frozen.threshold,
            evidence: frozen.evidence.clone(),
        })
        .collect();
    store.put(STORMS, &serde_json::to_vec(&kept).unwrap_or_default())
}

/// What was kept. A hold's time goes on by the wall clock; one that fell back since gives it its whole length anew. What cannot be read
/// is as good as nothing, and is told.
pub(super) fn load(store: &dyn Store, now: Instant, unix_ms: u64) -> Result<Book, StoreError> {
    let holds: Vec<KeptHold> = read(store, HOLDS)?;
    let frozen: Vec<KeptStorm> = read(store, STORMS)?;
    let hold = |kept: KeptHold| {
        let length = kept.length_ms.map(Duration::from_millis);
        let elapsed = Duration::from_millis(unix_ms.saturating_sub(kept.made_unix_ms));
        let until = match length {
            None => None,
            Some(length) => Some(now + length.checked_sub(elapsed)?),
        };
        let what = match (kept.silence, kept.remedy) {
            (true, _) => Held::Silence,
            (false, None) => Held::Every,
            (false, Some(name)) => Held::Remedy(RemedyKind::named(&name)?),
        };
        Some(Hold {
            scope: match (kept.node, kept.cluster) {
                (Some(node), _) => Scope::Node(NodeName(node)),
                (None, Some(cluster)) => Scope::Cluster(ClusterName(cluster)),
                (None, None) => Scope::Fleet,
            },
            what,
            by: kept.by,
            reason: kept.reason,
            made_unix_ms: kept.made_unix_ms,
            length,
            until,
        })
    };
    let revive = |kept: KeptStorm| {
        let known = Frozen {
            since: now,
            threshold: kept.threshold,
            evidence: kept.evidence,
            below_since: None,
        };
        ((ClusterName(kept.cluster), kept.condition), known)
    };
    Ok(Book {
        holds: holds.into_iter().filter_map(hold).collect(),
        storms: frozen.into_iter().map(revive).collect(),
        renewal: 0,
    })
}

fn read<T: for<'a> Deserialize<'a>>(store: &dyn Store, key: &str) -> Result<Vec<T>, StoreError> {
    let Some(value) = store.get(key)? else {
        return Ok(Vec::new());
    };
    Ok(serde_json::from_slice(&value).unwrap_or_else(|error| {
        tracing::error!(key, %error, "what is held cannot be read from the store; nothing of it counts");
        Vec::new()
    }))
}
