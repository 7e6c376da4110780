//! What is told is documented. How it is served: `coordinator/tests/api/metrics.rs`.

use std::collections::BTreeMap;

use super::*;

#[test]
fn one_that_follows_says_so_and_tells_of_no_fleet() {
    let inventory = Inventory {
        clusters: Vec::new(),
        nodes: BTreeMap::new(),
    };
    let metrics = Metrics::new(Arc::new(inventory), "/nowhere".into());
    let text = page::page(&metrics).unwrap();
    assert!(text.contains("\nblackstart_coordinator_leading 0\n"), "{text}");
    assert!(!text.contains("blackstart_coordinator_nodes"), "{text}");
}
