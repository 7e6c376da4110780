//! The node itself: systemd over D-Bus, HTTP probes, statvfs.

mod bus;
#[cfg(test)]
mod fake;
mod follow;
pub(crate) mod http;
mod leave;
#[cfg(test)]
mod tests;
mod unit;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::bus::{Bus, refusal};
use self::follow::Current;
use super::{Host, HostError, Machine, UnitAction};
use crate::config::HttpTarget;
use crate::privilege::Leave;
use crate::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};

/// File systems that answer `statfs` from counters in memory (`ext4_statfs`, `shmem_statfs`), by their numbers in `linux/magic.h`. Those that ask
/// a server or a process are none; XFS is none, since it waited for its own background work there from Linux 5.14 to 5.18.
const FROM_MEMORY: [rustix::fs::FsWord; 2] = [0xef53, 0x0102_1994];

/// This machine.
#[derive(Debug)]
pub struct RealHost {
    kubelet: HttpTarget,
    api_server: Option<HttpTarget>,
    tls: Arc<ClientConfig>,
    bus: Option<String>,
    /// The connection of [`Host::watch_units`], which everything else uses while it is up.
    current: watch::Sender<Option<Current>>,
}

impl RealHost {
    /// Nothing is connected yet. `bus` is a D-Bus address such as `unix:path=/run/dbus/system_bus_socket`; without it,
    /// the system bus.
    pub fn new(kubelet: HttpTarget, api_server: Option<HttpTarget>, bus: Option<String>) -> Self {
        Self {
            kubelet,
            api_server,
            tls: http::tls_of_probes(),
            bus,
            current: watch::Sender::new(None),
        }
    }

    fn current_bus(&self, unit: Option<&str>) -> Option<Bus> {
        let fits = |current: &&Current| {
            !current.bus.is_closed()
                && unit.is_none_or(|unit| current.units.iter().any(|watched| watched == unit))
        };
        let current = self.current.borrow();
        current.as_ref().filter(fits).map(|current| current.bus.clone())
    }

    /// The connection that is up, if the unit's jobs are told on it; otherwise one for this once.
    async fn bus_for(&self, unit: Option<&str>) -> Result<Bus, HostError> {
        if let Some(bus) = self.current_bus(unit) {
            return Ok(bus);
        }
        let bus = Bus::connect(self.bus.as_deref())
            .await
            .map_err(HostError::Unreachable)?;
        if let Some(unit) = unit {
            let subscribed = async {
                bus.subscribe().await?;
                bus.follow_jobs(unit).await
            };
            subscribed
                .await
                .map_err(|error| HostError::Unreachable(error.to_string()))?;
        }
        Ok(bus)
    }
}

impl Host for RealHost {
    async fn watch_units(&self, units: Vec<String>, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
        follow::follow(self.bus.as_deref(), units, &self.current, signals, stop).await;
    }

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        let bus = self.bus_for(None).await?;
        let read = async {
            let path = bus.path_of(unit).await?;
            bus.read(&path).await
        };
        match read.await {
            Ok(reading) => Ok(reading.properties.signal(unit)),
            Err(error) => Err(match refusal(&error) {
                Some(why) => HostError::Refused {
                    action: "read",
                    unit: unit.to_owned(),
                    why,
                },
                None => HostError::Unreachable(error.to_string()),
            }),
        }
    }

    async fn unit_action(&self, unit: &str, action: UnitAction) -> Result<(), HostError> {
        // A connection for this once would be gone before the restart is asked for on another.
        if action == UnitAction::ResetFailed
            && let Some(bus) = self.current_bus(Some(unit))
        {
            return bus.forget_failure(unit).await;
        }
        self.bus_for(Some(unit)).await?.act(unit, action).await
    }

    async fn may_manage(&self, unit: &str) -> Leave {
        match self.bus_for(None).await {
            Ok(bus) => bus.leave(unit).await,
            Err(error) => {
                debug!(%error, unit, "whether it may be restarted cannot be told");
                Leave::Unknown
            }
        }
    }

    fn machine(&self) -> Option<Machine> {
        Some(Machine::default())
    }

    async fn probe(&self, target: ProbeTarget, deadline: Duration) -> ProbeOutcome {
        let http = match target {
            ProbeTarget::Kubelet => Some(&self.kubelet),
            ProbeTarget::ApiServer => self.api_server.as_ref(),
        };
        match http {
            Some(http) => http::probe(http, &self.tls, deadline).await,
            None => ProbeOutcome::Unobservable {
                why: "no endpoint is configured".to_owned(),
            },
        }
    }

    fn disk_usage(&self, mount_point: &Path) -> io::Result<DiskSignal> {
        self.disk_look(mount_point).map(|(seen, _)| seen)
    }

    fn disk_look(&self, mount_point: &Path) -> io::Result<(DiskSignal, bool)> {
        // One call: finding the mount point costs more than asking it.
        let seen = rustix::fs::statfs(mount_point)?;
        // 0 on a kernel that knows of no fragments: they are blocks then.
        let size = if seen.f_frsize > 0 {
            seen.f_frsize
        } else {
            seen.f_bsize
        };
        let size = u64::try_from(size).unwrap_or(0);
        let usage = DiskSignal {
            mount_point: mount_point.to_owned(),
            bytes_total: seen.f_blocks.saturating_mul(size),
            bytes_available: seen.f_bavail.saturating_mul(size),
            inodes_total: seen.f_files,
            inodes_free: seen.f_ffree,
            time_to_full: None,
        };
        Ok((usage, FROM_MEMORY.contains(&seen.f_type)))
    }

    async fn shutting_down(&self) -> bool {
        let state = async {
            let bus = self.bus_for(None).await?;
            bus.system_state()
                .await
                .map_err(|error| HostError::Unreachable(error.to_string()))
        };
        match state.await {
            Ok(state) => state == "stopping",
            Err(error) => {
                warn!(%error, "whether the machine shuts down cannot be told");
                false
            }
        }
    }
}
