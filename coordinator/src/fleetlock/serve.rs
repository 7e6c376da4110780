//! The listener: a few connections at a time, each with a deadline, a bounded head and a bounded body.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::listen;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Operation, Refused, node, wish};
use crate::inventory::Inventory;
use crate::leader::Tenure;
use crate::permit::PermitsHandle;

/// So many connections are served at a time; further ones wait for their turn.
const AT_ONCE: usize = 32;
/// A connection has so long for its request and its answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// A request's head is not longer than this, bytes; hyper takes no less.
const MAX_HEAD: usize = 8 << 10;
/// Its body is not longer than this, bytes.
const MAX_BODY: usize = 4 << 10;
/// An address that cannot be had is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// What is behind it.
#[derive(Clone)]
pub struct Door {
    /// Whose node it is.
    pub inventory: Arc<Inventory>,
    /// Who may be away.
    pub permits: PermitsHandle,
    /// Nothing is answered that is not within it.
    pub tenure: Tenure,
    /// `None`: plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Serves until `stop`. That the address cannot be had takes no coordinator down: it is told and tried again.
pub async fn serve(address: std::net::SocketAddr, door: Door, stop: CancellationToken) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, tls = door.tls.is_some(), "FleetLock is served");
                return accept(&listener, &door, &stop).await;
            }
            Err(error) if !told => {
                told = true;
                tracing::error!(%address, %error, "FleetLock is not served; trying again (fleetlock.listen)");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn accept(listener: &TcpListener, door: &Door, stop: &CancellationToken) {
    listen::each(listener, AT_ONCE, stop, |stream| {
        let door = door.clone();
        async move {
            if timeout(DEADLINE, welcome(stream, door)).await.is_err() {
                tracing::debug!("a FleetLock request was not over in time");
            }
        }
    })
    .await;
}

async fn welcome(stream: TcpStream, door: Door) {
    match door.tls.clone() {
        None => converse(stream, door).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => converse(stream, door).await,
            Err(error) => tracing::debug!(%error, "a FleetLock client was refused"),
        },
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, door: Door) {
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(respond(answer(request, &door).await)) }
    });
    let served = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a FleetLock request broke");
    }
}

async fn answer(request: Request<Incoming>, door: &Door) -> Result<(), Refused> {
    let Some(operation) = Operation::at(request.uri().path()) else {
        return Err(Refused::new(
            404,
            "unknown_path",
            "FleetLock has /v1/pre-reboot and /v1/steady-state",
        ));
    };
    if request.method() != Method::POST {
        return Err(Refused::new(405, "bad_method", "FleetLock is spoken by POST"));
    }
    // Browsers do not send it to others by themselves.
    let header = request.headers().get("fleet-lock-protocol");
    if header.is_none_or(|value| value.as_bytes() != b"true") {
        return Err(Refused::new(
            400,
            "bad_header",
            "the header fleet-lock-protocol: true is missing",
        ));
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| Refused::new(400, "bad_request", format!("read the body: {error}")))?;
    let node = node(&door.inventory, &body.to_bytes())?;
    let stopping = || {
        Refused::new(
            503,
            "not_leading",
            "this coordinator is stopping, or does not lead",
        )
    };
    let wish = wish(node);
    let done = match operation {
        Operation::PreReboot => {
            let locked = door.permits.lock(wish).await.map_err(|_| stopping())?;
            locked.map_err(|why| Refused::new(409, "failed_lock", why))
        }
        Operation::SteadyState => {
            let how = "given back: steady state".to_owned();
            door.permits.give_back(wish.id, how).await.map_err(|_| stopping())
        }
    };
    // The last moment before the wire: this process may have been stopped meanwhile.
    if !door.tenure.holds() {
        return Err(stopping());
    }
    done
}

fn respond(answer: Result<(), Refused>) -> Response<Full<Bytes>> {
    let Err(refused) = answer else {
        return Response::new(Full::default());
    };
    let text = serde_json::json!({"kind": refused.kind, "value": refused.value}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() =
        StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
