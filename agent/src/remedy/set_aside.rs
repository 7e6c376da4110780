//! `HoldManifest` and `ReleaseManifest`: on a thread that may wait for the disk.
//!
//! A kubelet that runs stops and starts the containers by itself; at a boot gate that holds, none runs.

use blackstart_proto::component::Component;
use tokio::task::spawn_blocking;

use crate::config::StaticPodSettings;
use crate::set_aside::{HoldError, SetAside};

/// Moves it out; what was done, or why it is where it was.
pub(super) async fn hold(
    aside: &SetAside,
    component: Component,
    run_id: &str,
    reason: &str,
    settings: &StaticPodSettings,
) -> Result<String, String> {
    let (aside, settings) = (aside.clone(), settings.clone());
    let (run_id, reason) = (run_id.to_owned(), reason.to_owned());
    ended(spawn_blocking(move || aside.hold(component, &run_id, &reason, &settings)).await)
}

/// Moves it back; what was done, or why it is still out.
pub(super) async fn release(
    aside: &SetAside,
    component: Component,
    settings: &StaticPodSettings,
) -> Result<String, String> {
    let (aside, settings) = (aside.clone(), settings.clone());
    ended(spawn_blocking(move || aside.release(component, &settings)).await)
}

fn ended(done: Result<Result<String, HoldError>, tokio::task::JoinError>) -> Result<String, String> {
    match done {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("the move was broken off".to_owned()),
    }
}
