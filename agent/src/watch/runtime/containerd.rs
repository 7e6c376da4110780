//! containerd's API, as far as it is needed: one call that reads its database.

use std::path::{Path, PathBuf};

use hyper::body::Buf as _;
use hyper::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::RENEWED;
use crate::causes::causes;
use crate::signal::RuntimeAnswer;

/// Asks for no argument and no namespace, and reads the metadata that everything else needs.
const LIST_NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";

/// Asks for the list of namespaces, again and again.
#[derive(Debug)]
pub(super) struct Line {
    socket: PathBuf,
    /// The connection, and how often it was asked.
    kept: Option<(Channel, u32)>,
}

impl Line {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            kept: None,
        }
    }

    /// There is a connection from the last call.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// One call. A connection on which it is given up half-way is given up with it.
    pub(super) async fn call(&mut self) -> RuntimeAnswer {
        match self.list().await {
            Ok(()) => RuntimeAnswer::Answered,
            Err(status) => match status.code() {
                // It is another program, or a later one; it answered.
                Code::Unimplemented => RuntimeAnswer::Answered,
                Code::PermissionDenied | Code::Unauthenticated => {
                    RuntimeAnswer::Unobservable { why: causes(&status) }
                }
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::InvalidArgument
                | Code::DeadlineExceeded
                | Code::NotFound
                | Code::AlreadyExists
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => RuntimeAnswer::Failed { why: causes(&status) },
            },
        }
    }

    async fn list(&mut self) -> Result<(), Status> {
        // A daemon that was restarted has closed the connection.
        if let Some((channel, calls)) = self.kept.take()
            && list(channel.clone()).await.is_ok()
        {
            self.kept = (calls + 1 < RENEWED).then_some((channel, calls + 1));
            return Ok(());
        }
        let channel = connect(&self.socket).await?;
        list(channel.clone()).await?;
        self.kept = Some((channel, 1));
        Ok(())
    }
}

async fn connect(socket: &Path) -> Result<Channel, Status> {
    let address = format!("unix://{}", socket.display());
    let endpoint = Endpoint::from_shared(address).map_err(broken)?;
    endpoint.connect().await.map_err(broken)
}

async fn list(channel: Channel) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(broken)?;
    let path = PathAndQuery::from_static(LIST_NAMESPACES);
    client.unary(Request::new(()), path, Nothing).await.map(drop)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what `map_err` takes is given its error"
)]
fn broken(error: tonic::transport::Error) -> Status {
    Status::unavailable(causes(&error))
}

/// Sends an empty message, and does not read the answer's.
struct Nothing;

impl Codec for Nothing {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Nothing {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Nothing {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        message.advance(message.remaining());
        Ok(Some(()))
    }
}
