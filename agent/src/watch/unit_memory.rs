//! System daemons' memory → [`Signal::UnitMemory`], once a minute: a leak takes hours, and a look reads one file a unit.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cgroup::{Cgroups, Root};
use crate::signal::{Signal, UnitMemorySignal};

/// Between two looks.
pub const PERIOD: Duration = Duration::from_mins(1);

/// Watches `units` until `stop`; `proc` is `/proc`. A unit that does not run is left out.
pub async fn watch(
    units: Vec<String>,
    root: Root,
    proc: PathBuf,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    loop {
        let (units, root, proc) = (units.clone(), root.clone(), proc.clone());
        let look = tokio::task::spawn_blocking(move || {
            let cgroups = Cgroups::mounted(&root);
            let units = units
                .iter()
                .filter_map(|unit| cgroups.unit(unit, &proc))
                .collect();
            UnitMemorySignal { units }
        });
        if let Ok(seen) = look.await
            && !seen.units.is_empty()
        {
            tokio::select! {
                () = stop.cancelled() => return,
                sent = signals.send(Signal::UnitMemory(seen)) => if sent.is_err() { return },
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}
