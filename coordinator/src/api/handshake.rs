//! TLS on connections that came in: in the order in which they came, and not all of them at once.
//!
//! ```text
//!  listen ──connection──► a slot of SLOTS ──► handshake (a task each) ──► the server
//!                         given back at its end, or after PATIENCE
//! ```
//!
//! After a cut a whole fleet dials at once, and each agent gives up after five seconds. Were all handshakes done side by side, all
//! would end at about the same time; where that is more than five seconds, no agent gets in, all dial again, and so for ever. One after
//! the other, the first are in session while the others wait, and one whose agent has given up costs next to nothing.
//!
//! Whoever says nothing keeps others waiting for no longer than [`PATIENCE`]; its handshake goes on without a slot, and its
//! connection ends as [`listen`](super::listen) says.
//!
//! There are no session tickets: an agent reads its certificate anew for each connection, and begins with an empty memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::tls::TlsMaterial;
use futures_util::stream::{Stream, StreamExt, unfold};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::pin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use super::listen::Connection;

/// So many handshakes side by side: enough for round trips of tens of milliseconds, and few enough that one that has begun ends soon.
const SLOTS: usize = 128;
/// A slot is kept no longer, or 128 who say nothing would keep everybody out.
const PATIENCE: Duration = Duration::from_secs(1);
/// A handshake takes no longer in all; agents give up before.
const LONGEST: Duration = Duration::from_secs(10);

/// Certificate, key or authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not what it should be.
    #[error("read {what}")]
    Pem {
        /// Which of the three.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The authority's certificate can vouch for nobody.
    #[error("use the authority's certificate")]
    Authority(#[source] VerifierBuilderError),
    /// They do not go together, or are of a kind that is not known.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// How a coordinator serves: with its own certificate, and only to those who show one of the same authority.
///
/// # Errors
/// They cannot be used.
pub fn server_tls(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = |what, pem: &[u8]| {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        read.map_err(|source| TlsError::Pem { what, source })
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority's certificate", &material.ca)? {
        roots.add(authority)?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let own = certificates("the certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| TlsError::Pem {
        what: "the key",
        source,
    })?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier.map_err(TlsError::Authority)?)
        .with_single_cert(own, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

struct Handshakes<S> {
    incoming: S,
    acceptor: TlsAcceptor,
    slots: Arc<Semaphore>,
    running: JoinSet<Option<Secured>>,
}

/// The connections whose handshake is done. Ends when `incoming` does.
pub fn secured(
    incoming: impl Stream<Item = Connection> + Send + Unpin,
    tls: Arc<ServerConfig>,
) -> impl Stream<Item = Secured> + Send {
    let handshakes = Handshakes {
        incoming,
        acceptor: TlsAcceptor::from(tls),
        slots: Arc::new(Semaphore::new(SLOTS)),
        running: JoinSet::new(),
    };
    unfold(handshakes, async |mut handshakes| {
        let next = handshakes.next().await?;
        Some((next, handshakes))
    })
}

impl<S: Stream<Item = Connection> + Unpin> Handshakes<S> {
    async fn next(&mut self) -> Option<Secured> {
        loop {
            let Self { incoming, slots, .. } = self;
            let admitted = async {
                let slot = Arc::clone(slots).acquire_owned().await.ok()?;
                Some((incoming.next().await?, slot))
            };
            tokio::select! {
                Some(done) = self.running.join_next() => {
                    // One that failed has said why.
                    if let Ok(Some(stream)) = done {
                        return Some(stream);
                    }
                }
                admitted = admitted => {
                    let (connection, slot) = admitted?;
                    self.running.spawn(shake(self.acceptor.clone(), connection, slot));
                }
            }
        }
    }
}

async fn shake(acceptor: TlsAcceptor, connection: Connection, slot: OwnedSemaphorePermit) -> Option<Secured> {
    let accept = acceptor.accept(connection);
    pin!(accept);
    let mut done = timeout(PATIENCE, &mut accept).await;
    if done.is_err() {
        drop(slot);
        done = timeout(LONGEST.saturating_sub(PATIENCE), accept).await;
    }
    let Ok(done) = done else {
        tracing::debug!("a handshake took too long; the connection is closed");
        return None;
    };
    done.inspect_err(|error| tracing::debug!(%error, "a handshake failed"))
        .map(|stream| Secured(Box::new(stream)))
        .ok()
}

/// A connection whose other end has shown its certificate. Boxed: the tasks that serve it have room for it several times.
#[derive(Debug)]
pub struct Secured(Box<TlsStream<Connection>>);

impl Connected for Secured {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.0.connect_info()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
