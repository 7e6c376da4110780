//! The plan of a runbook: steps in their order, each with its evidence; what is refused, and what would be needed for it.
//!
//! A plan is specific: nothing is left to choose while it is carried out. It is written whole into the journal, so a later version
//! reads what an earlier one planned.

use std::fmt;
use std::time::Duration;

use blackstart_proto::part::Part;
use serde::{Deserialize, Serialize};

pub use super::action::Action;
use super::mends::Mends;
use super::options::Options;
use super::readiness::Readiness;
use super::subject::{Mending, Subject};
use crate::inventory::{ClusterName, NodeName, Role};
use crate::kubernetes::objects::Key;
use crate::kubernetes::objects::scheduling::Toleration;
use crate::kubernetes::objects::workload::WorkloadName;
use crate::quorum::newcomer::NewManifest;
use crate::quorum::sources::OutOf;

/// The runbooks that there are. A new one is a variant, a file, and a line in [`super::describe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runbook {
    /// Moves a node's pods away.
    Drain,
    /// Drains a node, and stops its kubelet.
    MaintenanceBegin,
    /// Takes it back.
    MaintenanceEnd,
    /// A node that does not answer.
    NodeDown,
    /// Pods that find no room, and nodes whose disks are short.
    ResourceShortage,
    /// A node that its cluster cannot reach.
    NetworkLoss,
    /// A node that has too much to do.
    Overload,
    /// What runs again after a power event.
    ColdStartVerify,
    /// Pods that do not run as they should.
    PodsHeal,
    /// A workload that is not whole.
    WorkloadHeal,
    /// The kubelet and the CNI pod of a node.
    NodeComponent,
    /// Snapshots of a cluster's etcd.
    EtcdSnapshot,
    /// An etcd member that is not well.
    EtcdMember,
    /// An etcd that has lost its quorum.
    EtcdQuorum,
    /// An etcd of which no member answers.
    EtcdAll,
    /// Static pods of a control plane that are not well.
    ControlPlane,
}

impl Runbook {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Drain,
        Self::MaintenanceBegin,
        Self::MaintenanceEnd,
        Self::NodeDown,
        Self::ResourceShortage,
        Self::NetworkLoss,
        Self::Overload,
        Self::ColdStartVerify,
        Self::PodsHeal,
        Self::WorkloadHeal,
        Self::NodeComponent,
        Self::EtcdSnapshot,
        Self::EtcdMember,
        Self::EtcdQuorum,
        Self::EtcdAll,
        Self::ControlPlane,
    ];

    /// Its name on the wire, in run ids and in the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::MaintenanceBegin => "maintenance-begin",
            Self::MaintenanceEnd => "maintenance-end",
            Self::NodeDown => "node-down",
            Self::ResourceShortage => "resource-shortage",
            Self::NetworkLoss => "network-loss",
            Self::Overload => "overload",
            Self::ColdStartVerify => "cold-start-verify",
            Self::PodsHeal => "pods-heal",
            Self::WorkloadHeal => "workload-heal",
            Self::NodeComponent => "node-component",
            Self::EtcdSnapshot => "etcd-snapshot",
            Self::EtcdMember => "etcd-member",
            Self::EtcdQuorum => "etcd-quorum",
            Self::EtcdAll => "etcd-all",
            Self::ControlPlane => "control-plane",
        }
    }

    /// It is about a whole cluster, where no node is named.
    pub const fn of_cluster(self) -> bool {
        match self {
            Self::ResourceShortage
            | Self::ColdStartVerify
            | Self::EtcdSnapshot
            | Self::EtcdQuorum
            | Self::EtcdAll
            | Self::ControlPlane => true,
            Self::Drain
            | Self::MaintenanceBegin
            | Self::MaintenanceEnd
            | Self::NodeDown
            | Self::NetworkLoss
            | Self::Overload
            | Self::PodsHeal
            | Self::WorkloadHeal
            | Self::NodeComponent
            | Self::EtcdMember => false,
        }
    }

    /// The runbook of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// It is planned on pods and workloads as they are read for it.
    pub const fn wants_case(self) -> bool {
        match self {
            Self::PodsHeal | Self::WorkloadHeal | Self::NodeComponent => true,
            Self::Drain
            | Self::MaintenanceBegin
            | Self::MaintenanceEnd
            | Self::NodeDown
            | Self::ResourceShortage
            | Self::NetworkLoss
            | Self::Overload
            | Self::ColdStartVerify
            | Self::EtcdSnapshot
            | Self::EtcdMember
            | Self::EtcdQuorum
            | Self::EtcdAll
            | Self::ControlPlane => false,
        }
    }

    /// It is about a subject, and not about a node.
    pub const fn has_subject(self) -> bool {
        match self {
            Self::PodsHeal | Self::WorkloadHeal => true,
            Self::Drain
            | Self::MaintenanceBegin
            | Self::MaintenanceEnd
            | Self::NodeDown
            | Self::ResourceShortage
            | Self::NetworkLoss
            | Self::Overload
            | Self::ColdStartVerify
            | Self::NodeComponent
            | Self::EtcdSnapshot
            | Self::EtcdMember
            | Self::EtcdQuorum
            | Self::EtcdAll
            | Self::ControlPlane => false,
        }
    }

    /// It is about etcd, and asks agents of it.
    pub const fn wants_etcd(self) -> bool {
        match self {
            Self::EtcdSnapshot | Self::EtcdMember | Self::EtcdQuorum | Self::EtcdAll => true,
            Self::Drain
            | Self::MaintenanceBegin
            | Self::MaintenanceEnd
            | Self::NodeDown
            | Self::ResourceShortage
            | Self::NetworkLoss
            | Self::Overload
            | Self::ColdStartVerify
            | Self::PodsHeal
            | Self::WorkloadHeal
            | Self::NodeComponent
            | Self::ControlPlane => false,
        }
    }

    /// The runbook whose run this is, by its id: `drain-3`.
    pub fn of_run(id: &str) -> Option<Self> {
        let (name, number) = id.rsplit_once('-')?;
        number.parse::<u64>().ok()?;
        Self::named(name)
    }
}

impl fmt::Display for Runbook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which runbook.
    pub runbook: Runbook,
    /// For which node.
    pub node: NodeName,
    /// Who asks.
    pub by: String,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// How long pods may take to go before an operator is asked.
    #[serde(with = "millis")]
    pub drain_within: Duration,
    /// Pods with an emptyDir may be evicted: its content goes with them.
    #[serde(default)]
    pub delete_local_data: bool,
    /// Pods that nobody makes again may be evicted.
    #[serde(default)]
    pub delete_unmanaged: bool,
    /// That the machine is off, and who says so.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// What only some runbooks are told.
    #[serde(default)]
    pub options: Options,
    /// What it is about in place of a node, whose name is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// How pods and workloads may be mended.
    #[serde(default)]
    pub mending: Mending,
}

impl Request {
    /// What it is about, for people: the node, pods or a workload, or the cluster where none is named.
    pub fn about(&self) -> String {
        if let Some(subject) = &self.subject {
            return subject.to_string();
        }
        match &self.options.cluster {
            Some(cluster) if self.node.0.is_empty() => format!("cluster {cluster}"),
            Some(_) | None => self.node.to_string(),
        }
    }

    /// It is about the same.
    pub fn has_subject_of(&self, other: &Self) -> bool {
        self.node == other.node
            && self.subject == other.subject
            && (!self.node.0.is_empty() || self.options.cluster == other.options.cluster)
    }
}

/// Why a machine is known to be off. Silence is none: a node that is cut off goes on writing to its volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Proof {
    /// Somebody saw to it.
    Operator {
        /// Who.
        by: String,
        /// What was done or seen: "power cable pulled", "BMC says off".
        what: String,
    },
    /// Its management controller says so.
    Bmc {
        /// What it answered.
        what: String,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { by, what } => write!(f, "operator {by}: {what}"),
            Self::Bmc { what } => write!(f, "its BMC: {what}"),
        }
    }
}

/// What a runbook is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunbookPlan {
    /// What was asked for.
    pub request: Request,
    /// The node's cluster.
    pub cluster: ClusterName,
    /// What it is for: control planes go one at a time.
    pub role: Role,
    /// One after the other.
    pub steps: Vec<Step>,
    /// What is not going to be done, and what would be needed for it.
    pub refusals: Vec<Refusal>,
    /// What a person should know before running it.
    pub notes: Vec<String>,
    /// The pods that it is to see running, and what its end is judged by.
    #[serde(default)]
    pub pods: Vec<Named>,
    /// What the pods of chosen workloads tolerated before.
    #[serde(default)]
    pub before: Vec<Before>,
    /// How ready its cluster was in better days.
    #[serde(default)]
    pub readiness: Option<Readiness>,
    /// The pods and templates that its steps are about.
    #[serde(default)]
    pub mends: Mends,
    /// The etcd member that its steps are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Replaced>,
    /// What API servers are told of etcd.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<FlagChange>,
}

/// A flag in one manifest, as it was and as it is to be: `--etcd-servers`, or `--initial-cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagChange {
    /// On which node.
    pub node: NodeName,
    /// As written when it was planned.
    pub from: String,
    /// As it is to be written.
    pub to: String,
}

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Which.
    pub pod: Key,
    /// This one and no later one of its name.
    pub uid: String,
    /// Who makes another in its place.
    #[serde(default)]
    pub controller: Option<String>,
}

/// What the pods that a workload makes tolerated before a run shortened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Which.
    pub workload: WorkloadName,
    /// This one and no later one of its name.
    pub uid: String,
    /// All of them; `None`: its template said nothing of them.
    pub tolerations: Option<Vec<Toleration>>,
}

/// An etcd member that is replaced, as it was when that was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Of which cluster; a member of another one refuses.
    pub cluster_id: u64,
    /// Its id; `None`: it was taken out already.
    pub member_id: Option<u64>,
    /// Where its peers find it, then as now.
    pub peer_urls: Vec<String>,
    /// It comes back as a learner; before etcd 3.4 as a voter.
    pub learner: bool,
    /// What its manifest is to say of the members.
    pub initial_cluster: String,
    /// So many bytes have to be free where its data is.
    pub needs_bytes: u64,
    /// Its version; a restore wants a tool of the same.
    #[serde(default)]
    pub version: String,
    /// What is restored, where that is not the data of a member that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of: Option<OutOf>,
    /// What the manifests of the others are to say of the members afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<FlagChange>,
    /// What is to be its manifest, where its node has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newcomer: Option<NewManifest>,
}

impl RunbookPlan {
    /// There is something to do.
    pub fn may_run(&self) -> bool {
        !self.steps.is_empty()
    }
}

/// Something that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What.
    pub what: String,
    /// What is missing, and how to give it.
    pub missing: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// On what evidence it was planned.
    pub evidence: String,
    /// So long it may take, from its turn.
    #[serde(with = "millis")]
    pub deadline: Duration,
    /// Why an operator has to approve of it first.
    #[serde(default)]
    pub approval: Option<String>,
    /// Whose agent does it, where that is not the node that the run is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<NodeName>,
    /// Of which static pod, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl Step {
    /// Its name within its run, with whose agent does it where that is another node's.
    pub fn id(&self) -> String {
        let what = match self.part {
            Some(part) => format!("{}-{}", self.action, part.as_str()),
            None => self.action.to_string(),
        };
        match &self.on {
            Some(node) => format!("{what}:{node}"),
            None => what,
        }
    }
}

/// Durations in the journal, as whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_by_its_id_and_a_cold_start_is_none() {
        assert_eq!(
            Runbook::of_run("maintenance-begin-12"),
            Some(Runbook::MaintenanceBegin)
        );
        assert_eq!(Runbook::of_run("drain-1"), Some(Runbook::Drain));
        for id in ["cold-start-1", "rejoin-7", "drain", "drain-x"] {
            assert_eq!(Runbook::of_run(id), None, "{id}");
        }
    }
}
