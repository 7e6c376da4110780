//! One call of an operator, so that it can be sent on, and answered here if that fails.

use blackstart_proto::leader::{OPERATOR, REQUEST};
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};

/// What may be done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A question that the store can answer as well, if not as fully.
    Kept,
    /// A question that only the leader can answer.
    Live,
    /// It changes something: sent once at most.
    Command,
}

/// Of a call by its name. What is not known is taken for a command.
fn kind(name: &str) -> Kind {
    match name {
        "ListClusters" | "ListNodes" | "GetNode" | "ListRuns" | "GetRun" | "ListHolds" | "ListStorms"
        | "ListPermits" | "ListRunbooks" | "ListRunbookRuns" | "GetRunbookRun" => Kind::Kept,
        "ListConditions"
        | "ListRemedies"
        | "WatchEvents"
        | "WatchRun"
        | "PlanColdStart"
        | "PlanRunbook"
        | "DiagnosePods"
        | "ListWorkloads"
        | "GetEtcd"
        | "VerifyEtcdSnapshots" => Kind::Live,
        _ => Kind::Command,
    }
}

/// Does it change something?
pub(in crate::api) fn is_command(path: &str) -> bool {
    kind(name(path)) == Kind::Command
}

/// The name of a call without that of its service; no two services have calls of one name.
pub(in crate::api) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// What an operator asked. Every call has one message, so all of it is here.
#[derive(Debug)]
pub(super) struct Call {
    head: http::request::Parts,
    body: Bytes,
    operator: String,
    request: http::HeaderValue,
}

impl Call {
    pub(super) fn new(head: http::request::Parts, body: Bytes, operator: String) -> Self {
        // One without a name gets one, so that it can be spoken of.
        let named = blackstart_proto::leader::request(&head.headers).and_then(|name| name.parse().ok());
        let made = || http::HeaderValue::from(rand::random::<u64>());
        Self {
            request: named.unwrap_or_else(made),
            head,
            body,
            operator,
        }
    }

    /// It is one of the service of this name.
    pub(super) fn is_of(&self, service: &str) -> bool {
        let path = self.head.uri.path().strip_prefix('/');
        path.and_then(|path| path.rsplit_once('/'))
            .is_some_and(|(of, _)| of == service)
    }

    pub(super) fn name(&self) -> &str {
        name(self.head.uri.path())
    }

    pub(super) fn kind(&self) -> Kind {
        kind(self.name())
    }

    pub(super) fn request(&self) -> &str {
        self.request.to_str().unwrap_or_default()
    }

    /// For the leader: of what came with it only what it needs, and for whom it is.
    pub(super) fn for_leader(&self) -> Option<http::Request<Body>> {
        let mut request = http::Request::new(Body::new(Full::new(self.body.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.head.uri.path().parse().ok()?;
        let headers = request.headers_mut();
        for key in ["content-type", "te", "grpc-timeout", "grpc-accept-encoding"] {
            if let Some(value) = self.head.headers.get(key) {
                headers.insert(key, value.clone());
            }
        }
        headers.insert(OPERATOR, self.operator.parse().ok()?);
        headers.insert(REQUEST, self.request.clone());
        Some(request)
    }

    /// As it came, with whom it came from.
    pub(super) fn for_ourselves(self) -> http::Request<Body> {
        http::Request::from_parts(self.head, Body::new(Full::new(self.body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = include_str!("../../../../proto/proto/blackstart/v1/fleet.proto");
    const RUNBOOKS: &str = include_str!("../../../../proto/proto/blackstart/v1/runbook.proto");

    #[test]
    fn every_call_that_asks_is_known_as_a_question_and_every_other_is_a_command() {
        let fleet = FLEET.split("service CoordinatorService").next().unwrap();
        let calls: Vec<_> = fleet
            .lines()
            .chain(RUNBOOKS.lines())
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .collect();
        assert!(calls.len() > 24, "{calls:?}");
        assert_eq!(
            calls.len(),
            calls.iter().collect::<std::collections::BTreeSet<_>>().len(),
            "two calls of one name"
        );
        for call in calls {
            let asks = ["List", "Get", "Watch", "Plan", "Diagnose", "Verify"]
                .iter()
                .any(|word| call.starts_with(word));
            let path = format!("/blackstart.v1.FleetService/{call}");
            assert_eq!(
                is_command(&path),
                !asks,
                "{call}: say in kind() what a follower may do with it"
            );
        }
    }
}
