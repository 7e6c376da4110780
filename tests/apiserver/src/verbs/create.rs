//! Creating an object: what the server adds to it, and when it refuses (k8s.io/apiserver/pkg/registry/rest/create.go).

use super::defaults;
use crate::clock;
use crate::json::{at, is_terminating, items, name, set, take, text};
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::selector::label_selector;
use crate::store::Key;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;

impl World {
    /// Creates an object and returns it as it is stored.
    pub fn create(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Refusal> {
        if !object.is_object() {
            return Err(Refusal::bad_request("the object provided is not an object"));
        }
        let given = crate::json::namespace(&object);
        if resource.namespaced && !given.is_empty() && given != namespace {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Refusal::bad_request(message));
        }
        if name(&object).is_empty() {
            let prefix = text(&object, "/metadata/generateName").to_owned();
            if prefix.is_empty() {
                let what = "Required value: name or generateName is required";
                return Err(Refusal::invalid(
                    resource,
                    "",
                    "metadata.name",
                    "FieldValueRequired",
                    what,
                ));
            }
            let suffix = self.store.suffix();
            set(&mut object, "/metadata/name", format!("{prefix}{suffix}"));
        }
        let called = name(&object).to_owned();
        if resource.namespaced {
            self.may_create_in(resource, namespace, &called)?;
            set(&mut object, "/metadata/namespace", namespace);
        }
        if self.store.get(resource.plural, namespace, &called).is_some() {
            return Err(Refusal::exists(resource, &called));
        }
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
        ] {
            take(&mut object, &format!("/metadata/{field}"));
        }
        defaults::fill(resource, &mut object);
        if resource.plural == "services" && at(&object, "/spec/clusterIP").is_null() {
            let number = self.store.number();
            set(
                &mut object,
                "/spec/clusterIP",
                format!("10.96.{}.{}", number / 250 % 250, number % 250 + 2),
            );
        }
        validate(resource, &object)?;
        if resource.plural == "pods" {
            super::admission::admit(self, resource, namespace, &mut object)?;
        }
        set(&mut object, "/metadata/uid", self.store.uid());
        set(
            &mut object,
            "/metadata/creationTimestamp",
            clock::seconds(self.now),
        );
        if super::update::has_generation(resource, self.release) {
            set(&mut object, "/metadata/generation", 1);
        }
        initial_status(resource, &mut object);
        Ok(self
            .store
            .put(Key::new(resource.plural, namespace, &called), object))
    }

    fn may_create_in(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
        let namespaces = crate::resources::named("namespaces");
        let Some(stored) = self.store.get("namespaces", "", namespace) else {
            return Err(Refusal::not_found(namespaces, namespace));
        };
        if is_terminating(stored) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(Refusal::forbidden(resource, name, &why));
        }
        Ok(())
    }
}

/// What a new object's status begins with; nodes and events come with what their maker says of them.
fn initial_status(resource: &Resource, object: &mut Value) {
    let status = match resource.plural {
        "pods" => json!({"phase": "Pending", "qosClass": defaults::quality_of_service(object)}),
        "namespaces" => json!({"phase": "Active"}),
        "persistentvolumeclaims" | "persistentvolumes" => json!({"phase": "Pending"}),
        "services" => json!({"loadBalancer": {}}),
        "nodes" => return,
        _ if resource.has("status") => json!({}),
        _ => return,
    };
    set(object, "/status", status);
}

fn validate(resource: &Resource, object: &Value) -> Result<(), Refusal> {
    let called = name(object);
    let well_formed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let free = matches!(resource.group, "rbac.authorization.k8s.io");
    if !free
        && (called.len() > 253
            || !called.chars().all(well_formed)
            || !called.starts_with(|c: char| c.is_ascii_alphanumeric()))
    {
        let what = format!(
            "Invalid value: \"{called}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
             characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
             regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
        return Err(Refusal::invalid(
            resource,
            called,
            "metadata.name",
            "FieldValueInvalid",
            &what,
        ));
    }
    let template = match resource.plural {
        "pods" => "",
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs" => "/spec/template",
        _ => return Ok(()),
    };
    let containers = items(object, &format!("{template}/spec/containers"));
    let field = format!(
        "{}spec.containers",
        if template.is_empty() { "" } else { "spec.template." }
    );
    if containers.is_empty() {
        return Err(Refusal::invalid(
            resource,
            called,
            &field,
            "FieldValueRequired",
            "Required value",
        ));
    }
    for (number, container) in containers.iter().enumerate() {
        for part in ["name", "image"] {
            if text(container, &format!("/{part}")).is_empty() {
                let field = format!("{field}[{number}].{part}");
                return Err(Refusal::invalid(
                    resource,
                    called,
                    &field,
                    "FieldValueRequired",
                    "Required value",
                ));
            }
        }
    }
    let selector = at(object, "/spec/selector");
    if !template.is_empty() && resource.plural != "jobs" && !label_selector(selector, at(object, template)) {
        let what = "Invalid value: `selector` does not match template `labels`";
        return Err(Refusal::invalid(
            resource,
            called,
            "spec.template.metadata.labels",
            "FieldValueInvalid",
            what,
        ));
    }
    Ok(())
}
