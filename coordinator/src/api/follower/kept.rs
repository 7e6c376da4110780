//! Answers from the copy of the store, by the same code by which a leader answers.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1::fleet_service_server::FleetServiceServer;
use blackstart_proto::v1::runbook_service_server::RunbookServiceServer;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::call::Call;
use crate::api::fleet_service::Operators;
use crate::api::holds::Holds;
use crate::api::runbook_service::kept::KeptRunbooks;
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
    made: Mutex<Option<(i64, Picture)>>,
}

/// Each service as it would be with nobody in session and nobody at work.
#[derive(Debug, Clone)]
struct Picture {
    fleet: FleetServiceServer<Operators>,
    runbooks: RunbookServiceServer<KeptRunbooks>,
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
        let mut picture = {
            let mut made = self.made.lock().await;
            match &*made {
                Some((revision, picture)) if *revision == copied.revision => picture.clone(),
                Some(_) | None => {
                    let (inventory, policy, term) =
                        (Arc::clone(&self.inventory), self.policy.clone(), self.term);
                    let store: Arc<dyn Store> = Arc::new(copied.snapshot);
                    let picture = spawn_blocking(move || picture(store, inventory, policy, term)).await;
                    let picture = picture.map_err(|_| "the copy of the store broke".to_owned())?;
                    let picture = picture?;
                    *made = Some((copied.revision, picture.clone()));
                    picture
                }
            }
        };
        // Never fails: a refusal is an answer.
        let answer = if call.is_of(<RunbookServiceServer<KeptRunbooks> as NamedService>::NAME) {
            picture.runbooks.call(call.for_ourselves()).await
        } else {
            picture.fleet.call(call.for_ourselves()).await
        };
        match answer {
            Ok(answer) => Ok((answer, age)),
            Err(never) => match never {},
        }
    }
}

fn picture(
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    policy: ColdStartPolicy,
    term: Duration,
) -> Result<Picture, String> {
    let runbooks = KeptRunbooks::of(store.as_ref()).map_err(|error| error.to_string())?;
    let fleet = fleet(store, inventory, policy, term).map_err(|error| error.to_string())?;
    Ok(Picture {
        fleet,
        runbooks: runbooks.serve(),
    })
}

fn fleet(
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
