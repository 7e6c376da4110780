//! The parts of a coordinator: each is a task of one of two sets. One that ends by itself ends the coordinator, and at a stop the outer set ends first.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RunError;

/// So long each of the two halves may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// A task that must not end before it is told to: its name, and how it ended.
pub(super) type Part = (&'static str, Result<(), RunError>);

pub(super) fn spawn(
    parts: &mut JoinSet<Part>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    parts.spawn(async move {
        part.await;
        (name, Ok(()))
    });
}

/// Until `stop`, or until a part ends before that.
pub(super) async fn until_one_ends(
    stop: &CancellationToken,
    outer: &mut JoinSet<Part>,
    inner: &mut JoinSet<Part>,
) -> Result<(), RunError> {
    let ended = tokio::select! {
        // At a stop the outer parts end as well, and that is no failure.
        biased;
        () = stop.cancelled() => return Ok(()),
        Some(ended) = outer.join_next() => ended,
        Some(ended) = inner.join_next() => ended,
    };
    match ended {
        Ok((name, Ok(()))) => Err(RunError::Ended(name)),
        Ok((_, Err(error))) => Err(error),
        Err(error) => Err(RunError::Broke(error)),
    }
}

/// The outer parts were told to end; then the inner ones are. None takes longer than the grace.
pub(super) async fn wind_down(
    mut outer: JoinSet<Part>,
    sessions: TaskTracker,
    mut inner: JoinSet<Part>,
    working: CancellationToken,
) {
    sessions.close();
    let served = async {
        all(&mut outer).await;
        sessions.wait().await;
    };
    if timeout(GRACE, served).await.is_err() {
        tracing::warn!("connections are still open; they are cut");
        outer.shutdown().await;
    }
    working.cancel();
    if timeout(GRACE, all(&mut inner)).await.is_err() {
        tracing::warn!("the executor or the store does not come to an end; they are cut");
    }
}

async fn all(parts: &mut JoinSet<Part>) {
    while parts.join_next().await.is_some() {}
}
