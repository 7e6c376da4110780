//! Gives back memory that only the start needed, once the agent is at rest and now and then after that.
//!
//! Most of what an idle agent has in memory is its own program, and most of that ran once: the command line, the configuration, TLS
//! handshakes, the first look of every watcher. The kernel unmaps what is not used only when memory runs short. Until then it counts
//! for each agent of a fleet. What is given back stays in the kernel's cache for as long as nobody else wants the memory, so that
//! using it again costs about a microsecond for each 64 KiB.
//!
//! A node on which something stands keeps what it has: that is when the rest of the program is needed, and perhaps its disk does not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::picture::Picture;
use crate::sys;
use crate::watch::beat::Beat;

/// Everything has begun by then.
const SETTLED: Duration = Duration::from_secs(15);
/// What was needed once in between is given back after this at the latest.
const AGAIN: Duration = Duration::from_mins(5);

/// Until `stop`.
pub(super) async fn now_and_then(
    picture: watch::Receiver<Arc<Picture>>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut pause = SETTLED;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = beat.pause(Instant::now(), pause) => {}
        }
        pause = AGAIN;
        if !picture.borrow().conditions.is_empty() {
            continue;
        }
        if let Err(error) = sys::give_back() {
            debug!(%error, "memory that is not used cannot be given back");
            return;
        }
    }
}
