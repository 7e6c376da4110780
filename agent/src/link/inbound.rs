//! What is spoken on a connection: a session's line, or the same as a gRPC call with a coordinator that does not know of lines.

use blackstart_proto::line;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::line_message::Body;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::dial::Dialled;
use super::secure::Secured;

/// No larger message is taken, bytes.
const MAX_MESSAGE: usize = 1 << 20;

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
    /// The coordinator's own words, or those of whoever broke the connection.
    pub(super) async fn open(
        dialled: Dialled,
        messages: mpsc::Receiver<wire::AgentMessage>,
    ) -> Result<Self, Status> {
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
                line.first = line.next().await?;
                if line.first.is_none() {
                    return Err(Status::unavailable("the coordinator ended the session"));
                }
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
        match message.body {
            Some(Body::Message(message)) => Ok(Some(message)),
            Some(Body::End(end)) => Err(Status::from(end)),
            None => Ok(Some(wire::CoordinatorMessage::default())),
        }
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
