//! Disruption budgets, and which pods they choose.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::rights::Resource;
use super::{Kept, Key, Object, Pod};

/// A `PodDisruptionBudget`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// What it is called.
    pub key: Key,
    /// So many of its pods may be evicted now.
    pub allowed: u64,
    selector: Selector,
}

impl Budget {
    /// It speaks for this pod.
    pub fn covers(&self, pod: &Pod) -> bool {
        self.key.namespace == pod.key.namespace && self.selector.chooses(&pod.labels)
    }
}

impl Kept for Budget {
    const RESOURCE: Resource = Resource::Budgets;
    const KIND: &'static str = "PodDisruptionBudget";

    fn keep(object: Object) -> Option<Self> {
        Some(Self {
            key: object.metadata.key(),
            // `disruptionsAllowed` in both versions; some old servers wrote the name of the alpha.
            allowed: ["disruptionsAllowed", "podDisruptionsAllowed"]
                .iter()
                .find_map(|name| object.status[name].as_u64())
                .unwrap_or_default(),
            selector: Selector::deserialize(&object.spec["selector"]).unwrap_or_default(),
        })
    }

    fn key(&self) -> Key {
        self.key.clone()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Selector {
    pub(super) fn chooses(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |expression: &Expression| {
            let value = labels.get(&expression.key);
            let among = value.is_some_and(|value| expression.values.contains(value));
            match expression.operator.as_str() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // It may well cover the pod.
                _ => true,
            }
        };
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(holds)
    }
}
