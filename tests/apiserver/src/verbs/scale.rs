//! The `scale` subresource of workloads (`autoscaling/v1`).

use super::Part;
use crate::clock;
use crate::json::{at, items, members, name, namespace, number, set, text, uid};
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;

impl World {
    /// The scale of a workload.
    pub fn scale(&self, resource: &'static Resource, space: &str, called: &str) -> Result<Value, Refusal> {
        let object = self
            .get(resource.plural, space, called)
            .ok_or_else(|| Refusal::not_found(resource, called))?;
        let labels = members(&object, "/spec/selector/matchLabels");
        let selector: Vec<_> = labels
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        Ok(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": name(&object), "namespace": namespace(&object), "uid": uid(&object),
                "resourceVersion": text(&object, "/metadata/resourceVersion"),
                "creationTimestamp": at(&object, "/metadata/creationTimestamp"),
            },
            "spec": {"replicas": number(&object, "/spec/replicas")},
            "status": {"replicas": number(&object, "/status/replicas"), "selector": selector.join(",")},
        }))
    }

    /// Sets the replicas of a workload as a scale says, and returns the new scale.
    pub fn set_scale(
        &mut self,
        resource: &'static Resource,
        space: &str,
        called: &str,
        scale: &Value,
    ) -> Result<Value, Refusal> {
        let object = self
            .get(resource.plural, space, called)
            .ok_or_else(|| Refusal::not_found(resource, called))?;
        let replicas = number(scale, "/spec/replicas");
        if replicas < 0 {
            let what = format!("Invalid value: {replicas}: must be greater than or equal to 0");
            return Err(Refusal::invalid(
                resource,
                called,
                "spec.replicas",
                "FieldValueInvalid",
                &what,
            ));
        }
        let mut scaled = Value::clone(&object);
        set(&mut scaled, "/spec/replicas", replicas);
        let revision = at(scale, "/metadata/resourceVersion");
        if !revision.is_null() {
            set(&mut scaled, "/metadata/resourceVersion", revision.clone());
        }
        self.update(resource, space, called, scaled, Part::Main)?;
        self.scale(resource, space, called)
    }

    /// What a container wrote, as the double makes it up: one line a start.
    pub fn log(&self, space: &str, pod: &str) -> Result<String, Refusal> {
        let pods = crate::resources::named("pods");
        let object: Arc<Value> = self
            .get("pods", space, pod)
            .ok_or_else(|| Refusal::not_found(pods, pod))?;
        if items(&object, "/status/containerStatuses").is_empty() {
            let container = text(&object, "/spec/containers/0/name");
            let why =
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating");
            return Err(Refusal::bad_request(why));
        }
        let started = crate::clock::parse(at(&object, "/status/startTime"))
            .map(clock::seconds)
            .unwrap_or_default();
        Ok(format!("{started} {pod} started\n"))
    }
}
