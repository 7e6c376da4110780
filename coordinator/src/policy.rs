//! What operators may tune of the coordinator's decisions: plain values with their defaults.

use std::time::Duration;

use crate::permit::Budget;

/// What is done when a power event is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The cold start begins by itself.
    Auto,
    /// It is proposed (an event says so), and begins by an operator's word.
    Propose,
    /// Nothing is done or said.
    Off,
}

/// The backups that a coordinator makes of its own store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupPolicy {
    /// One is made so often, if anything changed.
    pub every: Duration,
    /// So many are kept; none: none is made.
    pub keep: usize,
}

impl Default for BackupPolicy {
    fn default() -> Self {
        Self {
            every: Duration::from_hours(1),
            keep: 24,
        }
    }
}

/// When lost nodes are a power event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutagePolicy {
    /// Percent of a cluster's nodes that must be down or back from an unclean end, at least one of them back with a new boot.
    pub share_percent: u32,
    /// Losses and new boots farther apart than this are not one event.
    pub window: Duration,
}

impl Default for OutagePolicy {
    fn default() -> Self {
        Self {
            share_percent: 50,
            window: Duration::from_mins(15),
        }
    }
}

/// When one condition on many nodes is a storm, and is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StormPolicy {
    /// At least so many nodes of a cluster…
    pub nodes: usize,
    /// …and at least so many percent of them…
    pub share_percent: u32,
    /// …on which it was raised within this.
    pub window: Duration,
    /// It thaws once it has stood on fewer than half as many for this long.
    pub hold: Duration,
    /// A node that hears no more of a freeze ends it after this.
    pub term: Duration,
    /// Conditions whose remedies are never frozen. A disk that is full everywhere is worse than a reclaim everywhere.
    pub exempt: Vec<String>,
}

impl Default for StormPolicy {
    fn default() -> Self {
        Self {
            nodes: 3,
            share_percent: 20,
            window: Duration::from_mins(1),
            hold: Duration::from_mins(2),
            term: Duration::from_mins(1),
            exempt: ["LogRunaway", "DiskPressure", "DiskFilling", "InodePressure"]
                .map(str::to_owned)
                .into(),
        }
    }
}

/// When a node may be away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitPolicy {
    /// So many workers of a cluster at once.
    pub workers: Budget,
    /// An agent's permit is looked into after this.
    pub term: Duration,
    /// That of a reboot tool is.
    pub reboot_term: Duration,
    /// A node that was not heard of for so long is not waited for after the term.
    pub silent_for: Duration,
}

impl Default for PermitPolicy {
    fn default() -> Self {
        Self {
            workers: Budget::Percent(10),
            // A bounce takes five minutes at most.
            term: Duration::from_mins(10),
            reboot_term: Duration::from_mins(30),
            silent_for: Duration::from_mins(30),
        }
    }
}

/// How a cold start is planned and executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdStartPolicy {
    /// What begins it.
    pub trigger: Trigger,
    /// How old an attestation may be to count as evidence at a gate.
    pub fresh: Duration,
    /// A released kubelet that does not become healthy within this is given up: its node is residue.
    pub release_deadline: Duration,
    /// A node that has not come back within this of its turn is residue.
    pub return_deadline: Duration,
    /// A control-plane gate that has not passed within this halts the run.
    pub control_plane_deadline: Duration,
    /// A cluster serves, for those that depend on it, when so many percent of its workers are healthy.
    pub serving_percent: u32,
    /// How many workers are released at once.
    pub wave: WavePolicy,
    /// How long steps take, until earlier runs tell better.
    pub typical: Typical,
}

/// How many workers of a cluster are released at once, by how its API server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WavePolicy {
    /// To begin with.
    pub initial: usize,
    /// At most.
    pub max: usize,
    /// So many more after each interval in which the API server answered well.
    pub increase: usize,
    /// The window moves at most once in so long.
    pub interval: Duration,
    /// The API server has room for more when it answers within this.
    pub latency_good: Duration,
    /// It has too much to do when it takes so long.
    pub latency_bad: Duration,
}

impl Default for WavePolicy {
    fn default() -> Self {
        Self {
            initial: 2,
            max: 50,
            increase: 4,
            interval: Duration::from_secs(5),
            latency_good: Duration::from_millis(500),
            latency_bad: Duration::from_secs(2),
        }
    }
}

/// How long steps typically take: what estimates are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typical {
    /// From the beginning of a run until a node that is down is back.
    pub node_return: Duration,
    /// From the release of a kubelet to its health.
    pub kubelet: Duration,
    /// From the health of a quorum of the masters' kubelets to the readiness of their API servers.
    pub control_plane: Duration,
}

impl Default for Typical {
    fn default() -> Self {
        Self {
            node_return: Duration::from_mins(5),
            kubelet: Duration::from_secs(30),
            control_plane: Duration::from_secs(90),
        }
    }
}

impl Default for ColdStartPolicy {
    fn default() -> Self {
        Self {
            trigger: Trigger::Auto,
            fresh: Duration::from_secs(15),
            release_deadline: Duration::from_mins(3),
            return_deadline: Duration::from_mins(10),
            control_plane_deadline: Duration::from_mins(30),
            serving_percent: 50,
            wave: WavePolicy::default(),
            typical: Typical::default(),
        }
    }
}
