//! Follows what the coordinator of a drill does, through its deaths.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use crate::client::{Fleet, Via};
use crate::failure::Failure;
use crate::settings::Connection;
use crate::view::{NodePhase, RunDetail};

/// Between two looks or attempts.
const EVERY: Duration = Duration::from_millis(100);

/// Waits until the coordinator has heard of a healthy kubelet from every node; tells how many each time it looks.
pub(super) async fn all_ready(connection: Connection, ready: mpsc::Sender<usize>) {
    loop {
        if let Ok(mut fleet) = Fleet::connect(&connection, Via::default()).await {
            while let Ok(nodes) = fleet.nodes(None).await {
                let count = nodes.iter().filter(|node| node.phase == NodePhase::Ready).count();
                if ready.send(count).await.is_err() || count == nodes.len() {
                    return;
                }
                sleep(EVERY).await;
            }
        }
        sleep(EVERY).await;
    }
}

/// Sends every run at each of its changes, for as long as somebody listens.
pub(super) async fn runs(connection: Connection, looks: mpsc::Sender<RunDetail>) {
    let mut watched = Watched::default();
    while !looks.is_closed() {
        // A coordinator that is dead or dies is what drills are about.
        let _ = until_lost(&connection, &looks, &mut watched).await;
        watched.tasks.shutdown().await;
        watched.now.clear();
        sleep(EVERY).await;
    }
}

#[derive(Debug, Default)]
struct Watched {
    tasks: JoinSet<Option<String>>,
    now: HashSet<String>,
    ended: HashSet<String>,
}

async fn until_lost(
    connection: &Connection,
    looks: &mpsc::Sender<RunDetail>,
    watched: &mut Watched,
) -> Result<(), Failure> {
    let mut fleet = Fleet::connect(connection, Via::default()).await?;
    while !looks.is_closed() {
        for run in fleet.runs().await? {
            if !watched.ended.contains(&run.id) && watched.now.insert(run.id.clone()) {
                watched.tasks.spawn(watch(run.id, fleet.clone(), looks.clone()));
            }
        }
        tokio::select! {
            Some(ended) = watched.tasks.join_next() => match ended {
                Ok(Some(run)) => {
                    watched.ended.insert(run);
                }
                // It was lost on the way.
                Ok(None) | Err(_) => return Ok(()),
            },
            () = sleep(EVERY) => {}
        }
    }
    Ok(())
}

/// One run until it ends; its id if it was seen to.
async fn watch(id: String, mut fleet: Fleet, looks: mpsc::Sender<RunDetail>) -> Option<String> {
    let mut changes = pin!(fleet.watch_run(&id).await.ok()?);
    while let Some(look) = changes.next().await {
        let look = look.ok()?;
        let is_over = !look.run.state.is_active();
        looks.send(look).await.ok()?;
        if is_over {
            return Some(id);
        }
    }
    None
}
