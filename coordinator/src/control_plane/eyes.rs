//! Asks the agents of a cluster's masters, and keeps what was seen for those who cannot wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::judge::View;
use super::told::Told;
use crate::fleet::Fleet;
use crate::inventory::{ClusterName, Inventory, NodeName, Role};

/// An agent asks each part for 2 s by default, an API server twice.
const LOOK: Duration = Duration::from_secs(6);

type Asks = dyn Fn(NodeName, Duration) -> BoxFuture<'static, Result<Told, String>> + Send + Sync;

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
        asks: impl Fn(NodeName, Duration) -> BoxFuture<'static, Result<Told, String>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            asks: Arc::new(asks),
            seen: Arc::default(),
        }
    }

    /// Through the sessions of a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let fleet = fleet.clone();
        Self::new(move |node, within| {
            let fleet = fleet.clone();
            Box::pin(async move { fleet.ask_control_plane(&node, within).await })
        })
    }

    /// Asks all masters at once, unless they were asked less than this ago; takes some seconds at most.
    pub async fn look_again(&self, inventory: &Inventory, cluster: &ClusterName, every: Duration) {
        let is_fresh = self
            .seen(cluster)
            .is_some_and(|glance| glance.at.elapsed() < every);
        if is_fresh {
            return;
        }
        let at = Instant::now();
        let masters = inventory
            .members(cluster)
            .filter(|spec| spec.role == Role::ControlPlane);
        let asked = masters.map(|spec| async {
            let told = (self.asks)(spec.name.clone(), LOOK).await;
            (spec.name.clone(), told)
        });
        let masters = join_all(asked).await.into_iter().collect();
        let glance = Glance {
            view: Arc::new(View {
                masters,
                vip: inventory.cluster(cluster).and_then(|cluster| cluster.vip),
            }),
            at,
        };
        self.kept().insert(cluster.clone(), glance);
    }

    /// What was seen last.
    pub fn seen(&self, cluster: &ClusterName) -> Option<Glance> {
        self.kept().get(cluster).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Glance>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Eyes {
    /// Nobody answers.
    fn default() -> Self {
        Self::new(|_, _| Box::pin(async { Err("nobody can be asked".to_owned()) }))
    }
}

impl fmt::Debug for Eyes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eyes")
    }
}
