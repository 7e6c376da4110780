//! The columns of `kubectl get` (pkg/printers/internalversion/printers.go).

use crate::clock;
use crate::json::{at, condition, find, is_terminating, is_true, items, members, name, number, text};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The columns of a resource: name, and whether only `-o wide` shows it.
fn titles(plural: &str) -> &'static [(&'static str, bool)] {
    match plural {
        "nodes" => &[
            ("Name", false),
            ("Status", false),
            ("Roles", false),
            ("Age", false),
            ("Version", false),
            ("Internal-IP", true),
            ("External-IP", true),
            ("OS-Image", true),
            ("Kernel-Version", true),
            ("Container-Runtime", true),
        ],
        "pods" => &[
            ("Name", false),
            ("Ready", false),
            ("Status", false),
            ("Restarts", false),
            ("Age", false),
            ("IP", true),
            ("Node", true),
            ("Nominated Node", true),
            ("Readiness Gates", true),
        ],
        "deployments" => &[
            ("Name", false),
            ("Ready", false),
            ("Up-to-date", false),
            ("Available", false),
            ("Age", false),
        ],
        "replicasets" => &[
            ("Name", false),
            ("Desired", false),
            ("Current", false),
            ("Ready", false),
            ("Age", false),
        ],
        "statefulsets" => &[("Name", false), ("Ready", false), ("Age", false)],
        "daemonsets" => &[
            ("Name", false),
            ("Desired", false),
            ("Current", false),
            ("Ready", false),
            ("Up-to-date", false),
            ("Available", false),
            ("Age", false),
        ],
        "jobs" => &[("Name", false), ("Completions", false), ("Age", false)],
        "namespaces" => &[("Name", false), ("Status", false), ("Age", false)],
        "events" => &[
            ("Last Seen", false),
            ("Type", false),
            ("Reason", false),
            ("Object", false),
            ("Message", false),
            ("Name", true),
        ],
        "poddisruptionbudgets" => &[
            ("Name", false),
            ("Min Available", false),
            ("Max Unavailable", false),
            ("Allowed Disruptions", false),
            ("Age", false),
        ],
        "leases" => &[("Name", false), ("Holder", false), ("Age", false)],
        "services" => &[
            ("Name", false),
            ("Type", false),
            ("Cluster-IP", false),
            ("External-IP", false),
            ("Port(s)", false),
            ("Age", false),
        ],
        "persistentvolumeclaims" => &[
            ("Name", false),
            ("Status", false),
            ("Volume", false),
            ("Age", false),
        ],
        "persistentvolumes" => &[
            ("Name", false),
            ("Status", false),
            ("Claim", false),
            ("Age", false),
        ],
        "volumeattachments" => &[
            ("Name", false),
            ("Attacher", false),
            ("PV", false),
            ("Node", false),
            ("Attached", false),
            ("Age", false),
        ],
        _ => &[("Name", false), ("Age", false)],
    }
}

/// The column definitions of a resource.
pub(crate) fn columns(plural: &str) -> Value {
    let column = |(title, wide): &(&str, bool)| {
        let format = if *title == "Name" { "name" } else { "" };
        json!({"name": title, "type": "string", "format": format, "description": "", "priority": i32::from(*wide)})
    };
    titles(plural).iter().map(column).collect()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// The cells of an object, in the order of its columns.
pub(crate) fn cells(plural: &str, object: &Value, now: Timestamp) -> Value {
    let name = name(object);
    let age = age(at(object, "/metadata/creationTimestamp"), now);
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let ready = format!("{}/{}", status("readyReplicas"), number(object, "/spec/replicas"));
    match plural {
        "nodes" => node(object, &age),
        "pods" => pod(object, &age),
        "deployments" => json!([
            name,
            ready,
            status("updatedReplicas"),
            status("availableReplicas"),
            age
        ]),
        "replicasets" => json!([
            name,
            number(object, "/spec/replicas"),
            status("replicas"),
            status("readyReplicas"),
            age
        ]),
        "statefulsets" => json!([name, ready, age]),
        "daemonsets" => json!([
            name,
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            age
        ]),
        "jobs" => json!([
            name,
            format!("{}/{}", status("succeeded"), number(object, "/spec/completions")),
            age
        ]),
        "namespaces" => json!([name, text(object, "/status/phase"), age]),
        "leases" => json!([name, text(object, "/spec/holderIdentity"), age]),
        "persistentvolumeclaims" => json!([
            name,
            text(object, "/status/phase"),
            text(object, "/spec/volumeName"),
            age
        ]),
        "persistentvolumes" => {
            let claim = format!(
                "{}/{}",
                text(object, "/spec/claimRef/namespace"),
                text(object, "/spec/claimRef/name")
            );
            json!([name, text(object, "/status/phase"), claim, age])
        }
        "volumeattachments" => json!([
            name,
            text(object, "/spec/attacher"),
            text(object, "/spec/source/persistentVolumeName"),
            text(object, "/spec/nodeName"),
            is_true(object, "/status/attached").to_string(),
            age
        ]),
        _ => more_cells(plural, object, &age, now),
    }
}

/// The cells of what takes more than a line.
fn more_cells(plural: &str, object: &Value, age: &str, now: Timestamp) -> Value {
    let name = name(object);
    match plural {
        "events" => {
            let about = format!(
                "{}/{}",
                text(object, "/involvedObject/kind").to_lowercase(),
                text(object, "/involvedObject/name")
            );
            let seen = self::age(at(object, "/lastTimestamp"), now);
            json!([
                seen,
                text(object, "/type"),
                text(object, "/reason"),
                about,
                text(object, "/message"),
                name
            ])
        }
        "poddisruptionbudgets" => {
            let shown = |field: &str| match at(object, &format!("/spec/{field}")) {
                value if value.is_null() => "N/A".to_owned(),
                value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            };
            json!([
                name,
                shown("minAvailable"),
                shown("maxUnavailable"),
                number(object, "/status/disruptionsAllowed"),
                age
            ])
        }
        "services" => {
            let port = |port: &Value| format!("{}/{}", number(port, "/port"), text(port, "/protocol"));
            let ports: Vec<_> = items(object, "/spec/ports").iter().map(port).collect();
            json!([
                name,
                text(object, "/spec/type"),
                text(object, "/spec/clusterIP"),
                "<none>",
                or_none(&ports.join(",")),
                age
            ])
        }
        _ => json!([name, age]),
    }
}

fn node(object: &Value, age: &str) -> Value {
    let mut status = match condition(object, "Ready") {
        "True" => "Ready",
        _ if items(object, "/status/conditions").is_empty() => "Unknown",
        _ => "NotReady",
    }
    .to_owned();
    if is_true(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let labels = members(object, "/metadata/labels");
    let roles: Vec<_> = labels
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        or_none(find(object, "/status/addresses", "type", kind).map_or("", |found| text(found, "/address")))
            .to_owned()
    };
    let info = |field: &str| text(object, &format!("/status/nodeInfo/{field}")).to_owned();
    json!([
        name(object),
        status,
        or_none(&roles.join(",")),
        age,
        info("kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion")
    ])
}

fn pod(object: &Value, age: &str) -> Value {
    let statuses = items(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|status| is_true(status, "/ready")).count();
    let restarts: i64 = statuses
        .iter()
        .map(|status| number(status, "/restartCount"))
        .sum();
    let mut reason = text(object, "/status/reason").to_owned();
    if reason.is_empty() {
        text(object, "/status/phase").clone_into(&mut reason);
    }
    for status in statuses.iter().rev() {
        let waiting = text(status, "/state/waiting/reason");
        let ended = text(status, "/state/terminated/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut reason);
        } else if !ended.is_empty() {
            ended.clone_into(&mut reason);
        }
    }
    if is_terminating(object) {
        reason = if text(object, "/status/reason") == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .into();
    }
    json!([
        name(object),
        format!("{ready}/{}", items(object, "/spec/containers").len()),
        reason,
        restarts.to_string(),
        age,
        or_none(text(object, "/status/podIP")),
        or_none(text(object, "/spec/nodeName")),
        or_none(text(object, "/status/nominatedNodeName")),
        "<none>"
    ])
}

/// How long ago, as `kubectl` shows it (k8s.io/apimachinery/pkg/util/duration).
fn age(since: &Value, now: Timestamp) -> String {
    let Some(since) = clock::parse(since) else {
        return "<unknown>".into();
    };
    let seconds = clock::elapsed(since, now).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shown_as_kubectl_shows_them() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (since, expected) in [
            ("2026-01-09T23:59:01Z", "59s"),
            ("2026-01-09T23:55:30Z", "4m30s"),
            ("2026-01-09T21:00:00Z", "3h"),
            ("2026-01-07T20:00:00Z", "2d4h"),
        ] {
            assert_eq!(age(&json!(since), now), expected);
        }
    }
}
