//! Reading and writing JSON by path, as in `/spec/nodeName` (RFC 6901).
//!
//! The API server stores objects whose kinds it mostly does not need to understand, so they stay JSON here. What is missing reads as
//! null, the empty string, zero or nothing, as the Go types of the real server have it.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// What stands at `path`, or null.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or(&NULL)
}

/// The text at `path`, or the empty string.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The number at `path`, or zero.
pub fn number(value: &Value, path: &str) -> i64 {
    at(value, path).as_i64().unwrap_or_default()
}

/// Whether `true` stands at `path`.
pub fn is_true(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The elements of the array at `path`, or none.
pub fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The members of the object at `path`.
pub fn members<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(value, path).as_object().into_iter().flatten()
}

/// A member of the object at `path` whose name may contain slashes, such as a label.
pub fn member<'a>(value: &'a Value, path: &str, name: &str) -> Option<&'a str> {
    at(value, path).get(name).and_then(Value::as_str)
}

/// The object at `path`, made where it is missing.
pub fn object<'a>(value: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut here = value;
    for name in path.split('/').skip(1) {
        here = own(here).entry(name.replace("~1", "/")).or_insert(Value::Null);
    }
    own(here)
}

fn own(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was just made an object")
}

/// Puts `new` at `path` and makes the objects on the way.
pub fn set(value: &mut Value, path: &str, new: impl Into<Value>) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    object(value, parent).insert(name.replace("~1", "/"), new.into());
}

/// Puts `new` at `path` where nothing or null stands.
pub fn default(value: &mut Value, path: &str, new: impl Into<Value>) {
    if at(value, path).is_null() {
        set(value, path, new);
    }
}

/// Takes away what stands at `path`.
pub fn take(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = path.rsplit_once('/')?;
    value
        .pointer_mut(parent)?
        .as_object_mut()?
        .remove(&name.replace("~1", "/"))
}

/// The element of the array at `path` whose `key` is `wanted`.
pub fn find<'a>(value: &'a Value, path: &str, key: &str, wanted: &str) -> Option<&'a Value> {
    items(value, path)
        .iter()
        .find(|item| item.get(key).and_then(Value::as_str) == Some(wanted))
}

/// Puts `new` into the array at `path`: over the element with the same `key`, or at its end.
pub fn put(value: &mut Value, path: &str, key: &str, new: Value) {
    default(value, path, Value::Array(Vec::new()));
    let Some(array) = value.pointer_mut(path).and_then(Value::as_array_mut) else {
        return;
    };
    match array.iter_mut().find(|item| item.get(key) == new.get(key)) {
        Some(item) => *item = new,
        None => array.push(new),
    }
}

/// `metadata.name`.
pub fn name(value: &Value) -> &str {
    text(value, "/metadata/name")
}

/// `metadata.namespace`, empty for what has none.
pub fn namespace(value: &Value) -> &str {
    text(value, "/metadata/namespace")
}

/// `metadata.uid`.
pub fn uid(value: &Value) -> &str {
    text(value, "/metadata/uid")
}

/// Whether deletion was asked for and is not complete.
pub fn is_terminating(value: &Value) -> bool {
    !at(value, "/metadata/deletionTimestamp").is_null()
}

/// The owner that controls the object, if it has one.
pub fn controller(value: &Value) -> Option<&Value> {
    items(value, "/metadata/ownerReferences")
        .iter()
        .find(|owner| is_true(owner, "/controller"))
}

/// The `status` of a condition, `Unknown` if there is none.
pub fn condition<'a>(value: &'a Value, kind: &str) -> &'a str {
    find(value, "/status/conditions", "type", kind).map_or("Unknown", |found| text(found, "/status"))
}
