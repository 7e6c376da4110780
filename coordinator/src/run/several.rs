//! A coordinator among others: follows until it leads, and follows again when it does not lead any more.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1::agent_service_server::AgentServiceServer;
use blackstart_proto::v1::coordinator_service_server::CoordinatorServiceServer;
use blackstart_proto::v1::enrolment_service_server::EnrolmentServiceServer;
use blackstart_proto::v1::fleet_service_server::FleetServiceServer;
use blackstart_proto::v1::runbook_service_server::RunbookServiceServer;
use blackstart_proto::v1::trust_service_server::TrustServiceServer;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::RunError;
use super::house::House;
use super::leading::{Leading, Led, lead};
use crate::api::audit_service::Auditors;
use crate::api::coordinators::Coordinators;
use crate::api::elsewhere::Elsewhere;
use crate::api::enrolment_service::Enrolment;
use crate::api::fleet_service::Operators;
use crate::api::follower::{Follower, Kept};
use crate::api::health::{Health, Standing};
use crate::api::line::Lines;
use crate::api::reflection;
use crate::api::runbook_service::RunbookOperators;
use crate::api::serve::serve;
use crate::api::session::Sessions;
use crate::api::trust_service::Trust;
use crate::config::EtcdSettings;
use crate::etcd::Etcd;
use crate::events::{EventKind, NewEvent, Severity};
use crate::leader::{Candidate, Card, Keys, Mirror, Won, keep_until};
use crate::store::etcd::{EtcdStore, Snapshot};
use crate::store::{Store, StoreError};
use crate::trust::desk::revoked;

/// Connections to one that followed are cut after this; who is connected dials anew.
const FOLLOWED: Duration = Duration::from_secs(1);
/// Between two looks at what is revoked.
const HEED: Duration = Duration::from_secs(1);
/// Giving back what is lost already must not keep us from following.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Who there is, when there is only one.
pub(super) fn alone(listeners: &[TcpListener]) -> CoordinatorServiceServer<Coordinators> {
    let card = Card {
        name: "coordinator".to_owned(),
        addresses: listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Coordinators::new(card, None, true)
}

/// The client, with what it is to show.
pub(super) fn setup(settings: &EtcdSettings) -> Result<Etcd, RunError> {
    Etcd::new(settings).map_err(|error| {
        let cause = std::error::Error::source(&error);
        RunError::Etcd(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
    })
}

/// The values of the store whose keys begin with `prefix`, as a majority of etcd has them; whoever leads meanwhile.
///
/// # Errors
/// etcd cannot be spoken to, or does not answer.
pub(crate) async fn values(
    settings: &EtcdSettings,
    prefix: &str,
) -> Result<Vec<(String, Vec<u8>)>, RunError> {
    let (etcd, keys) = (setup(settings)?, Keys::new(&settings.prefix));
    let found = etcd.all_at_once(settings.timeout, &keys.state(prefix)).await;
    let (found, _) = found.map_err(|error| RunError::Etcd(format!("read the store: {error}")))?;
    let mut snapshot = Snapshot::new(keys, &settings.prefix);
    for key in found {
        snapshot.set(key);
    }
    Ok(snapshot.scan(prefix)?)
}

/// Follows and leads until `stop`.
pub(super) async fn run(
    house: &House,
    settings: &EtcdSettings,
    listeners: Vec<TcpListener>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let etcd = setup(settings)?;
    let card = Card {
        name: settings.name.clone(),
        addresses: settings.advertise.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let candidate = Candidate::new(etcd.clone(), settings, card.clone());
    // Also while it leads: it may follow again because etcd is away, and still knows what there was.
    let mirror = Mirror::new(etcd.clone(), settings);
    let mut copying = JoinSet::new();
    copying.spawn(mirror.clone().run());
    let seat = Seat {
        house,
        settings,
        listeners,
        etcd,
        card,
        candidate,
        mirror,
    };
    loop {
        let Some(won) = seat.follow(stop).await? else {
            return Ok(());
        };
        // The keeper goes on while the last things are written down, and is told when it is over.
        let kept = CancellationToken::new();
        let keepers = TaskTracker::new();
        keepers.spawn(keep_until(seat.candidate.clone(), won.clone(), kept.clone()));
        let led = seat.lead(&won, stop).await;
        kept.cancel();
        match led {
            Ok(Led::Lost(why)) => {
                tracing::error!(why, "does not lead any more");
                let text = format!("{} does not lead any more: {why}", seat.card.name);
                seat.tell(Severity::Critical, text);
                let given_back = timeout(GIVE_BACK, seat.candidate.resign(&won)).await;
                tracing::debug!(?given_back, "the lease");
            }
            Ok(Led::Stopped) => {
                seat.candidate.resign(&won).await;
                return Ok(());
            }
            Err(error) => {
                seat.candidate.resign(&won).await;
                return Err(error);
            }
        }
    }
}

struct Seat<'a> {
    house: &'a House,
    settings: &'a EtcdSettings,
    listeners: Vec<TcpListener>,
    etcd: Etcd,
    card: Card,
    candidate: Candidate,
    mirror: Mirror,
}

impl Seat<'_> {
    /// The same sockets for each of the two lives.
    fn sockets(&self) -> Result<Vec<TcpListener>, RunError> {
        let again = |listener: &TcpListener| {
            let failed = |source| RunError::Listen {
                address: self.card.addresses[0],
                source,
            };
            let socket = std::os::fd::AsFd::as_fd(listener)
                .try_clone_to_owned()
                .map_err(failed)?;
            TcpListener::from_std(socket.into()).map_err(failed)
        };
        self.listeners.iter().map(again).collect()
    }

    fn tell(&self, severity: Severity, text: String) {
        let event = NewEvent::new(severity, EventKind::Leadership, text);
        self.house.events.emit(event);
    }

    fn follower(&self) -> Follower {
        let settings = &self.house.settings;
        let kept = Kept::new(
            self.mirror.clone(),
            Arc::clone(&self.house.inventory),
            settings.cold_start.clone(),
            settings.storm.term,
        );
        Follower::new(
            self.card.name.clone(),
            self.house.client_tls.clone(),
            self.candidate.seen(),
            kept,
        )
    }

    /// Sends agents to the leader, and asks it what operators ask, until there is none; `None` when it was told to stop.
    async fn follow(&self, stop: &CancellationToken) -> Result<Option<Won>, RunError> {
        let seen = self.candidate.seen();
        let follower = self.follower();
        let services = Routes::new(Elsewhere::<AgentServiceServer<Sessions>>::new(seen.clone()))
            .add_service(follower.of::<FleetServiceServer<Operators>>())
            .add_service(follower.of::<RunbookServiceServer<RunbookOperators>>())
            .add_service(Auditors::serve(self.house.kept.clone()))
            .add_service(Elsewhere::<EnrolmentServiceServer<Enrolment>>::new(seen.clone()))
            .add_service(Elsewhere::<TrustServiceServer<Trust>>::new(seen.clone()))
            .add_service(Coordinators::new(
                self.card.clone(),
                Some(self.candidate.clone()),
                false,
            ));
        let health = Health::new(Standing::Follows { knows_leader: false }).await;
        let services = reflection::add_to(services).add_service(health.serve());
        let following = stop.child_token();
        let serving = serve(
            self.house.tls.clone(),
            self.sockets()?,
            services,
            Lines::Following(seen.clone()),
            self.house.door.clone(),
            following.clone(),
        );
        let mut serving = Box::pin(serving);
        self.house.notify.ready();
        let won = tokio::select! {
            // At a stop the server ends as well, and that is no failure.
            biased;
            () = stop.cancelled() => None,
            won = self.candidate.campaign() => Some(won),
            ended = &mut serving => return match ended {
                Ok(()) => Err(RunError::Ended("server")),
                Err(error) => Err(RunError::Serve(error)),
            },
            () = health.follow(seen.clone()) => None,
            () = self.house.notify.report_following(seen) => None,
            () = self.heed_revocations() => None,
        };
        health.end().await;
        following.cancel();
        if won.is_some() {
            // Who is connected is told at once, and cut off after a while; the leader need not wait for that.
            tokio::spawn(timeout(FOLLOWED, serving));
        } else {
            self.house.notify.stopping();
            let cut = timeout(FOLLOWED, serving).await;
            tracing::debug!(cut = cut.is_err(), "follows no more");
        }
        Ok(won)
    }

    /// What the leader revokes is revoked here as well, within a second. Never ends.
    async fn heed_revocations(&self) {
        let mut heeded = None;
        loop {
            let revision = self.mirror.revision();
            if revision != heeded
                && let Some(copied) = self.mirror.copy()
            {
                match revoked(&copied.snapshot) {
                    Ok(revoked) => {
                        if *self.house.door.gate.revoked() != revoked {
                            let cut = self.house.door.gate.put_in_force(revoked);
                            tracing::info!(cut, "what is revoked has changed");
                        }
                    }
                    Err(error) => tracing::warn!(%error, "what is revoked is not known anew"),
                }
                heeded = revision;
            }
            sleep(HEED).await;
        }
    }

    async fn lead(&self, won: &Won, stop: &CancellationToken) -> Result<Led, RunError> {
        let (etcd, settings, of) = (self.etcd.clone(), self.settings.clone(), won.clone());
        let runtime = Handle::current();
        let opened = spawn_blocking(move || EtcdStore::open(etcd, &settings, &of, runtime));
        let store = match opened.await.map_err(RunError::Broke)? {
            Ok(store) => store,
            Err(error) => return lost(error),
        };
        self.tell(Severity::Warning, format!("{} leads", self.card.name));
        let leading = Leading {
            // etcd has snapshots of its own.
            file: None,
            store: Arc::new(store),
            tenure: won.tenure.clone(),
            coordinators: Coordinators::new(self.card.clone(), Some(self.candidate.clone()), true),
        };
        match lead(self.house, self.sockets()?, leading, stop).await {
            Err(RunError::Store(error) | RunError::Execute(crate::execute::ExecuteError::Store(error))) => {
                lost(error)
            }
            led => led,
        }
    }
}

/// etcd may be away for a while, or another may lead by now: no reason to end.
fn lost(error: StoreError) -> Result<Led, RunError> {
    match error {
        StoreError::Io { .. } | StoreError::NotLeading(_) | StoreError::OutOfTurn { .. } => {
            Ok(Led::Lost(error.to_string()))
        }
        StoreError::Damaged { .. } | StoreError::Busy(_) => Err(RunError::Store(error)),
    }
}
