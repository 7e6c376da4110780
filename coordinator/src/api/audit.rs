//! Tells of every command that came by way of a coordinator that follows: whose it is, and which way it took.

use std::task::{Context, Poll};

use blackstart_proto::leader::{OPERATOR, request};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::auth::{self, Caller};
use super::follower::{is_command, name};
use crate::events::{EventKind, Events, NewEvent, Severity};

/// Stands before the service `S`. Lets everything through: who may do what, the service decides.
#[derive(Debug, Clone)]
pub(crate) struct Audit<S> {
    service: S,
    events: Events,
}

impl<S> Audit<S> {
    pub(crate) fn new(service: S, events: Events) -> Self {
        Self { service, events }
    }

    fn note(&self, call: &http::Request<Body>) {
        let claimed = call.headers().get(OPERATOR).and_then(|name| name.to_str().ok());
        let Ok(Caller {
            operator,
            by_way_of: Some(by_way_of),
        }) = auth::caller(call.extensions(), claimed)
        else {
            return;
        };
        let (path, request) = (
            call.uri().path(),
            request(call.headers()).unwrap_or("without a name"),
        );
        if !is_command(path) {
            return;
        }
        let word = name(path);
        tracing::info!(
            operator,
            by_way_of,
            word,
            request,
            "an operator's command came by way of another coordinator"
        );
        let text = format!("{word} by {operator}, by way of {by_way_of} (request {request})");
        self.events
            .emit(NewEvent::new(Severity::Info, EventKind::Forwarded, text));
    }
}

impl<S: NamedService> NamedService for Audit<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Audit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        self.note(&call);
        self.service.call(call)
    }
}
