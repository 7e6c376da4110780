//! Answers from the copy of the store, by the same code by which a leader answers.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1::fleet_service_server::FleetServiceServer;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::call::Call;
use crate::api::fleet_service::Operators;
use crate::api::holds::Holds;
use crate::brakes::BrakesHandle;
use crate::events::Events;
use crate::execute::{ExecuteError, Executor};
use crate::fleet::Fleet;
use crate::inventory::Inventory;
use crate::leader::Mirror;
use crate::permit::PermitsHandle;
use crate::policy::ColdStartPolicy;
use crate::store::Store;

/// What it takes to answer.
#[derive(Debug)]
pub(crate) struct Kept {
    mirror: Mirror,
    inventory: Arc<Inventory>,
    policy: ColdStartPolicy,
    term: Duration,
    /// The last picture, and the revision that it is of. A journal is long, and questions come in a row.
    made: Mutex<Option<(i64, FleetServiceServer<Operators>)>>,
}

impl Kept {
    /// `term`: how long a freeze lasts without being said again.
    pub(crate) fn new(
        mirror: Mirror,
        inventory: Arc<Inventory>,
        policy: ColdStartPolicy,
        term: Duration,
    ) -> Self {
        Self {
            mirror,
            inventory,
            policy,
            term,
            made: Mutex::default(),
        }
    }

    /// The answer, and its age; or why there is none.
    pub(super) async fn answer(&self, call: Call) -> Result<(http::Response<Body>, Duration), String> {
        let Some(copied) = self.mirror.copy() else {
            return Err(
                "the store has not been read since this coordinator began, because etcd does not answer"
                    .to_owned(),
            );
        };
        let age = copied.age();
        let mut service = {
            let mut made = self.made.lock().await;
            match &*made {
                Some((revision, service)) if *revision == copied.revision => service.clone(),
                Some(_) | None => {
                    let (inventory, policy, term) =
                        (Arc::clone(&self.inventory), self.policy.clone(), self.term);
                    let store: Arc<dyn Store> = Arc::new(copied.snapshot);
                    let picture = spawn_blocking(move || picture(store, inventory, policy, term)).await;
                    let picture = picture.map_err(|_| "the copy of the store broke".to_owned())?;
                    let service = picture.map_err(|error| error.to_string())?;
                    *made = Some((copied.revision, service.clone()));
                    service
                }
            }
        };
        // Never fails: a refusal is an answer.
        match service.call(call.for_ourselves()).await {
            Ok(answer) => Ok((answer, age)),
            Err(never) => match never {},
        }
    }
}

/// The service as it would be with nobody in session and nobody at work.
fn picture(
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    policy: ColdStartPolicy,
    term: Duration,
) -> Result<FleetServiceServer<Operators>, ExecuteError> {
    let events = Events::default();
    let permits = PermitsHandle::remembered(store.as_ref())?;
    let operators = Operators {
        policy,
        fleet: Fleet::remembered(Arc::clone(&inventory), events.clone(), store.as_ref())?,
        executor: Executor::remembered(store.as_ref())?,
        holds: Holds {
            brakes: BrakesHandle::open(store, Arc::clone(&inventory))?,
            thaws: mpsc::channel(1).0,
            term,
        },
        permits,
        events,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        inventory,
    };
    Ok(operators.serve())
}
