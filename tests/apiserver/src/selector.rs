//! Label and field selectors
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>, …/field-selectors/).

use crate::json::{at, member, text};
use crate::refusal::Refusal;
use serde_json::Value;

/// What a list or a watch is narrowed to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Requirement {
    fn holds(&self, found: Option<&str>) -> bool {
        match &self.test {
            Test::In(values) => found.is_some_and(|found| values.iter().any(|value| value == found)),
            Test::NotIn(values) => found.is_none_or(|found| values.iter().all(|value| value != found)),
            Test::Exists => found.is_some(),
            Test::Missing => found.is_none(),
        }
    }
}

impl Selector {
    /// Reads the query parameters of a request for a resource; fields that it cannot be selected by are an error, as they are there.
    pub(crate) fn parse(plural: &str, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = labels_of(labels)
            .ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: {labels}")))?;
        let mut parsed = Vec::new();
        for term in fields.split(',').filter(|term| !term.is_empty()) {
            let (key, not, value) = equality(term).ok_or_else(|| {
                Refusal::bad_request(format!("invalid selector: '{fields}'; can't understand '{term}'"))
            })?;
            if !selectable(plural, key) {
                return Err(Refusal::bad_request(format!("field label not supported: {key}")));
            }
            let values = vec![value.to_owned()];
            let test = if not {
                Test::NotIn(values)
            } else {
                Test::In(values)
            };
            parsed.push(Requirement {
                key: key.to_owned(),
                test,
            });
        }
        Ok(Self {
            labels,
            fields: parsed,
        })
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels
            .iter()
            .all(|wanted| wanted.holds(member(object, "/metadata/labels", &wanted.key)))
            && self.fields.iter().all(|wanted| {
                let path = format!("/{}", wanted.key.replace('.', "/"));
                let found = at(object, &path);
                match found.as_bool() {
                    Some(flag) => wanted.holds(Some(if flag { "true" } else { "false" })),
                    None if wanted.key == "spec.unschedulable" => wanted.holds(Some("false")),
                    None => wanted.holds(Some(found.as_str().unwrap_or_default())),
                }
            })
    }
}

fn selectable(plural: &str, key: &str) -> bool {
    const POD: [&str; 7] = [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ];
    matches!(key, "metadata.name" | "metadata.namespace")
        || match plural {
            "pods" => POD.contains(&key),
            "nodes" => key == "spec.unschedulable",
            "events" => {
                key.starts_with("involvedObject.")
                    || matches!(key, "reason" | "reportingComponent" | "source" | "type")
            }
            "namespaces" => key == "status.phase",
            "secrets" => key == "type",
            "jobs" => key == "status.successful",
            _ => false,
        }
}

fn equality(term: &str) -> Option<(&str, bool, &str)> {
    let (key, value) = term.split_once('=')?;
    match key.strip_suffix('!') {
        Some(key) => Some((key.trim(), true, value.trim())),
        None => Some((key.trim(), false, value.strip_prefix('=').unwrap_or(value).trim())),
    }
}

fn labels_of(given: &str) -> Option<Vec<Requirement>> {
    let mut requirements = Vec::new();
    let mut depth = 0;
    let terms = given.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    for term in terms.map(str::trim).filter(|term| !term.is_empty()) {
        let (key, test) = if let Some((head, list)) = term.split_once('(') {
            let values = list
                .strip_suffix(')')?
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect();
            let (key, operator) = head.trim().rsplit_once(' ')?;
            match operator {
                "in" => (key.trim(), Test::In(values)),
                "notin" => (key.trim(), Test::NotIn(values)),
                _ => return None,
            }
        } else if let Some((key, not, value)) = equality(term) {
            let values = vec![value.to_owned()];
            (
                key,
                if not {
                    Test::NotIn(values)
                } else {
                    Test::In(values)
                },
            )
        } else if let Some(key) = term.strip_prefix('!') {
            (key.trim(), Test::Missing)
        } else {
            (term, Test::Exists)
        };
        if key.is_empty() || key.contains(' ') {
            return None;
        }
        requirements.push(Requirement {
            key: key.to_owned(),
            test,
        });
    }
    Some(requirements)
}

/// Whether a `metav1.LabelSelector` selects an object by its labels. An empty one selects everything, a missing one nothing.
pub(crate) fn label_selector(selector: &Value, object: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    crate::json::members(selector, "/matchLabels")
        .all(|(key, value)| member(object, "/metadata/labels", key) == value.as_str())
        && crate::json::items(selector, "/matchExpressions")
            .iter()
            .all(|expression| {
                node_requirement(
                    expression,
                    member(object, "/metadata/labels", text(expression, "/key")),
                )
            })
}

/// Whether one of the expressions of a label or node selector holds for the value that was found.
pub(crate) fn node_requirement(expression: &Value, found: Option<&str>) -> bool {
    let values: Vec<String> = crate::json::items(expression, "/values")
        .iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    let test = match text(expression, "/operator") {
        "In" => Test::In(values),
        "NotIn" => Test::NotIn(values),
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::Missing,
        _ => return false,
    };
    Requirement {
        key: String::new(),
        test,
    }
    .holds(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_what_kubectl_would_print() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}, "spec": {"nodeName": "n1"}});
        for (labels, fields, expected) in [
            ("app=web", "", true),
            ("app==web,tier!=back", "", true),
            ("app in (db, web),tier", "", true),
            ("app notin (web)", "", false),
            ("!missing", "", true),
            ("!app", "", false),
            ("", "spec.nodeName=n1,status.phase!=Failed", true),
            ("", "metadata.name=b", false),
        ] {
            let selector = Selector::parse("pods", labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{labels} {fields}");
        }
        let refused = Selector::parse("pods", "", "spec.hostNetwork=true").unwrap_err();
        assert_eq!(refused.message, "field label not supported: spec.hostNetwork");
    }
}
