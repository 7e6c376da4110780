//! What Prometheus is told of the fleet as this coordinator sees it: off unless `metrics.listen` is set.
//!
//! One that follows serves as well, and says that it does: alerts on the fleet look at the one that leads. Every metric stands in
//! `docs/metrics.md`; a test holds the two together.

mod page;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use blackstart_proto::metrics;
use tokio_util::sync::CancellationToken;

use crate::brakes::BrakesHandle;
use crate::execute::Executor;
use crate::fleet::Fleet;
use crate::inventory::Inventory;
use crate::permit::PermitsHandle;
use crate::runbooks::Runbooks;

/// What it has while it leads.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Nodes and their conditions.
    pub fleet: Fleet,
    /// Cold starts, and the epoch.
    pub executor: Executor,
    /// Runs of the other chapters.
    pub runbooks: Runbooks,
    /// Holds and storms.
    pub brakes: BrakesHandle,
    /// Who may be away.
    pub permits: PermitsHandle,
}

/// What is served, whether it leads or not. Its clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    inventory: Arc<Inventory>,
    certificate: PathBuf,
    leading: Arc<Mutex<Option<Sources>>>,
}

/// It leads until this is dropped.
#[derive(Debug)]
pub struct Leads(Metrics);

impl Metrics {
    /// Of one that follows; `certificate`: the file of its own.
    pub fn new(inventory: Arc<Inventory>, certificate: PathBuf) -> Self {
        Self {
            inventory,
            certificate,
            leading: Arc::default(),
        }
    }

    /// From now on it tells of the fleet.
    pub fn lead(&self, sources: Sources) -> Leads {
        self.set(Some(sources));
        Leads(self.clone())
    }

    /// Serves at `listen` until `stop`. That it cannot takes no coordinator down: it is tried again.
    pub async fn serve(self, listen: SocketAddr, stop: CancellationToken) {
        let draw = Arc::new(move || page::page(&self));
        metrics::serve(listen, draw, stop).await;
    }

    fn set(&self, sources: Option<Sources>) {
        *self.leading.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    fn sources(&self) -> Option<Sources> {
        let leading = self.leading.lock().unwrap_or_else(PoisonError::into_inner);
        leading.clone()
    }
}

impl Drop for Leads {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
