//! Workloads that operators declared (`workloads` in the configuration): those of the platform that they want to be whole.

use crate::inventory::ClusterName;
use crate::kubernetes::objects::workload::WorkloadKind;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// As operators call it.
    pub name: String,
    /// Where.
    pub cluster: ClusterName,
    /// In which namespace.
    pub namespace: String,
    /// Of which kind.
    pub kind: WorkloadKind,
    /// As the API calls it.
    pub object: String,
    /// Services that its pods need before they can run, by namespace and name.
    pub needs: Vec<(String, String)>,
    /// Bytes that requests and limits of memory are raised by.
    pub add_memory: u64,
    /// Its template is changed without being asked for.
    pub changes_by_itself: bool,
}
