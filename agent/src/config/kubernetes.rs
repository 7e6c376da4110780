//! Whether, and how, Kubernetes is told what the agent finds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::identity::valid_name;
use blackstart_proto::yaml::Table;

use super::read::{absolute, positive, set};
use crate::span::Span;

/// Where the API server and the agent's right to speak to it are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The service account of the pod that the agent runs in.
    InCluster,
    /// A file as `kubectl` reads it, such as the kubelet's own.
    Kubeconfig(PathBuf),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("in-cluster"),
            Self::Kubeconfig(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What the API server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// How it is reached.
    pub access: Access,
    /// What the node is called there.
    pub node: String,
    /// Node conditions are kept.
    pub node_conditions: bool,
    /// Events are written.
    pub events: bool,
    /// Node conditions are told again after this though nothing has changed.
    pub heartbeat: Duration,
    /// How long a request may take.
    pub deadline: Duration,
}

impl KubernetesSettings {
    /// The defaults, for the node of this name.
    pub fn new(access: Access, node: &str) -> Self {
        Self {
            access,
            node: node.to_owned(),
            node_conditions: true,
            events: true,
            heartbeat: Duration::from_mins(5),
            deadline: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(mut table: Table, node: &str) -> Option<KubernetesSettings> {
    let access = table.required("kubeconfig").and_then(|item| {
        if item.string()? == "in-cluster" {
            return Some(Access::InCluster);
        }
        absolute(&item).map(Access::Kubeconfig)
    });
    let mut to = KubernetesSettings::new(Access::InCluster, node);
    if let Some(item) = table.item("node")
        && let Some(name) = item.string()
    {
        // Longer than a name of ours, and never with capitals.
        let fits = name.len() <= 253 && name.split('.').all(valid_name);
        if fits && !name.contains(|c: char| c.is_ascii_uppercase() || c == '_') {
            to.node = name;
        } else {
            item.problem("expected the node's name as `kubectl get nodes` shows it");
        }
    }
    set(&mut to.node_conditions, table.boolean("node_conditions"));
    set(&mut to.events, table.boolean("events"));
    set(&mut to.heartbeat, positive(&mut table, "heartbeat"));
    set(&mut to.deadline, positive(&mut table, "deadline"));
    if to.heartbeat < Duration::from_secs(10) {
        table.problem("heartbeat", "must be at least 10s: each is a write to etcd");
    }
    if to.deadline > Duration::from_mins(1) {
        table.problem("deadline", "must be at most 1m");
    }
    to.access = access?;
    Some(to)
}

/// Each field with its value.
pub(super) fn fields(settings: &KubernetesSettings) -> [(&'static str, String); 6] {
    let KubernetesSettings {
        access,
        node,
        node_conditions,
        events,
        heartbeat,
        deadline,
    } = settings;
    [
        ("kubernetes.kubeconfig", access.to_string()),
        ("kubernetes.node", node.clone()),
        ("kubernetes.node_conditions", node_conditions.to_string()),
        ("kubernetes.events", events.to_string()),
        ("kubernetes.heartbeat", Span(*heartbeat).to_string()),
        ("kubernetes.deadline", Span(*deadline).to_string()),
    ]
}
