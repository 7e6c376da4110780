//! `GET /metrics`, over plain HTTP. A few connections at a time, each with a deadline: a scraper that hangs costs nothing else.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use blackstart_proto::listen;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Meters, page};
use crate::local::window::Window;

/// What the text format is called.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// So many connections are served at a time; further ones wait for their turn.
const AT_ONCE: usize = 4;
/// A connection has so long for its request and its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// A request's head is not longer than this, bytes.
const MAX_HEAD: usize = 16 << 10;
/// An address that cannot be had is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("serve metrics on {address}")]
pub struct Trouble {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Serves at `address` until `stop`. That it cannot never takes the agent down: it is tried again.
pub async fn serve(address: SocketAddr, meters: Meters, window: Window, stop: CancellationToken) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "metrics are served");
                return accept(&listener, &meters, &window, &stop).await;
            }
            Err(source) => {
                let trouble = Trouble { address, source };
                warn!(
                    error = crate::causes::causes(&trouble),
                    "no metrics; tried again in {AGAIN:?}"
                );
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

/// Serves whoever comes to `listener`.
pub(super) async fn accept(
    listener: &TcpListener,
    meters: &Meters,
    window: &Window,
    stop: &CancellationToken,
) {
    listen::each(listener, AT_ONCE, stop, |stream| {
        let (meters, window) = (meters.clone(), window.clone());
        async move {
            if timeout(DEADLINE, converse(stream, meters, window)).await.is_err() {
                debug!("a scrape was not over in time");
            }
        }
    })
    .await;
}

async fn converse(stream: TcpStream, meters: Meters, window: Window) {
    let service = service_fn(move |request| {
        let (meters, window) = (meters.clone(), window.clone());
        async move { Ok::<_, Infallible>(answer(&request, meters, window).await) }
    });
    let served = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a scrape broke");
    }
}

async fn answer(request: &Request<Incoming>, meters: Meters, window: Window) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
        return response;
    }
    let drawn = tokio::task::spawn_blocking(move || page::page(&meters, &window)).await;
    let Ok(Ok(text)) = drawn else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be drawn\n");
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(FORMAT));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
