//! What a coordinator that follows does with what operators ask of it.
//!
//! ```text
//!  operator ──mTLS──► call: kept? live? command?
//!                       │ every one is asked of the leader first, with the operator's name (forward)
//!                       │      └──mTLS, as a coordinator──► leader ──► answer, with the way that it took
//!                       ▼ the leader cannot be reached, or there is none
//!                     kept:    answered from the copy of the store, with its age
//!                     live:    refused; nothing that is stored tells it
//!                     command: refused as not done; or, once it has been sent, told as not known. Never sent twice
//! ```
//!
//! The leader is asked first, though the copy would do for some: what a run waits for, and who is in session, only the leader
//! knows, and half an answer is worse than one that takes a millisecond more. What a coordinator forwards is answered by a
//! leader or refused: nothing is forwarded twice.

mod call;
mod forward;
mod kept;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::leader::{OPERATOR, Route, Way, elsewhere};
use http_body_util::{BodyExt, Limited};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::ClientTlsConfig;

use self::call::{Call, Kind};
pub(in crate::api) use self::call::{is_command, name};
use self::forward::{Forwarded, forward};
pub(crate) use self::kept::Kept;
use super::auth;
use super::elsewhere::refusal;
use super::fleet_service::MAX_MESSAGE;
use crate::leader::Seen;

/// Stands in for the services that operators call.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
}

/// It, in place of the service `S`.
#[derive(Debug)]
pub(crate) struct InPlaceOf<S> {
    shared: Arc<Shared>,
    service: PhantomData<fn() -> S>,
}

// Derived, it would want `S: Clone`.
impl<S> Clone for InPlaceOf<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            service: PhantomData,
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// This coordinator's own name.
    name: String,
    /// How it shows itself to the leader.
    tls: ClientTlsConfig,
    seen: watch::Receiver<Seen>,
    kept: Kept,
}

impl Follower {
    pub(crate) fn new(name: String, tls: ClientTlsConfig, seen: watch::Receiver<Seen>, kept: Kept) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                tls,
                seen,
                kept,
            }),
        }
    }

    /// For one of the services.
    pub(crate) fn of<S: NamedService>(&self) -> InPlaceOf<S> {
        InPlaceOf {
            shared: Arc::clone(&self.shared),
            service: PhantomData,
        }
    }
}

impl<S: NamedService> NamedService for InPlaceOf<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for InPlaceOf<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}

impl Shared {
    async fn answer(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let operator = self.operator(&request)?;
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_MESSAGE)
            .collect()
            .await
            .map_err(|error| Status::invalid_argument(format!("the request could not be read: {error}")))?;
        let call = Call::new(head, body.to_bytes(), operator);
        let seen = self.seen.borrow().clone();
        let Some(leader) = &seen.leader else {
            return match call.kind() {
                Kind::Kept => self.by_store(call, &refusal(&seen)).await,
                Kind::Live | Kind::Command => Err(refusal(&seen)),
            };
        };
        let (not_done, why) = match forward(&self.tls, leader, &call).await {
            Forwarded::Answered(mut answer) => {
                let way = Way::Forwarded(leader.name.clone());
                self.route(way).write(answer.headers_mut());
                return Ok(answer);
            }
            Forwarded::NotDone(why) => (true, why),
            Forwarded::NotKnown(why) => (false, why),
        };
        let (name, leads, what) = (&self.name, &leader.name, call.name());
        tracing::warn!(
            call = what,
            leader = leads,
            not_done,
            why,
            "an operator's call was not answered by the leader"
        );
        let addresses = &leader.addresses;
        match (call.kind(), not_done) {
            (Kind::Kept, _) => {
                let refused = elsewhere(
                    format!("{leads} leads and was not reached from {name}: {why}"),
                    addresses,
                );
                self.by_store(call, &refused).await
            }
            (Kind::Live, _) => Err(elsewhere(
                format!(
                    "{leads} leads and was not reached from {name}: {why}; only the leader knows this. From the store are answered: clusters, nodes, runs, holds, storms, permits"
                ),
                addresses,
            )),
            (Kind::Command, true) => Err(elsewhere(
                format!(
                    "not done: {leads} leads and was not reached from {name}: {why}. Give the command again once `blackstart get coordinators` names a leader that can be reached"
                ),
                addresses,
            )),
            (Kind::Command, false) => Err(Status::unknown(format!(
                "not known whether it was done: {name} passed the command {} on to {leads}, which leads, and got no answer: {why}",
                call.request()
            ))),
        }
    }

    /// Who asks. What another coordinator forwards is not forwarded again.
    fn operator(&self, request: &http::Request<Body>) -> Result<String, Status> {
        let claimed = request.headers().get(OPERATOR);
        let claimed = claimed.map(|claimed| claimed.to_str().unwrap_or_default());
        match (auth::peer(request.extensions())?, claimed) {
            (PeerIdentity::Coordinator(_), Some(_)) => Err(refusal(&self.seen.borrow())),
            (PeerIdentity::Coordinator(_) | PeerIdentity::Operator(_) | PeerIdentity::Node(_), _) => {
                auth::caller(request.extensions(), claimed).map(|caller| caller.operator)
            }
        }
    }

    fn route(&self, way: Way) -> Route {
        Route {
            follower: self.name.clone(),
            way,
        }
    }

    /// `otherwise`: what is said if there is no copy of the store.
    async fn by_store(&self, call: Call, otherwise: &Status) -> Result<http::Response<Body>, Status> {
        let (mut answer, age) = self.kept.answer(call).await.map_err(|why| {
            let text = format!("{}; {why}", otherwise.message());
            let addresses = blackstart_proto::leader::leader_at(otherwise);
            elsewhere(text, &addresses)
        })?;
        self.route(Way::Store(age)).write(answer.headers_mut());
        Ok(answer)
    }
}
