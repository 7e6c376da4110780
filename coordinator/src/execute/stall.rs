//! Why a control plane does not come up, as whoever looks into its etcd tells it: shown with the gate that waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::inventory::ClusterName;

/// Of each cluster that a cold start waits for in vain.
pub type Stalls = Arc<BTreeMap<ClusterName, Stall>>;

/// Why one control plane does not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// What is wrong with its etcd, and what is done or proposed.
    pub words: String,
    /// The run that is at work on it, or that an operator is asked to let begin. Who has to be asked is not late: the gate's deadline begins
    /// anew while there is one.
    pub run: Option<String>,
}
