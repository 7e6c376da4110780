//! What the coordinator may do in a cluster: no more than the code asks. Pure.
//!
//! ```text
//!  cache (Kept::RESOURCE: list, watch) ─┐
//!  reads (Resource: list, get) ─────────┼─► Right ─► Resource::grants ─► deploy/kubernetes/coordinator-rbac.yaml (written from it)
//!  calls (ApiCall::right) ──────────────┘                └──────────────► what a refusal (403) says is missing, and how to give it
//! ```
//!
//! Nothing is asked of an API server but through a [`Resource`]: a new one has no manifest before [`Resource::grants`] says what it is for, and
//! a new call none before [`ApiCall::right`] says what it takes. The tests of runbooks run with the manifest enforced.

use std::fmt;

use super::calls::ApiCall;
use super::objects::workload::WorkloadKind;

/// Where the manifest is, for people.
pub const MANIFEST: &str = "deploy/kubernetes/coordinator-rbac.yaml";
/// Where nodes' leases are.
pub const LEASES: &str = "kube-node-lease";

/// What is done to a resource, as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object.
    Get,
    /// All of them.
    List,
    /// All changes of them.
    Watch,
    /// A new one.
    Create,
    /// A change.
    Patch,
    /// Its end.
    Delete,
}

impl Verb {
    /// As RBAC names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident = $group:literal $name:literal;)*) => {
        /// What the coordinator asks about; the closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Resource {
            $($(#[$doc])* $variant,)*
        }

        impl Resource {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its API group; empty for the core.
            pub const fn group(self) -> &'static str {
                match self { $(Self::$variant => $group,)* }
            }

            /// As paths and RBAC name it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

resources! {
    /// Nodes.
    Nodes = "" "nodes";
    /// Pods.
    Pods = "" "pods";
    /// Their evictions.
    Evictions = "" "pods/eviction";
    /// Disruption budgets.
    Budgets = "policy" "poddisruptionbudgets";
    /// Nodes' leases.
    Leases = "coordination.k8s.io" "leases";
    /// Volumes that are attached to nodes.
    Attachments = "storage.k8s.io" "volumeattachments";
    /// Deployments.
    Deployments = "apps" "deployments";
    /// Stateful sets.
    StatefulSets = "apps" "statefulsets";
    /// Daemon sets.
    DaemonSets = "apps" "daemonsets";
    /// Replica sets.
    ReplicaSets = "apps" "replicasets";
    /// What nodes use.
    NodeMetrics = "metrics.k8s.io" "nodes";
    /// What pods use.
    PodMetrics = "metrics.k8s.io" "pods";
    /// Events.
    Events = "" "events";
    /// Bounds of what containers may ask for.
    LimitRanges = "" "limitranges";
    /// Bounds of what a namespace may ask for.
    Quotas = "" "resourcequotas";
    /// Claims of volumes.
    Claims = "" "persistentvolumeclaims";
    /// Which pods serve for a service.
    Endpoints = "" "endpoints";
}

/// Something that the coordinator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
}

impl Right {
    /// To do this.
    pub const fn to(verb: Verb, resource: Resource) -> Self {
        Self { verb, resource }
    }
}

/// `create pods/eviction`, `patch deployments.apps`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource.name())?;
        match self.resource.group() {
            "" => Ok(()),
            group => write!(f, ".{group}"),
        }
    }
}

/// Verbs on a resource, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// What is done.
    pub verbs: &'static [Verb],
    /// The runbooks that do it, by name; none: all of them rest on it.
    pub runbooks: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const fn grant(verbs: &'static [Verb], runbooks: &'static [&'static str], why: &'static str) -> Grant {
    Grant { verbs, runbooks, why }
}

const KEPT: Grant = grant(&[Verb::List, Verb::Watch], &[], "what every decision rests on");
const CORDON: Grant = grant(
    &[Verb::Patch],
    &[
        "drain",
        "maintenance-begin",
        "maintenance-end",
        "node-down",
        "network-loss",
        "overload",
    ],
    "cordon, uncordon, the out-of-service taint",
);
const DELETE: Grant = grant(
    &[Verb::Delete],
    &[
        "drain",
        "maintenance-begin",
        "node-down",
        "pods-heal",
        "workload-heal",
        "node-component",
    ],
    "pods that are to be made again; past a budget, or by force, after an operator's word",
);
const EVICT: Grant = grant(
    &[Verb::Create],
    &["drain", "maintenance-begin", "overload"],
    "pods leave as their budgets allow",
);
const DETACH: Grant = grant(
    &[Verb::Delete],
    &["node-down"],
    "volumes of a machine that is proved to be off",
);
const WORKLOADS: Grant = grant(
    &[Verb::List],
    &["network-loss", "cold-start-verify", "pods-heal", "workload-heal"],
    "who makes pods, and how many are ready",
);
const DAEMONS: Grant = grant(
    &[Verb::List],
    &[
        "network-loss",
        "cold-start-verify",
        "pods-heal",
        "workload-heal",
        "node-component",
    ],
    "who makes pods, and how many are ready",
);
const SETS: Grant = grant(
    &[Verb::List],
    &["pods-heal", "workload-heal"],
    "the deployments behind pods",
);
const TEMPLATES: Grant = grant(
    &[Verb::Patch],
    &["network-loss", "pods-heal", "workload-heal"],
    "memory, tolerations and the time of a restart in pod templates (RBAC cannot say so: leave it out where that is not wanted)",
);
const DAEMON_TEMPLATES: Grant = grant(
    &[Verb::Patch],
    &["pods-heal", "workload-heal"],
    "the same of daemon sets",
);
const USAGE: Grant = grant(
    &[Verb::List],
    &["overload"],
    "which pods are heavy; where it is missing, the agents' word is used",
);
const REASONS: Grant = grant(
    &[Verb::List],
    &["pods-heal", "workload-heal", "node-component"],
    "why pods do not run; where one is missing, the rest is judged without it",
);
const NEEDS: Grant = grant(
    &[Verb::Get],
    &["workload-heal"],
    "whether what a declared workload needs serves",
);

impl Resource {
    /// What is done to it. Held by the tests to what the code asks.
    pub const fn grants(self) -> &'static [Grant] {
        match self {
            Self::Nodes => &[KEPT, CORDON],
            Self::Pods => &[KEPT, DELETE],
            Self::Evictions => &[EVICT],
            Self::Budgets | Self::Leases => &[KEPT],
            Self::Attachments => &[KEPT, DETACH],
            Self::Deployments | Self::StatefulSets => &[WORKLOADS, TEMPLATES],
            Self::DaemonSets => &[DAEMONS, DAEMON_TEMPLATES],
            Self::ReplicaSets => &[SETS],
            Self::NodeMetrics | Self::PodMetrics => &[USAGE],
            Self::Events | Self::LimitRanges | Self::Quotas | Self::Claims => &[REASONS],
            Self::Endpoints => &[NEEDS],
        }
    }

    /// Only in this namespace.
    pub const fn only_in(self) -> Option<&'static str> {
        match self {
            Self::Leases => Some(LEASES),
            Self::Nodes
            | Self::Pods
            | Self::Evictions
            | Self::Budgets
            | Self::Attachments
            | Self::Deployments
            | Self::StatefulSets
            | Self::DaemonSets
            | Self::ReplicaSets
            | Self::NodeMetrics
            | Self::PodMetrics
            | Self::Events
            | Self::LimitRanges
            | Self::Quotas
            | Self::Claims
            | Self::Endpoints => None,
        }
    }

    /// Where its lists are served. `version`: of its group, `v1` where the cluster's own is not asked for. An empty namespace: of all.
    pub fn path(self, version: Option<&str>, namespace: &str) -> String {
        let version = version.unwrap_or("v1");
        let within = match namespace {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        match self.group() {
            "" => format!("/api/{version}{within}/{}", self.name()),
            group => format!("/apis/{group}/{version}{within}/{}", self.name()),
        }
    }
}

impl From<WorkloadKind> for Resource {
    fn from(kind: WorkloadKind) -> Self {
        match kind {
            WorkloadKind::Deployment => Self::Deployments,
            WorkloadKind::StatefulSet => Self::StatefulSets,
            WorkloadKind::DaemonSet => Self::DaemonSets,
            WorkloadKind::ReplicaSet => Self::ReplicaSets,
        }
    }
}

impl ApiCall {
    /// What it takes.
    pub fn right(&self) -> Right {
        match self {
            Self::Schedulable { .. } | Self::OutOfService { .. } => Right::to(Verb::Patch, Resource::Nodes),
            Self::Evict { .. } => Right::to(Verb::Create, Resource::Evictions),
            Self::DeletePod { .. } => Right::to(Verb::Delete, Resource::Pods),
            Self::DeleteAttachment { .. } => Right::to(Verb::Delete, Resource::Attachments),
            Self::Template { workload, .. } => Right::to(Verb::Patch, workload.kind.into()),
        }
    }

    /// In which namespace; empty: the whole cluster's.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Schedulable { .. } | Self::OutOfService { .. } | Self::DeleteAttachment { .. } => "",
            Self::Evict { pod, .. } | Self::DeletePod { pod, .. } => &pod.namespace,
            Self::Template { workload, .. } => &workload.key.namespace,
        }
    }
}

/// A right that the coordinator does not have in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Which.
    pub right: Right,
    /// In which namespace; empty: everywhere.
    pub namespace: String,
    /// What the server says.
    pub said: String,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Right { verb, resource } = self.right;
        write!(f, "the coordinator may not {}", self.right)?;
        match self.namespace.as_str() {
            "" => f.write_str(" in the whole cluster")?,
            namespace => write!(f, " in namespace {namespace}")?,
        }
        let grants = resource.grants().iter();
        if let Some(grant) = grants.into_iter().find(|grant| grant.verbs.contains(&verb)) {
            match grant.runbooks {
                [] => f.write_str(" (every runbook needs it)")?,
                runbooks => write!(f, " (for {})", runbooks.join(", "))?,
            }
        }
        write!(
            f,
            "; apply {MANIFEST} in the cluster, or give its user apiGroups: [\"{}\"], resources: [{}], verbs: [{verb}]; the server says: {}",
            resource.group(),
            resource.name(),
            self.said
        )
    }
}

#[cfg(test)]
pub(crate) mod tests;
