//! Updating an object: whose change wins, what may not change, and what the server changes itself
//! (k8s.io/apiserver/pkg/registry/rest/update.go, pkg/apis/core/validation).

use crate::json::{at, is_terminating, items, name, namespace, number, set, take, text, uid};
use crate::refusal::Refusal;
use crate::resources::{Release, Resource};
use crate::store::Key;
use crate::world::{World, same_but_revision};
use serde_json::{Value, json};
use std::sync::Arc;

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
    /// The resources of a pod's containers (`pods/resize`, 1.33).
    Resize,
}

/// Whether the server counts the changes of the desired state in `metadata.generation`.
pub(super) fn has_generation(resource: &Resource, release: Release) -> bool {
    matches!(resource.group, "apps" | "batch" | "policy") || resource.plural == "pods" && release.minor >= 33
}

impl World {
    /// Replaces an object, or the part of it that the request is about, and returns what is stored then.
    pub fn update(
        &mut self,
        resource: &'static Resource,
        space: &str,
        called: &str,
        new: Value,
        part: Part,
    ) -> Result<Arc<Value>, Refusal> {
        if name(&new) != called {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({called})",
                name(&new)
            );
            return Err(Refusal::bad_request(message));
        }
        if !namespace(&new).is_empty() && namespace(&new) != space {
            let message = "the namespace of the object does not match the namespace on the request";
            return Err(Refusal::bad_request(message));
        }
        let Some(old) = self.get(resource.plural, space, called) else {
            // Leases and events are created by an update (AllowCreateOnUpdate).
            if matches!(resource.plural, "leases" | "events") && part == Part::Main {
                return self.create(resource, space, new);
            }
            return Err(Refusal::not_found(resource, called));
        };
        let revision = text(&new, "/metadata/resourceVersion");
        if revision.is_empty() && resource.plural == "leases" {
            let what = "Invalid value: 0: must be specified for an update";
            return Err(Refusal::invalid(
                resource,
                called,
                "metadata.resourceVersion",
                "FieldValueInvalid",
                what,
            ));
        }
        if !revision.is_empty() && revision != text(&old, "/metadata/resourceVersion") {
            return Err(Refusal::modified(resource, called));
        }
        if !uid(&new).is_empty() && uid(&new) != uid(&old) {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                uid(&new),
                uid(&old)
            );
            return Err(Refusal::conflict(resource, called, &why));
        }
        let mut merged = merge(resource, &old, new, part);
        validate(resource, &old, &merged, part)?;
        if has_generation(resource, self.release) && at(&old, "/spec") != at(&merged, "/spec") {
            set(
                &mut merged,
                "/metadata/generation",
                number(&old, "/metadata/generation") + 1,
            );
        }
        if same_but_revision(&old, &merged) {
            return Ok(old);
        }
        let key = Key::new(resource.plural, space, called);
        if is_terminating(&merged)
            && items(&merged, "/metadata/finalizers").is_empty()
            && items(&merged, "/spec/finalizers").is_empty()
            && number(&merged, "/metadata/deletionGracePeriodSeconds") == 0
        {
            self.store.remove(&key);
            return Ok(Arc::new(merged));
        }
        Ok(self.store.put(key, merged))
    }
}

/// The object that results of a write to one of its parts.
fn merge(resource: &Resource, old: &Value, mut new: Value, part: Part) -> Value {
    let mut merged = match part {
        Part::Status => {
            let mut merged = old.clone();
            set(&mut merged, "/status", at(&new, "/status").clone());
            // A kubelet annotates its node by the status (nodeStatusStrategy).
            if resource.plural == "nodes" {
                set(&mut merged, "/metadata", at(&new, "/metadata").clone());
            }
            merged
        }
        Part::Resize => {
            let mut merged = old.clone();
            set(&mut merged, "/spec", at(&new, "/spec").clone());
            merged
        }
        Part::Main => {
            if resource.has("status") {
                set(&mut new, "/status", at(old, "/status").clone());
            }
            super::defaults::fill(resource, &mut new);
            new
        }
    };
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "namespace",
    ] {
        let path = format!("/metadata/{field}");
        match at(old, &path) {
            kept if kept.is_null() => drop(take(&mut merged, &path)),
            kept => set(&mut merged, &path, kept.clone()),
        }
    }
    take(&mut merged, "/metadata/managedFields");
    merged
}

fn validate(resource: &Resource, old: &Value, new: &Value, part: Part) -> Result<(), Refusal> {
    let refuse =
        |field: &str, kind, what: &str| Err(Refusal::invalid(resource, name(old), field, kind, what));
    match (resource.plural, part) {
        ("pods", Part::Main) => {
            let kept = items(old, "/spec/tolerations")
                .iter()
                .all(|old| items(new, "/spec/tolerations").contains(old));
            if !kept || fixed_of_pod(old, "image") != fixed_of_pod(new, "image") {
                let what = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
                            `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                            additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be \
                            set to 1 if it was previously negative)";
                return refuse("spec", "FieldValueForbidden", what);
            }
            if !text(old, "/spec/nodeName").is_empty()
                && text(old, "/spec/nodeName") != text(new, "/spec/nodeName")
            {
                return refuse(
                    "spec.nodeName",
                    "FieldValueForbidden",
                    "Forbidden: field is immutable",
                );
            }
        }
        ("pods", Part::Resize) if fixed_of_pod(old, "resources") != fixed_of_pod(new, "resources") => {
            return refuse(
                "spec",
                "FieldValueForbidden",
                "Forbidden: only cpu and memory resources are mutable",
            );
        }
        ("deployments" | "replicasets" | "daemonsets", Part::Main)
            if at(old, "/spec/selector") != at(new, "/spec/selector") =>
        {
            let what = format!("Invalid value: {}: field is immutable", at(new, "/spec/selector"));
            return refuse("spec.selector", "FieldValueInvalid", &what);
        }
        ("statefulsets", Part::Main) => {
            let fixed = |object: &Value| {
                let mut spec = at(object, "/spec").clone();
                for field in [
                    "replicas",
                    "ordinals",
                    "template",
                    "updateStrategy",
                    "revisionHistoryLimit",
                    "persistentVolumeClaimRetentionPolicy",
                    "minReadySeconds",
                ] {
                    take(&mut spec, &format!("/{field}"));
                }
                spec
            };
            if fixed(old) != fixed(new) {
                let what = "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                            'template', 'updateStrategy', 'revisionHistoryLimit', \
                            'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
                return refuse("spec", "FieldValueForbidden", what);
            }
        }
        _ => {}
    }
    Ok(())
}

/// What of a pod's spec may not change but for one field of its containers.
fn fixed_of_pod(pod: &Value, but: &str) -> Value {
    let mut spec = at(pod, "/spec").clone();
    for field in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "nodeName",
    ] {
        take(&mut spec, &format!("/{field}"));
    }
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            set(container, &format!("/{but}"), json!(null));
        }
    }
    spec
}
