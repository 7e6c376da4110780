//! The TLS under a connection to a coordinator. It is our own, because of the time that certificates are measured by: the later of the
//! clock and what was kept ([`blackstart_proto::clock_floor`]).

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::line::HTTP2;
use blackstart_proto::tls::{TlsMaterial, VERSIONS};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};

use crate::causes::causes;

/// For the TCP connection, and for it with the TLS handshake.
const CONNECT: Duration = Duration::from_secs(3);
const DIAL: Duration = Duration::from_secs(5);

/// How a node shows itself.
pub(super) fn client(material: &TlsMaterial, clock: &Arc<ClockFloor>) -> Result<ClientConfig, String> {
    let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&material.certificate).collect();
    let own = own.map_err(|error| format!("the certificate is not PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|error| format!("the key is not PEM: {error}"))?;
    let config = ClientConfig::builder_with_protocol_versions(VERSIONS)
        .with_root_certificates(roots(&material.ca)?)
        .with_client_auth_cert(own, key)
        .map_err(|error| format!("use the certificate and the key: {error}"))?;
    Ok(timed(config, clock))
}

/// The authorities in a PEM file.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem) {
        let authority =
            authority.map_err(|error| format!("the authority's certificate is not PEM: {error}"))?;
        roots
            .add(authority)
            .map_err(|error| format!("use the authority's certificate: {error}"))?;
    }
    Ok(roots)
}

/// The same, with HTTP/2, and measured by `clock`.
pub(crate) fn timed(mut config: ClientConfig, clock: &Arc<ClockFloor>) -> ClientConfig {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.time_provider = Arc::<ClockFloor>::clone(clock);
    config
}

/// Connects for calls, or says why not. Whoever answers is a coordinator by its certificate, whatever its address.
pub(crate) async fn connect(address: SocketAddr, config: ClientConfig) -> Result<Channel, String> {
    in_time(async { channel(address, reach(address, config).await?, |endpoint| endpoint).await }).await
}

/// What dialling comes to, within its time.
pub(super) async fn in_time<T>(dialling: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(DIAL, Box::pin(dialling)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(format!("no connection within {} s", DIAL.as_secs())),
    }
}

/// TCP with TLS on it.
pub(super) type Secured = Box<TlsStream<TcpStream>>;

/// TCP and TLS.
pub(super) async fn reach(address: SocketAddr, config: ClientConfig) -> Result<Secured, String> {
    let name = ServerName::try_from(COORDINATOR_DNS_NAME).map_err(|error| causes(&error))?;
    let Ok(connected) = timeout(CONNECT, TcpStream::connect(address)).await else {
        return Err(format!("no connection within {} s", CONNECT.as_secs()));
    };
    let secured = Box::pin(async {
        let stream = connected?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    });
    secured.await.map(Box::new).map_err(|error| causes(&error))
}

/// gRPC on a connection.
pub(super) async fn channel(
    address: SocketAddr,
    stream: Secured,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, String> {
    // Not `https`: the TLS is ours.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| causes(&error))?;
    let connected = tune(endpoint).connect_with_connector(Way(Some(stream))).await;
    connected.map_err(|error| causes(&error))
}

/// The one connection there is: whoever wants another dials anew.
struct Way(Option<Secured>);

impl Service<http::Uri> for Way {
    type Response = TokioIo<Secured>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .map(TokioIo::new)
                .ok_or_else(|| io::ErrorKind::NotConnected.into()),
        )
    }
}
