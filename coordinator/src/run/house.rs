//! What a coordinator has whether it leads or not: its files, its clock, the inventory, who is let in.

use std::sync::Arc;

use blackstart_proto::clock_floor::{ClockFloor, KEEP_EVERY, Raised, SETTLED_AFTER};
use blackstart_proto::yaml::Problems;
use rustls::ServerConfig;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use super::RunError;
use crate::api::door::{Door, Tokens};
use crate::api::shown::ShownCertificate;
use crate::audit::local;
use crate::config::Settings;
use crate::events::Events;
use crate::inventory::{self, Inventory};
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::own_boot::OwnBoot;
use crate::pki::Seen;
use crate::power::Bmcs;
use crate::trust::oidc::Oidc;

/// What a coordinator has whether it leads or not.
pub(super) struct House {
    pub(super) settings: Settings,
    pub(super) tls: Arc<ServerConfig>,
    /// What it shows to those who connect, and the PEM of what it was when it began.
    pub(super) shown: Arc<ShownCertificate>,
    pub(super) certificate: Vec<u8>,
    pub(super) fleetlock_tls: Option<TlsAcceptor>,
    /// For the one that leads.
    pub(super) client_tls: ClientTlsConfig,
    pub(super) inventory: Arc<Inventory>,
    pub(super) own_boot: OwnBoot,
    pub(super) notify: Notify,
    pub(super) events: Events,
    pub(super) door: Door,
    pub(super) clock: Arc<ClockFloor>,
    /// What was commanded and ordered.
    pub(super) kept: crate::audit::Audit,
    /// What Prometheus is told.
    pub(super) metrics: Metrics,
    /// Management controllers of machines.
    pub(super) bmcs: Bmcs,
}

impl House {
    /// Writes down what time it is at least, now and then. Never ends.
    pub(super) async fn keep_time(&self) -> Result<(), RunError> {
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

    /// Takes what is typed on this machine into the audit. Ends with `stop`.
    pub(super) async fn hear_what_is_typed(&self, stop: &CancellationToken) -> Result<(), RunError> {
        local::serve(self.kept.clone(), self.settings.audit_socket(), stop.clone()).await;
        std::future::pending().await
    }

    /// Tells Prometheus, if it is to be told. Never ends.
    pub(super) async fn serve_metrics(&self) -> Result<(), RunError> {
        if let Some(listen) = self.settings.metrics {
            let metrics = self.metrics.clone();
            metrics.serve(listen, CancellationToken::new()).await;
        }
        std::future::pending().await
    }

    /// Once the first minutes of a boot are over, how the last one ended is history. Never ends.
    pub(super) async fn settle(&self) -> Result<(), RunError> {
        if self.own_boot.is_unclean() {
            sleep(self.settings.outage.window).await;
            if let Err(error) = self.own_boot.settle() {
                tracing::error!(%error, "that this boot is settled was not saved");
            }
        }
        std::future::pending().await
    }
}

/// What time it is at least: what was kept, and when its own certificate was made.
pub(super) fn clock(settings: &Settings) -> ClockFloor {
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

/// Whose tokens are taken, if the configuration says so.
pub(super) fn tokens(settings: &Settings, clock: &Arc<ClockFloor>) -> Option<Tokens> {
    let oidc = settings.oidc.clone()?;
    Some(Tokens {
        provider: Arc::new(Oidc::open(oidc)),
        clock: Arc::clone(clock),
    })
}

/// Keys that others could read are told of. A fleet that is to be brought back does not wait for their modes.
pub(super) fn exposed(settings: &Settings) {
    let authority = settings.enrolment.as_ref();
    let authority = authority.map(|enrolment| enrolment.authority.join("ca.key"));
    for key in authority.iter().chain([&settings.tls.key]) {
        if let Some(mode) = blackstart_proto::tls::exposed(key) {
            let key = key.display();
            tracing::warn!(%key, mode = format_args!("{mode:o}"), "others than its owner can read this key; chmod 600");
        }
    }
}

/// The configuration and the inventory speak of the same clusters.
pub(super) fn known_clusters(settings: &Settings, inventory: &Inventory) -> Result<(), RunError> {
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
pub(super) fn controllers(settings: &Settings, inventory: &Inventory) -> Result<Bmcs, RunError> {
    match &settings.bmc {
        Some(bmc) => Ok(Bmcs::new(bmc, inventory)?),
        None => Ok(Bmcs::default()),
    }
}

pub(super) fn load_inventory(settings: &Settings) -> Result<Arc<Inventory>, RunError> {
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
