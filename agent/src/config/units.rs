//! What the agent is told of states of units that are no plain failure, and of the kubelet's own words.

use std::path::PathBuf;
use std::time::Duration;

/// When a unit flaps, and when a job of it hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSettings {
    /// So many restarts by systemd itself within `flapping_window` raise `UnitFlapping`; none for as long clears it.
    pub flapping_restarts: u32,
    /// See `flapping_restarts`.
    pub flapping_window: Duration,
    /// A start or stop that takes longer hangs. Longer than systemd's own 90 s (`DefaultTimeoutStartSec=`): it is for units that
    /// have no such limit, and a dockerd with hundreds of containers takes minutes.
    pub job_hung_after: Duration,
}

impl Default for UnitSettings {
    fn default() -> Self {
        Self {
            flapping_restarts: 5,
            flapping_window: Duration::from_mins(10),
            job_hung_after: Duration::from_mins(5),
        }
    }
}

/// How the kubelet's journal is read for the health of its pod lifecycle event generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlegSettings {
    /// Between two looks.
    pub interval: Duration,
    /// How long a look may take.
    pub deadline: Duration,
    /// The kubelet is restarted when it has not come right by itself for so long.
    pub restart_after: Duration,
    /// The program that reads the journal.
    pub journalctl: PathBuf,
}

impl Default for PlegSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(1),
            deadline: Duration::from_secs(10),
            restart_after: Duration::from_mins(10),
            journalctl: "/usr/bin/journalctl".into(),
        }
    }
}
