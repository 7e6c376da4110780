//! What is granted to whom, as a table and over random histories; and what becomes of permits that nobody gives back.

mod expire;
mod random;
mod table;

use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Verdict, decide};
use super::*;

pub(super) fn wish(node: &str, kind: PermitKind, asker: Asker) -> Wish {
    Wish {
        id: PermitId {
            node: NodeName(node.to_owned()),
            request: format!("{}-{}", kind.as_str(), asker.as_str()),
        },
        kind,
        asker,
        subject: "it".to_owned(),
        reason: "seen".to_owned(),
    }
}

/// A permit that has stood since `since`, for ten minutes.
pub(super) fn grant(wish: Wish, since: Instant) -> Grant {
    Grant {
        wish,
        epoch: 1,
        granted_unix_ms: 0,
        since,
        term: Duration::from_mins(10),
    }
}

pub(super) fn member(role: Role, health: Health) -> Member {
    Member {
        role,
        health,
        silenced: false,
        held: BTreeMap::new(),
    }
}
