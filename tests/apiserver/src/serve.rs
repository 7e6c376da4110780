//! Connections: TLS, HTTP/1.1, and what happens to a request on its way to the API (authentication, the record, faults, authorization).

use crate::access::User;
use crate::api::{self, Answer, Request};
use crate::faults::Disturbance;
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::shared::{Recorded, Shared, lock};
use crate::watch::Watch;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The longest request that is read, bytes (etcd takes 1.5 MiB, the API server 3).
const LONGEST: usize = 3 << 20;

/// Accepts connections until `down` says otherwise; then all of them are closed at once, as those of a server that was killed are.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    listener: TcpListener,
    mut down: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = down.wait_for(|down| *down) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(Arc::clone(&shared), tls.clone(), stream));
                }
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, tls: Option<TlsAcceptor>, stream: TcpStream) {
    // A client that goes away is no error of the double's.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return speak(shared, stream, None).await;
    };
    if let Ok(stream) = tls.accept(stream).await {
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let user = certificate.and_then(|certificate| crate::tls::user(certificate));
        speak(shared, stream, user).await;
    }
}

async fn speak(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin, certificate: Option<User>) {
    let service = service_fn(|request| {
        let (shared, certificate) = (Arc::clone(&shared), certificate.clone());
        async move { handle(&shared, certificate.as_ref(), request).await }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Answers one request. An error closes the connection.
async fn handle(
    shared: &Arc<Shared>,
    certificate: Option<&User>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let asked = Asked::parse(
        parts.method.as_str(),
        parts.uri.path(),
        parts.uri.query().unwrap_or_default(),
    );
    let body = Limited::new(body, LONGEST)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    if asked.path.starts_with("/double/") {
        return crate::control::answer(shared, &asked, &body)
            .map(|answer| Response::new(full(answer.to_string())));
    }
    let header = |name| header(&parts.headers, name);
    let user = lock(&shared.access).user(header(AUTHORIZATION).as_deref(), certificate);
    let disturbance = lock(&shared.faults).meet(&asked, shared.clock.now());
    let mut refused = None;
    let revision = shared.read(|world| world.store.revision());
    let record = |code| {
        shared.record(recorded(
            shared,
            &asked,
            user.as_ref().ok(),
            (revision, &body),
            code,
        ));
    };
    match disturbance {
        Some(Disturbance::Wait(wait)) => tokio::time::sleep(wait).await,
        Some(Disturbance::Hang) => {
            record(0);
            let _ = shared.mended.subscribe().changed().await;
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "it hung until the faults changed",
            ));
        }
        Some(Disturbance::Reset) => {
            record(0);
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "a fault"));
        }
        Some(Disturbance::Refuse(refusal)) => refused = Some(refusal),
        None => {}
    }
    let answer = match (&user, refused) {
        (Err(refusal), _) => Err(refusal.clone()),
        (_, Some(refusal)) => Err(refusal),
        (Ok(user), None) => {
            let access = lock(&shared.access).clone();
            shared
                .read(|world| access.check(&world.store, user, &asked))
                .and_then(|()| {
                    let accept = header(ACCEPT).unwrap_or_default();
                    let content_type = header(CONTENT_TYPE).unwrap_or_default();
                    let (accept, content_type) = (accept.as_str(), content_type.as_str());
                    api::answer(
                        shared,
                        &Request {
                            asked: &asked,
                            user,
                            accept,
                            content_type,
                            body: &body,
                        },
                    )
                })
        }
    };
    let mut response = match answer {
        Ok(Answer::Object(code, object)) => json(code, &object),
        Ok(Answer::Text(text)) => text_of(200, text),
        Ok(Answer::Watch(watch)) => stream(*watch),
        Err(refusal) => refuse(&refusal),
    };
    record(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(
        "audit-id",
        HeaderValue::from_static("00000000-0000-4000-8000-000000000000"),
    );
    headers.insert("cache-control", HeaderValue::from_static("no-cache, private"));
    if lock(&shared.faults).fairness_headers {
        let uid = HeaderValue::from_static("5bc9bd0b-0b8f-4b7c-9a8e-5d0e1c2f3a4b");
        headers.insert("x-kubernetes-pf-flowschema-uid", uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", uid);
    }
    Ok(response)
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// A request as it is remembered; `seen`: the newest revision when it was asked, and its body.
pub(crate) fn recorded(
    shared: &Shared,
    asked: &Asked,
    user: Option<&User>,
    (revision, body): (u64, &Bytes),
    code: u16,
) -> Recorded {
    let mut recorded = Recorded {
        user: user.map(|user| user.name.clone()).unwrap_or_default(),
        verb: asked.verb.to_owned(),
        group: asked.group.clone(),
        resource: asked.resource.clone(),
        subresource: asked.subresource.clone(),
        namespace: asked.namespace.clone(),
        name: asked.name.clone(),
        path: asked.path.clone(),
        code,
        at: shared.clock.now(),
        revision,
        body: Value::Null,
    };
    if recorded.is_change() {
        recorded.body = serde_json::from_slice(body).unwrap_or_default();
    }
    recorded
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn answer(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(code: u16, object: &Value) -> Response<Body> {
    answer(code, "application/json", full(object.to_string()))
}

fn text_of(code: u16, text: String) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", full(text))
}

fn stream(watch: Watch) -> Response<Body> {
    answer(
        200,
        "application/json",
        StreamBody::new(unfold(watch, Watch::next)).boxed_unsync(),
    )
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = if refusal.plain {
        text_of(refusal.code, refusal.message.clone())
    } else {
        json(refusal.code, &refusal.status())
    };
    if let Some(seconds) = refusal.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
