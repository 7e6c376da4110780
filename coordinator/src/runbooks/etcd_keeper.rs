//! Looks at the etcd of each cluster now and then, and keeps in the store what was seen of one that was well: it is told from that what a restore
//! loses, once nobody is left who could be asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Runbooks;
use crate::inventory::ClusterName;
use crate::quorum::eyes::hosts;
use crate::quorum::sources::Last;
use crate::store::{Store, StoreError};

/// A look is a status of each member, by its own agent.
const EVERY: Duration = Duration::from_mins(1);
/// What others have seen meanwhile is kept so soon.
const PASS: Duration = Duration::from_secs(5);
const PREFIX: &str = "etcd-last/";

/// What the store has of it. What cannot be read is as if it were not there.
pub(super) fn load(store: &dyn Store) -> Result<BTreeMap<ClusterName, Last>, StoreError> {
    let mut all = BTreeMap::new();
    for (key, value) in store.scan(PREFIX)? {
        let name = ClusterName(key.trim_start_matches(PREFIX).to_owned());
        match serde_json::from_slice(&value) {
            Ok(last) => drop(all.insert(name, last)),
            Err(error) => {
                tracing::warn!(cluster = %name, %error, "what was last seen of an etcd cannot be read");
            }
        }
    }
    Ok(all)
}

/// Looks, and keeps.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) runbooks: Runbooks,
}

impl Keeper {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut kept = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PASS) => {}
            }
            if !self.runbooks.shared.ports.tenure.holds() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pass(&mut kept) => {}
            }
        }
    }

    async fn pass(&self, kept: &mut BTreeMap<ClusterName, Last>) {
        let ports = &self.runbooks.shared.ports;
        for cluster in &ports.inventory.clusters {
            let name = &cluster.name;
            let view = Arc::clone(&ports.view.borrow());
            let speaks = |node| view.nodes.get(node).is_some_and(|node| node.in_session);
            if hosts(&ports.inventory, name).iter().any(speaks) {
                ports.etcd.look_again(&ports.inventory, name, EVERY).await;
            }
            let Some(last) = ports.etcd.last(name).filter(|last| kept.get(name) != Some(last)) else {
                continue;
            };
            let (store, key, value) = (
                Arc::clone(&ports.store),
                format!("{PREFIX}{name}"),
                serde_json::to_vec(&last).unwrap_or_default(),
            );
            let kept_now = spawn_blocking(move || store.put(&key, &value)).await;
            let why = match kept_now {
                Ok(Ok(())) => {
                    kept.insert(name.clone(), last);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(cluster = %name, why, "what was seen of an etcd was not kept");
        }
    }
}
