//! Puts the coordinator together, and takes it apart in order.
//!
//! ```text
//!  store, own boot, inventory                        what lasts
//!        ▼   of several coordinators, only one that leads goes on (`run/several.rs`)
//!  fleet, executor
//!        ├► inner: driver, live picture, orders     end last: what was dispatched is still written down
//!        └► outer: server, starter, reports         begin last, end first
//! ```
//!
//! Each part is a task of one of two sets. One that ends by itself ends the coordinator: the service manager starts it anew,
//! and it goes on from its journal.

pub mod copy;
mod error;
mod open_files;
mod several;

pub use error::RunError;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::clock_floor::{ClockFloor, KEEP_EVERY, Raised, SETTLED_AFTER};
use blackstart_proto::tls::client_config;
use blackstart_proto::v1::coordinator_service_server::CoordinatorServiceServer;
use blackstart_proto::v1::runbook_service_server::RunbookServiceServer;
use blackstart_proto::yaml::Problems;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::ClientTlsConfig;

use crate::api::audit::Audit;
use crate::api::audit_service::Auditors;
use crate::api::coordinators::Coordinators;
use crate::api::door::Door;
use crate::api::enrolment_service::Enrolment;
use crate::api::fleet_service::Operators;
use crate::api::handshake::{Lenience, lenient_tls};
use crate::api::holds;
use crate::api::line::Lines;
use crate::api::runbook_service::RunbookOperators;
use crate::api::serve::serve;
use crate::api::session::Sessions;
use crate::api::trust_service::Trust;
use crate::audit::chain::What;
use crate::brakes::BrakesHandle;
use crate::config::{Settings, StoreSettings};
use crate::control_plane;
use crate::events::Events;
use crate::execute::{Driver, Executor, Ports};
use crate::fleet::{Delivery, Fleet, FleetParts, Holds, Order, OrderResult};
use crate::fleetlock;
use crate::inventory::{self, Inventory};
use crate::kubernetes::Clusters;
use crate::leader::Tenure;
use crate::notify::Notify;
use crate::own_boot::OwnBoot;
use crate::permit::{Keeper, KeeperParts, PermitsHandle};
use crate::pki::Seen;
use crate::policy::{OutagePolicy, StormPolicy};
use crate::power::Bmcs;
use crate::quorum::Eyes;
use crate::runbooks::conditions::Conditions;
use crate::runbooks::plan::Runbook;
use crate::runbooks::{self, Runbooks, Work};
use crate::starter::Starter;
use crate::store::Store;
use crate::store::redb::RedbStore;
use crate::storm::guard::{Guard, ThawRequest};
use crate::trust::desk::Desk;
use crate::trust::gate::Gate;
use crate::upkeep::{periodic, socket};

/// Orders and answers on their way between the executor and the sessions.
const BACKLOG: usize = 256;
/// Connections that the kernel keeps until they are accepted. A whole fleet comes at once after a cut, and whoever finds no room tries
/// again after a second, then three. The kernel takes no more than its own limit (`net.core.somaxconn`, 4096).
const BACKLOG_OF_CONNECTIONS: u32 = 8192;
/// Operators who thaw at once.
const THAWS: usize = 4;
/// So long each of the two halves may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// Listens on every address of the settings; inside a runtime.
///
/// # Errors
/// The first that cannot be listened on.
pub fn bind(settings: &Settings) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners = Vec::with_capacity(settings.listen.len());
    for &address in &settings.listen {
        let listener = listen_on(address);
        listeners.push(listener.map_err(|source| RunError::Listen { address, source })?);
    }
    Ok(listeners)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // As every server: what an earlier process left behind in the kernel keeps nobody from listening.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_OF_CONNECTIONS)
}

/// A task that must not end before it is told to: its name, and how it ended.
type Part = (&'static str, Result<(), RunError>);

/// Runs a coordinator until `stop`, and ends it in order.
///
/// # Errors
/// What keeps it from beginning or from going on.
pub async fn run(
    settings: Settings,
    listeners: Vec<TcpListener>,
    notify: Notify,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let material = settings.tls.read()?;
    let clock = Arc::new(clock(&settings));
    let lenience = Lenience {
        clock: Some(Arc::clone(&clock)),
        visitors: settings.enrolment.is_some(),
    };
    let tls = lenient_tls(&material, lenience)?;
    exposed(&settings);
    let inventory = load_inventory(&settings)?;
    let fleetlock_tls = match settings
        .fleetlock
        .as_ref()
        .and_then(|fleetlock| fleetlock.tls.as_ref())
    {
        Some(files) => Some(fleetlock::acceptor(files)?),
        None => None,
    };
    open_files::raise(inventory.nodes.len());
    fs::create_dir_all(&settings.state_dir).map_err(|source| RunError::StateDir {
        path: settings.state_dir.clone(),
        source,
    })?;
    let embedded = match &settings.store {
        // First of all: it tells whether another process is at work with the same files.
        StoreSettings::Embedded => Some(Arc::new(RedbStore::open(&settings.store_file())?)),
        StoreSettings::Etcd(_) => None,
    };
    known_clusters(&settings, &inventory)?;
    let bmcs = controllers(&settings, &inventory)?;
    let own_boot = OwnBoot::begin(&settings)?;
    let events = Events::default();
    let kept = crate::audit::Audit::open(&settings.audit(), events.clone());
    let door = Door {
        roles: Arc::new(settings.roles.clone()),
        gate: Arc::new(Gate::default()),
        audit: Some(kept.clone()),
    };
    let house = House {
        fleetlock_tls,
        door,
        clock,
        tls,
        client_tls: client_config(&material),
        inventory,
        own_boot,
        notify,
        events,
        kept,
        bmcs,
        settings,
    };
    let work = async {
        match (&house.settings.store, embedded) {
            (StoreSettings::Etcd(etcd), None) => several::run(&house, etcd, listeners, &stop).await,
            (StoreSettings::Etcd(_), Some(_)) | (StoreSettings::Embedded, None) => Ok(()),
            (StoreSettings::Embedded, Some(store)) => {
                let leading = Leading {
                    file: Some(Arc::clone(&store)),
                    store,
                    tenure: Tenure::alone(),
                    coordinators: several::alone(&listeners),
                };
                lead(&house, listeners, leading, &stop).await.map(drop)
            }
        }
    };
    let ended = tokio::select! {
        ended = Box::pin(work) => ended,
        never = house.settle() => never,
        never = house.keep_time() => never,
    };
    if ended.is_ok() {
        house.own_boot.end().map_err(RunError::OwnBoot)?;
    }
    ended
}

/// What time it is at least: what was kept, and when its own certificate was made.
fn clock(settings: &Settings) -> ClockFloor {
    let clock = ClockFloor::open(&settings.clock_floor());
    if let Ok(own) = Seen::read(&settings.tls.certificate) {
        clock.is_past(u64::try_from(own.begins.as_second()).unwrap_or_default());
    }
    let behind = clock.behind();
    if !behind.is_zero() {
        tracing::error!(
            ?behind,
            "this machine's clock is behind what it was at least; certificates are measured by the latter"
        );
    }
    clock
}

/// Keys that others could read are told of. A fleet that is to be brought back does not wait for their modes.
fn exposed(settings: &Settings) {
    let authority = settings.enrolment.as_ref();
    let authority = authority.map(|enrolment| enrolment.authority.join("ca.key"));
    for key in authority.iter().chain([&settings.tls.key]) {
        if let Some(mode) = blackstart_proto::tls::exposed(key) {
            let key = key.display();
            tracing::warn!(%key, mode = format_args!("{mode:o}"), "others than its owner can read this key; chmod 600");
        }
    }
}

/// What a coordinator has whether it leads or not.
struct House {
    settings: Settings,
    tls: Arc<ServerConfig>,
    fleetlock_tls: Option<TlsAcceptor>,
    /// For the one that leads.
    client_tls: ClientTlsConfig,
    inventory: Arc<Inventory>,
    own_boot: OwnBoot,
    notify: Notify,
    events: Events,
    door: Door,
    clock: Arc<ClockFloor>,
    /// What was commanded and ordered.
    kept: crate::audit::Audit,
    /// Management controllers of machines.
    bmcs: Bmcs,
}

impl House {
    /// Writes down what time it is at least, now and then. Never ends.
    async fn keep_time(&self) -> Result<(), RunError> {
        let mut wait = SETTLED_AFTER;
        loop {
            sleep(wait).await;
            wait = KEEP_EVERY;
            let clock = Arc::clone(&self.clock);
            match spawn_blocking(move || clock.keep()).await {
                Ok(Ok(Raised::To(_))) | Err(_) => {}
                Ok(Ok(Raised::Behind(seconds))) => {
                    tracing::error!(
                        seconds,
                        "this machine's clock is behind what it was at least; certificates are measured by the latter"
                    );
                }
                Ok(Ok(Raised::Leap(seconds))) => {
                    tracing::error!(
                        seconds,
                        file = %self.settings.clock_floor().display(),
                        "this machine's clock is more than a year ahead of when this coordinator last ran; if it is right, remove the file"
                    );
                }
                Ok(Err(error)) => tracing::error!(%error, "what time it is at least was not written down"),
            }
        }
    }

    /// Once the first minutes of a boot are over, how the last one ended is history. Never ends.
    async fn settle(&self) -> Result<(), RunError> {
        if self.own_boot.is_unclean() {
            sleep(self.settings.outage.window).await;
            if let Err(error) = self.own_boot.settle() {
                tracing::error!(%error, "that this boot is settled was not saved");
            }
        }
        std::future::pending().await
    }
}

/// What it has while it leads.
struct Leading {
    store: Arc<dyn Store>,
    /// The same, where it is a file that this coordinator makes backups of.
    file: Option<Arc<RedbStore>>,
    tenure: Tenure,
    coordinators: CoordinatorServiceServer<Coordinators>,
}

/// Why it does not lead any more.
enum Led {
    /// It was told to stop.
    Stopped,
    /// Another may lead.
    Lost(String),
}

/// What was read from the store.
struct Opened {
    fleet: Fleet,
    brakes: BrakesHandle,
    executor: Executor,
    driver: Driver,
    to_nodes: mpsc::Receiver<Order>,
    keeper: Keeper,
    permits: PermitsHandle,
    clusters: Clusters,
    runbooks: Runbooks,
    work: Work,
    answers: Answers,
    desk: Arc<Desk>,
}

/// Agents' answers on their way: to the executor, or to runbooks.
struct Answers {
    from_nodes: mpsc::Receiver<OrderResult>,
    to_executor: mpsc::Sender<OrderResult>,
    to_runbooks: mpsc::Sender<OrderResult>,
    /// Of runbooks.
    heard: mpsc::Receiver<OrderResult>,
}

/// Reads everything anew. That may take a while, and the store may have to wait for others, so it is done on threads that may.
async fn open(house: &House, store: &Arc<dyn Store>, tenure: &Tenure) -> Result<Opened, RunError> {
    let (results, from_nodes) = mpsc::channel(BACKLOG);
    let (to_executor, answers) = mpsc::channel(BACKLOG);
    let (to_runbooks, heard) = mpsc::channel(BACKLOG);
    let (orders, to_nodes) = mpsc::channel(BACKLOG);
    let (hold, holds) = watch::channel(Holds::new());
    let own_unclean_boot = house.own_boot.is_unclean();
    let of_fleet = FleetParts {
        inventory: Arc::clone(&house.inventory),
        silent_after: house.settings.silent_after,
        own_unclean_boot,
        events: house.events.clone(),
        results,
        holds,
    };
    let from = Arc::clone(store);
    let fleet = spawn_blocking(move || Fleet::new(of_fleet, from.as_ref()));
    let fleet = fleet.await.map_err(RunError::Broke)??;
    let ports = Ports {
        view: fleet.view(),
        orders: orders.clone(),
        results: answers,
        holds: hold,
        events: house.events.clone(),
    };
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let brakes = spawn_blocking(move || BrakesHandle::open(from, inventory));
    let brakes = brakes.await.map_err(RunError::Broke)??;
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let policy = house.settings.cold_start.clone();
    let opened = spawn_blocking(move || Executor::open(from, inventory, policy, ports));
    let (executor, driver) = opened.await.map_err(RunError::Broke)??;
    let in_hand = watch::Sender::default();
    let of_keeper = KeeperParts {
        inventory: Arc::clone(&house.inventory),
        policy: house.settings.permits,
        outage: house.settings.outage.clone(),
        fresh: house.settings.cold_start.fresh,
        fleet: fleet.clone(),
        executor: executor.clone(),
        brakes: brakes.clone(),
        in_hand: in_hand.subscribe(),
        events: house.events.clone(),
    };
    let from = Arc::clone(store);
    let keeping = spawn_blocking(move || Keeper::open(from, of_keeper));
    let (keeper, permits) = keeping.await.map_err(RunError::Broke)??;
    let clusters = clusters(&house.settings, &house.inventory);
    let of_runbooks = runbooks::Ports {
        store: Arc::clone(store),
        inventory: Arc::clone(&house.inventory),
        clusters: clusters.clone(),
        view: fleet.view(),
        orders,
        brakes: brakes.clone(),
        cold_starts: executor.watch(),
        events: house.events.clone(),
        epoch: executor.epoch(),
        tenure: tenure.clone(),
        timing: house.settings.timing,
        conditions: conditions(&fleet),
        policy: house.settings.runbooks.clone(),
        outage: house.settings.outage.clone(),
        permits: permits.watch(),
        in_hand,
        declared: Arc::new(house.settings.workloads.clone()),
        bmcs: house.bmcs.clone(),
        etcd: Eyes::of(&fleet),
        control_plane: control_plane::Eyes::of(&fleet),
    };
    let opened = spawn_blocking(move || Runbooks::open(of_runbooks));
    let (runbooks, work) = opened.await.map_err(RunError::Broke)??;
    let desk = open_desk(house, store).await?;
    tracing::info!(
        nodes = house.inventory.nodes.len(),
        clusters = house.inventory.clusters.len(),
        epoch = executor.epoch(),
        own_unclean_boot,
        "coordinator begins"
    );
    Ok(Opened {
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
        answers: Answers {
            from_nodes,
            to_executor,
            to_runbooks,
            heard,
        },
        desk,
    })
}

/// What agents find wrong, for runbooks.
fn conditions(fleet: &Fleet) -> Conditions {
    let fleet = fleet.clone();
    Conditions::new(move |node| {
        fleet.read(|state| {
            let node = state.node(node);
            node.map(|node| node.conditions().to_vec()).unwrap_or_default()
        })
    })
}

/// Who is let in. What is revoked is in force once this has returned, and before anybody is served.
async fn open_desk(house: &House, store: &Arc<dyn Store>) -> Result<Arc<Desk>, RunError> {
    let (from, inventory) = (Arc::clone(store), Arc::clone(&house.inventory));
    let (gate, clock) = (Arc::clone(&house.door.gate), Arc::clone(&house.clock));
    let (enrolment, events) = (house.settings.enrolment.clone(), house.events.clone());
    let opened = spawn_blocking(move || Desk::open(from, inventory, enrolment.as_ref(), gate, clock, events));
    Ok(Arc::new(opened.await.map_err(RunError::Broke)??))
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

/// The configuration and the inventory speak of the same clusters.
fn known_clusters(settings: &Settings, inventory: &Inventory) -> Result<(), RunError> {
    let unknown = settings
        .clusters
        .iter()
        .find(|cluster| inventory.cluster(&cluster.name).is_none());
    match unknown {
        Some(cluster) => Err(RunError::UnknownCluster(cluster.name.clone())),
        None => Ok(()),
    }
}

/// The management controllers that the inventory has, if the configuration says how they are spoken to.
fn controllers(settings: &Settings, inventory: &Inventory) -> Result<Bmcs, RunError> {
    match &settings.bmc {
        Some(bmc) => Ok(Bmcs::new(bmc, inventory)?),
        None => Ok(Bmcs::default()),
    }
}

/// The configured ways to clusters' APIs.
fn clusters(settings: &Settings, inventory: &Inventory) -> Clusters {
    let access = settings.clusters.iter().map(|cluster| {
        let mut access = cluster.access.clone();
        access.masters = inventory
            .masters(&cluster.name)
            .map(|spec| spec.address)
            .collect();
        (cluster.name.clone(), access)
    });
    Clusters::new(access)
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

/// Leads until `stop`, or until the tenure is over, and takes everything apart in order.
async fn lead(
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
    } = open(house, &store, &tenure).await?;
    let policy = settings.cold_start.clone();
    house.kept.note(leads(executor.epoch()));

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
    let agents = sessions(&operators, &tenure);
    serve_reboot_tools(&mut outer, house, permits, &tenure, &serving);
    let services = Routes::new(agents.serve())
        .add_service(Audit::new(operators.serve(), events.clone()))
        .add_service(steered(runbooks, house, events))
        .add_service(coordinators);
    let (services, door) = (let_in(services, house, desk), house.door.clone());
    let lines = Lines::Leading(agents);
    let server = serve(
        house.tls.clone(),
        listeners,
        services,
        lines,
        door,
        serving.clone(),
    );
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
fn sessions(with: &Operators, tenure: &Tenure) -> Sessions {
    Sessions::new(
        with.fleet.clone(),
        with.events.clone(),
        (with.executor.epoch(), tenure.clone()),
        (with.holds.brakes.clone(), with.holds.term),
        with.permits.clone(),
        with.tasks.clone(),
        with.stop.clone(),
    )
}

/// What the audit says of a coordinator that leads.
fn leads(epoch: u64) -> What {
    What {
        who: "coordinator".to_owned(),
        what: "lead".to_owned(),
        outcome: "begun".to_owned(),
        evidence: format!("epoch {epoch}"),
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

fn load_inventory(settings: &Settings) -> Result<Arc<Inventory>, RunError> {
    let loaded = inventory::load(&settings.inventory)?;
    if !loaded.warnings.is_empty() {
        let warnings = Problems {
            file: settings.inventory.display().to_string(),
            list: loaded.warnings,
        };
        tracing::warn!("the inventory may not mean what it says:\n{warnings}");
    }
    Ok(Arc::new(loaded.inventory))
}

fn spawn(parts: &mut JoinSet<Part>, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        part.await;
        (name, Ok(()))
    });
}

/// From the executor to the sessions. An order for a node that is not in session is dropped: it is sent again.
async fn deliver(
    fleet: Fleet,
    mut orders: mpsc::Receiver<Order>,
    kept: crate::audit::Audit,
    stop: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            () = stop.cancelled() => return,
            order = orders.recv() => order,
        };
        // The executor is gone, and says so itself.
        let Some(order) = order else {
            return stop.cancelled().await;
        };
        let (node, command) = (order.node.clone(), order.command_id.clone());
        let ordered = What {
            who: format!("run {}", command.split('/').next().unwrap_or_default()),
            what: "order".to_owned(),
            matter: command.clone(),
            asked: format!("node {node}: {:?}, epoch {}", order.action, order.epoch),
            outcome: "asked".to_owned(),
            ..What::default()
        };
        match fleet.deliver(order) {
            Delivery::Queued => kept.note(ordered),
            not_sent @ (Delivery::NotInSession | Delivery::Full) => {
                tracing::debug!(%node, command, ?not_sent, "an order was dropped; it is sent again");
            }
        }
    }
}

/// From the sessions to whoever sent the command.
async fn route(
    mut from_nodes: mpsc::Receiver<OrderResult>,
    (to_executor, to_runbooks): (mpsc::Sender<OrderResult>, mpsc::Sender<OrderResult>),
    kept: crate::audit::Audit,
    stop: CancellationToken,
) {
    loop {
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = from_nodes.recv() => answer,
        };
        let Some(answer) = answer else {
            return stop.cancelled().await;
        };
        kept.note(answered(&answer));
        let run = answer.command_id.split('/').next().unwrap_or_default();
        let to = if Runbook::of_run(run).is_some() {
            &to_runbooks
        } else {
            &to_executor
        };
        // Who is gone says so itself.
        let _gone = to.send(answer).await;
    }
}

/// What the audit says of an agent's answer.
fn answered(answer: &OrderResult) -> What {
    What {
        who: format!("node {}", answer.node),
        what: "answer".to_owned(),
        matter: answer.command_id.clone(),
        outcome: format!("{:?}", answer.answer).to_lowercase(),
        evidence: answer.detail.clone(),
        ..What::default()
    }
}

/// Until `stop`, or until a part ends before that.
async fn until_one_ends(
    stop: &CancellationToken,
    outer: &mut JoinSet<Part>,
    inner: &mut JoinSet<Part>,
) -> Result<(), RunError> {
    let ended = tokio::select! {
        // At a stop the outer parts end as well, and that is no failure.
        biased;
        () = stop.cancelled() => return Ok(()),
        Some(ended) = outer.join_next() => ended,
        Some(ended) = inner.join_next() => ended,
    };
    match ended {
        Ok((name, Ok(()))) => Err(RunError::Ended(name)),
        Ok((_, Err(error))) => Err(error),
        Err(error) => Err(RunError::Broke(error)),
    }
}

/// The outer parts were told to end; then the inner ones are. None takes longer than the grace.
async fn wind_down(
    mut outer: JoinSet<Part>,
    sessions: TaskTracker,
    mut inner: JoinSet<Part>,
    working: CancellationToken,
) {
    sessions.close();
    let served = async {
        all(&mut outer).await;
        sessions.wait().await;
    };
    if timeout(GRACE, served).await.is_err() {
        tracing::warn!("connections are still open; they are cut");
        outer.shutdown().await;
    }
    working.cancel();
    if timeout(GRACE, all(&mut inner)).await.is_err() {
        tracing::warn!("the executor or the store does not come to an end; they are cut");
    }
}

async fn all(parts: &mut JoinSet<Part>) {
    while parts.join_next().await.is_some() {}
}
