//! The coordinator's configuration: YAML as written → validated [`Settings`].
//!
//! Every default stands here and in [`crate::policy`] once; `deploy/coordinator.yaml` shows them, and a test holds the
//! two together. An empty file is a valid one.

mod bmc;
mod read;
mod runbooks;
mod trust;
mod workloads;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::boot::KERNEL_BOOT_ID;
use blackstart_proto::tls::TlsFiles;

use crate::fleetlock::FleetLockSettings;
use crate::inventory::ClusterName;
use crate::kubernetes::connection::Access;
use crate::logs::OtlpSettings;
use crate::policy::{BackupPolicy, ColdStartPolicy, OutagePolicy, PermitPolicy, StormPolicy};
use crate::power::settings::BmcSettings;
use crate::runbooks::policy::RunbookPolicy;
use crate::runbooks::world::Timing;
use crate::trust::desk::EnrolmentSettings;
use crate::trust::oidc::OidcSettings;
use crate::trust::rights::Roles;

use crate::runbooks::declared::Declared;

pub use read::{ConfigError, load, parse};

/// The port that agents and operators find a coordinator on.
pub const PORT: u16 = 7443;

/// Everything the coordinator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens; never empty.
    pub listen: Vec<SocketAddr>,
    /// Its certificate.
    pub tls: TlsFiles,
    /// The store, the boot record and the clean-shutdown marker; survives reboots.
    pub state_dir: PathBuf,
    /// The boot nonce; must be gone after a reboot (a tmpfs).
    pub runtime_dir: PathBuf,
    /// Where the kernel tells its boot id.
    pub boot_id_file: PathBuf,
    /// Where runs and known boots are kept: alone, or with other coordinators.
    pub store: StoreSettings,
    /// The declared fleet.
    pub inventory: PathBuf,
    /// A session that has not reported for so long is silent.
    pub silent_after: Duration,
    /// When lost nodes are a power event.
    pub outage: OutagePolicy,
    /// When one condition on many nodes is a storm.
    pub storm: StormPolicy,
    /// How a cold start is planned and executed.
    pub cold_start: ColdStartPolicy,
    /// When a node may be away for a while.
    pub permits: PermitPolicy,
    /// Where reboot tools ask for permits; `None`: nowhere.
    pub fleetlock: Option<FleetLockSettings>,
    /// Where Prometheus finds metrics; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The collector that its log goes to as well; `None`: nowhere else.
    pub otlp: Option<OtlpSettings>,
    /// The backups that it makes of its store.
    pub backup: BackupPolicy,
    /// The ways to the clusters' APIs; a cluster without one has no runbooks.
    pub clusters: Vec<ClusterAccess>,
    /// When runbooks begin by themselves, and when none is to change anything.
    pub runbooks: RunbookPolicy,
    /// What management controllers of machines are spoken to with; `None`: nobody asks them.
    pub bmc: Option<BmcSettings>,
    /// How nodes come by certificates; `None`: by hand.
    pub enrolment: Option<EnrolmentSettings>,
    /// Whose tokens operators may come with; `None`: with certificates only.
    pub oidc: Option<OidcSettings>,
    /// What operators may do.
    pub roles: Roles,
    /// The workloads that are to be whole: `blackstart workload`.
    pub workloads: Vec<Declared>,
    /// How long signs of life from clusters' APIs count. Not for operators: it follows from how often kubelets and metrics servers
    /// speak, and only a drill, whose clusters live faster, has it otherwise.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))],
            tls: TlsFiles::in_dir(Path::new("/etc/blackstart/pki"), "coordinator"),
            state_dir: "/var/lib/blackstart-coordinator".into(),
            runtime_dir: "/run/blackstart-coordinator".into(),
            boot_id_file: KERNEL_BOOT_ID.into(),
            store: StoreSettings::Embedded,
            inventory: "/etc/blackstart/inventory.yaml".into(),
            // Three reports at the agent's default of one in two seconds.
            silent_after: Duration::from_secs(6),
            outage: OutagePolicy::default(),
            storm: StormPolicy::default(),
            cold_start: ColdStartPolicy::default(),
            permits: PermitPolicy::default(),
            fleetlock: None,
            metrics: None,
            otlp: None,
            backup: BackupPolicy::default(),
            clusters: Vec::new(),
            runbooks: RunbookPolicy::default(),
            bmc: None,
            enrolment: None,
            oidc: None,
            roles: Roles::default(),
            workloads: Vec::new(),
            timing: Timing::default(),
        }
    }
}

impl Settings {
    /// The embedded store's file.
    pub fn store_file(&self) -> PathBuf {
        self.state_dir.join("store.redb")
    }

    /// Where it keeps the backups that it makes by itself.
    pub fn backups(&self) -> PathBuf {
        self.state_dir.join("backups")
    }

    /// Where it keeps what was commanded.
    pub fn audit(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// Where it keeps what time it is at least.
    pub fn clock_floor(&self) -> PathBuf {
        self.state_dir.join("clock-floor")
    }

    /// Where a running coordinator takes what is typed beside it into its audit.
    pub fn audit_socket(&self) -> PathBuf {
        self.runtime_dir.join("audit.sock")
    }

    /// Where a running coordinator gives its backup to whoever may read its store.
    pub fn backup_socket(&self) -> PathBuf {
        self.runtime_dir.join("backup.sock")
    }
}

/// Where runs and known boots are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In a file of `state_dir`: this is the only coordinator.
    Embedded,
    /// In etcd, with other coordinators, of which one leads.
    Etcd(EtcdSettings),
}

/// The way to one cluster's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAccess {
    /// As the inventory calls it.
    pub name: ClusterName,
    /// How it is reached. Without addresses, the control planes of the inventory are, at the port of the kubeconfig's server.
    pub access: Access,
}

/// Several coordinators over etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `https://IP:PORT` of each member; tried in turn, never empty.
    pub endpoints: Vec<String>,
    /// For `https` endpoints.
    pub tls: Option<TlsFiles>,
    /// Before every key; ends with a slash.
    pub prefix: String,
    /// Another coordinator leads so long after the leader was last heard of. Whole seconds; etcd may make it longer.
    pub lease_ttl: Duration,
    /// For each read and write.
    pub timeout: Duration,
    /// This coordinator's name among the others.
    pub name: String,
    /// Where agents and operators find this coordinator; never empty, and none unspecified.
    pub advertise: Vec<SocketAddr>,
}
