//! dockerd's API, as far as it is needed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{EventMessage, RestartPolicyNameEnum};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::Stream;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::RENEWED;
use super::containers::{Event, What};
use crate::causes::causes;
use crate::signal::RuntimeAnswer;

/// Callers have deadlines of their own; this one bounds a call whose caller forgot, seconds.
const CLIENT_TIMEOUT: u64 = 120;

/// A client; connects at each call. `at_least` is the shortest time that an answer may take.
///
/// # Errors
/// There is no such socket.
pub(crate) fn connect(socket: &Path, at_least: Duration) -> Result<Docker, Error> {
    let timeout = CLIENT_TIMEOUT.max(at_least.as_secs());
    Docker::connect_with_unix(&socket.to_string_lossy(), timeout, API_DEFAULT_VERSION)
}

/// Lists the running containers: goes through the daemon's own state. In no version of the API, which every daemon answers by its own.
const LIST: &str = "/containers/json";

/// Asks the daemon to list its containers, again and again, and does not read what they are: by hand, for a node may have a hundred of them.
#[derive(Debug)]
pub(super) struct Line {
    socket: PathBuf,
    kept: Option<Box<Connection>>,
}

/// One on which nothing is under way. Only calls drive it: that the daemon has closed it is found at the next one.
#[derive(Debug)]
struct Connection {
    requests: http1::SendRequest<Empty<Bytes>>,
    transport: http1::Connection<TokioIo<UnixStream>, Empty<Bytes>>,
    calls: u32,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("ask docker for its containers")]
    Ask(#[from] hyper::Error),
    #[error("write a request")]
    Request(#[from] hyper::http::Error),
    #[error("docker answered with status {0}")]
    Status(StatusCode),
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
        // A daemon that was restarted has closed the connection.
        if let Some(connection) = self.kept.take()
            && let Ok(connection) = connection.list().await
        {
            self.kept = connection;
            return RuntimeAnswer::Answered;
        }
        let listed = async { Connection::open(&self.socket).await?.list().await };
        match listed.await {
            Ok(connection) => {
                self.kept = connection;
                RuntimeAnswer::Answered
            }
            Err(trouble) => {
                let why = causes(&trouble);
                match trouble {
                    Trouble::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        RuntimeAnswer::Unobservable { why }
                    }
                    Trouble::Connect(_) | Trouble::Ask(_) | Trouble::Request(_) | Trouble::Status(_) => {
                        RuntimeAnswer::Failed { why }
                    }
                }
            }
        }
    }
}

impl Connection {
    async fn open(socket: &Path) -> Result<Box<Self>, Trouble> {
        let stream = UnixStream::connect(socket).await.map_err(Trouble::Connect)?;
        let (requests, transport) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self {
            requests,
            transport,
            calls: 0,
        }))
    }

    /// The connection comes back if it may be asked again.
    async fn list(mut self: Box<Self>) -> Result<Option<Box<Self>>, Trouble> {
        let request = Request::get(LIST).header(HOST, "docker").body(Empty::new())?;
        let (status, open) = {
            let requests = &mut self.requests;
            let exchange = pin!(async move {
                requests.ready().await?;
                let answer = requests.send_request(request).await?;
                let status = answer.status();
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                Ok::<_, hyper::Error>(status)
            });
            match select(exchange, Pin::new(&mut self.transport)).await {
                Either::Left((status, _)) => (status?, true),
                Either::Right((_ended, exchange)) => (exchange.await?, false),
            }
        };
        if !status.is_success() {
            return Err(Trouble::Status(status));
        }
        self.calls += 1;
        Ok((open && self.calls < RENEWED).then_some(self))
    }
}

/// An error with its causes.
pub(crate) fn explain(error: &Error) -> String {
    causes(error)
}

/// It is not there (any more).
pub(crate) fn is_gone(error: &Error) -> bool {
    status(error) == Some(404)
}

/// It is in use, or being removed by somebody else.
pub(crate) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        return Some(*status_code);
    }
    None
}

/// What happens to containers from `since` (nanoseconds since the Unix epoch) on.
pub(super) fn events(client: &Docker, since: i64) -> impl Stream<Item = Result<EventMessage, Error>> + use<> {
    let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
    client.events(Some(EventsOptions {
        since: Some(format!("{}.{:09}", since / NANOS, since % NANOS)),
        until: None,
        filters: Some(filters),
    }))
}

const NANOS: i64 = 1_000_000_000;

/// The containers whose health check fails now, as if each had just said so.
pub(super) async fn unhealthy(client: &Docker) -> Result<Vec<Event>, Error> {
    let filters = HashMap::from([("health".to_owned(), vec!["unhealthy".to_owned()])]);
    let found = client
        .list_containers(Some(ListContainersOptions {
            filters: Some(filters),
            ..ListContainersOptions::default()
        }))
        .await?;
    let events = found.into_iter().filter_map(|container| {
        let name = container.names.unwrap_or_default().into_iter().next()?;
        Event::new(
            container.id?,
            name.trim_start_matches('/'),
            container.image.unwrap_or_default(),
            &container.labels.unwrap_or_default(),
            What::Health { unhealthy: true },
            0,
        )
    });
    Ok(events.collect())
}

/// Docker itself starts it again when it dies.
pub(super) async fn has_policy(client: &Docker, id: &str) -> Result<bool, Error> {
    let found = match client
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
    {
        Ok(found) => found,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let policy = found.host_config.and_then(|config| config.restart_policy);
    Ok(restarts(policy.and_then(|policy| policy.name)))
}

/// This policy makes docker start a container again.
pub(crate) fn restarts(policy: Option<RestartPolicyNameEnum>) -> bool {
    match policy {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => false,
        Some(
            RestartPolicyNameEnum::ALWAYS
            | RestartPolicyNameEnum::UNLESS_STOPPED
            | RestartPolicyNameEnum::ON_FAILURE,
        ) => true,
    }
}
