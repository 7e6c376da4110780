//! The line to a coordinator, below the calls: gives each call a name, notes by which way its answer came, and asks again of
//! whoever leads now what was refused because the lead has changed.
//!
//! What a coordinator refuses because it does not lead was not done, so it may be asked again. What was sent and not answered is
//! never sent again, but for the start of a cold start: the leader knows it by its name, and begins it once.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use blackstart_proto::leader::{LEADER, REQUEST, Route};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::find::{Found, LOOK_AGAIN, Wanted, search};
use crate::settings::{Connection, Shows};

type StdError = Box<dyn Error + Send + Sync>;

/// The way of the last answer; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Via {
    last: Arc<Mutex<Option<Route>>>,
}

impl Via {
    /// `None`: the leader itself answered.
    pub(crate) fn last(&self) -> Option<Route> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, route: Option<Route>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = route;
    }
}

/// Shows with each call what an operator has in place of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Bearer(pub(super) Shows);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.0.bearer().map_err(Status::permission_denied)? {
            request.metadata_mut().insert(TOKEN, token);
        }
        Ok(request)
    }
}

/// The header of tokens. RFC 6750, 2.1.
const TOKEN: &str = "authorization";

/// A channel that goes with the lead.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) connection: Connection,
    pub(super) via: Via,
}

/// A call that can be sent again.
struct Call {
    path: http::Uri,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Call {
    async fn of(request: http::Request<Body>) -> Result<Self, StdError> {
        let (mut head, body) = request.into_parts();
        let name = http::HeaderValue::from(rand::random::<u64>());
        head.headers.insert(REQUEST, name);
        Ok(Self {
            path: head.uri,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    fn request(&self) -> http::Request<Body> {
        let mut request = http::Request::new(Body::new(Full::new(self.body.clone())));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The leader knows it again by its name.
    fn may_be_repeated(&self) -> bool {
        self.path.path().ends_with("/StartColdStart")
    }
}

impl Line {
    async fn ask(mut self, request: http::Request<Body>) -> Result<http::Response<Body>, StdError> {
        let mut call = Call::of(request).await?;
        if let Some(token) = self.connection.shows.bearer()? {
            let token = http::HeaderValue::from_bytes(token.as_encoded_bytes())?;
            call.headers.insert(TOKEN, token);
        }
        // Whoever waits for the answer waits no longer than the time-out.
        let until = Instant::now() + self.connection.timeout.mul_f64(0.75);
        loop {
            let answer = self.send(&call).await;
            if Instant::now() >= until || !may_ask_again(&call, &answer) {
                let answer = answer?;
                self.via.note(Route::read(answer.headers()));
                return Ok(answer);
            }
            sleep(LOOK_AGAIN).await;
            let found = search(&self.connection, Wanted::Leader).await;
            if let Some((channel, _)) = found.ok().and_then(Found::best) {
                self.channel = channel;
            }
        }
    }

    async fn send(&mut self, call: &Call) -> Result<http::Response<Body>, tonic::transport::Error> {
        poll_fn(|cx| self.channel.poll_ready(cx)).await?;
        self.channel.call(call.request()).await
    }
}

fn may_ask_again(call: &Call, answer: &Result<http::Response<Body>, tonic::transport::Error>) -> bool {
    match answer {
        Ok(answer) if answer.headers().contains_key(LEADER) => true,
        Ok(answer) => {
            let status = Status::from_header_map(answer.headers());
            call.may_be_repeated() && status.is_some_and(|status| is_lost(status.code()))
        }
        Err(_) => call.may_be_repeated(),
    }
}

/// Nobody knows whether it was done.
#[allow(clippy::wildcard_enum_match_arm, reason = "of all codes these two")]
fn is_lost(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Unavailable)
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}
