//! `ReleaseKubelet`: passes the coordinator's word on to the boot gate, and waits until it is open.
//!
//! The gate is a process of its own: the word is a file in the runtime directory, and so is its answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::causes::causes;
use crate::gate::{self, GateState};

/// The gate has to open within this.
const OPENS: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Opens the gate, and returns when it is open. One that is open already is left as it is.
pub(super) async fn open(runtime_dir: &Path, run_id: &str) -> Result<String, String> {
    if let Some(found) = found_open(runtime_dir) {
        return Ok(found);
    }
    write(runtime_dir.to_owned(), run_id.to_owned()).await?;
    let deadline = Instant::now() + OPENS;
    loop {
        let state = gate::status(runtime_dir).state;
        if state == GateState::Absent {
            // It finds the word when it does run.
            return Ok("no boot gate has run in this boot: nothing holds the kubelet".to_owned());
        }
        if let Some(found) = opened(state) {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "the boot gate was told to open and is still held after {OPENS:?}; \
                 `systemctl status blackstart-gate` on the node says why"
            ));
        }
        sleep(LOOK).await;
    }
}

/// How the gate came to be open, if it is.
pub(super) fn found_open(runtime_dir: &Path) -> Option<String> {
    opened(gate::status(runtime_dir).state)
}

fn opened(state: GateState) -> Option<String> {
    let how = match state {
        GateState::Released => "the boot gate is open: released",
        GateState::Passed => "the boot gate is open: it passed by itself",
        GateState::DeadMan => "the boot gate is open: its dead-man time fired",
        GateState::Absent | GateState::Held => return None,
    };
    Some(how.to_owned())
}

async fn write(runtime_dir: PathBuf, run_id: String) -> Result<(), String> {
    match tokio::task::spawn_blocking(move || gate::release(&runtime_dir, &run_id)).await {
        Ok(done) => done.map_err(|error| causes(&error)),
        Err(_) => Err("the release was broken off".to_owned()),
    }
}
