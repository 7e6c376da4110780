//! One GET of a health endpoint.
//!
//! HTTPS is spoken without verifying the certificate, as the kubelet's own HTTPS probes do: an API server's certificate
//! names the cluster's addresses and comes from the cluster's authority, a probe of the loopback address knows neither, and
//! an expired certificate must not make a server that runs look dead. Nothing secret is sent, and of the answer only
//! the status is taken.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::HttpTarget;
use crate::signal::ProbeOutcome;

/// No more of an answer's head is read, bytes.
const MAX_HEAD: usize = 16 << 10;

/// Asks once; ends within `deadline`.
pub(crate) async fn probe(target: &HttpTarget, tls: &Arc<ClientConfig>, deadline: Duration) -> ProbeOutcome {
    match timeout(deadline, ask(target, tls)).await {
        Ok(Ok(200)) => ProbeOutcome::Healthy,
        Ok(Ok(status)) => ProbeOutcome::Unhealthy { status },
        Ok(Err(outcome)) => outcome,
        Err(_) => ProbeOutcome::TimedOut,
    }
}

async fn ask(target: &HttpTarget, tls: &Arc<ClientConfig>) -> Result<u16, ProbeOutcome> {
    let stream = TcpStream::connect(target.address)
        .await
        .map_err(|error| cut("connect", &error))?;
    if !target.tls {
        return exchange(stream, target).await;
    }
    let name = ServerName::IpAddress(target.address.ip().into());
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await
        .map_err(|error| cut("TLS handshake", &error))?;
    exchange(stream, target).await
}

async fn exchange<S>(stream: S, target: &HttpTarget) -> Result<u16, ProbeOutcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(&target.path)
        .header(HOST, target.address.to_string())
        .header(
            USER_AGENT,
            concat!("blackstart-agent/", env!("CARGO_PKG_VERSION")),
        )
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ProbeOutcome::Unobservable {
            why: format!("path {}: {error}", target.path),
        })?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let response = pin!(sender.send_request(request));
    let answer = match select(response, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The server closes as soon as it has answered.
        Either::Right((_, response)) => response.await,
    };
    answer
        .map(|response| response.status().as_u16())
        .map_err(|error| failed(&error))
}

/// Whether an error of the transport tells something about the target.
fn cut(doing: &str, error: &io::Error) -> ProbeOutcome {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    if kind == Kind::TimedOut {
        ProbeOutcome::TimedOut
    } else if matches!(
        kind,
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::UnexpectedEof
    ) {
        ProbeOutcome::Refused
    } else {
        ProbeOutcome::Unobservable {
            why: format!("{doing}: {error}"),
        }
    }
}

fn failed(error: &hyper::Error) -> ProbeOutcome {
    let source = std::error::Error::source(error);
    if let Some(error) = source.and_then(|source| source.downcast_ref::<io::Error>()) {
        return cut("HTTP", error);
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return ProbeOutcome::Refused;
    }
    ProbeOutcome::Unobservable {
        why: format!("{error}; is `https` set as the endpoint speaks?"),
    }
}

/// A client that takes any certificate.
pub(crate) fn tls_of_probes() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
