//! Asks the agents of a cluster's masters, and keeps what was seen for those who cannot wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::judge::{Answers, View, judge};
use super::told::Snapshot;
use crate::fleet::{Ask, EtcdAnswer, Fleet};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};

/// An agent asks its member for 3 s by default, and then tells what came of it.
const LOOK: Duration = Duration::from_secs(5);
/// A disk reads a snapshot of 8 GiB, etcd's largest, in less.
const VERIFY: Duration = Duration::from_mins(5);

type Asks = dyn Fn(NodeName, Ask, Duration) -> BoxFuture<'static, Result<EtcdAnswer, String>> + Send + Sync;
/// Of each node its snapshots, each with what is wrong with it; or why they are not known.
pub type Verified = BTreeMap<NodeName, Result<Vec<(Snapshot, Option<String>)>, String>>;

/// A way to look. Cheap to clone.
#[derive(Clone)]
pub struct Eyes {
    asks: Arc<Asks>,
    seen: Arc<Mutex<BTreeMap<ClusterName, Glance>>>,
}

/// What was seen, and when.
#[derive(Debug, Clone)]
pub struct Glance {
    /// What.
    pub view: Arc<View>,
    /// When the agents were asked.
    pub at: Instant,
}

impl Eyes {
    /// By this way of asking.
    pub fn new(
        asks: impl Fn(NodeName, Ask, Duration) -> BoxFuture<'static, Result<EtcdAnswer, String>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            asks: Arc::new(asks),
            seen: Arc::default(),
        }
    }

    /// Through the sessions of a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let fleet = fleet.clone();
        Self::new(move |node, ask, within| {
            let fleet = fleet.clone();
            Box::pin(async move { fleet.ask(&node, ask, within).await })
        })
    }

    /// Asks all of them at once; takes some seconds at most.
    pub async fn look(&self, inventory: &Inventory, cluster: &ClusterName) -> Glance {
        let at = Instant::now();
        let told = self.ask(inventory, cluster, Ask::Look, LOOK).await;
        let answers: Answers = told
            .into_iter()
            .map(|(node, answer)| {
                let told = answer.and_then(|answer| match answer {
                    EtcdAnswer::Told(told) => Ok(*told),
                    EtcdAnswer::Verified(_) => Err("its agent answered another question".to_owned()),
                });
                (node, told)
            })
            .collect();
        let glance = Glance {
            view: Arc::new(judge(&answers, unix_seconds())),
            at,
        };
        self.kept().insert(cluster.clone(), glance.clone());
        glance
    }

    /// The same, unless it was asked less than this ago.
    pub async fn look_again(&self, inventory: &Inventory, cluster: &ClusterName, every: Duration) {
        let is_fresh = self
            .seen(cluster)
            .is_some_and(|glance| glance.at.elapsed() < every);
        if !is_fresh {
            self.look(inventory, cluster).await;
        }
    }

    /// What was seen last.
    pub fn seen(&self, cluster: &ClusterName) -> Option<Glance> {
        self.kept().get(cluster).cloned()
    }

    /// Has all snapshots read again.
    pub async fn verify(&self, inventory: &Inventory, cluster: &ClusterName) -> Verified {
        let told = self.ask(inventory, cluster, Ask::Verify, VERIFY).await;
        let checks = |answer| match answer {
            EtcdAnswer::Verified(checks) => Ok(checks),
            EtcdAnswer::Told(_) => Err("its agent answered another question".to_owned()),
        };
        told.into_iter()
            .map(|(node, answer)| (node, answer.and_then(checks)))
            .collect()
    }

    async fn ask(
        &self,
        inventory: &Inventory,
        cluster: &ClusterName,
        ask: Ask,
        within: Duration,
    ) -> BTreeMap<NodeName, Result<EtcdAnswer, String>> {
        let asked = hosts(inventory, cluster).into_iter().map(|node| async move {
            let answer = (self.asks)(node.clone(), ask, within).await;
            (node, answer)
        });
        join_all(asked).await.into_iter().collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Glance>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes that may have a member: those for etcd alone, where there are some; otherwise the masters.
pub fn hosts(inventory: &Inventory, cluster: &ClusterName) -> Vec<NodeName> {
    let of = |role| {
        let nodes = inventory.members(cluster).filter(move |node| node.role == role);
        nodes.map(|node| node.name.clone()).collect::<Vec<_>>()
    };
    match of(Role::Etcd) {
        alone if !alone.is_empty() => alone,
        _ => of(Role::ControlPlane),
    }
}

/// The wall clock: certificates are measured by it.
fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Default for Eyes {
    /// Nobody answers.
    fn default() -> Self {
        Self::new(|_, _, _| Box::pin(async { Err("nobody can be asked".to_owned()) }))
    }
}

impl fmt::Debug for Eyes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eyes")
    }
}
