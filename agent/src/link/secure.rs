//! The TLS under a connection to a coordinator. It is our own, because of the time that certificates are measured by: the later of the
//! clock and what was kept ([`blackstart_proto::clock_floor`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::tls::TlsMaterial;
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
    let config = ClientConfig::builder()
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
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.time_provider = Arc::<ClockFloor>::clone(clock);
    config
}

/// Connects, or says why not. Whoever answers is a coordinator by its certificate, whatever its address.
pub(crate) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, String> {
    let name = ServerName::try_from(COORDINATOR_DNS_NAME).map_err(|error| causes(&error))?;
    // Not `https`: the TLS is ours.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| causes(&error))?;
    let way = Way {
        address,
        name,
        tls: TlsConnector::from(Arc::new(config)),
    };
    match timeout(DIAL, tune(endpoint).connect_with_connector(way)).await {
        Ok(connected) => connected.map_err(|error| causes(&error)),
        Err(_) => Err(format!("no connection within {} s", DIAL.as_secs())),
    }
}

/// The way to one address.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Way {
    async fn go(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let connected = timeout(CONNECT, TcpStream::connect(self.address)).await;
        let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name, stream).await?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<http::Uri> for Way {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().go())
    }
}
