//! Whether this coordinator does what it is there for, by the protocol that balancers and `grpcurl` speak (`grpc.health.v1`).
//!
//! | service | it serves |
//! |---|---|
//! | the empty name, `FleetService`, `RunbookService` | while this coordinator leads and its store takes what is written, or follows a leader that it knows and passes calls on to |
//! | `TrustService`, `EnrolmentService` | while it leads and its store takes what is written |
//! | `AgentService` | while it leads: agents dial on until they have found the leader |
//! | `CoordinatorService`, `AuditService` | always: each answers for itself |
//!
//! A stream that watches one is told `NOT_SERVING`, and ends, once this coordinator leads or follows no more.

use std::time::Duration;

use blackstart_proto::v1;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthCalls, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use crate::leader::Seen;
use crate::store::witnessed::Witnessed;

/// A question is a service's name.
const MAX_MESSAGE: usize = 1 << 10;
/// A store that did not take the last write is tried again so often: nobody else may have anything to write.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How it stands with this coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It leads.
    Leads {
        /// Its store took the last write.
        writes: bool,
    },
    /// It follows.
    Follows {
        /// There is a leader, and it knows which.
        knows_leader: bool,
    },
}

/// All that can be asked about, and how it stands with each. Pure.
fn serving(standing: Standing) -> [(&'static str, bool); 8] {
    let (answers, leads, lets_in) = match standing {
        Standing::Leads { writes } => (writes, true, writes),
        Standing::Follows { knows_leader } => (knows_leader, false, false),
    };
    [
        ("", answers),
        (v1::fleet_service_server::SERVICE_NAME, answers),
        (v1::runbook_service_server::SERVICE_NAME, answers),
        (v1::trust_service_server::SERVICE_NAME, lets_in),
        (v1::enrolment_service_server::SERVICE_NAME, lets_in),
        (v1::agent_service_server::SERVICE_NAME, leads),
        (v1::coordinator_service_server::SERVICE_NAME, true),
        (v1::audit_service_server::SERVICE_NAME, true),
    ]
}

/// Tells it for as long as this coordinator leads, or follows.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// As it stands at first.
    pub(crate) async fn new(standing: Standing) -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
        };
        health.tell(standing).await;
        health
    }

    /// The service.
    pub(crate) fn serve(&self) -> HealthServer<impl HealthCalls + use<>> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
    }

    async fn tell(&self, standing: Standing) {
        for (service, serves) in serving(standing) {
            let status = if serves {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Tells it of one that leads, until it is to stop.
    pub(crate) async fn lead(self, store: Witnessed, stop: CancellationToken) {
        let mut trouble = store.trouble();
        let mut again = interval(TRY_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let writes = trouble.borrow_and_update().is_none();
            self.tell(Standing::Leads { writes }).await;
            tokio::select! {
                () = stop.cancelled() => break,
                // The store outlives this.
                Ok(()) = trouble.changed() => {}
                _ = again.tick(), if !writes => {
                    let store = store.clone();
                    let seconds = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
                    // What comes of it is seen by the store itself.
                    let _tried = spawn_blocking(move || store.write(seconds)).await;
                }
            }
        }
        self.end().await;
    }

    /// Tells it of one that follows. Ends only if nobody looks for the leader any more.
    pub(crate) async fn follow(&self, mut seen: watch::Receiver<Seen>) {
        loop {
            let knows_leader = seen.borrow_and_update().leader.is_some();
            self.tell(Standing::Follows { knows_leader }).await;
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// It leads, or follows, no more: whoever watches is told, and let go.
    pub(crate) async fn end(mut self) {
        for (service, _) in serving(Standing::Follows { knows_leader: false }) {
            self.reporter
                .set_service_status(service, ServingStatus::NotServing)
                .await;
            self.reporter.clear_service_status(service).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::timeout;
    use tokio_stream::StreamExt as _;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Told;

    use super::*;
    use crate::store::Store;
    use crate::store::redb::RedbStore;
    use crate::store::witnessed::tests::Full;

    fn names(standing: Standing) -> Vec<&'static str> {
        let all = serving(standing).into_iter();
        all.filter(|(_, serves)| *serves)
            .map(|(name, _)| name.strip_prefix("blackstart.v1.").unwrap_or(name))
            .collect()
    }

    #[test]
    fn what_serves_is_what_would_be_answered() {
        let leads = |writes| names(Standing::Leads { writes });
        let follows = |knows_leader| names(Standing::Follows { knows_leader });
        assert_eq!(leads(true).len(), 8);
        assert_eq!(
            leads(false),
            ["AgentService", "CoordinatorService", "AuditService"]
        );
        assert_eq!(
            follows(true),
            [
                "",
                "FleetService",
                "RunbookService",
                "CoordinatorService",
                "AuditService"
            ]
        );
        assert_eq!(follows(false), ["CoordinatorService", "AuditService"]);
    }

    /// One leads, and its disk fills up and is emptied again; nobody has anything to write then. At the end the watcher is told and let go.
    #[tokio::test]
    async fn a_full_store_is_told_and_that_it_is_well_again_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let full = Arc::new(Full {
            store: RedbStore::open(&dir.path().join("store")).unwrap(),
            full: AtomicBool::new(false),
        });
        let store = Witnessed::new(Arc::clone(&full) as Arc<dyn Store>);
        let health = Health::new(Standing::Leads { writes: true }).await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let asked = Request::new(HealthCheckRequest::default());
        let mut watching = service.watch(asked).await.unwrap().into_inner();
        let stop = CancellationToken::new();
        let leading = tokio::spawn(health.lead(store.clone(), stop.clone()));
        let mut next = async || {
            let told = timeout(Duration::from_secs(30), watching.next()).await.unwrap();
            told.map(|told| told.unwrap().status())
        };
        assert_eq!(next().await, Some(Told::Serving));
        full.full.store(true, Ordering::SeqCst);
        assert!(store.put("key", b"value").is_err());
        // The same may be said again.
        while next().await != Some(Told::NotServing) {}
        full.full.store(false, Ordering::SeqCst);
        while next().await != Some(Told::Serving) {}
        stop.cancel();
        while next().await.is_some() {}
        leading.await.unwrap();
    }
}
