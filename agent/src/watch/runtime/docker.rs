//! dockerd's API, as far as it is needed.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{EventMessage, RestartPolicyNameEnum};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::Stream;

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

/// Lists the running containers: goes through the daemon's own state.
pub(super) async fn call(socket: &Path) -> RuntimeAnswer {
    let asked = async {
        let client = connect(socket, Duration::ZERO)?;
        client.list_containers(None::<ListContainersOptions>).await
    };
    match asked.await {
        Ok(_) => RuntimeAnswer::Answered,
        Err(error) => {
            let why = explain(&error);
            match root(&error) {
                Some(io::ErrorKind::PermissionDenied) => RuntimeAnswer::Unobservable { why },
                _ => RuntimeAnswer::Failed { why },
            }
        }
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

fn root(error: &Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    let mut found = None;
    while let Some(cause) = next {
        found = cause.downcast_ref::<io::Error>().map(io::Error::kind).or(found);
        next = cause.source();
    }
    found
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
