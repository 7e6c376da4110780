//! Incoming connections, with limits that hold before anybody has shown a certificate.
//!
//! Whoever connects costs a file descriptor. So connections are counted, and one that says nothing for a while is closed:
//! in an established one HTTP/2 pings see to it that something always comes, so this ends only those that are dead, or
//! never finished their handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{SelectAll, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// So many connections at once: what ten thousand nodes need twice, since those that a power loss left behind are known for dead only
/// after [`SILENT_CONNECTION`], and some for operators.
const CONNECTIONS: usize = 24_576;
/// After an `accept` that failed (no file descriptors left) there is a pause.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long a connection may say nothing.
pub const SILENT_CONNECTION: Duration = Duration::from_secs(30);

/// The connections that come in by any of the listeners. Never fails and never ends: an error of one `accept` must not
/// end the service of all.
pub fn incoming(listeners: Vec<TcpListener>) -> impl Stream<Item = Connection> + Send + Unpin {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut all = SelectAll::new();
    for listener in listeners {
        let permits = Arc::clone(&permits);
        all.push(Box::pin(futures_util::stream::unfold(
            (listener, permits),
            |(listener, permits)| async move {
                let connection = accept(&listener, &permits).await;
                Some((connection, (listener, permits)))
            },
        )));
    }
    all.boxed()
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Connection {
    loop {
        // Never closed, so never an error: then we wait, as for a permit.
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return Connection::new(stream, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed; trying again");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: Box::pin(sleep_until(Instant::now() + SILENT_CONNECTION)),
            _permit: permit,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, into) {
            self.silence.as_mut().reset(Instant::now() + SILENT_CONNECTION);
            return Poll::Ready(read);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
