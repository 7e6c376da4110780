//! containerd's API, as far as it is needed: one call that reads its database.

use std::path::Path;

use hyper::body::Buf as _;
use hyper::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::causes::causes;
use crate::signal::RuntimeAnswer;

/// Asks for no argument and no namespace, and reads the metadata that everything else needs.
const LIST_NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";

/// Lists the namespaces.
pub(super) async fn call(socket: &Path) -> RuntimeAnswer {
    match list(socket).await {
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

async fn list(socket: &Path) -> Result<(), Status> {
    let address = format!("unix://{}", socket.display());
    let broken = |error: tonic::transport::Error| Status::unavailable(causes(&error));
    let channel = Endpoint::from_shared(address)
        .map_err(broken)?
        .connect()
        .await
        .map_err(broken)?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(broken)?;
    let path = PathAndQuery::from_static(LIST_NAMESPACES);
    client.unary(Request::new(()), path, Nothing).await.map(drop)
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
