//! Puts the coordinator together, and takes it apart in order.
//!
//! ```text
//!  store, own boot, inventory (`house`)              what lasts
//!        ▼   of several coordinators, only one that leads goes on (`several`)
//!  fleet, executor, runbooks (`opening`)
//!        ▼   (`leading`)
//!        ├► inner: driver, live picture, `orders`   end last: what was dispatched is still written down
//!        └► outer: server, starter, reports         begin last, end first
//! ```
//!
//! A part that ends by itself ends the coordinator (`parts`): the service manager starts it anew, and it goes on from its journal.

pub mod copy;
mod error;
mod house;
mod leading;
mod open_files;
mod opening;
mod orders;
mod own_certificate;
mod parts;
pub(crate) mod several;

pub use error::RunError;

use std::net::SocketAddr;
use std::sync::Arc;
use std::{fs, io};

use blackstart_proto::tls::client_config;
use house::{House, clock, controllers, exposed, known_clusters, load_inventory, tokens};
use leading::{Leading, lead};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::api::door::Door;
use crate::api::handshake::{Lenience, replaceable_tls};
use crate::api::shown::ShownCertificate;
use crate::config::{Settings, StoreSettings};
use crate::events::Events;
use crate::fleetlock;
use crate::leader::Tenure;
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::own_boot::OwnBoot;
use crate::store::redb::RedbStore;
use crate::trust::gate::Gate;

/// Connections that the kernel keeps until they are accepted. A whole fleet comes at once after a cut, and whoever finds no room tries
/// again after a second, then three. The kernel takes no more than its own limit (`net.core.somaxconn`, 4096).
const BACKLOG_OF_CONNECTIONS: u32 = 8192;

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
        visitors: settings.enrolment.is_some() || settings.oidc.is_some(),
    };
    let shown = Arc::new(ShownCertificate::new(&material, lenience.visitors)?);
    let tls = replaceable_tls(&material, lenience, Arc::clone(&shown))?;
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
        tokens: tokens(&settings, &clock),
        visits: Arc::default(),
    };
    let metrics = Metrics::new(Arc::clone(&inventory), settings.tls.certificate.clone());
    let house = House {
        metrics,
        fleetlock_tls,
        door,
        clock,
        tls,
        shown,
        client_tls: client_config(&material),
        certificate: material.certificate,
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
        never = house.keep_certificate() => never,
        never = house.hear_what_is_typed(&stop) => never,
        never = house.serve_metrics() => never,
    };
    if ended.is_ok() {
        house.own_boot.end().map_err(RunError::OwnBoot)?;
    }
    ended
}
