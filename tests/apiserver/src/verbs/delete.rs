//! Deleting an object: at once, after a grace period that the kubelet ends, or when its finalizers are gone
//! (k8s.io/apiserver/pkg/registry/rest/delete.go, pkg/registry/core/pod/strategy.go).

use super::defaults::grace_seconds;
use crate::clock;
use crate::json::{at, default, is_terminating, items, number, set, text, uid};
use crate::refusal::Refusal;
use crate::resources::Resource;
use crate::store::Key;
use crate::world::World;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::sync::Arc;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds that the pod has to end, instead of what its spec says.
    pub grace_seconds: Option<i64>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation: String,
    /// The uid that the object must have.
    pub uid: String,
    /// The revision that the object must have.
    pub revision: String,
}

impl DeleteOptions {
    /// At once.
    pub fn now() -> Self {
        Self {
            grace_seconds: Some(0),
            ..Self::default()
        }
    }

    /// Reads the body of a request.
    pub fn parse(body: &Value) -> Self {
        Self {
            grace_seconds: at(body, "/gracePeriodSeconds").as_i64(),
            propagation: text(body, "/propagationPolicy").to_owned(),
            uid: text(body, "/preconditions/uid").to_owned(),
            revision: text(body, "/preconditions/resourceVersion").to_owned(),
        }
    }
}

impl World {
    /// Deletes an object. Returns it, and whether it is gone already.
    pub fn delete(
        &mut self,
        resource: &'static Resource,
        space: &str,
        called: &str,
        options: &DeleteOptions,
    ) -> Result<(Arc<Value>, bool), Refusal> {
        let stored = self
            .get(resource.plural, space, called)
            .ok_or_else(|| Refusal::not_found(resource, called))?;
        if !options.uid.is_empty() && options.uid != uid(&stored) {
            let why = format!(
                "the UID in the precondition ({}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                options.uid,
                uid(&stored)
            );
            return Err(Refusal::conflict(resource, called, &why));
        }
        let revision = text(&stored, "/metadata/resourceVersion");
        if !options.revision.is_empty() && options.revision != revision {
            let why = format!(
                "the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({revision}). \
                 The object might have been modified",
                options.revision
            );
            return Err(Refusal::conflict(resource, called, &why));
        }
        let mut object = Value::clone(&stored);
        match options.propagation.as_str() {
            "Orphan" => self.orphan(uid(&stored)),
            "Foreground" if self.has_dependents(uid(&stored)) => {
                default(&mut object, "/metadata/finalizers", json!([]));
                let finalizers = object
                    .pointer_mut("/metadata/finalizers")
                    .and_then(Value::as_array_mut);
                if let Some(finalizers) =
                    finalizers.filter(|list| !list.contains(&json!("foregroundDeletion")))
                {
                    finalizers.push(json!("foregroundDeletion"));
                }
            }
            _ => {}
        }
        let grace = if resource.plural == "pods" {
            grace_of(&object, options)
        } else {
            0
        };
        let waits = !items(&object, "/metadata/finalizers").is_empty()
            || resource.plural == "namespaces" && !items(&object, "/spec/finalizers").is_empty();
        let key = Key::new(resource.plural, space, called);
        if grace == 0 && !waits {
            self.store.remove(&key);
            return Ok((stored, true));
        }
        if is_terminating(&object) && grace >= number(&object, "/metadata/deletionGracePeriodSeconds") {
            return Ok((stored, false));
        }
        let end = self.now + SignedDuration::from_secs(grace);
        set(&mut object, "/metadata/deletionTimestamp", clock::seconds(end));
        set(&mut object, "/metadata/deletionGracePeriodSeconds", grace);
        if resource.plural == "namespaces" {
            set(&mut object, "/status/phase", "Terminating");
        }
        Ok((self.store.put(key, object), false))
    }

    fn has_dependents(&self, owner: &str) -> bool {
        crate::resources::RESOURCES.iter().any(|resource| {
            self.store
                .list(resource.plural, None)
                .any(|object| owned_by(object, owner))
        })
    }

    /// Makes the dependents of an owner nobody's.
    fn orphan(&mut self, owner: &str) {
        for resource in crate::resources::RESOURCES {
            for object in self
                .store
                .all(resource.plural)
                .iter()
                .filter(|object| owned_by(object, owner))
            {
                let mut orphan = Value::clone(object);
                let owners = orphan
                    .pointer_mut("/metadata/ownerReferences")
                    .and_then(Value::as_array_mut);
                if let Some(owners) = owners {
                    owners.retain(|reference| text(reference, "/uid") != owner);
                }
                self.write(resource.plural, orphan);
            }
        }
    }
}

/// Whether an object has an owner of that uid.
pub(crate) fn owned_by(object: &Value, owner: &str) -> bool {
    items(object, "/metadata/ownerReferences")
        .iter()
        .any(|reference| text(reference, "/uid") == owner)
}

/// A pod without a node, or one that has ended, has nothing to end.
fn grace_of(pod: &Value, options: &DeleteOptions) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    options.grace_seconds.unwrap_or_else(|| grace_seconds(pod)).max(0)
}
