//! One question over one connection, within one deadline: no pool, no redirects, no repetition.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::{BmcError, shown};

/// No more of an answer is read, bytes: a system's is some ten thousand.
const LONGEST: usize = 256 << 10;

/// Whom to ask, and as whom.
#[derive(Debug)]
pub(super) struct Peer<'a> {
    pub(super) address: SocketAddr,
    pub(super) tls: &'a Arc<ClientConfig>,
    pub(super) authorization: HeaderValue,
    pub(super) timeout: Duration,
}

impl Peer<'_> {
    /// What is at a path.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, BmcError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Has something done.
    pub(super) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), BmcError> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()))
            .await
            .map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, BmcError> {
        let what = format!("{method} {}", shown(path));
        let asked = timeout(self.timeout, self.exchange(method, path, body, &what)).await;
        asked.unwrap_or_else(|_| {
            Err(BmcError::Unreachable(format!(
                "{what}: nothing within {:?}",
                self.timeout
            )))
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes, what: &str) -> Result<Bytes, BmcError> {
        let unreachable = |why: String| BmcError::Unreachable(why);
        let tcp = TcpStream::connect(self.address)
            .await
            .map_err(|error| unreachable(format!("connect to {}: {error}", self.address)))?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let tls = TlsConnector::from(Arc::clone(self.tls)).connect(name, tcp).await;
        let tls = tls.map_err(|error| refused(self.address, &error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| unreachable(format!("{what}: {error}")))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            // By DSP0266, "Request headers": of the protocol, not of the service.
            .header("OData-Version", "4.0")
            .header(
                USER_AGENT,
                concat!("blackstart-coordinator/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(body))
            .map_err(|error| BmcError::NotRedfish(format!("{what}: {error}")))?;
        let talk = Box::pin(async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| unreachable(format!("{what}: {error}")))?;
            heard(answer, what).await
        });
        // What is sent and received goes through the connection, which ends when the other side closes it.
        match select(talk, Box::pin(connection)).await {
            Either::Left((heard, _)) => heard,
            Either::Right((_, talk)) => talk.await,
        }
    }
}

async fn heard(answer: Response<Incoming>, what: &str) -> Result<Bytes, BmcError> {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return Err(BmcError::Denied(status.as_u16()));
    }
    if !status.is_success() {
        // Not followed: the credentials would go to wherever it leads.
        let more = answer
            .headers()
            .get(LOCATION)
            .and_then(|to| to.to_str().ok())
            .filter(|_| status.is_redirection())
            .map(|to| {
                format!(
                    ", to {}, which is not followed; if that is the machine's path, write it as `bmc.system` in the inventory",
                    shown(to)
                )
            });
        return Err(BmcError::Status {
            what: what.to_owned(),
            status: status.as_u16(),
            more: more.unwrap_or_default(),
        });
    }
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| BmcError::NotRedfish(format!("its answer to {what} cannot be read: {error}")))
}

/// Why there is no TLS with it.
fn refused(address: SocketAddr, error: &std::io::Error) -> BmcError {
    let of_tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)) => {
            BmcError::Certificate(format!(
                "it shows another certificate than `bmc.fingerprint` of the inventory says: {address} may be another machine, or have \
                 a new certificate (openssl s_client -connect {address} </dev/null | openssl x509 -noout -fingerprint -sha256)"
            ))
        }
        Some(rustls::Error::InvalidCertificate(why)) => {
            BmcError::Certificate(format!("its certificate is not good for {}: {why}", address.ip()))
        }
        Some(other) => BmcError::Unreachable(format!("TLS with {address}: {other}")),
        None => BmcError::Unreachable(format!("TLS with {address}: {error}")),
    }
}
