//! Conditions: their transition times change with their status and not otherwise.

use crate::clock;
use crate::json::{find, put, text};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Sets a condition of `/status/conditions`.
pub fn set(object: &mut Value, kind: &str, status: &str, (reason, message): (&str, &str), now: Timestamp) {
    let old = find(object, "/status/conditions", "type", kind);
    let since = old.filter(|old| text(old, "/status") == status).map_or_else(
        || clock::seconds(now),
        |old| text(old, "/lastTransitionTime").to_owned(),
    );
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            condition[field] = json!(value);
        }
    }
    for time in ["lastHeartbeatTime", "lastUpdateTime", "lastProbeTime"] {
        if let Some(value) = old.and_then(|old| old.get(time)) {
            condition[time] = value.clone();
        }
    }
    put(object, "/status/conditions", "type", condition);
}
