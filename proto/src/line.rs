//! The line of a session: the messages of `AgentService.Session`, each behind its length, right over TLS.
//!
//! ```text
//!  length (4 bytes, big endian) ─ message (protobuf) ─ length ─ message ─ …
//!  agent ► AgentMessage     coordinator ► LineMessage
//!  a length of 0 is an empty message: an agent asks with it for a sign of life, and is answered with one
//! ```
//!
//! A session is one stream each way that lasts for weeks. Of all that HTTP/2 has for that (streams, windows, tables of headers) it needs
//! nothing, and pays for it with most of what a session costs a coordinator. Which of the two is spoken is agreed upon in the TLS handshake
//! (ALPN, RFC 7301), so that each end may be older than the other.
//!
//! Nothing is kept for a message but what has come of it: who announces a megabyte and sends a byte costs a byte.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tonic::{Code, Status};

use crate::leader::{elsewhere, leader_at};
use crate::v1::SessionEnd;

/// The name of this protocol in a TLS handshake.
pub const LINE: &[u8] = b"blackstart/1";
/// The name of HTTP/2, over which gRPC goes. RFC 9113, 3.1.
pub const HTTP2: &[u8] = b"h2";

/// Bytes before each message.
const HEAD: usize = 4;
/// So much is read at once; an ordinary report is less.
const PIECE: usize = 2 << 10;

/// Why nothing more can be read. The stream is of no use after it.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection broke.
    #[error("the connection broke")]
    Broke(#[source] io::Error),
    /// It ended within a message.
    #[error("the connection ended in the middle of a message")]
    Cut,
    /// It announces more than is taken.
    #[error("a message of {length} bytes is announced, and no more than {most} are taken")]
    Long {
        /// What was announced, bytes.
        length: usize,
        /// The most that is taken, bytes.
        most: usize,
    },
    /// It is none.
    #[error("what came is no message")]
    Garbled(#[source] prost::DecodeError),
}

impl From<LineError> for Status {
    fn from(error: LineError) -> Self {
        let text = match &error {
            LineError::Broke(cause) => format!("{error}: {cause}"),
            LineError::Garbled(cause) => format!("{error}: {cause}"),
            LineError::Cut | LineError::Long { .. } => error.to_string(),
        };
        match error {
            LineError::Broke(_) | LineError::Cut => Self::unavailable(text),
            LineError::Long { .. } => Self::out_of_range(text),
            LineError::Garbled(_) => Self::invalid_argument(text),
        }
    }
}

/// Messages that come in.
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    most: usize,
    /// What has come of the next message, with its length before it.
    come: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    /// `most`: no larger message is taken, bytes.
    pub fn new(stream: S, most: usize) -> Self {
        Self {
            stream,
            most,
            come: Vec::new(),
        }
    }

    /// The next message; `None`: the other end has said all. May be dropped and called anew at any time: nothing is lost.
    ///
    /// # Errors
    /// See [`LineError`].
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, LineError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next<M: Message + Default>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<M>, LineError>> {
        loop {
            let wanted = self.wanted()?;
            if self.come.len() == wanted {
                // Its memory is given back: the next may be hours away.
                let whole = std::mem::take(&mut self.come);
                let message = M::decode(&whole[HEAD..]).map_err(LineError::Garbled)?;
                return Poll::Ready(Ok(Some(message)));
            }
            if ready!(self.poll_piece(wanted, cx)).map_err(LineError::Broke)? == 0 {
                return Poll::Ready(if self.come.is_empty() {
                    Ok(None)
                } else {
                    Err(LineError::Cut)
                });
            }
        }
    }

    /// How long the next message is with its length, as far as that is known.
    fn wanted(&self) -> Result<usize, LineError> {
        let Some(head) = self.come.first_chunk::<HEAD>() else {
            return Ok(HEAD);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > self.most {
            let most = self.most;
            return Err(LineError::Long { length, most });
        }
        Ok(HEAD + length)
    }

    fn poll_piece(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let missing = (wanted - self.come.len()).min(PIECE);
        let mut piece = ReadBuf::new(&mut piece[..missing]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.come.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Reads what else is said and pays no heed to it, until the other end has said all. Who closes a connection with something unread
    /// in it resets it, and the other end may lose what it was told last.
    pub async fn hear_out(mut self) {
        let mut piece = [0; 256];
        while !matches!(self.stream.read(&mut piece).await, Ok(0) | Err(_)) {}
    }
}

/// Messages that go out.
#[derive(Debug)]
pub struct Outgoing<S> {
    stream: S,
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    /// On this stream.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// Says it. If this is dropped before it has ended, the stream is of no use any more.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, message: &impl Message) -> io::Result<()> {
        let length = message.encoded_len();
        let head = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut frame = Vec::with_capacity(HEAD + length);
        frame.extend_from_slice(&head.to_be_bytes());
        message.encode(&mut frame).map_err(io::Error::other)?;
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Says that all is said.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

impl From<&Status> for SessionEnd {
    fn from(status: &Status) -> Self {
        Self {
            code: i32::from(status.code()),
            reason: status.message().to_owned(),
            leader: leader_at(status).iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<SessionEnd> for Status {
    fn from(end: SessionEnd) -> Self {
        let code = Code::from_i32(end.code);
        let leader: Vec<_> = end.leader.iter().filter_map(|at| at.parse().ok()).collect();
        if code == Code::FailedPrecondition {
            elsewhere(end.reason, &leader)
        } else {
            Self::new(code, end.reason)
        }
    }
}

#[cfg(test)]
mod tests;
