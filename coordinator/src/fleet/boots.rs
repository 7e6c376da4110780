//! Which boot each node was last heard in: what a restarted coordinator still has to know.
//!
//! A boot is *attended* once a run had its node in charge. Nothing begins by itself for it again: were that forgotten, a
//! coordinator that restarts after an operator's abort would begin anew what was aborted.

use std::collections::BTreeMap;

use blackstart_proto::boot::BootIdentity;
use serde::{Deserialize, Serialize};

use crate::inventory::NodeName;
use crate::store::{Store, StoreError};

pub(crate) const PREFIX: &str = "node/";

/// What is kept of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBoot {
    /// The boot it was last heard in.
    pub boot: BootIdentity,
    /// The one before.
    pub previous: Option<BootIdentity>,
    /// A run has had the node in charge in this boot.
    pub attended: bool,
}

/// Reads what is known of every node. A record that cannot be read is as good as none, and is told.
///
/// # Errors
/// The store does not answer.
pub fn load(store: &dyn Store) -> Result<BTreeMap<NodeName, KnownBoot>, StoreError> {
    let mut known = BTreeMap::new();
    for (key, value) in store.scan(PREFIX)? {
        let name = key.strip_prefix(PREFIX).unwrap_or_default();
        match serde_json::from_slice(&value) {
            Ok(boot) => {
                known.insert(NodeName(name.to_owned()), boot);
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "the stored boot of a node cannot be read; it counts as never heard of");
            }
        }
    }
    Ok(known)
}

/// Writes what is known of some nodes. Durable once it has returned.
///
/// # Errors
/// The store does not answer.
pub fn save(store: &dyn Store, nodes: &[(NodeName, KnownBoot)]) -> Result<(), StoreError> {
    let values: Vec<_> = nodes
        .iter()
        .map(|(node, known)| {
            // A struct of strings and flags has nothing that JSON cannot say.
            let value = serde_json::to_vec(known).unwrap_or_default();
            (format!("{PREFIX}{node}"), value)
        })
        .collect();
    store.put_all(&values)
}
