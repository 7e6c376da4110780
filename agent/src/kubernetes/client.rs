//! One request to the API server at a time, each on a connection of its own.
//!
//! There are a few an hour. A connection that is kept would cost memory, would not notice a server that is gone, and would
//! go on with a certificate that has been replaced.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::kubeconfig::{self, AccessError, Server};
use crate::config::Access;

/// No more of an answer is read, bytes: a node with its list of images takes some 100 KiB.
const LONGEST: usize = 2 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) path: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verb {
    Get,
    Create(Value),
    /// A strategic merge: lists of named things are merged by their names.
    Patch(Value),
}

/// How it was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// Of a GET that was granted; otherwise empty.
    pub(super) body: Bytes,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("an earlier look at its files, or for its name, has not ended")]
    Busy,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("TLS handshake")]
    Handshake(#[source] io::Error),
    #[error("HTTP")]
    Http(#[from] hyper::Error),
    #[error("request")]
    Request(#[from] hyper::http::Error),
    #[error("read the answer: {0}")]
    Body(String),
}

/// Speaks to one API server.
#[derive(Debug)]
pub(super) struct Client {
    access: Access,
    deadline: Duration,
    /// A disk or a resolver that hangs must not take a thread each time.
    looking: Arc<Semaphore>,
}

impl Client {
    pub(super) fn new(access: Access, deadline: Duration) -> Self {
        Self {
            access,
            deadline,
            looking: Arc::new(Semaphore::new(1)),
        }
    }

    /// Asks once; ends within the deadline.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        match timeout(self.deadline, Box::pin(self.ask(call))).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Late(self.deadline)),
        }
    }

    async fn ask(&self, call: &Call) -> Result<Answer, CallError> {
        let turn = Arc::clone(&self.looking)
            .try_acquire_owned()
            .map_err(|_| CallError::Busy)?;
        let access = self.access.clone();
        let server = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            kubeconfig::read(&access)
        })
        .await
        .map_err(|_| CallError::Busy)??;
        let stream = connect(&server).await.map_err(CallError::Connect)?;
        let stream = TlsConnector::from(Arc::clone(&server.tls))
            .connect(server.name.clone(), stream)
            .await
            .map_err(CallError::Handshake)?;
        let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let exchange = pin!(async {
            let response = sender.send_request(request(&server, call)?).await?;
            answer(response, call.verb == Verb::Get).await
        });
        match select(exchange, pin!(connection)).await {
            Either::Left((answered, _)) => answered,
            // The server closes as soon as it has answered.
            Either::Right((_, exchange)) => exchange.await,
        }
    }
}

async fn connect(server: &Server) -> io::Result<TcpStream> {
    TcpStream::connect(server.addresses.as_slice()).await
}

fn request(server: &Server, call: &Call) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let (method, body, kind) = match &call.verb {
        Verb::Get => (Method::GET, None, ""),
        Verb::Create(body) => (Method::POST, Some(body), "application/json"),
        Verb::Patch(body) => (
            Method::PATCH,
            Some(body),
            "application/strategic-merge-patch+json",
        ),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{}", server.prefix, call.path))
        .header(HOST, &server.authority)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header(
            USER_AGENT,
            concat!("blackstart-agent/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(bearer) = &server.bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    match body {
        Some(body) => request
            .header(CONTENT_TYPE, kind)
            .body(Full::from(body.to_string())),
        None => request.body(Full::default()),
    }
}

async fn answer(response: Response<Incoming>, wanted: bool) -> Result<Answer, CallError> {
    let status = response.status();
    // In seconds; the API server never sends a date.
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = if wanted && status.is_success() {
        Limited::new(response.into_body(), LONGEST)
            .collect()
            .await
            .map_err(|error| CallError::Body(error.to_string()))?
            .to_bytes()
    } else {
        Bytes::new()
    };
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}
