//! How ready clusters were, in the store.

use std::collections::BTreeMap;

use super::readiness::Readiness;
use crate::inventory::ClusterName;
use crate::store::{Store, StoreError};

const PREFIX: &str = "readiness/";

/// What the store has of it. What cannot be read is as if it were not there: it is taken anew when the cluster is well.
pub(super) fn load(store: &dyn Store) -> Result<BTreeMap<ClusterName, Readiness>, StoreError> {
    let mut all = BTreeMap::new();
    for (key, value) in store.scan(PREFIX)? {
        let name = ClusterName(key.trim_start_matches(PREFIX).to_owned());
        match serde_json::from_slice(&value) {
            Ok(readiness) => {
                all.insert(name, readiness);
            }
            Err(error) => tracing::warn!(cluster = %name, %error, "how ready a cluster was cannot be read"),
        }
    }
    Ok(all)
}

/// Keeps it. Blocks.
pub(super) fn save(
    store: &dyn Store,
    cluster: &ClusterName,
    readiness: &Readiness,
) -> Result<(), StoreError> {
    let value = serde_json::to_vec(readiness).unwrap_or_default();
    store.put(&format!("{PREFIX}{cluster}"), &value)
}
