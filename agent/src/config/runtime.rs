//! What the agent is told of container runtimes, and of what may go when a disk is short.

use std::path::PathBuf;
use std::time::Duration;

/// Where a container runtime is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEndpoint {
    /// Its socket; not there: it is not installed.
    pub socket: PathBuf,
    /// Its unit.
    pub unit: String,
    /// Where it writes its stacks at SIGUSR1.
    pub stacks: PathBuf,
}

/// What was not answered is asked for again after this at the latest.
const LONGEST_WHILE_FAILING: Duration = Duration::from_secs(3);

/// When a container runtime is hung, and when a container flaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// dockerd.
    pub docker: RuntimeEndpoint,
    /// containerd.
    pub containerd: RuntimeEndpoint,
    /// How often a real call is made while it is answered.
    pub interval: Duration,
    /// How long an answer may take.
    pub deadline: Duration,
    /// So many failures in a row raise `RuntimeHung`.
    pub failures_to_raise: u32,
    /// So many restarts of a container within `flapping_window` raise `ContainerFlapping`; none for as long clears it.
    pub flapping_restarts: u32,
    /// See `flapping_restarts`.
    pub flapping_window: Duration,
    /// Containers, by name, that are restarted when they fail their own health check: globs. Never those of pods.
    pub may_restart_containers: Vec<String>,
    /// Each so many times within `container_restart_window`.
    pub container_restarts: u32,
    /// See `container_restarts`.
    pub container_restart_window: Duration,
    /// A container that was restarted has to be healthy by then.
    pub container_healthy_within: Duration,
}

impl RuntimeSettings {
    /// From one call to the next while calls fail: failures are counted, and a runtime that answers again is noticed.
    pub fn while_failing(&self) -> Duration {
        self.interval.min(LONGEST_WHILE_FAILING)
    }

    /// What every pod of the node needs, each after what it needs itself.
    pub fn start_order<'a>(&'a self, kubelet_unit: &'a str) -> [&'a str; 3] {
        [&self.containerd.unit, &self.docker.unit, kubelet_unit]
    }
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            docker: RuntimeEndpoint {
                socket: "/var/run/docker.sock".into(),
                unit: "docker.service".to_owned(),
                stacks: "/var/run/docker".into(),
            },
            containerd: RuntimeEndpoint {
                socket: "/run/containerd/containerd.sock".into(),
                unit: "containerd.service".to_owned(),
                stacks: "/tmp".into(),
            },
            interval: Duration::from_secs(5),
            deadline: Duration::from_secs(3),
            failures_to_raise: 3,
            flapping_restarts: 5,
            flapping_window: Duration::from_mins(10),
            may_restart_containers: Vec::new(),
            container_restarts: 3,
            container_restart_window: Duration::from_hours(1),
            container_healthy_within: Duration::from_mins(3),
        }
    }
}

/// What may go when a disk is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneSettings {
    /// A container goes when it has been stopped for this long, within this boot.
    pub stopped_for: Duration,
    /// An image goes when it was pulled, or last tagged, so long ago: a pod may be about to use it.
    pub unused_for: Duration,
    /// Images that never go: globs. One with `/` or `:` is held against the whole name, any other against its last part
    /// without the tag.
    pub protect: Vec<String>,
    /// Where journald keeps the journals of machines.
    pub journal: PathBuf,
    /// The journal is cut down to this, bytes.
    pub journal_keep: u64,
}

impl Default for PruneSettings {
    fn default() -> Self {
        Self {
            stopped_for: Duration::from_hours(24),
            unused_for: Duration::from_hours(1),
            protect: [
                "*pause*",
                "kube-apiserver*",
                "kube-controller-manager*",
                "kube-scheduler*",
                "kube-proxy*",
                "hyperkube*",
                "etcd*",
                "*coredns*",
                "*dns-node-cache*",
                "*cni*",
                "*calico*",
                "*calico/*",
                "*cilium*",
                "*cilium/*",
                "*flannel*",
                "*kube-ovn*",
                "*multus*",
                "registry",
                "*goharbor/*",
                "kube-vip*",
                "keepalived*",
                "haproxy*",
            ]
            .map(str::to_owned)
            .into(),
            journal: "/var/log/journal".into(),
            journal_keep: 256 << 20,
        }
    }
}
