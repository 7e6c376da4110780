//! What is told without a coordinator: certificates, and what the linter found.

use std::path::Path;

use blackstart_coordinator::inventory::{Inventory, Role};
use blackstart_coordinator::pki::{Holder, Seen};
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::yaml::Problem;
use jiff::Timestamp;
use serde::Serialize;

use super::Resource;

/// One certificate in a directory of `blackstart pki`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Certificate {
    /// `authority`, `node`, `operator`, `coordinator`; absent if it speaks for nobody.
    pub(crate) role: Option<&'static str>,
    /// Absent for an authority.
    pub(crate) name: Option<String>,
    pub(crate) begins_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    /// Names the authority that issued it.
    pub(crate) authority: String,
    pub(crate) file: String,
    /// Absent if it is not beside the certificate.
    pub(crate) key_file: Option<String>,
}

impl From<Seen> for Certificate {
    fn from(seen: Seen) -> Self {
        // Not `with_extension`: a name may have dots, as an address has.
        let key = seen
            .path
            .to_str()
            .and_then(|path| path.strip_suffix(".crt"))
            .map(|path| format!("{path}.key"))
            .filter(|key| Path::new(key).exists());
        let (role, name) = match seen.holder {
            Holder::Authority => (Some("authority"), None),
            Holder::Peer(PeerIdentity::Node(name)) => (Some("node"), Some(name)),
            Holder::Peer(PeerIdentity::Operator(name)) => (Some("operator"), Some(name)),
            Holder::Peer(PeerIdentity::Coordinator(name)) => (Some("coordinator"), Some(name)),
            Holder::Unknown(_) => (None, None),
        };
        Self {
            role,
            name,
            begins_at: seen.begins,
            ends_at: seen.ends,
            authority: seen.authority,
            file: seen.path.display().to_string(),
            key_file: key,
        }
    }
}

impl Resource for Certificate {
    const KIND: &'static str = "Certificate";
    const NOUN: &'static str = "certificate";

    fn key(&self) -> String {
        self.file.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

/// What the linter says of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lint {
    pub(crate) file: String,
    /// In the order in which they are begun; empty if there are errors.
    pub(crate) clusters: Vec<DeclaredCluster>,
    /// A coordinator refuses the file.
    pub(crate) errors: Vec<Finding>,
    /// Looked for once there are no errors.
    pub(crate) warnings: Vec<Finding>,
}

/// One cluster, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeclaredCluster {
    pub(crate) name: String,
    /// The clusters that must serve before it.
    pub(crate) after: Vec<String>,
    pub(crate) control_planes: usize,
    pub(crate) workers: usize,
    pub(crate) etcd: usize,
}

/// One thing that the linter found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) line: u64,
    pub(crate) column: u64,
    /// `clusters[1].name`; empty for the file as a whole.
    pub(crate) field: String,
    pub(crate) message: String,
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        Self {
            line: problem.line,
            column: problem.column,
            field: problem.field,
            message: problem.message,
        }
    }
}

impl Lint {
    pub(crate) fn passed(file: &Path, inventory: &Inventory, warnings: Vec<Problem>) -> Self {
        let clusters = inventory.clusters.iter().map(|cluster| {
            let count = |role| {
                inventory
                    .members(&cluster.name)
                    .filter(|node| node.role == role)
                    .count()
            };
            DeclaredCluster {
                name: cluster.name.to_string(),
                after: cluster.after.iter().map(ToString::to_string).collect(),
                control_planes: count(Role::ControlPlane),
                workers: count(Role::Worker),
                etcd: count(Role::Etcd),
            }
        });
        Self {
            file: file.display().to_string(),
            clusters: clusters.collect(),
            errors: Vec::new(),
            warnings: warnings.into_iter().map(Finding::from).collect(),
        }
    }

    pub(crate) fn failed(file: &Path, errors: Vec<Problem>) -> Self {
        Self {
            file: file.display().to_string(),
            clusters: Vec::new(),
            errors: errors.into_iter().map(Finding::from).collect(),
            warnings: Vec::new(),
        }
    }
}
