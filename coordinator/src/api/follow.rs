//! Streams to operators: each a task that ends with its reader, with what it follows, or with the coordinator.
//!
//! A slow reader costs nobody memory: it waits, and what came meanwhile is taken from what is kept anyway.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert::operator as convert;
use crate::events::{Event, Events};
use crate::execute::Runs;
use crate::inventory::{Inventory, NodeName};

/// Events on their way to one reader.
pub(super) const BACKLOG: usize = 64;
/// A run is sent at most this often: one of a large fleet is a megabyte.
const RUN_EVERY: Duration = Duration::from_millis(200);

type Reader<T> = mpsc::Sender<Result<T, Status>>;

/// Sends those that are kept and, with `on`, each as it comes; of one node, or all.
pub(super) async fn events(
    events: Events,
    on: bool,
    node: Option<NodeName>,
    reader: Reader<v1::Event>,
    stop: CancellationToken,
) {
    let wanted = |event: &Event| node.is_none() || event.node == node;
    let follow = async {
        let mut last = 0;
        // Once, and again whenever the reader is so far behind that it has to be helped out of what is kept.
        loop {
            let (kept, mut coming) = events.follow();
            for event in kept {
                if event.sequence <= last {
                    continue;
                }
                last = event.sequence;
                if wanted(&event) && reader.send(Ok(convert::event(event))).await.is_err() {
                    return;
                }
            }
            if !on {
                return;
            }
            loop {
                match coming.recv().await {
                    Ok(event) => {
                        last = event.sequence;
                        if wanted(&event) && reader.send(Ok(convert::event(event))).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = reader.closed() => {}
        () = stop.cancelled() => say_stopping(&reader),
    }
}

/// Sends a run as it stands, and again when it changed, until it has ended.
pub(super) async fn run(
    id: String,
    mut runs: watch::Receiver<Runs>,
    inventory: Arc<Inventory>,
    reader: Reader<v1::RunDetail>,
    stop: CancellationToken,
) {
    let follow = async {
        let mut last = None;
        loop {
            let now = Arc::clone(&runs.borrow_and_update());
            let Some(run) = now.iter().find(|run| run.id == id) else {
                return;
            };
            if last.as_ref() != Some(run) {
                if reader
                    .send(Ok(convert::run_detail(run, &inventory)))
                    .await
                    .is_err()
                    || !run.state.is_active()
                {
                    return;
                }
                last = Some(Arc::clone(run));
            }
            sleep(RUN_EVERY).await;
            if runs.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = reader.closed() => {}
        () = stop.cancelled() => say_stopping(&reader),
    }
}

fn say_stopping<T>(reader: &Reader<T>) {
    // If it is full, the reader learns from the connection's end.
    let _full = reader.try_send(Err(Status::unavailable("this coordinator is stopping")));
}
