//! What is spoken on a connection: a session's line, or the same as a gRPC call with a coordinator that does not know of lines.

use std::error::Error;
use std::io;

use blackstart_proto::line;
use blackstart_proto::line::LineError;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::line_message::Body;
use rustls::AlertDescription;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::dial::Dialled;
use super::secure::Secured;

/// No larger message is taken, bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Why there is no session.
#[derive(Debug)]
pub(super) struct Refused {
    /// The coordinator's own words, or those of whoever broke the connection.
    pub(super) status: Status,
    /// By the coordinator's clock this node's certificate has ended. TLS 1.3 tells so only after the handshake.
    pub(super) certificate_ended: bool,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            certificate_ended: says_ended(&status),
            status,
        }
    }
}

impl From<LineError> for Refused {
    fn from(error: LineError) -> Self {
        Self {
            certificate_ended: says_ended(&error),
            status: error.into(),
        }
    }
}

/// Is a certificate that has ended among the causes?
fn says_ended(error: &(dyn Error + 'static)) -> bool {
    let ended = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    let mut next = Some(error);
    while let Some(cause) = next {
        // An I/O error does not name what it was made of among its sources.
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let within = within.and_then(|within| within.downcast_ref::<rustls::Error>());
        if within.or_else(|| cause.downcast_ref()) == Some(&ended) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What the coordinator says, one message after the other.
pub(super) enum Inbound {
    Call(Box<Streaming<wire::CoordinatorMessage>>),
    Line(Box<Line>),
}

/// A line in both directions.
pub(super) struct Line {
    incoming: line::Incoming<ReadHalf<Secured>>,
    /// Heard already.
    first: Option<wire::CoordinatorMessage>,
    /// Says what there is to say. Ends with this.
    _saying: JoinSet<()>,
}

impl Inbound {
    /// Opens a session. Its first message is among `messages`, and the coordinator has answered it when this returns.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn open(
        dialled: Dialled,
        messages: mpsc::Receiver<wire::AgentMessage>,
    ) -> Result<Self, Refused> {
        match dialled {
            Dialled::Channel(channel) => {
                let mut client = AgentServiceClient::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE);
                let call = client.session(ReceiverStream::new(messages)).await?;
                Ok(Self::Call(Box::new(call.into_inner())))
            }
            Dialled::Line(stream) => {
                let (read, write) = split(stream);
                let mut saying = JoinSet::new();
                saying.spawn(say(line::Outgoing::new(write), messages));
                let mut line = Line {
                    incoming: line::Incoming::new(read, MAX_MESSAGE),
                    first: None,
                    _saying: saying,
                };
                line.first = match line.incoming.next().await? {
                    Some(message) => Some(said(message)?),
                    None => return Err(Status::unavailable("the coordinator ended the session").into()),
                };
                Ok(Self::Line(Box::new(line)))
            }
        }
    }

    /// The next message; `None`: the coordinator has said all. May be dropped and called anew at any time.
    ///
    /// # Errors
    /// The coordinator's last word, or why there will be none.
    pub(super) async fn next(&mut self) -> Result<Option<wire::CoordinatorMessage>, Status> {
        match self {
            Self::Call(call) => call.message().await,
            Self::Line(line) => line.next().await,
        }
    }

    /// Nobody else asks for signs of life.
    pub(super) fn is_line(&self) -> bool {
        matches!(self, Self::Line(_))
    }
}

impl Line {
    async fn next(&mut self) -> Result<Option<wire::CoordinatorMessage>, Status> {
        if let Some(message) = self.first.take() {
            return Ok(Some(message));
        }
        let Some(message) = self.incoming.next::<wire::LineMessage>().await? else {
            return Ok(None);
        };
        said(message).map(Some)
    }
}

/// A message, or the last word.
fn said(message: wire::LineMessage) -> Result<wire::CoordinatorMessage, Status> {
    match message.body {
        Some(Body::Message(message)) => Ok(message),
        Some(Body::End(end)) => Err(Status::from(end)),
        None => Ok(wire::CoordinatorMessage::default()),
    }
}

/// Says one thing after the other, until all is said. That the connection broke is heard by whoever listens.
async fn say(
    mut to_coordinator: line::Outgoing<WriteHalf<Secured>>,
    mut messages: mpsc::Receiver<wire::AgentMessage>,
) {
    while let Some(message) = messages.recv().await {
        if to_coordinator.send(&message).await.is_err() {
            return;
        }
    }
    let _broke = to_coordinator.end().await;
}
