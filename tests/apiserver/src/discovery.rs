//! What is served, as clients discover it (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/>), and as much of `OpenAPI` as
//! `kubectl apply` looks at. Aggregated discovery is answered with the old form, which clients fall back to.

use crate::request::Asked;
use crate::resources::{Release, Resource, api_version, groups, in_version};
use serde_json::{Value, json};

/// Reviews that are answered and not stored: path, kind.
const REVIEWS: [(&str, &str, &str, &str); 2] = [
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authentication.k8s.io",
        "v1",
        "selfsubjectreviews",
        "SelfSubjectReview",
    ),
];

/// The answer to a discovery path, if it is one.
pub(crate) fn answer(asked: &Asked, release: Release, metrics: bool) -> Option<Value> {
    let mut known = groups(release);
    known.extend(
        REVIEWS
            .iter()
            .map(|(group, version, ..)| (*group, vec![*version])),
    );
    if metrics {
        known.push(("metrics.k8s.io", vec!["v1beta1"]));
    }
    let path = asked.path.trim_end_matches('/');
    match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
        ["version"] => Some(version(release)),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        ["apis"] => {
            let all: Vec<_> = known
                .iter()
                .map(|(name, versions)| group(name, versions, false))
                .collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all}))
        }
        ["api", version @ "v1"] => Some(list("", version, release)),
        ["apis", name] => known
            .iter()
            .find(|(group, _)| group == name)
            .map(|(name, versions)| group(name, versions, true)),
        ["apis", name, version] => known
            .iter()
            .any(|(group, versions)| group == name && versions.contains(version))
            .then(|| list(name, version, release)),
        ["openapi", "v3"] if release.minor >= 24 => {
            let one = |group: &str, version: &str| {
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                (
                    path.clone(),
                    json!({"serverRelativeURL": format!("/openapi/v3/{path}")}),
                )
            };
            let named = known
                .iter()
                .flat_map(|(group, versions)| versions.iter().map(move |version| one(group, version)));
            let paths: serde_json::Map<_, _> = std::iter::once(one("", "v1")).chain(named).collect();
            Some(json!({"paths": paths}))
        }
        ["openapi", "v3", "api", version] if release.minor >= 24 => Some(openapi("", version, release)),
        ["openapi", "v3", "apis", group, version] if release.minor >= 24 => {
            Some(openapi(group, version, release))
        }
        _ => None,
    }
}

fn version(release: Release) -> Value {
    json!({
        "major": "1", "minor": release.minor.to_string(), "gitVersion": format!("v1.{}.2", release.minor),
        "gitCommit": "0000000000000000000000000000000000000000", "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z", "goVersion": "go1.24.6", "compiler": "gc", "platform": "linux/amd64",
    })
}

fn group(name: &str, versions: &[&str], alone: bool) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let mut group = json!({
        "name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    });
    if alone {
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
    }
    group
}

fn list(group: &str, version: &str, release: Release) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for resource in in_version(release, group, version) {
        resources.push(json!({
            "name": resource.plural, "singularName": resource.kind.to_lowercase(), "namespaced": resource.namespaced,
            "kind": resource.kind, "shortNames": resource.short, "categories": categories(resource),
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
        resources.extend(
            resource
                .subresources
                .iter()
                .filter_map(|name| subresource(resource, name, release)),
        );
    }
    for (_, _, plural, kind) in REVIEWS
        .iter()
        .filter(|(of, served, ..)| *of == group && *served == version)
    {
        let review = json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]});
        resources.push(review);
    }
    if group == "metrics.k8s.io" {
        for (plural, kind) in [("nodes", "NodeMetrics"), ("pods", "PodMetrics")] {
            resources.push(json!({
                "name": plural, "singularName": "", "namespaced": plural == "pods", "kind": kind, "verbs": ["get", "list"],
            }));
        }
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": resources,
    })
}

fn categories(resource: &Resource) -> &'static [&'static str] {
    match resource.plural {
        "pods"
        | "services"
        | "replicationcontrollers"
        | "deployments"
        | "replicasets"
        | "statefulsets"
        | "daemonsets"
        | "jobs"
        | "cronjobs" => &["all"],
        _ => &[],
    }
}

fn subresource(resource: &Resource, name: &str, release: Release) -> Option<Value> {
    let evictions = if release.minor >= 22 { "v1" } else { "v1beta1" };
    let (kind, group, version, verbs): (_, _, _, &[&str]) = match name {
        "scale" => ("Scale", "autoscaling", "v1", &["get", "patch", "update"]),
        "eviction" => ("Eviction", "policy", evictions, &["create"]),
        "binding" => ("Binding", "", "", &["create"]),
        "log" => (resource.kind, "", "", &["get"]),
        "finalize" => (resource.kind, "", "", &["update"]),
        "resize" if release.minor < 33 => return None,
        _ => (resource.kind, "", "", &["get", "patch", "update"]),
    };
    let mut entry = json!({
        "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
        "kind": kind, "verbs": verbs,
    });
    if !version.is_empty() {
        entry["group"] = json!(group);
        entry["version"] = json!(version);
    }
    Some(entry)
}

/// The paths of a version with the parameters that say what its patches take; schemas are any object.
fn openapi(group: &str, version: &str, release: Release) -> Value {
    let prefix = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let mut paths = serde_json::Map::new();
    let mut schemas = serde_json::Map::new();
    for resource in in_version(release, group, version) {
        let place = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
        let operation = json!({
            "parameters": [query("dryRun"), query("fieldManager"), query("fieldValidation")],
            "x-kubernetes-group-version-kind": kind,
        });
        paths.insert(
            format!("{prefix}{place}/{}/{{name}}", resource.plural),
            json!({"patch": operation}),
        );
        let schema = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-group-version-kind": [kind],
        });
        schemas.insert(format!("double.{}", resource.kind), schema);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": format!("v1.{}.2", release.minor)},
        "paths": paths, "components": {"schemas": schemas},
    })
}
