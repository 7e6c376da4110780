//! A coordinator that leads: which parts are at work, in which order they begin, and in which they end.

use std::net::SocketAddr;
use std::sync::Arc;

use blackstart_proto::v1::coordinator_service_server::CoordinatorServiceServer;
use blackstart_proto::v1::runbook_service_server::RunbookServiceServer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::RunError;
use super::house::House;
use super::opening::{Answers, Opened, open};
use super::orders::{deliver, route};
use super::parts::{Part, spawn, until_one_ends, wind_down};
use crate::api::audit::Audit;
use crate::api::audit_service::Auditors;
use crate::api::coordinators::Coordinators;
use crate::api::enrolment_service::Enrolment;
use crate::api::fleet_service::Operators;
use crate::api::health::{Health, Standing};
use crate::api::holds;
use crate::api::line::Lines;
use crate::api::reflection;
use crate::api::runbook_service::RunbookOperators;
use crate::api::serve::serve;
use crate::api::session::Sessions;
use crate::api::trust_service::Trust;
use crate::audit::chain::What;
use crate::config::{Settings, StoreSettings};
use crate::events::Events;
use crate::fleetlock;
use crate::kubernetes::Clusters;
use crate::leader::Tenure;
use crate::permit::PermitsHandle;
use crate::policy::{OutagePolicy, StormPolicy};
use crate::runbooks::{Runbooks, Work};
use crate::starter::Starter;
use crate::store::Store;
use crate::store::redb::RedbStore;
use crate::store::witnessed::Witnessed;
use crate::storm::guard::{Guard, ThawRequest};
use crate::trust::desk::Desk;
use crate::upkeep::{periodic, socket};

/// Operators who thaw at once.
const THAWS: usize = 4;

/// What it has while it leads.
pub(super) struct Leading {
    pub(super) store: Arc<dyn Store>,
    /// The same, where it is a file that this coordinator makes backups of.
    pub(super) file: Option<Arc<RedbStore>>,
    pub(super) tenure: Tenure,
    pub(super) coordinators: CoordinatorServiceServer<Coordinators>,
}

/// Why it does not lead any more.
pub(super) enum Led {
    /// It was told to stop.
    Stopped,
    /// Another may lead.
    Lost(String),
}

/// Leads until `stop`, or until the tenure is over, and takes everything apart in order.
pub(super) async fn lead(
    house: &House,
    listeners: Vec<TcpListener>,
    leading: Leading,
    stop: &CancellationToken,
) -> Result<Led, RunError> {
    let Leading {
        store,
        file,
        tenure,
        coordinators,
    } = leading;
    let (settings, events) = (&house.settings, &house.events);
    let witnessed = Witnessed::new(store);
    let store: Arc<dyn Store> = Arc::new(witnessed.clone());
    let opened = open(house, &store, &tenure).await?;
    let _told = house.metrics.lead(opened.sources());
    let Opened {
        fleet,
        brakes,
        executor,
        driver,
        to_nodes,
        keeper,
        permits,
        clusters,
        runbooks,
        work,
        answers,
        desk,
    } = opened;
    let health = Health::new(Standing::Leads { writes: true }).await;
    let policy = settings.cold_start.clone();
    house.kept.note(leads(executor.epoch(), desk.trusts()));

    let working = CancellationToken::new();
    let mut inner = JoinSet::new();
    spawn(&mut inner, "executor", driver.run(working.clone()));
    spawn(&mut inner, "permits", keeper.run(working.clone()));
    carry_out(
        &mut inner,
        work,
        clusters,
        (answers, house.kept.clone()),
        &working,
    );
    spawn(
        &mut inner,
        "orders",
        deliver(fleet.clone(), to_nodes, house.kept.clone(), working.clone()),
    );
    spawn(
        &mut inner,
        "live picture",
        fleet.clone().run(store, working.clone()),
    );
    if let Some(file) = file {
        keep_backups(&mut inner, file, settings, &working);
    }

    let serving = stop.child_token();
    let mut outer = JoinSet::new();
    let (thaw, thaws) = mpsc::channel(THAWS);
    let tasks = TaskTracker::new();
    let operators = Operators {
        inventory: Arc::clone(&house.inventory),
        policy,
        fleet,
        executor,
        holds: holds::Holds {
            brakes,
            thaws: thaw,
            term: settings.storm.term,
        },
        permits: permits.clone(),
        events: events.clone(),
        tasks: tasks.clone(),
        stop: serving.clone(),
    };
    watch_over(&mut outer, house, &operators, thaws, &serving);
    let agents = sessions(&operators, &tenure, &desk);
    serve_reboot_tools(&mut outer, house, permits, &tenure, &serving);
    let services = Routes::new(agents.serve())
        .add_service(Audit::new(operators.serve(), events.clone()))
        .add_service(steered(runbooks, house, events))
        .add_service(coordinators);
    let services = reflection::add_to(let_in(services, house, desk)).add_service(health.serve());
    spawn(&mut outer, "health", health.lead(witnessed, serving.clone()));
    let (tls, door) = (house.tls.clone(), house.door.clone());
    let lines = Lines::Leading(agents);
    let server = serve(tls, listeners, services, lines, door, serving.clone());
    outer.spawn(async move { ("server", server.await.map_err(RunError::Serve)) });
    house.notify.ready();

    let ended = tokio::select! {
        biased;
        ended = until_one_ends(stop, &mut outer, &mut inner) => ended.map(|()| Led::Stopped),
        why = tenure.ended() => Ok(Led::Lost(why)),
    };
    if !matches!(ended, Ok(Led::Lost(_))) {
        house.notify.stopping();
    }
    tracing::info!("coordinator ends");
    serving.cancel();
    wind_down(outer, tasks, inner, working).await;
    ended
}

/// Agents' sessions, for the same parts as operators speak with.
fn sessions(with: &Operators, tenure: &Tenure, desk: &Arc<Desk>) -> Sessions {
    Sessions::new(
        with.fleet.clone(),
        with.events.clone(),
        (with.executor.epoch(), tenure.clone()),
        (with.holds.brakes.clone(), with.holds.term),
        with.permits.clone(),
        Arc::clone(desk),
        (with.tasks.clone(), with.stop.clone()),
    )
}

/// What the audit says of a coordinator that leads.
fn leads(epoch: u64, trusts: &[String]) -> What {
    What {
        who: "coordinator".to_owned(),
        what: "lead".to_owned(),
        outcome: "begun".to_owned(),
        // Which authorities are trusted changes only between two starts.
        evidence: format!("epoch {epoch}; authorities {}", trusts.join(", ")),
        ..What::default()
    }
}

/// The service for runbooks.
fn steered(
    runbooks: Runbooks,
    house: &House,
    events: &Events,
) -> Audit<RunbookServiceServer<RunbookOperators>> {
    let operators = RunbookOperators::new(runbooks, Arc::clone(&house.door.roles));
    Audit::new(operators.serve(), events.clone())
}

/// The services for who is let in, and for what was commanded.
fn let_in(services: Routes, house: &House, desk: Arc<Desk>) -> Routes {
    let (inventory, addresses) = (Arc::clone(&house.inventory), addresses(&house.settings));
    services
        .add_service(Auditors::serve(house.kept.clone()))
        .add_service(Enrolment::serve(Arc::clone(&desk)))
        .add_service(Trust::serve(desk, inventory, addresses))
}

/// Where others find this coordinator, as far as it knows.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    match &settings.store {
        StoreSettings::Etcd(etcd) => etcd.advertise.clone(),
        StoreSettings::Embedded => {
            let told = settings.listen.iter().copied();
            told.filter(|address| !address.ip().is_unspecified() && address.port() != 0)
                .collect()
        }
    }
}

/// What looks at the fleet without being asked.
fn watch_over(
    outer: &mut JoinSet<Part>,
    house: &House,
    operators: &Operators,
    thaws: mpsc::Receiver<ThawRequest>,
    serving: &CancellationToken,
) {
    let (outage, storm) = (house.settings.outage.clone(), house.settings.storm.clone());
    let (starter, guard) = watchers(outage, storm, operators, thaws);
    spawn(outer, "starter", starter.run(serving.clone()));
    spawn(outer, "storm guard", guard.run(serving.clone()));
    let (fleet, executor) = (operators.fleet.view(), operators.executor.watch());
    let reporter = house.notify.clone().report(fleet, executor, serving.clone());
    spawn(outer, "reports to the service manager", reporter);
}

/// Who looks at the fleet and begins, or holds back, something by itself.
fn watchers(
    outage: OutagePolicy,
    storm: StormPolicy,
    with: &Operators,
    thaws: mpsc::Receiver<ThawRequest>,
) -> (Starter, Guard) {
    let starter = Starter {
        inventory: Arc::clone(&with.inventory),
        outage: outage.clone(),
        policy: with.policy.clone(),
        fleet: with.fleet.clone(),
        executor: with.executor.clone(),
        brakes: with.holds.brakes.clone(),
        events: with.events.clone(),
    };
    let guard = Guard {
        inventory: Arc::clone(&with.inventory),
        policy: storm,
        outage,
        fleet: with.fleet.clone(),
        executor: with.executor.clone(),
        brakes: with.holds.brakes.clone(),
        events: with.events.clone(),
        thaws,
    };
    (starter, guard)
}

/// The same lanes for reboot tools, where they are to be served.
fn serve_reboot_tools(
    parts: &mut JoinSet<Part>,
    house: &House,
    permits: PermitsHandle,
    tenure: &Tenure,
    serving: &CancellationToken,
) {
    let Some(fleetlock) = &house.settings.fleetlock else {
        return;
    };
    let door = fleetlock::Door {
        inventory: Arc::clone(&house.inventory),
        permits,
        tenure: tenure.clone(),
        tls: house.fleetlock_tls.clone(),
    };
    let served = fleetlock::serve(fleetlock.listen, door, serving.clone());
    spawn(parts, "FleetLock", served);
}

/// Runbooks: what is known of clusters, the runs at work, and the way of answers to them.
fn carry_out(
    parts: &mut JoinSet<Part>,
    work: Work,
    clusters: Clusters,
    (answers, kept): (Answers, crate::audit::Audit),
    working: &CancellationToken,
) {
    let Answers {
        from_nodes,
        to_executor,
        to_runbooks,
        heard,
    } = answers;
    spawn(parts, "runbooks", work.run(heard, working.clone()));
    spawn(parts, "the clusters' APIs", clusters.run(working.clone()));
    let answers = route(from_nodes, (to_executor, to_runbooks), kept, working.clone());
    spawn(parts, "answers", answers);
}

/// Backups of the store, by itself and for whoever asks.
fn keep_backups(
    parts: &mut JoinSet<Part>,
    store: Arc<RedbStore>,
    settings: &Settings,
    working: &CancellationToken,
) {
    let given = socket::serve(Arc::clone(&store), settings.backup_socket(), working.clone());
    spawn(parts, "backups that are asked for", given);
    let made = periodic::run(store, settings.backups(), settings.backup, working.clone());
    spawn(parts, "backups by itself", made);
}
