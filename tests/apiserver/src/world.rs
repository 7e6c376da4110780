//! The whole state of a cluster as one value: what is stored, what the machines do, and the present.

use crate::clock;
use crate::controllers::{Controller, kubelet::Machine, lifecycle};
use crate::json::{name, namespace, set, text, uid};
use crate::resources::{Release, named};
use crate::store::{Key, Store};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A simulated cluster. The server has it behind a lock; [`crate::Double::with`] lends it to tests.
#[derive(Clone, Debug)]
pub struct World {
    /// What is stored.
    pub store: Store,
    /// The release that is played.
    pub release: Release,
    /// The present.
    pub now: Timestamp,
    /// The controllers that are at work.
    pub running: BTreeSet<Controller>,
    /// The machines by the name of their node.
    pub machines: BTreeMap<String, Machine>,
    /// How pods fare whose image contains a text, and which do not simply run. An annotation of the pod goes first.
    pub outcomes: Vec<(String, crate::controllers::containers::Outcome)>,
    pub(crate) lifecycle: lifecycle::Memory,
    /// The names of events by what they say of whom.
    said: HashMap<String, String>,
    /// The revision that each controller has looked at.
    pub(crate) looked_at: BTreeMap<Controller, u64>,
}

impl World {
    /// An empty cluster with the namespaces that every cluster has.
    pub(crate) fn new(release: Release, now: Timestamp) -> Self {
        let mut world = Self {
            store: Store::default(),
            release,
            now,
            running: BTreeSet::new(),
            machines: BTreeMap::new(),
            outcomes: Vec::new(),
            lifecycle: lifecycle::Memory::default(),
            said: HashMap::new(),
            looked_at: BTreeMap::new(),
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            world
                .create(named("namespaces"), "", namespace)
                .expect("an empty store takes its first namespaces");
        }
        let service = json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
        });
        world
            .create(named("services"), "default", service)
            .expect("an empty store takes its first service");
        world
    }

    /// An object by the plural name of its resource.
    pub fn get(&self, resource: &'static str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.store.get(resource, namespace, name).cloned()
    }

    /// Creates objects as a manifest has them: each with its `kind`, in its namespace or in `default`.
    pub fn apply_manifests(&mut self, objects: &[Value]) -> Result<(), crate::Refusal> {
        for object in objects {
            let kind = text(object, "/kind");
            let resource = crate::resources::RESOURCES
                .iter()
                .find(|resource| resource.kind == kind)
                .ok_or_else(|| crate::Refusal::bad_request(format!("no matches for kind \"{kind}\"")))?;
            let namespace = match (resource.namespaced, namespace(object)) {
                (false, _) => "",
                (true, "") => "default",
                (true, given) => given,
            };
            self.create(resource, namespace, object.clone())?;
        }
        Ok(())
    }

    /// Writes an object as a controller does that has just read it: status and all, without the checks of the API.
    pub(crate) fn write(&mut self, resource: &'static str, object: Value) {
        let key = Key::of(resource, &object);
        let unchanged = self
            .store
            .get(resource, &key.namespace, &key.name)
            .is_some_and(|stored| same_but_revision(stored, &object));
        if !unchanged {
            self.store.put(key, object);
        }
    }

    /// Reads an object, lets `change` change it, and writes it if it is another one then.
    pub fn change(
        &mut self,
        resource: &'static str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        if let Some(stored) = self.get(resource, namespace, name) {
            let mut object = Value::clone(&stored);
            change(&mut object);
            self.write(resource, object);
        }
    }

    /// Writes an event, or counts one up that says the same of the same object (k8s.io/client-go/tools/record).
    pub fn event(
        &mut self,
        about: (&'static str, &Value),
        kind: &str,
        reason: &str,
        message: &str,
        component: &str,
    ) {
        let (resource, object) = about;
        let now = clock::seconds(self.now);
        let space = match namespace(object) {
            "" => "default",
            given => given,
        };
        // The kubelet and the node controller call a node by its name where others have its uid.
        let about_uid = if resource == "nodes" {
            name(object)
        } else {
            uid(object)
        };
        let said = format!("{about_uid} {reason} {message}");
        let earlier = self
            .said
            .get(&said)
            .and_then(|event| self.store.get("events", space, event))
            .cloned();
        if let Some(earlier) = earlier {
            let mut event = Value::clone(&earlier);
            let count = crate::json::number(&event, "/count");
            set(&mut event, "/count", count + 1);
            set(&mut event, "/lastTimestamp", now);
            self.write("events", event);
            return;
        }
        let number = self.store.number();
        let known = named(resource);
        let event = json!({
            "metadata": {
                "name": format!("{}.{number:016x}", name(object)), "namespace": space,
                "uid": self.store.uid(), "creationTimestamp": now,
            },
            "involvedObject": {
                "kind": known.kind, "namespace": namespace(object), "name": name(object), "uid": about_uid,
                "apiVersion": known.preferred(self.release).map(crate::resources::Served::api_version),
            },
            "reason": reason, "message": message, "type": kind, "count": 1,
            "source": {"component": component}, "firstTimestamp": now, "lastTimestamp": now,
            "reportingComponent": component, "reportingInstance": "",
        });
        self.said.insert(said, name(&event).to_owned());
        self.write("events", event);
    }
}

/// Whether two objects say the same but for the revision they were written at.
pub(crate) fn same_but_revision(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return one == other;
    };
    let metadata = |object: &serde_json::Map<String, Value>| {
        let mut metadata = object.get("metadata").cloned().unwrap_or_default();
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove("resourceVersion");
        }
        metadata
    };
    metadata(one) == metadata(other)
        && one.len() == other.len()
        && one
            .iter()
            .filter(|(name, _)| *name != "metadata")
            .all(|(name, value)| other.get(name) == Some(value))
}
