//! JSON patch (RFC 6902).

use crate::json::text;
use crate::refusal::Refusal;
use serde_json::Value;

fn refused(what: &str) -> Refusal {
    Refusal {
        code: 422,
        reason: "Invalid",
        ..Refusal::bad_request(format!(
            "the server rejected our request due to an error in our request: {what}"
        ))
    }
}

/// Applies a list of operations to `target`, all of them or none.
pub(crate) fn apply(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let operations = patch
        .as_array()
        .ok_or_else(|| Refusal::bad_request("error decoding patch: not a list"))?;
    for operation in operations {
        let place = text(operation, "/path");
        let value = operation.get("value").cloned().unwrap_or(Value::Null);
        match text(operation, "/op") {
            "add" => add(target, place, value)?,
            "remove" => drop(remove(target, place)?),
            "replace" => {
                *target.pointer_mut(place).ok_or_else(|| {
                    refused(&format!(
                        "replace operation does not apply: doc is missing key: {place}"
                    ))
                })? = value;
            }
            "move" => {
                let moved = remove(target, text(operation, "/from"))?;
                add(target, place, moved)?;
            }
            "copy" => {
                let copied = target.pointer(text(operation, "/from")).cloned();
                add(
                    target,
                    place,
                    copied.ok_or_else(|| refused("copy operation does not apply"))?,
                )?;
            }
            "test" if target.pointer(place).unwrap_or(&Value::Null) == &value => {}
            "test" => return Err(refused(&format!("testing value {place} failed: test failed"))),
            other => {
                return Err(Refusal::bad_request(format!(
                    "unexpected kind of operation: {other}"
                )));
            }
        }
    }
    Ok(())
}

fn parent<'a, 'b>(target: &'a mut Value, path: &'b str) -> Result<(&'a mut Value, &'b str), Refusal> {
    let missing = || refused(&format!("operation does not apply: doc is missing path: {path}"));
    let (parent, last) = path.rsplit_once('/').ok_or_else(missing)?;
    Ok((target.pointer_mut(parent).ok_or_else(missing)?, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    let (parent, last) = parent(target, path)?;
    if let Some(list) = parent.as_array_mut() {
        let index = if last == "-" {
            Some(list.len())
        } else {
            last.parse().ok()
        };
        match index.filter(|index| *index <= list.len()) {
            Some(index) => list.insert(index, value),
            None => {
                return Err(refused(&format!(
                    "add operation does not apply: invalid array index: {path}"
                )));
            }
        }
    } else if let Some(object) = parent.as_object_mut() {
        object.insert(last.replace("~1", "/").replace("~0", "~"), value);
    } else {
        return Err(refused(&format!(
            "add operation does not apply: doc is missing path: {path}"
        )));
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, Refusal> {
    let (parent, last) = parent(target, path)?;
    let removed = if let Some(list) = parent.as_array_mut() {
        last.parse()
            .ok()
            .filter(|index| *index < list.len())
            .map(|index: usize| list.remove(index))
    } else {
        parent
            .as_object_mut()
            .and_then(|object| object.remove(&last.replace("~1", "/").replace("~0", "~")))
    };
    removed.ok_or_else(|| {
        refused(&format!(
            "remove operation does not apply: unable to remove nonexistent key: {path}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_test_that_fails_refuses_the_patch() {
        let mut node = json!({"metadata": {"labels": {"a/b": "1"}}, "spec": {"taints": [{"key": "x"}]}});
        let patch = json!([
            {"op": "test", "path": "/spec/taints/0/key", "value": "x"},
            {"op": "remove", "path": "/spec/taints/0"},
            {"op": "add", "path": "/spec/taints/-", "value": {"key": "y"}},
            {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"}
        ]);
        apply(&mut node, &patch).unwrap();
        assert_eq!(
            node,
            json!({"metadata": {"labels": {"a/b": "2"}}, "spec": {"taints": [{"key": "y"}]}})
        );
        let refusal = apply(&mut node, &patch).unwrap_err();
        assert_eq!(refusal.code, 422);
    }
}
