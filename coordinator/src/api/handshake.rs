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
//! Who shows no certificate, where that is allowed at all so that nodes can join, or one that is revoked, is a visitor: there are
//! [`VISITORS`] at most, [`OF_AN_ADDRESS`] of them from one address, each for [`VISIT`] at most, or for as long as an operator's token is good
//! ([`super::visits`]). So they keep no room from the fleet, and one who stays keeps no other from joining.
//!
//! TLS 1.3 and nothing older: both ends are ours. So there is no version and no cipher to talk anybody down to.
//!
//! There are no session tickets: an agent reads its certificate anew for each connection, and begins with an empty memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::line::{HTTP2, LINE};
use blackstart_proto::tls::{TlsMaterial, VERSIONS};
use futures_util::stream::{Stream, StreamExt, unfold};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::pin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use super::auth;
use super::listen::Connection;
use super::shown::{ShownCertificate, certificates};
use super::visits::{Visits, Vouched};
use crate::pki::Shown;
use crate::trust::gate::{Gate, Pass};

/// So many handshakes side by side: enough for round trips of tens of milliseconds, and few enough that one that has begun ends soon.
const SLOTS: usize = 128;
/// A slot is kept no longer, or 128 who say nothing would keep everybody out.
const PATIENCE: Duration = Duration::from_secs(1);
/// A handshake takes no longer in all; agents give up before.
const LONGEST: Duration = Duration::from_secs(10);
/// So many who have shown no certificate that counts, at once.
const VISITORS: usize = 64;
/// So many of them from one address. Nodes behind one address take turns: a visit that has a reason is short.
const OF_AN_ADDRESS: usize = 16;
/// A visitor's connection is closed after this: enough to join on a slow disk.
const VISIT: Duration = Duration::from_secs(30);

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

/// Where [`server_tls`] may be laxer than by default.
#[derive(Debug, Clone, Default)]
pub struct Lenience {
    /// By which certificates' times are measured; `None`: the clock.
    pub clock: Option<Arc<ClockFloor>>,
    /// Who shows no certificate is let in, to join or with a token; and is shown the authority's, which it knows by its digest.
    pub visitors: bool,
}

/// How a coordinator serves: with its own certificate, and only to those who show one of the same authority.
///
/// # Errors
/// They cannot be used.
pub fn server_tls(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    lenient_tls(material, Lenience::default())
}

/// [`server_tls`], laxer.
///
/// # Errors
/// As [`server_tls`].
pub fn lenient_tls(material: &TlsMaterial, lenience: Lenience) -> Result<Arc<ServerConfig>, TlsError> {
    let shown = ShownCertificate::new(material, lenience.visitors)?;
    replaceable_tls(material, lenience, Arc::new(shown))
}

/// The same with a certificate that may be replaced; of `material` whom it trusts.
///
/// # Errors
/// As [`server_tls`].
pub fn replaceable_tls(
    material: &TlsMaterial,
    lenience: Lenience,
    shown: Arc<ShownCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority's certificate", &material.ca)? {
        roots.add(authority)?;
    }
    let mut verifier = WebPkiClientVerifier::builder(Arc::new(roots));
    if lenience.visitors {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(TlsError::Authority)?;
    let mut config = ServerConfig::builder_with_protocol_versions(VERSIONS)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![LINE.to_vec(), HTTP2.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(clock) = lenience.clock {
        config.time_provider = clock;
    }
    Ok(Arc::new(config))
}

struct Handshakes<S> {
    incoming: S,
    acceptor: TlsAcceptor,
    slots: Arc<Semaphore>,
    reception: Reception,
    running: JoinSet<Option<Secured>>,
}

/// Where whoever has finished a handshake is told from a visitor.
#[derive(Debug, Clone)]
struct Reception {
    gate: Arc<Gate>,
    visits: Arc<Visits>,
    visitors: Arc<Visitors>,
}

/// Who visits, by address.
#[derive(Debug, Default)]
struct Visitors(Mutex<HashMap<Option<IpAddr>, usize>>);

impl Visitors {
    /// `None`: there are too many, or too many from there.
    fn enter(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Room> {
        let mut here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = here.get(&from).copied().unwrap_or_default();
        if here.values().sum::<usize>() >= VISITORS || of_it >= OF_AN_ADDRESS {
            return None;
        }
        here.insert(from, of_it + 1);
        drop(here);
        let visitors = Arc::clone(self);
        Some(Room { visitors, from })
    }
}

/// A visitor's, until it is dropped.
#[derive(Debug)]
struct Room {
    visitors: Arc<Visitors>,
    from: Option<IpAddr>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut here = self.visitors.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_it) = here.entry(self.from) {
            *of_it.get_mut() -= 1;
            if *of_it.get() == 0 {
                of_it.remove();
            }
        }
    }
}

impl Reception {
    /// `None`: there are too many visitors.
    fn receive(&self, stream: TlsStream<Connection>) -> Option<Secured> {
        let certificates = stream.get_ref().1.peer_certificates();
        // Who names nobody of ours is told so at each call.
        let shown = auth::first_of(certificates.unwrap_or_default()).ok();
        let (pass, visit) = match shown {
            Some(shown) if self.gate.why_not(&shown).is_none() => (Some(self.gate.enter(shown)), None),
            Some(_) | None => {
                let from = stream.get_ref().0.connect_info().remote_addr();
                let Some(room) = self.visitors.enter(from.map(|address| address.ip())) else {
                    tracing::debug!("there are too many visitors; a connection is closed");
                    return None;
                };
                if let Some(from) = from {
                    self.visits.enter(from);
                }
                let visit = Visit {
                    until: Box::pin(sleep(VISIT)),
                    from,
                    reception: self.clone(),
                    _room: room,
                };
                (None, Some(visit))
            }
        };
        Some(Secured(Box::new(Inner { stream, pass, visit })))
    }
}

/// The connections whose handshake is done. Ends when `incoming` does.
pub fn secured(
    incoming: impl Stream<Item = Connection> + Send + Unpin,
    tls: Arc<ServerConfig>,
    gate: Arc<Gate>,
    visits: Arc<Visits>,
) -> impl Stream<Item = Secured> + Send {
    let handshakes = Handshakes {
        incoming,
        acceptor: TlsAcceptor::from(tls),
        slots: Arc::new(Semaphore::new(SLOTS)),
        reception: Reception {
            gate,
            visits,
            visitors: Arc::default(),
        },
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
                    let reception = self.reception.clone();
                    self.running.spawn(shake(self.acceptor.clone(), connection, slot, reception));
                }
            }
        }
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    connection: Connection,
    slot: OwnedSemaphorePermit,
    reception: Reception,
) -> Option<Secured> {
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
        .ok()
        .and_then(|stream| reception.receive(stream))
}

/// A connection whose other end has shown its certificate, or is a visitor. Boxed: the tasks that serve it have room for it several times.
#[derive(Debug)]
pub struct Secured(Box<Inner>);

#[derive(Debug)]
struct Inner {
    stream: TlsStream<Connection>,
    /// Cut when its certificate is revoked.
    pass: Option<Arc<Pass>>,
    visit: Option<Visit>,
}

#[derive(Debug)]
struct Visit {
    until: Pin<Box<Sleep>>,
    from: Option<SocketAddr>,
    reception: Reception,
    _room: Room,
}

impl Visit {
    /// May it go on? An operator with a token stays for as long as that is good.
    fn stands(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let vouched = self.from.and_then(|from| self.reception.visits.vouched(from));
        if let Some(Vouched { operator, until }) = vouched {
            let peer = PeerIdentity::Operator(operator);
            if self.reception.gate.why_not_peer(&peer).is_some() {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the operator's certificates and tokens were revoked",
                ));
            }
            if self.until.deadline() != until {
                self.until.as_mut().reset(until);
            }
        }
        if self.until.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(from) = self.from {
            self.reception.visits.leave(from);
        }
    }
}

impl Secured {
    /// It is a session's line ([`blackstart_proto::line`]).
    pub(super) fn is_line(&self) -> bool {
        self.0.stream.get_ref().1.alpn_protocol() == Some(LINE)
    }

    /// The certificate of whoever is at the other end.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`: none was shown, or one that does not name exactly one of us.
    pub(super) fn shown(&self) -> Result<Shown, Status> {
        let certificates = self.0.stream.get_ref().1.peer_certificates();
        auth::first_of(certificates.unwrap_or_default())
    }
}

impl Inner {
    /// May it go on?
    fn stands(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(pass) = &self.pass {
            pass.stands(cx)?;
        }
        match &mut self.visit {
            Some(visit) => visit.stands(cx),
            None => Ok(()),
        }
    }
}

impl Connected for Secured {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.0.stream.connect_info()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.stands(cx)?;
        Pin::new(&mut self.0.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.stands(cx)?;
        Pin::new(&mut self.0.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.stands(cx)?;
        Pin::new(&mut self.0.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
