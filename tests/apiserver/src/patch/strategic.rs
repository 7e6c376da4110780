//! Strategic merge patch (k8s.io/apimachinery/pkg/util/strategicpatch): a merge patch that knows which lists have keys.
//!
//! The keys are the `patchMergeKey` tags of k8s.io/api/core/v1/types.go and its neighbours. What has no tag is replaced whole:
//! taints and tolerations among it, which is why `kubectl taint` sends all of them.

use crate::refusal::Refusal;
use serde_json::{Map, Value};

/// The key by which the elements of a list are told apart; `Some("")` for lists of plain values that are merged.
fn merge_key(parent: &str, list: &str) -> Option<&'static str> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "schedulingGates"
        | "resourceClaims"
        | "secrets" => "name",
        "conditions" | "addresses" if parent == "status" => "type",
        "ports" if parent == "spec" => "port",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" | "podIPs" | "hostIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        "finalizers" | "podCIDRs" => "",
        _ => return None,
    })
}

/// Applies `patch` to `target`.
pub(crate) fn apply(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    merge(target, patch, "")
}

fn merge(target: &mut Value, patch: &Value, here: &str) -> Result<(), Refusal> {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("replace") => {
            let kept = patch.iter().filter(|(name, _)| *name != "$patch");
            *target = Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Refusal::bad_request(format!("Unknown patch type found: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return Ok(());
    };
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(list) = target.get_mut(list).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
        } else if name == "$retainKeys" {
            let kept = value.as_array().cloned().unwrap_or_default();
            target.retain(|name, _| kept.iter().any(|key| key.as_str() == Some(name)));
        } else if name.starts_with('$') {
            // `$setElementOrder` comes after everything else.
        } else if value.is_null() {
            target.remove(name);
        } else if let Some(list) = value.as_array() {
            match merge_key(here, name) {
                Some(key) => {
                    let old = target
                        .entry(name.clone())
                        .or_insert_with(|| Value::Array(Vec::new()));
                    merge_list(old, list, key, name)?;
                }
                None => drop(target.insert(name.clone(), value.clone())),
            }
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value, name)?;
        }
    }
    for (name, order) in patch
        .iter()
        .filter_map(|(name, order)| Some((name.strip_prefix("$setElementOrder/")?, order)))
    {
        if let (Some(list), Some(order)) = (
            target.get_mut(name).and_then(Value::as_array_mut),
            order.as_array(),
        ) {
            let key = merge_key(here, name).unwrap_or_default();
            let place = |item: &Value| {
                order
                    .iter()
                    .position(|wanted| same(wanted, item, key))
                    .unwrap_or(usize::MAX)
            };
            list.sort_by_key(place);
        }
    }
    Ok(())
}

fn same(one: &Value, other: &Value, key: &str) -> bool {
    if key.is_empty() {
        one == other
    } else {
        one.get(key) == other.get(key)
    }
}

fn merge_list(old: &mut Value, patch: &[Value], key: &str, name: &str) -> Result<(), Refusal> {
    if !old.is_array() {
        *old = Value::Array(Vec::new());
    }
    let Some(old) = old.as_array_mut() else {
        return Ok(());
    };
    if patch
        .iter()
        .any(|item| item.get("$patch").and_then(Value::as_str) == Some("replace"))
    {
        *old = patch
            .iter()
            .filter(|item| item.get("$patch").is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    for item in patch {
        if !key.is_empty() && item.get(key).is_none() {
            let message = format!("map: {item} does not contain declared merge key: {key}");
            return Err(Refusal::bad_request(message));
        }
        if item.get("$patch").and_then(Value::as_str) == Some("delete") {
            old.retain(|present| !same(present, item, key));
        } else if let Some(present) = old.iter_mut().find(|present| same(present, item, key)) {
            merge(present, item, name)?;
        } else {
            let mut added = Value::Null;
            merge(&mut added, item, name)?;
            old.push(added);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_are_merged_by_name_and_taints_are_replaced() {
        let mut object = json!({
            "spec": {
                "taints": [{"key": "a"}, {"key": "b"}],
                "containers": [
                    {"name": "app", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                    {"name": "side", "image": "s:1"}
                ]
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]},
            "metadata": {"finalizers": ["one", "two"]}
        });
        let patch = json!({
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["one"]},
            "spec": {
                "taints": [{"key": "c"}],
                "$setElementOrder/containers": [{"name": "new"}, {"name": "app"}],
                "containers": [
                    {"name": "app", "env": [{"name": "X", "value": "9"}, {"name": "Y", "$patch": "delete"}]},
                    {"name": "side", "$patch": "delete"},
                    {"name": "new", "image": "n:1"}
                ]
            },
            "status": {"conditions": [{"type": "Ready", "status": "False"}]}
        });
        apply(&mut object, &patch).unwrap();
        assert_eq!(
            object,
            json!({
                "spec": {
                    "taints": [{"key": "c"}],
                    "containers": [
                        {"name": "new", "image": "n:1"},
                        {"name": "app", "image": "a:1", "env": [{"name": "X", "value": "9"}]}
                    ]
                },
                "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}]},
                "metadata": {"finalizers": ["two"]}
            })
        );
    }

    #[test]
    fn a_volume_that_changes_its_kind_keeps_only_the_new_one() {
        let mut object = json!({"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "data", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
        apply(&mut object, &patch).unwrap();
        assert_eq!(
            object,
            json!({"spec": {"volumes": [{"name": "data", "hostPath": {"path": "/x"}}]}})
        );
    }
}
