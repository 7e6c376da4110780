//! The API of each cluster: what it can do, what is known of it, and the closed list of changes that are asked of it.
//!
//! ```text
//!  configuration ─► connection   kube's client over a transport of our own: addresses in turn, deadlines, budget, Retry-After
//!                        │
//!                     cluster ─► capabilities (pure)   policy/v1 or v1beta1, leases or heartbeats, out-of-service taint
//!                        │
//!                        ├─► cache × 5    nodes, leases, pods, budgets, attachments: list and watch, with their age
//!                        │      └─► objects (pure)     the few fields that are kept
//!                        ├─► asked        usage and workloads: what cannot be watched, or is seldom needed
//!                        ├─► calls (pure)              cordon, evict, delete, taint: each with what it rests on
//!                        └─► rights (pure)             what all of that takes, by RBAC; what a refusal says is missing
//! ```
//!
//! Nobody waits for an API server here but who asks it for a change, or for what caches do not keep (`reads`, `detail`: pods whole,
//! events, workloads): everything else reads caches, and is told their age.

pub mod access;
pub mod asked;
mod cache;
pub mod calls;
pub mod capabilities;
mod cluster;
pub mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod limits;
pub mod objects;
mod transport;
pub mod view;

pub mod detail;
pub mod quantity;
pub mod reads;
pub mod rights;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::access::Access;
pub use self::cluster::Cluster;
use crate::inventory::ClusterName;

/// Every cluster whose API is configured. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Clusters {
    all: Arc<BTreeMap<ClusterName, Arc<Cluster>>>,
}

impl Clusters {
    /// Nothing is dialled before [`Clusters::run`].
    pub fn new(access: impl IntoIterator<Item = (ClusterName, Access)>) -> Self {
        let all = access.into_iter().map(|(name, access)| {
            let cluster = Cluster::new(name.clone(), access);
            (name, Arc::new(cluster))
        });
        Self {
            all: Arc::new(all.collect()),
        }
    }

    /// One of them.
    pub fn get(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.all.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.all.values()
    }

    /// Keeps what is known of them, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut at_work = JoinSet::new();
        for cluster in self.all.values() {
            let cluster = Arc::clone(cluster);
            at_work.spawn(async move { cluster.keep().await });
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { while at_work.join_next().await.is_some() {} }, if !self.all.is_empty() => {}
        }
        at_work.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
