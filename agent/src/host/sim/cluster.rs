//! What the masters of a simulated cluster do together.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::signal::ProbeOutcome;

/// The control plane of one simulated cluster: an API server is ready once a quorum of the masters' kubelets (each of
/// which brings an etcd member up) has been healthy for a while.
#[derive(Debug)]
pub struct SimCluster {
    quorum: usize,
    api_server_start: Duration,
    /// From when on each master's static pods can run.
    masters: Mutex<BTreeMap<String, Instant>>,
}

impl SimCluster {
    /// `quorum` masters have to be up for `api_server_start`.
    pub fn new(quorum: usize, api_server_start: Duration) -> Self {
        Self {
            quorum,
            api_server_start,
            masters: Mutex::default(),
        }
    }

    /// A master's kubelet will be healthy at `from`. Its pods outlive it: an earlier start in the same boot stands.
    pub(super) fn joins(&self, master: &str, from: Instant) {
        let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        masters.entry(master.to_owned()).or_insert(from);
    }

    /// A master lost its power.
    pub(super) fn left(&self, master: &str) {
        let mut masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        masters.remove(master);
    }

    /// When this master's API server is ready, as things stand; `None` without a quorum, or if it is no master that is up.
    pub(super) fn ready_at(&self, master: &str) -> Option<Instant> {
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let own = *masters.get(master)?;
        let mut all: Vec<_> = masters.values().copied().collect();
        all.sort_unstable();
        let quorum = *all.get(self.quorum.saturating_sub(1))?;
        Some(own.max(quorum) + self.api_server_start)
    }

    /// What `/readyz` of this master answers.
    pub(super) fn probe(&self, master: &str, now: Instant) -> ProbeOutcome {
        if self.ready_at(master).is_some_and(|at| now >= at) {
            return ProbeOutcome::Healthy;
        }
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        match masters.get(master) {
            // It runs, and its etcd has no quorum yet.
            Some(up) if now >= *up => ProbeOutcome::Unhealthy { status: 500 },
            Some(_) | None => ProbeOutcome::Refused,
        }
    }
}
