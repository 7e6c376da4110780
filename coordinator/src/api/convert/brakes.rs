//! Holds, freezes and storms on the wire.

use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use blackstart_proto::v1;
use tokio::time::Instant;
use tonic::Status;

use super::milliseconds;
use super::operator::count;
use crate::brakes::{Held, Hold, NodeBrakes, Scope};
use crate::fleet::message::NodeHold;
use crate::inventory::{ClusterName, NodeName};
use crate::storm::Frozen;

/// All that holds on a node.
pub(in crate::api) fn brakes(epoch: u64, brakes: &NodeBrakes, term: Duration, now: Instant) -> v1::Brakes {
    v1::Brakes {
        epoch,
        holds: brakes.holds.iter().map(|held| hold(held, now)).collect(),
        freezes: freezes(brakes, term),
    }
}

/// What is frozen on a node.
pub(in crate::api) fn freezes(brakes: &NodeBrakes, term: Duration) -> Vec<v1::Freeze> {
    let freeze = |(condition, why): &(String, String)| v1::Freeze {
        condition: condition.clone(),
        why: why.clone(),
        ends_in_ms: milliseconds(term),
    };
    brakes.freezes.iter().map(freeze).collect()
}

/// A hold.
pub(in crate::api) fn hold(hold: &Hold, now: Instant) -> v1::Hold {
    v1::Hold {
        scope: match hold.scope {
            Scope::Node(_) => v1::HoldScope::Node,
            Scope::Cluster(_) => v1::HoldScope::Cluster,
            Scope::Fleet => v1::HoldScope::Fleet,
        }
        .into(),
        remedy: match hold.what {
            Held::Remedy(kind) => kind.as_str().to_owned(),
            Held::Every | Held::Silence => String::new(),
        },
        silence: hold.what == Held::Silence,
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        ends_in_ms: hold.until.map_or(0, |until| left(until, now)),
    }
}

/// A hold of a node's own.
pub(in crate::api) fn own_hold(hold: &NodeHold, now: Instant) -> v1::Hold {
    v1::Hold {
        scope: v1::HoldScope::Local.into(),
        remedy: hold.remedy.clone(),
        silence: hold.silence,
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        ends_in_ms: hold.until.map_or(0, |until| left(until, now)),
    }
}

/// A line of the list of holds.
pub(in crate::api) fn detail(held: &Hold, now: Instant) -> v1::HoldDetail {
    v1::HoldDetail {
        hold: Some(hold(held, now)),
        target: match &held.scope {
            Scope::Node(name) => name.0.clone(),
            Scope::Cluster(name) => name.0.clone(),
            Scope::Fleet => String::new(),
        },
        made_unix_ms: held.made_unix_ms,
    }
}

/// A line of the list of storms. `standing`: so many nodes have it now.
pub(in crate::api) fn storm(
    cluster: &ClusterName,
    condition: &str,
    frozen: &Frozen,
    standing: usize,
    now: Instant,
) -> v1::Storm {
    v1::Storm {
        cluster: cluster.0.clone(),
        condition: condition.to_owned(),
        frozen_ms: milliseconds(now.saturating_duration_since(frozen.since)),
        threshold: count(frozen.threshold),
        standing: count(standing),
        evidence: frozen.evidence.clone(),
    }
}

/// For whom a hold is asked.
pub(in crate::api) fn scope(scope: v1::HoldScope, target: String) -> Result<Scope, Status> {
    match scope {
        v1::HoldScope::Node => Ok(Scope::Node(NodeName(target))),
        v1::HoldScope::Cluster => Ok(Scope::Cluster(ClusterName(target))),
        v1::HoldScope::Fleet => Ok(Scope::Fleet),
        v1::HoldScope::Unspecified | v1::HoldScope::Local => Err(Status::invalid_argument(
            "say for whom: a node, a cluster, or the fleet",
        )),
    }
}

/// What is to be held.
pub(in crate::api) fn held(remedy: &str, silence: bool) -> Result<Held, Status> {
    match (silence, remedy) {
        (true, _) => Ok(Held::Silence),
        (false, "") => Ok(Held::Every),
        (false, name) => RemedyKind::named(name).map(Held::Remedy).ok_or_else(|| {
            Status::invalid_argument(format!(
                "there is no remedy {name:?}; known: {}",
                RemedyKind::names()
            ))
        }),
    }
}

/// Never 0, which means no end.
fn left(until: Instant, now: Instant) -> u64 {
    milliseconds(until.saturating_duration_since(now)).max(1)
}
