//! Waiting for what a test expects, with a deadline.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks until there is something to see.
///
/// # Errors
/// There was not within `deadline`; with the last look's error, if it ended with one.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let seen = tokio::time::timeout_at(end, look()).await;
        match seen {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Err(error)) if Instant::now() + PERIOD >= end => {
                return Err(error).with_context(|| format!("wait {deadline:?} for {what}"));
            }
            Ok(Ok(None) | Err(_)) if Instant::now() + PERIOD < end => tokio::time::sleep(PERIOD).await,
            Ok(_) | Err(_) => bail!("waited {deadline:?} for {what}"),
        }
    }
}
