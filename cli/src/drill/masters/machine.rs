//! A master as its agent sees it: its files and its numbers are this machine's, its kernel says nothing, and its kubelet is always well.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_agent::host::{self, Host, HostError, UnitAction};
use blackstart_agent::signal::{
    ActiveState, DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitDetail, UnitSignal,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const KUBELET: &str = "kubelet.service";

#[derive(Debug)]
pub(super) struct Machine;

fn running(unit: &str) -> UnitSignal {
    UnitSignal {
        unit: unit.to_owned(),
        active: ActiveState::Active,
        sub: "running".to_owned(),
        main_pid: 100,
        restarts: 0,
        result: "success".to_owned(),
        detail: UnitDetail::default(),
    }
}

impl Host for Machine {
    async fn watch_units(&self, _: Vec<String>, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
        let _agent_ended = signals.send(Signal::Unit(running(KUBELET))).await;
        stop.cancelled().await;
    }

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        Ok(running(unit))
    }

    async fn unit_action(&self, _: &str, _: UnitAction) -> Result<(), HostError> {
        Ok(())
    }

    async fn probe(&self, target: ProbeTarget, _: Duration) -> ProbeOutcome {
        match target {
            ProbeTarget::Kubelet => ProbeOutcome::Healthy,
            // It is down, as it may be when etcd is.
            ProbeTarget::ApiServer => ProbeOutcome::Refused,
        }
    }

    fn disk_usage(&self, _: &Path) -> io::Result<DiskSignal> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn machine(&self) -> Option<host::Machine> {
        Some(host::Machine {
            // What this machine's kernel says of its disks, now and in the last minutes, is no trouble of these masters.
            kmsg: PathBuf::new(),
            ..host::Machine::default()
        })
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}
