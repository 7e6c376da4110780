//! `GET /metrics`, over plain HTTP. A few connections at a time, each with a deadline: a scraper that hangs costs nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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

use super::Draw;
use crate::listen;

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

/// Serves at `address` until `stop`. That it cannot takes nobody down: it is tried again.
pub async fn serve(address: SocketAddr, draw: Draw, stop: CancellationToken) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "metrics are served");
                return accept(&listener, &draw, &stop).await;
            }
            Err(error) => {
                warn!(%address, %error, "no metrics; tried again in {AGAIN:?}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

/// Serves whoever comes to `listener`.
pub async fn accept(listener: &TcpListener, draw: &Draw, stop: &CancellationToken) {
    listen::each(listener, AT_ONCE, stop, |stream| {
        let draw = Arc::clone(draw);
        async move {
            if timeout(DEADLINE, converse(stream, draw)).await.is_err() {
                debug!("a scrape was not over in time");
            }
        }
    })
    .await;
}

async fn converse(stream: TcpStream, draw: Draw) {
    let service = service_fn(move |request| {
        let draw = Arc::clone(&draw);
        async move { Ok::<_, Infallible>(answer(&request, draw).await) }
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

async fn answer(request: &Request<Incoming>, draw: Draw) -> Response<Full<Bytes>> {
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
    let drawn = tokio::task::spawn_blocking(move || draw()).await;
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
