//! `/dev/kmsg` → [`Signal::Kernel`], at a bounded cost.
//!
//! ```text
//! /dev/kmsg ──record──► facility kernel? ──message──► one of those looked for? ──► Signal::Kernel
//! ```
//! A flood (an OOM storm writes hundreds of lines a second) must cost nothing worth naming: after each batch the reader
//! pauses, so it wakes at most ten times and reads at most 5,120 records a second. What the kernel overwrites meanwhile is counted
//! from the sequence numbers and told.

pub(crate) mod message;
pub(crate) mod record;

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::signal::{KernelEvent, Signal};

/// Where the kernel's log is.
pub const KMSG: &str = "/dev/kmsg";

/// The kernel gives one record a read, and none is longer (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h).
const RECORD: usize = 8192;
/// Records in one batch.
const BATCH: usize = 512;
/// After a batch.
const PAUSE: Duration = Duration::from_millis(100);
/// What was said longer ago, before the agent began, is history.
const LOOK_BACK: Duration = Duration::from_mins(10);
/// A log that cannot be read is tried again after this.
const RETRY: Duration = Duration::from_mins(1);

/// Follows the kernel's log until `stop`. A log that cannot be opened (no `CAP_SYSLOG` under `dmesg_restrict`) is told once and tried again
/// now and then: nothing of the node is judged by its silence.
pub async fn watch(path: &Path, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
    let mut told = false;
    loop {
        let ended = match Log::open(path) {
            Ok(log) => {
                told = false;
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = log.follow(&signals) => ended,
                }
            }
            Err(error) => Err(error),
        };
        match ended {
            // Nobody listens any more.
            Ok(()) => return,
            Err(error) if !told => {
                warn!(path = %path.display(), %error, "the kernel's log cannot be read; what it says is not seen");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
}

struct Log {
    /// Read as a pipe is: `/dev/kmsg` can be polled, and only a pipe's end and a socket are taken by tokio as they are.
    records: pipe::Receiver,
    buffer: Vec<u8>,
    next: Option<u64>,
}

/// What one batch held.
struct Batch {
    events: VecDeque<KernelEvent>,
    /// More may be there.
    full: bool,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        info!(path = %path.display(), "following the kernel's log");
        Ok(Self {
            records: pipe::Receiver::from_file_unchecked(file)?,
            buffer: vec![0; RECORD],
            next: None,
        })
    }

    /// Until nobody listens, or the log fails.
    async fn follow(mut self, signals: &mpsc::Sender<Signal>) -> io::Result<()> {
        loop {
            self.records.readable().await?;
            loop {
                let batch = self.batch()?;
                for event in batch.events {
                    if signals.send(Signal::Kernel(event)).await.is_err() {
                        return Ok(());
                    }
                }
                sleep(PAUSE).await;
                if !batch.full {
                    break;
                }
            }
        }
    }

    fn batch(&mut self) -> io::Result<Batch> {
        let mut events = VecDeque::new();
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from)?;
        for _ in 0..BATCH {
            let length = match self.records.try_read(&mut self.buffer) {
                Ok(0) => return Ok(Batch { events, full: false }),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Batch { events, full: false });
                }
                // What was next has been overwritten; the next read gives the oldest that is left.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(record) = record::parse(&self.buffer[..length]) else {
                continue;
            };
            let lost = self.next.map_or(0, |next| record.sequence.saturating_sub(next));
            self.next = Some(record.sequence.saturating_add(1));
            if lost > LOST_WORTH_TELLING {
                events.push_back(KernelEvent::Lost { count: lost });
            }
            let age = now.saturating_sub(Duration::from_micros(record.micros));
            if record.level <= WARNING_OR_INFO && age <= LOOK_BACK {
                events.extend(message::classify(record.text));
            }
        }
        Ok(Batch { events, full: true })
    }
}

/// Debug messages (7) are never about health; `Killed process` has been an error, a warning and an info message.
const WARNING_OR_INFO: u32 = 6;

/// What processes write to the log takes numbers too and is passed over by [`record::parse`], so small gaps are no loss.
const LOST_WORTH_TELLING: u64 = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_log_that_is_not_there_ends_with_stop_and_says_nothing() {
        let stop = CancellationToken::new();
        let (send, mut signals) = mpsc::channel(1);
        let watching = tokio::spawn({
            let stop = stop.clone();
            async move { watch(Path::new("/nonexistent/kmsg"), send, stop).await }
        });
        stop.cancel();
        timeout(Duration::from_secs(5), watching).await.unwrap().unwrap();
        assert!(signals.recv().await.is_none());
    }
}
