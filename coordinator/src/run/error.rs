//! Why a coordinator could not begin, or did not go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use blackstart_proto::boot::BootError;
use blackstart_proto::tls::TlsFileError;
use tokio::task::JoinError;

use crate::api::handshake::TlsError;
use crate::execute::ExecuteError;
use crate::fleetlock;
use crate::inventory::{ClusterName, InventoryError};
use crate::power::SetupError;
use crate::runbooks::OpenError;
use crate::store::StoreError;

/// Why the coordinator could not begin, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address that cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate, its key or the authority.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// They were read, and nothing can be made of them.
    #[error("use the coordinator's certificate and key")]
    Tls(#[from] TlsError),
    /// The server broke.
    #[error("serve agents and operators")]
    Serve(#[source] tonic::transport::Error),
    /// The declared fleet.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The directory of the store.
    #[error("create the state directory {}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What etcd is to be spoken to with.
    #[error("{0}")]
    Etcd(String),
    /// What reboot tools are spoken to with.
    #[error(transparent)]
    FleetLock(#[from] fleetlock::TlsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator's own boot.
    #[error(transparent)]
    OwnBoot(#[from] BootError),
    /// The executor.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Runbooks.
    #[error(transparent)]
    Runbooks(#[from] OpenError),
    /// A way to the API of a cluster that is not declared.
    #[error("the configuration has a way to cluster {0} (`clusters`), which is not in the inventory")]
    UnknownCluster(ClusterName),
    /// What management controllers are spoken to with.
    #[error(transparent)]
    Bmc(#[from] SetupError),
    /// A part of the coordinator ended by itself.
    #[error("the {0} ended by itself; see the log above")]
    Ended(&'static str),
    /// A part of the coordinator broke.
    #[error("a part of the coordinator broke")]
    Broke(#[source] JoinError),
}

impl RunError {
    /// The operator has to change a file, rather than the machine.
    pub const fn is_configuration(&self) -> bool {
        match self {
            Self::TlsFile(_)
            | Self::Tls(_)
            | Self::Inventory(_)
            | Self::Etcd(_)
            | Self::FleetLock(_)
            | Self::Bmc(_)
            | Self::UnknownCluster(_) => true,
            Self::Listen { .. }
            | Self::Serve(_)
            | Self::StateDir { .. }
            | Self::Store(_)
            | Self::OwnBoot(_)
            | Self::Execute(_)
            | Self::Runbooks(_)
            | Self::Ended(_)
            | Self::Broke(_) => false,
        }
    }
}
