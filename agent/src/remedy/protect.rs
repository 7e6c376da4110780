//! `ProtectUnits`: under overload the kubelet and the container runtimes get more weight, so that the node keeps its lease.
//!
//! ```text
//!  root ─┬─ system.slice  1000 ─┬─ kubelet.service  1000
//!        │                      ├─ docker.service   1000
//!        │                      └─ others            100
//!        └─ kubepods             (by the pods' requests)
//! ```
//! Weights count among siblings only: pods compete with `system.slice`, not with the kubelet, so the slice gets it too. They cost nothing
//! while there is enough for all, and for that reason stay until the next boot (`SetUnitProperties` with `runtime`): to take them
//! back after each peak would have to survive a crash in between, to give nothing in return.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::Settings;
use crate::host::{Host, HostError, UnitAction, Weights};
use crate::ledger::Outcome;
use crate::signal::ActiveState;
use crate::watch::cgroup::{Cgroups, Version};

/// What the units are in.
const SLICE: &str = "system.slice";
/// systemd is asked for so long.
const DEADLINE: Duration = Duration::from_secs(15);

/// Whom it gives what.
#[derive(Debug, Clone)]
pub struct ProtectRules {
    units: [String; 3],
    cpu: u16,
    io: u16,
}

impl ProtectRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            units: settings
                .runtime
                .start_order(&settings.kubelet_unit)
                .map(str::to_owned),
            cpu: settings.load.cpu_weight,
            io: settings.load.io_weight,
        }
    }
}

/// Does it, each unit read back; units that do not run are passed over.
pub(super) async fn protect<H: Host>(host: &H, rules: &ProtectRules, dry_run: bool) -> Outcome {
    let Some(machine) = host.machine() else {
        return Outcome::Failed {
            detail: "the node's control groups are not this machine's".to_owned(),
        };
    };
    let version = tokio::task::spawn_blocking(move || Cgroups::mounted(&machine.cgroups).weights()).await;
    let weights = Weights {
        cpu: rules.cpu,
        io: rules.io,
        version: match version {
            Ok(Some(version)) => version,
            Ok(None) | Err(_) => Version::Two,
        },
    };
    let mut running = Vec::new();
    for unit in &rules.units {
        if runs(host, unit).await {
            running.push(unit.as_str());
        }
    }
    if running.is_empty() {
        return Outcome::Failed {
            detail: format!("none of {} runs: nothing to protect", rules.units.join(", ")),
        };
    }
    running.push(SLICE);
    if dry_run {
        return Outcome::Succeeded {
            detail: format!("dry run: would give {weights} to {}", running.join(", ")),
        };
    }
    let (mut given, mut failed) = (Vec::new(), Vec::new());
    for unit in running {
        match timeout(DEADLINE, host.unit_action(unit, UnitAction::Weigh(weights))).await {
            Ok(Ok(())) => given.push(unit),
            Ok(Err(error)) => failed.push(error.to_string()),
            Err(_) => failed.push(HostError::Unreachable(format!("no answer about {unit}")).to_string()),
        }
    }
    let given = format!("{weights} until the next boot: {}", given.join(", "));
    if failed.is_empty() {
        Outcome::Succeeded { detail: given }
    } else {
        Outcome::Failed {
            detail: format!("{given}; not given: {}", failed.join("; ")),
        }
    }
}

async fn runs<H: Host>(host: &H, unit: &str) -> bool {
    match timeout(DEADLINE, host.unit_state(unit)).await {
        Ok(Ok(seen)) => matches!(
            seen.active,
            ActiveState::Active | ActiveState::Reloading | ActiveState::Activating
        ),
        Ok(Err(_)) | Err(_) => false,
    }
}
