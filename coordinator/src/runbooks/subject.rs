//! What a runbook is about when it is no node: pods or a workload of a cluster; and how they may be mended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::millis;
use crate::inventory::ClusterName;
use crate::kubernetes::objects::workload::WorkloadKind;

/// Pods or a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Of which cluster.
    pub cluster: ClusterName,
    /// In which namespace.
    pub namespace: String,
    /// Which.
    pub of: Of,
}

/// Which of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// All pods.
    AllPods,
    /// One pod.
    Pod(String),
    /// A workload and its pods.
    Workload {
        /// Of which kind.
        kind: WorkloadKind,
        /// Its name.
        name: String,
    },
}

impl Subject {
    /// Runs on both would meet.
    pub fn meets(&self, other: &Self) -> bool {
        self.cluster == other.cluster && self.namespace == other.namespace
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, of, .. } = self;
        match of {
            Of::AllPods => write!(f, "pods of {namespace}"),
            Of::Pod(name) => write!(f, "pod {namespace}/{name}"),
            Of::Workload { kind, name } => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// How pods and workloads may be mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mending {
    /// Pods whose containers wait for their next try may be made again, though nothing says that what they need is back.
    pub skip_back_off: bool,
    /// Bytes that requests and limits of memory are raised by; 0: by half for pods, by what is declared for workloads.
    pub add_memory: u64,
    /// Put back what earlier runs changed in templates, and nothing else.
    pub rollback: bool,
    /// They have to be well for so long before a run ends.
    #[serde(with = "millis")]
    pub steady: Duration,
}

impl Default for Mending {
    fn default() -> Self {
        Self {
            skip_back_off: false,
            add_memory: 0,
            rollback: false,
            // A container that crashes at once has been in its fourth back-off by then (10 s, 20 s, 40 s, 80 s).
            steady: Duration::from_mins(2),
        }
    }
}
