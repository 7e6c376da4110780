//! Visitors, who have shown no certificate, and of whom a token has said who they are: they may stay for as long as that is good.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Shared by the door, which looks at tokens, and the connections. There are no more than visitors are let in.
#[derive(Debug, Default)]
pub struct Visits(Mutex<HashMap<SocketAddr, Option<Vouched>>>);

/// For whom the last token on a connection was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vouched {
    pub(super) operator: String,
    pub(super) until: Instant,
}

impl Visits {
    pub(super) fn enter(&self, from: SocketAddr) {
        self.all().insert(from, None);
    }

    pub(super) fn leave(&self, from: SocketAddr) {
        self.all().remove(&from);
    }

    /// What is no visitor's any more is let be.
    pub(super) fn vouch(&self, from: SocketAddr, vouched: Vouched) {
        if let Some(visitor) = self.all().get_mut(&from) {
            *visitor = Some(vouched);
        }
    }

    pub(super) fn vouched(&self, from: SocketAddr) -> Option<Vouched> {
        self.all().get(&from).cloned().flatten()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SocketAddr, Option<Vouched>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
