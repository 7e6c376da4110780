//! What was seen of container runtimes and containers.

use std::time::Duration;

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// dockerd.
    Docker,
    /// containerd, dockerd's or of its own.
    Containerd,
}

impl Runtime {
    /// Its name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }
    }
}

/// What came of one real call of a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSignal {
    /// Which.
    pub runtime: Runtime,
    /// What came of it.
    pub answer: RuntimeAnswer,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeAnswer {
    /// What was asked for, within the deadline.
    Answered,
    /// No answer within the deadline: hung.
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// Nobody listens on its socket, the connection broke, or it answered with an error of its own.
    Failed {
        /// What failed, for people.
        why: String,
    },
    /// The call itself could not be made; says nothing about the runtime.
    Unobservable {
        /// What failed, for people.
        why: String,
    },
}

/// A container with a restart policy, or of a pod. The counts rise as long as the agent runs, so that a lost signal loses no
/// more than the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSignal {
    /// `namespace/pod/container` of a pod's, otherwise its name: the same for what replaces it.
    pub name: String,
    /// Its image, as it was named at creation.
    pub image: String,
    /// It runs.
    pub running: bool,
    /// Its health check fails (docker's `unhealthy`).
    pub unhealthy: bool,
    /// It died and was started again so many times, without anybody having asked for it.
    pub restarts: u64,
    /// So many times it ended with a status other than 0, without anybody having asked for it.
    pub failures: u64,
    /// So many times the OOM killer took a process of it.
    pub oom_kills: u64,
    /// The status that it ended with the last time.
    pub last_exit: Option<i64>,
}
