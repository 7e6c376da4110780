//! Which nodes a pod may go to, as its own object says: tolerations, node selector, required node affinity. Pure.
//!
//! Affinity between pods, topology spread, volumes and host ports are not here: of those the scheduler's own word is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Taint;

/// A toleration, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Empty: of every taint.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// Of `Equal`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Empty: every one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// So long; `None`: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
    /// What this version does not read; it is written back as it was.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Toleration {
    /// It tolerates this taint (k8s.io/api/core/v1, `ToleratesTaint`).
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let exists = self.operator == "Exists";
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key == taint.key || (self.key.is_empty() && exists))
            && (exists || self.value == taint.value)
    }
}

/// What a pod that has no node yet wants of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Of nodes' taints.
    pub tolerations: Vec<Toleration>,
    /// Labels that a node must have.
    pub selector: BTreeMap<String, String>,
    /// Any of these must hold; empty: none has to.
    terms: Vec<Term>,
    /// Why the scheduler found none, in its own words; empty: it has not said.
    pub said: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_expressions: Vec<Requirement>,
    match_fields: Vec<Requirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        let against = |holds: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            let value = value.and_then(|value| value.parse().ok());
            matches!((value, bound), (Some(value), Some(bound)) if holds(value, bound))
        };
        match self.operator.as_str() {
            "In" => among,
            "NotIn" => !among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => against(|value, bound| value > bound),
            "Lt" => against(|value, bound| value < bound),
            // A word that is not known here excludes nothing.
            _ => true,
        }
    }
}

impl Wants {
    /// Of the pod's spec and status.
    pub(super) fn read(spec: &serde_json::Value, status: &serde_json::Value) -> Self {
        let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let said = status["conditions"].as_array();
        let said = said
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "PodScheduled" && condition["status"] != "True");
        Self {
            tolerations: Vec::deserialize(&spec["tolerations"]).unwrap_or_default(),
            selector: BTreeMap::deserialize(&spec["nodeSelector"]).unwrap_or_default(),
            terms: Vec::deserialize(terms).unwrap_or_default(),
            said: said.map(|said| super::text(&said["message"])).unwrap_or_default(),
        }
    }

    /// The first taint that keeps it off a node.
    pub fn untolerated<'a>(&self, taints: &'a [Taint]) -> Option<&'a Taint> {
        let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        taints
            .iter()
            .filter(keeps_off)
            .find(|taint| !self.tolerations.iter().any(|one| one.tolerates(taint)))
    }

    /// Its selector and affinity choose a node of this name and these labels.
    pub fn choose(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        let holds = |term: &Term| {
            let is_empty = term.match_expressions.is_empty() && term.match_fields.is_empty();
            let labelled = |one: &Requirement| one.holds(labels.get(&one.key).map(String::as_str));
            !is_empty
                && term.match_expressions.iter().all(labelled)
                && term.match_fields.iter().all(|one| one.holds(Some(node)))
        };
        self.selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && (self.terms.is_empty() || self.terms.iter().any(holds))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wants(spec: &serde_json::Value) -> Wants {
        Wants::read(spec, &json!({}))
    }

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "value": value, "effect": effect})).unwrap()
    }

    #[test]
    fn a_taint_keeps_off_what_does_not_tolerate_it() {
        let taints = [
            taint("soft", "", "PreferNoSchedule"),
            taint("role", "db", "NoSchedule"),
        ];
        let of = |tolerations: serde_json::Value| {
            wants(&json!({ "tolerations": tolerations }))
                .untolerated(&taints)
                .is_some()
        };
        assert!(of(json!([])));
        assert!(of(json!([{"key": "role", "value": "web"}])));
        assert!(of(
            json!([{"key": "role", "operator": "Exists", "effect": "NoExecute"}])
        ));
        assert!(!of(
            json!([{"key": "role", "value": "db", "effect": "NoSchedule"}])
        ));
        assert!(!of(json!([{"operator": "Exists"}])));
    }

    #[test]
    fn selector_and_any_term_of_the_affinity_choose() {
        let labels = BTreeMap::from([
            ("zone".to_owned(), "a".to_owned()),
            ("cores".to_owned(), "8".to_owned()),
        ]);
        let affinity = |terms: serde_json::Value| {
            wants(
                &json!({"nodeSelector": {"zone": "a"}, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
            )
            .choose("w1", &labels)
        };
        let expression = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        assert!(affinity(json!([])));
        for (operator, values, holds) in [
            ("In", &["b", "a"][..], true),
            ("NotIn", &["a"], false),
            ("Exists", &[], true),
            ("DoesNotExist", &[], false),
        ] {
            assert_eq!(
                affinity(expression("zone", operator, values)),
                holds,
                "{operator}"
            );
        }
        assert!(affinity(expression("cores", "Gt", &["4"])));
        assert!(!affinity(expression("cores", "Lt", &["4"])));
        let field = |name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        assert!(affinity(field("w1")) && !affinity(field("w2")));
    }
}
