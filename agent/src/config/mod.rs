//! The agent's configuration: YAML as written → validated [`Settings`].
//!
//! Every default stands here once; `deploy/agent.yaml` shows them, and a test holds the two together.

mod archive;
mod change;
mod etcd;
mod kubernetes;
mod network;
mod pressure;
mod read;
mod runtime;
mod static_pods;
mod units;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::boot::KERNEL_BOOT_ID;
use blackstart_proto::tls::TlsFiles;
use globset::escape;

pub use archive::ArchiveSettings;
pub use change::{Change, changes};
pub use etcd::{EtcdSettings, SnapshotSettings};
pub use kubernetes::{Access, KubernetesSettings};
pub use network::{ClockSettings, CniSettings, DnsSettings, NetworkSettings};
pub use pressure::{LeakSettings, LoadSettings, MemorySettings};
pub use read::{ConfigError, load, parse};
pub use runtime::{PruneSettings, RuntimeEndpoint, RuntimeSettings};
pub use static_pods::{ComponentSettings, StaticPodSettings};
pub use units::{PlegSettings, UnitSettings};

/// What a node is for, as far as its gate cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateRole {
    /// Master: let go first.
    ControlPlane,
    /// Worker: let go after the masters.
    Worker,
}

/// A health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path, with its leading slash.
    pub path: String,
    /// It speaks HTTPS. Its certificate is not verified, as the kubelet's own HTTPS probes do not: it is made for other
    /// names than a loopback address, and an expired one must not make a server that runs look dead.
    pub tls: bool,
}

/// How to reach the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorSettings {
    /// Tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// The node's certificate.
    pub tls: TlsFiles,
    /// A report at least this often; three missed make a node silent.
    pub report_interval: Duration,
    /// Without a session for so long, a master's runtime is restarted without the coordinator's permit.
    pub permit_wait: Duration,
}

/// See [`CoordinatorSettings::permit_wait`]: longer than a coordinator takes to restart, or another to lead.
pub const PERMIT_WAIT: Duration = Duration::from_mins(2);

/// An endpoint that fails is asked at least so often.
const LONGEST_WHILE_FAILING: Duration = Duration::from_secs(1);

/// A probed endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// What is asked.
    pub target: HttpTarget,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub deadline: Duration,
    /// So many failures in a row raise a condition.
    pub failures_to_raise: u32,
}

/// A watched file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Percent used that raises `DiskPressure`; for bytes and for inodes.
    pub raise_percent: u64,
    /// Percent used below which it is cleared.
    pub clear_percent: u64,
    /// It is raised as well when the disk would be full within this at the present rate.
    pub raise_time_to_full: Duration,
}

/// Which logs may be reclaimed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Files the agent may reclaim: absolute globs.
    pub globs: Vec<String>,
    /// Files it never touches, whatever the globs say.
    pub protect: Vec<String>,
    /// Bytes at the end of a log that are never given up.
    pub keep_tail: u64,
    /// Logs that take less are left alone.
    pub min_size: u64,
    /// A log that grows faster (bytes a second) is a runaway while its disk fills.
    pub runaway_rate: u64,
    /// Where heads go before they are cut; `None`: nowhere.
    pub archive: Option<ArchiveSettings>,
}

/// What must hold before a kubelet may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightSettings {
    /// Files with certificates, PEM or kubeconfigs: absolute globs. The agent's own are looked at without being named.
    pub certificates: Vec<String>,
    /// A certificate that expires within this is told.
    pub expires_within: Duration,
    /// Sockets of container runtimes; one of them must answer. Empty: none is needed.
    pub container_runtimes: Vec<PathBuf>,
    /// Data directories of etcd, all of which must be readable on a master.
    pub etcd_data: Vec<PathBuf>,
}

impl Default for PreflightSettings {
    fn default() -> Self {
        Self {
            certificates: [
                "/etc/kubernetes/pki/**/*.crt",
                "/etc/kubernetes/*.conf",
                "/var/lib/kubelet/pki/*.crt",
                "/var/lib/kubelet/pki/*.pem",
            ]
            .map(str::to_owned)
            .into(),
            expires_within: Duration::from_hours(30 * 24),
            container_runtimes: [
                "/run/containerd/containerd.sock",
                "/run/cri-dockerd.sock",
                "/run/docker.sock",
                "/run/crio/crio.sock",
            ]
            .map(PathBuf::from)
            .into(),
            etcd_data: vec!["/var/lib/etcd".into()],
        }
    }
}

/// Where Prometheus finds metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Served over plain HTTP, to whoever reaches it.
    pub listen: SocketAddr,
}

/// The ladder of unit remedies, and its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// An inactive unit (stopped without failure) is left alone for this long: somebody may be at work on it.
    pub inactive_hold: Duration,
    /// Plain restarts within `window`.
    pub restarts: u32,
    /// Then so many times kill and restart.
    pub kill_restarts: u32,
    /// Health for this long refills the budget.
    pub window: Duration,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff_first: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// A unit job that has not ended by then has failed.
    pub job_deadline: Duration,
    /// What is started after what: each needs those before it. By default the units of containerd, docker and the kubelet.
    pub order: Vec<String>,
    /// A unit waits so long for those that it needs to be well.
    pub order_wait: Duration,
}

/// Budget of log reclaims, each log for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReclaimPolicy {
    /// So many within `window`.
    pub budget: u32,
    /// The window.
    pub window: Duration,
}

/// What nothing is ever done to; see also [`LogSettings::protect`] and [`PruneSettings::protect`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectSettings {
    /// Units: globs. They are watched and told of, and never restarted, whatever `units` says and whoever asks.
    pub units: Vec<String>,
}

/// The boot gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSettings {
    /// Which of the two times holds here.
    pub role: GateRole,
    /// A master's kubelet starts by itself when nobody has spoken to its gate for this long.
    pub dead_man_control_plane: Duration,
    /// The same for a worker; longer than a master's with its jitter.
    pub dead_man_worker: Duration,
    /// A kubelet that is released is held for so much longer while the pre-flight finds something in its way; zero: it is not.
    pub preflight_hold: Duration,
    /// Up to this much is added, a fixed share for each node name, so that they do not all start at once.
    pub jitter: Duration,
}

impl GateSettings {
    /// The dead-man time of `node`: by role, plus its fixed share of the jitter.
    pub fn dead_man(&self, node: &str) -> Duration {
        let base = match self.role {
            GateRole::ControlPlane => self.dead_man_control_plane,
            GateRole::Worker => self.dead_man_worker,
        };
        let share = f64::from(crc32fast::hash(node.as_bytes())) / f64::from(u32::MAX);
        base + self.jitter.mul_f64(share)
    }

    /// The dead-man time of manifests that were set aside on `node`: when the last worker has opened its gate by itself.
    pub fn set_aside(&self, node: &str) -> Duration {
        let workers = Self {
            role: GateRole::Worker,
            ..self.clone()
        };
        workers.dead_man(node) + self.jitter
    }
}

/// Everything the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node's name: the one in its certificate and in the inventory.
    pub node: String,
    /// Ledger, boot record, clean-shutdown marker; survives reboots.
    pub state_dir: PathBuf,
    /// Boot nonce and gate files; must be gone after a reboot (a tmpfs).
    pub runtime_dir: PathBuf,
    /// Where the kernel tells its boot id.
    pub boot_id_file: PathBuf,
    /// Decide and record, change nothing.
    pub dry_run: bool,
    /// `None`: the node repairs itself and reports to nobody.
    pub coordinator: Option<CoordinatorSettings>,
    /// Units that are watched, and the only ones that may be restarted.
    pub units: Vec<String>,
    /// The kubelet's unit.
    pub kubelet_unit: String,
    /// The kubelet's `/healthz`.
    pub kubelet: ProbeSettings,
    /// The API server's `/readyz`; on masters.
    pub api_server: Option<ProbeSettings>,
    /// Watched file systems.
    pub disks: Vec<DiskSettings>,
    /// Logs.
    pub logs: LogSettings,
    /// Memory.
    pub memory: MemorySettings,
    /// Container runtimes.
    pub runtime: RuntimeSettings,
    /// What may go when a disk is short.
    pub prune: PruneSettings,
    /// Static pods.
    pub static_pods: StaticPodSettings,
    /// The etcd member on this node.
    pub etcd: EtcdSettings,
    /// Load.
    pub load: LoadSettings,
    /// What must hold before a kubelet may start.
    pub preflight: PreflightSettings,
    /// `None`: no metrics are served.
    pub metrics: Option<MetricsSettings>,
    /// Unit remedies.
    pub restart: RestartPolicy,
    /// Log remedies.
    pub reclaim: ReclaimPolicy,
    /// The boot gate.
    pub gate: GateSettings,
    /// Units that flap or hang.
    pub unit_states: UnitSettings,
    /// The kubelet's own words in the journal.
    pub pleg: PlegSettings,
    /// The network.
    pub network: NetworkSettings,
    /// The wall clock.
    pub clock: ClockSettings,
    /// `None`: Kubernetes is told nothing.
    pub kubernetes: Option<KubernetesSettings>,
    /// What nothing is ever done to.
    pub protect: ProtectSettings,
}

/// Those of `globs` that are plain names.
pub(crate) fn full_names(globs: &[String]) -> impl Iterator<Item = &String> {
    globs
        .iter()
        .filter(|glob| !glob.contains(['*', '?', '[', '{', '\\']))
}

impl Settings {
    /// The defaults, for the node of this name.
    pub fn for_node(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            state_dir: "/var/lib/blackstart".into(),
            runtime_dir: "/run/blackstart".into(),
            boot_id_file: KERNEL_BOOT_ID.into(),
            dry_run: false,
            coordinator: None,
            units: ["kubelet.service", "docker.service", "containerd.service"]
                .map(str::to_owned)
                .into(),
            kubelet_unit: "kubelet.service".to_owned(),
            kubelet: ProbeSettings::new(10248, "/healthz"),
            api_server: None,
            disks: vec![DiskSettings::at("/"), DiskSettings::at("/var")],
            logs: LogSettings::default(),
            memory: MemorySettings::default(),
            runtime: RuntimeSettings::default(),
            prune: PruneSettings::default(),
            static_pods: StaticPodSettings::default(),
            etcd: EtcdSettings::default(),
            load: LoadSettings::default(),
            preflight: PreflightSettings::default(),
            metrics: None,
            restart: RestartPolicy::default(),
            reclaim: ReclaimPolicy::default(),
            gate: GateSettings::default(),
            unit_states: UnitSettings::default(),
            pleg: PlegSettings::default(),
            network: NetworkSettings::default(),
            clock: ClockSettings::default(),
            kubernetes: None,
            protect: ProtectSettings::default(),
        }
    }

    /// Globs of all certificates that matter here: the configured ones, and the agent's own.
    pub fn certificates(&self) -> Vec<String> {
        let own = self.coordinator.iter().flat_map(|coordinator| {
            [&coordinator.tls.ca, &coordinator.tls.certificate]
                .map(|path| escape(&path.display().to_string()))
        });
        self.preflight.certificates.iter().cloned().chain(own).collect()
    }

    /// Units whose memory is looked at for a leak.
    pub fn leak_units(&self) -> &[String] {
        match self.memory.leak.units.as_slice() {
            [] => &self.units,
            named => named,
        }
    }

    /// Units that are followed and restarted for another condition than their own: whatever may keep the clock or write the CNI configuration.
    pub fn helpers(&self) -> impl Iterator<Item = &String> {
        self.clock.services.iter().chain(&self.network.cni.unit)
    }

    /// The agent may restart `unit`.
    pub fn may_restart(&self, unit: &str) -> bool {
        self.units
            .iter()
            .chain(self.helpers())
            .any(|allowed| allowed == unit)
    }

    /// Where a running agent answers questions on the node itself: see [`crate::local`].
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("agent.sock")
    }

    /// The ledger's file.
    pub fn ledger(&self) -> PathBuf {
        self.state_dir.join("ledger")
    }
}

impl ProbeSettings {
    /// A loopback endpoint with the default times.
    pub fn new(port: u16, path: &str) -> Self {
        Self {
            target: HttpTarget {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                path: path.to_owned(),
                tls: false,
            },
            interval: Duration::from_secs(5),
            deadline: Duration::from_secs(2),
            failures_to_raise: 3,
        }
    }

    /// From one question to the next while the answers are bad: what is down is noticed to be up again, or to be truly down, sooner.
    pub fn while_failing(&self) -> Duration {
        (self.interval / 2).min(LONGEST_WHILE_FAILING)
    }
}

impl DiskSettings {
    /// The defaults for a mount point.
    pub fn at(mount_point: impl AsRef<Path>) -> Self {
        Self {
            mount_point: mount_point.as_ref().to_owned(),
            raise_percent: 85,
            clear_percent: 80,
            raise_time_to_full: Duration::from_mins(1),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        Self {
            globs: owned(&[
                "/var/log/**",
                "/var/lib/docker/containers/*/*.log",
                "/usr/local/tomcat/logs/*",
                "/opt/*/logs/*",
                "/data/logs/**",
            ]),
            protect: owned(&[
                "/var/log/journal/**",
                "/var/log/wtmp",
                "/var/log/btmp",
                "/var/log/lastlog",
                "/var/log/audit/**",
                "**/*.db",
                "**/*.gz",
                "**/*.zst",
            ]),
            keep_tail: 64 << 20,
            min_size: 8 << 20,
            runaway_rate: 1 << 20,
            archive: None,
        }
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            inactive_hold: Duration::from_secs(30),
            restarts: 3,
            kill_restarts: 2,
            window: Duration::from_mins(10),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
            job_deadline: Duration::from_secs(90),
            order: ["containerd.service", "docker.service", "kubelet.service"]
                .map(str::to_owned)
                .into(),
            order_wait: Duration::from_mins(5),
        }
    }
}

impl Default for ReclaimPolicy {
    fn default() -> Self {
        Self {
            budget: 600,
            window: Duration::from_hours(1),
        }
    }
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            role: GateRole::Worker,
            dead_man_control_plane: Duration::from_mins(3),
            dead_man_worker: Duration::from_mins(10),
            preflight_hold: Duration::from_mins(1),
            jitter: Duration::from_mins(1),
        }
    }
}
