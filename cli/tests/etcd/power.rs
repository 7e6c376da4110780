//! A master that may lose its power: its kubelet is well whenever its agent runs, its API server when that listens and its etcd has a quorum.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use blackstart_agent::host::{self, Host, HostError, UnitAction};
use blackstart_agent::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;

#[derive(Debug)]
pub(crate) struct Powered {
    pub(crate) api: SocketAddr,
    /// Where its etcd tells how it is.
    pub(crate) etcd: SocketAddr,
}

impl Powered {
    /// As a real one: it listens, and reads something that a majority of etcd's members vouches for.
    async fn is_ready(&self) -> io::Result<bool> {
        let _listens = TcpStream::connect(self.api).await?;
        let mut etcd = TcpStream::connect(self.etcd).await?;
        etcd.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        etcd.read_to_string(&mut answer).await?;
        Ok(answer.contains(" 200 ") && answer.contains("true"))
    }
}

impl Host for Powered {
    async fn watch_units(&self, units: Vec<String>, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
        Machine.watch_units(units, signals, stop).await;
    }

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        Machine.unit_state(unit).await
    }

    async fn unit_action(&self, unit: &str, action: UnitAction) -> Result<(), HostError> {
        Machine.unit_action(unit, action).await
    }

    async fn probe(&self, target: ProbeTarget, within: Duration) -> ProbeOutcome {
        match target {
            ProbeTarget::Kubelet => ProbeOutcome::Healthy,
            ProbeTarget::ApiServer => match timeout(within, self.is_ready()).await {
                Ok(Ok(true)) => ProbeOutcome::Healthy,
                Ok(Ok(false)) => ProbeOutcome::Unhealthy { status: 500 },
                Ok(Err(_)) => ProbeOutcome::Refused,
                Err(_) => ProbeOutcome::TimedOut,
            },
        }
    }

    fn disk_usage(&self, mount_point: &Path) -> io::Result<DiskSignal> {
        Machine.disk_usage(mount_point)
    }

    fn machine(&self) -> Option<host::Machine> {
        Machine.machine()
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}
