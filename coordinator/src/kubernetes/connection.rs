//! The way to one cluster's API: kube's client over a transport of our own.
//!
//! ```text
//!  kube::Client ─► auth (token, read anew) ─► Transport ─► budget, Retry-After ─► address 1 (as the kubeconfig says; the VIP)
//!                                                   └─ not reached ─► address 2, 3, … (each master, since DNS and VIP may be down)
//! ```
//!
//! kube's own stack waits half a minute for a connection and repeats requests by itself. Here a request has seconds, each address is
//! tried once, and who repeats is the caller. The body of an answer that falls silent is an error, so that a watch on a server
//! that is gone ends. The kubeconfig is read anew after a failure, since certificates are replaced in place; programs that it names for
//! a token are not run.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use kube::client::{Body, ConfigExt};
use tokio::time::{Instant, sleep_until};
use tower::Layer;

pub use super::access::{Access, AccessError, Identity, PodIdentity};
use super::access::{endpoints, read};
use super::calls::{ApiCall, Wire};
use super::capabilities::GroupVersion;
use super::limits::Limits;
use super::rights::Lacking;
use super::transport::Transport;

/// An answer begins within this. Said to the server as well (`timeout`), so that it does nothing later.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// A kubeconfig that failed is not read again before this.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// No more of an answer to a change is read, bytes.
const LONGEST: usize = 4 << 20;
/// What a server that is overloaded and names no time is left alone for.
const OVERLOADED: Duration = Duration::from_secs(1);

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The object is not there.
    #[error("it is not there")]
    Gone,
    /// The object is another by now: look, and decide anew.
    #[error("it was changed meanwhile: {0}")]
    Conflict(String),
    /// Not now: a budget of disruptions does not allow it, or the server has too much to do.
    #[error("not now: {why}")]
    Throttled {
        /// Not to be asked again before this.
        after: Duration,
        /// What the server says.
        why: String,
    },
    /// The coordinator lacks a right.
    #[error("{0}")]
    Forbidden(Box<Lacking>),
    /// It will not be granted by being asked again soon.
    #[error("refused ({status}): {why}")]
    Refused {
        /// HTTP.
        status: u16,
        /// What the server says.
        why: String,
    },
    /// No server answered.
    #[error("no API server answered: {0}")]
    Unreachable(String),
}

/// The way to one cluster. Cheap to clone; all clones share budget and connections.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    access: Access,
    limits: Mutex<Limits>,
    /// When something was last heard on each path: of lists and watches.
    pulses: Mutex<HashMap<String, Instant>>,
    live: tokio::sync::Mutex<Option<Live>>,
    pub(super) current: AtomicUsize,
}

struct Live {
    client: kube::Client,
    made: Instant,
    failed: Arc<Mutex<bool>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Nothing is read or dialled yet.
    pub fn new(access: Access) -> Self {
        let limits = Limits::new(access.requests_per_second, Instant::now());
        Self {
            inner: Arc::new(Inner {
                access,
                limits: Mutex::new(limits),
                pulses: Mutex::default(),
                live: tokio::sync::Mutex::new(None),
                current: AtomicUsize::new(0),
            }),
        }
    }

    /// At most so many requests are sent in a second.
    pub(super) fn requests_per_second(&self) -> u32 {
        self.inner.access.requests_per_second
    }

    /// A client; made anew after a failure.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client, AccessError> {
        let mut live = self.inner.live.lock().await;
        if let Some(live) = &*live {
            let is_good = !*lock(&live.failed) || live.made.elapsed() < READ_AGAIN;
            if is_good {
                return Ok(live.client.clone());
            }
        }
        let config = read(&self.inner.access).await?;
        let failed = Arc::new(Mutex::new(false));
        let transport = Transport {
            endpoints: endpoints(&config, &self.inner.access)?.into(),
            inner: Arc::clone(&self.inner),
            failed: Arc::clone(&failed),
        };
        let unusable = |error: kube::Error| AccessError::Unusable(error.to_string());
        let client = match config.auth_layer().map_err(unusable)? {
            Some(auth) => kube::Client::new(auth.layer(transport), "default"),
            None => kube::Client::new(transport, "default"),
        };
        *live = Some(Live {
            client: client.clone(),
            made: Instant::now(),
            failed,
        });
        Ok(client)
    }

    /// When a list or watch of this path was last heard.
    pub(super) fn pulse(&self, path: &str) -> Option<Instant> {
        lock(&self.inner.pulses).get(path).copied()
    }

    /// So long the server still wants to be left alone.
    pub fn left_alone(&self, now: Instant) -> Option<Duration> {
        lock(&self.inner.limits).left_alone(now)
    }

    /// Makes a change, once.
    ///
    /// # Errors
    /// It was not made; or nobody answered, and it may have been.
    pub async fn perform(&self, call: &ApiCall, attachments: Option<&GroupVersion>) -> Result<(), CallError> {
        let unreachable = |why: String| CallError::Unreachable(why);
        let client = self
            .client()
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let Wire {
            method,
            path,
            content_type,
            body,
        } = call.wire(attachments);
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?timeout={}s", ANSWER.as_secs()))
            .header(hyper::header::CONTENT_TYPE, content_type)
            .header(hyper::header::ACCEPT, "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = client
            .send(request)
            .await
            .map_err(|error| unreachable(causes(&error)))?;
        let (parts, body) = answer.into_parts();
        if parts.status.is_success() {
            return Ok(());
        }
        let said = Limited::new(body, LONGEST).collect().await;
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // A budget of disruptions refuses with an object, and that is about the pod; priority and fairness with plain text, and that is
        // about us, whatever was asked.
        let is_plain = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&said).is_err();
        if parts.status == StatusCode::TOO_MANY_REQUESTS && is_plain {
            let wish = retry_after(parts.headers.get(RETRY_AFTER)).unwrap_or(OVERLOADED);
            lock(&self.inner.limits).leave_alone(wish, Instant::now());
        }
        let refused = refusal(parts.status, retry_after(parts.headers.get(RETRY_AFTER)), &said);
        // An admission hook that refuses says 403 as well; the authorizer's words name what the user cannot do.
        match &refused {
            CallError::Refused { status: 403, why } if why.contains(" cannot ") => {
                Err(CallError::Forbidden(Box::new(Lacking {
                    right: call.right(),
                    namespace: call.namespace().to_owned(),
                    said: why.clone(),
                })))
            }
            CallError::Gone
            | CallError::Conflict(_)
            | CallError::Throttled { .. }
            | CallError::Forbidden(_)
            | CallError::Refused { .. }
            | CallError::Unreachable(_) => Err(refused),
        }
    }
}

/// What an answer other than success means.
pub(super) fn refusal(status: StatusCode, retry_after: Option<Duration>, said: &[u8]) -> CallError {
    let said: serde_json::Value = serde_json::from_slice(said).unwrap_or_default();
    let causes = said["details"]["causes"].as_array();
    let causes = causes
        .into_iter()
        .flatten()
        .filter_map(|cause| cause["message"].as_str());
    let mut why = said["message"].as_str().unwrap_or(status.as_str()).to_owned();
    for cause in causes {
        why = format!("{why} ({cause})");
    }
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => CallError::Gone,
        StatusCode::CONFLICT => CallError::Conflict(why),
        StatusCode::TOO_MANY_REQUESTS => CallError::Throttled {
            // kubectl asks again after 5 s when a budget does not allow it.
            after: retry_after.unwrap_or(Duration::from_secs(5)),
            why,
        },
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => CallError::Throttled {
            after: retry_after.unwrap_or(OVERLOADED),
            why,
        },
        other => CallError::Refused {
            status: other.as_u16(),
            why,
        },
    }
}

impl Inner {
    /// Waits for the budget, and for as long as the server wants to be left alone.
    pub(super) async fn admit(&self) {
        loop {
            let taken = lock(&self.limits).take(Instant::now());
            match taken {
                Ok(()) => return,
                Err(until) => sleep_until(until).await,
            }
        }
    }

    pub(super) fn hear(&self, path: &str, answer: &Response<Incoming>) {
        let status = answer.status();
        if status.is_success() {
            return self.beat(path);
        }
        let wish = retry_after(answer.headers().get(RETRY_AFTER));
        // An eviction that a budget does not allow says 429 as well; that is about the pod, and `perform` tells them apart.
        let is_about_us = !path.ends_with("/eviction");
        if status == StatusCode::TOO_MANY_REQUESTS && is_about_us {
            lock(&self.limits).leave_alone(wish.unwrap_or(OVERLOADED), Instant::now());
        } else if status == StatusCode::SERVICE_UNAVAILABLE
            && let Some(wish) = wish
        {
            lock(&self.limits).leave_alone(wish, Instant::now());
        }
    }

    pub(super) fn beat(&self, path: &str) {
        lock(&self.pulses).insert(path.to_owned(), Instant::now());
    }
}

/// In seconds; an API server never sends a date.
fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    value?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error and what is behind it, which HTTP clients do not say in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}
