//! What the API server says when it does not do what was asked: `metav1.Status`, in the words of the real one
//! (k8s.io/apimachinery/pkg/api/errors/errors.go).

use crate::resources::Resource;
use serde_json::{Value, json};

/// A refusal: the status code, and what the body says.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    /// `reason`, a machine-readable word; empty for errors that have none.
    pub reason: &'static str,
    /// `message`, for people.
    pub message: String,
    /// `details`.
    pub details: Value,
    /// Seconds for the `Retry-After` header.
    pub retry_after: Option<u32>,
    /// Answered as plain text, as what stands before the API's handlers does it.
    pub plain: bool,
}

/// `pods`, or `deployments.apps`.
fn qualified(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

fn details(resource: &Resource, name: &str) -> Value {
    let mut details = json!({"kind": resource.plural});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    details
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String, details: Value) -> Self {
        Self {
            code,
            reason,
            message,
            details,
            retry_after: None,
            plain: false,
        }
    }

    /// Something that is answered as text, not as a Status.
    pub fn plain(code: u16, message: &str) -> Self {
        Self {
            plain: true,
            ..Self::new(code, "", message.to_owned(), Value::Null)
        }
    }

    /// 404 of an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(resource));
        Self::new(404, "NotFound", message, details(resource, name))
    }

    /// 404 of a path that nothing serves.
    pub fn no_such_path() -> Self {
        Self::plain(404, "404 page not found\n")
    }

    /// 409 of a name that is taken.
    pub fn exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(resource));
        Self::new(409, "AlreadyExists", message, details(resource, name))
    }

    /// 409 of a change that was made on an older version.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 for another reason.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(resource)
        );
        Self::new(409, "Conflict", message, details(resource, name))
    }

    /// 422: what is wrong with which field. `kind` is one of `FieldValueRequired`, `FieldValueInvalid`, `FieldValueForbidden`.
    pub fn invalid(resource: &Resource, name: &str, field: &str, kind: &'static str, what: &str) -> Self {
        let shown = if resource.group.is_empty() {
            resource.kind.to_owned()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        let message = format!("{shown} \"{name}\" is invalid: {field}: {what}");
        let mut details = details(resource, name);
        details["kind"] = json!(resource.kind);
        details["causes"] = json!([{"reason": kind, "message": what, "field": field}]);
        Self::new(422, "Invalid", message, details)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), Value::Null)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".into(), Value::Null)
    }

    /// 403; `why` is what comes after `is forbidden: `.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let who = qualified(resource);
        let message = if name.is_empty() {
            format!("{who} is forbidden: {why}")
        } else {
            format!("{who} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message, details(resource, name))
    }

    /// 403 of a path that is no resource.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        Self::new(403, "Forbidden", message, json!({}))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".into();
        Self::new(405, "MethodNotAllowed", message, json!({}))
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json".into();
        Self::new(406, "NotAcceptable", message, json!({}))
    }

    /// 415 of a patch.
    pub fn unsupported_patch() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json";
        Self::new(415, "UnsupportedMediaType", message.into(), json!({}))
    }

    /// 415 of another body: the real one takes YAML and protobuf as well.
    pub fn unsupported_body() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: application/json";
        Self::new(415, "UnsupportedMediaType", message.into(), json!({}))
    }

    /// 410 of a watch from a revision that was compacted away.
    pub fn too_old(wanted: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {wanted} ({oldest})");
        Self::new(410, "Expired", message, Value::Null)
    }

    /// 504 of a list from a revision that the server has not come to: of another server, or from before a restore.
    pub fn too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        let refusal = Self::new(504, "Timeout", format!("Timeout: {message}"), details);
        Self {
            retry_after: Some(1),
            ..refusal
        }
    }

    /// 410 of a continue token that was compacted away.
    pub fn continue_expired() -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
                       a new list without the continue parameter.";
        Self::new(410, "Expired", message.into(), Value::Null)
    }

    /// 429 of an eviction that a disruption budget does not allow (pkg/registry/core/pod/storage/eviction.go).
    pub fn disruption_budget(why: &str, retry_after: Option<u32>) -> Self {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.".into();
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        if let Some(seconds) = retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        Self {
            retry_after,
            ..Self::new(429, "TooManyRequests", message, details)
        }
    }

    /// 429 of priority and fairness or of the limit of requests in flight, which both answer in plain text
    /// (k8s.io/apiserver/pkg/server/filters/maxinflight.go).
    pub fn too_many_requests(retry_after: u32) -> Self {
        let answer = Self::plain(429, "Too many requests, please try again later.\n");
        Self {
            retry_after: Some(retry_after),
            ..answer
        }
    }

    /// 500 with what went wrong, as errors of etcd come through.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message.into(), Value::Null)
    }

    /// 503.
    pub fn unavailable() -> Self {
        let message = "the server is currently unable to handle the request".into();
        Self {
            retry_after: Some(1),
            ..Self::new(503, "ServiceUnavailable", message, json!({}))
        }
    }

    /// 504.
    pub fn timeout() -> Self {
        let message =
            "Timeout: request did not complete within requested timeout - context deadline exceeded".into();
        Self::new(504, "Timeout", message, json!({}))
    }

    /// The body.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
