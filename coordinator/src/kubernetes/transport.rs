//! Under kube's client: each address once, each with seconds; a budget; and bodies that fall silent are errors.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{BoxError, Service};

use super::access::{CONNECT, Endpoint};
use super::connection::{ANSWER, Inner, causes, lock};
use super::reads::Aside;

/// A body that says nothing for so long is over. A watch is ended by the server before that (see `cache`).
const SILENCE: Duration = Duration::from_secs(30);
/// See the module.
#[derive(Clone)]
pub(super) struct Transport {
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) inner: Arc<Inner>,
    pub(super) failed: Arc<Mutex<bool>>,
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Heard>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Heard>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.send(request).await })
    }
}

impl Transport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Heard>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        // What is read aside says nothing of the watch on the same path.
        let path = match parts.extensions.get::<Aside>() {
            Some(Aside) => String::new(),
            None => parts.uri.path().to_owned(),
        };
        let count = self.endpoints.len();
        let first = self.inner.current.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for turn in 0..count {
            let at = (first + turn) % count;
            let endpoint = &self.endpoints[at];
            let request = addressed(&parts, &endpoint.base, body.clone())?;
            self.inner.admit().await;
            match timeout(ANSWER + CONNECT, endpoint.http.request(request)).await {
                // Another master may still have its etcd.
                Ok(Ok(answer)) if is_lost(&answer) && turn + 1 < count => {
                    failures.push(format!("{}: {}", endpoint.base, answer.status()));
                }
                Ok(Ok(answer)) => {
                    self.inner.current.store(at, Ordering::Relaxed);
                    self.inner.hear(&path, &answer);
                    if answer.status() == StatusCode::UNAUTHORIZED {
                        *lock(&self.failed) = true;
                    }
                    return Ok(answer.map(|body| Heard::new(body, path, Arc::clone(&self.inner))));
                }
                Ok(Err(error)) => failures.push(format!("{}: {}", endpoint.base, causes(&error))),
                Err(_) => failures.push(format!("{}: no answer within {ANSWER:?}", endpoint.base)),
            }
        }
        *lock(&self.failed) = true;
        Err(failures.join("; ").into())
    }
}

/// It answers, and cannot serve.
fn is_lost(answer: &Response<Incoming>) -> bool {
    let status = answer.status();
    status.is_server_error() && !answer.headers().contains_key(RETRY_AFTER)
}

fn addressed(
    parts: &hyper::http::request::Parts,
    base: &Uri,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, BoxError> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let base = base.to_string();
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(format!("{}{path}", base.trim_end_matches('/')))
        .body(Full::new(body))?;
    *request.headers_mut() = parts.headers.clone();
    request.headers_mut().insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("blackstart-coordinator/", env!("CARGO_PKG_VERSION"))),
    );
    Ok(request)
}

/// An answer's body that is an error once it is silent for too long.
pub(super) struct Heard {
    body: Incoming,
    path: String,
    inner: Arc<Inner>,
    silence: Pin<Box<Sleep>>,
}

impl Heard {
    fn new(body: Incoming, path: String, inner: Arc<Inner>) -> Self {
        Self {
            body,
            path,
            inner,
            silence: Box::pin(sleep(SILENCE)),
        }
    }
}

impl hyper::body::Body for Heard {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.silence.as_mut().reset(Instant::now() + SILENCE);
                self.inner.beat(&self.path);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => {
                    Poll::Ready(Some(Err(format!("nothing was heard for {SILENCE:?}").into())))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
