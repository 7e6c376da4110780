//! What only some runbooks are told. Each has a default, so that a journal of an earlier version can be read.

use blackstart_proto::part::Part;
use serde::{Deserialize, Serialize};

use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::objects::Key;
use crate::kubernetes::objects::workload::WorkloadName;

/// What only some runbooks are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The cluster, of a run that is about no node.
    pub cluster: Option<ClusterName>,
    /// `network-loss`: whose pods are to leave a node that is not reached.
    pub workloads: Vec<WorkloadName>,
    /// `network-loss`: so many seconds they stay.
    pub tolerate_seconds: Option<u32>,
    /// `resource-shortage`: these pods; none: all that have no node.
    pub pods: Vec<Key>,
    /// `overload`: percent of what the node has for pods.
    pub threshold_percent: Option<u32>,
    /// `overload`: the load has to be lower for so many seconds.
    pub hold_seconds: Option<u32>,
    /// `overload`: no more pods than this are evicted.
    pub at_most: Option<u32>,
    /// `control-plane`: this part only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// `control-plane`: also those that are well.
    pub restart: bool,
    /// `control-plane`: what API servers are told of etcd from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_servers: Option<String>,
    /// `etcd-member`: the node that is to have the member from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<NodeName>,
    /// `node-down`: the machine's power may be cut, by policy.
    pub fence: bool,
    /// It may begin although much of its cluster is not well.
    pub despite_storm: bool,
    /// It was begun by the coordinator itself, for this, and waits for an operator's word.
    pub proposed: Option<String>,
}
