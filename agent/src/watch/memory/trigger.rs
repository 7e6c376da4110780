//! A PSI trigger: the kernel wakes us when tasks have waited for memory for a part of a window.
//!
//! The kernel takes a window of any length from a writer with `CAP_SYS_RESOURCE`, and only multiples of 2 s from others
//! (Documentation/accounting/psi.rst). One that cannot be set is done without.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, info};

use crate::sys::watched;

/// Tasks waited for 150 ms within 1 s, or within 2 s; microseconds.
const TRIGGERS: [&str; 2] = ["some 150000 1000000\0", "some 150000 2000000\0"];

/// An event is told as urgent data, and the end of the trigger's cgroup as an error.
const EVENT: Interest = Interest::PRIORITY.add(Interest::ERROR);

/// A trigger that is set, or none where none is to be had.
#[derive(Debug)]
pub(super) struct Trigger(Option<AsyncFd<File>>);

impl Trigger {
    pub(super) fn set(path: &Path) -> Self {
        let set = set(path).and_then(|file| watched(file, EVENT));
        if let Err(error) = &set {
            info!(path = %path.display(), %error, "no trigger on memory pressure; looking now and then instead");
        }
        Self(set.ok())
    }

    /// Returns at the next event; never, without a trigger.
    pub(super) async fn event(&mut self) {
        if let Some(trigger) = &self.0 {
            match trigger.ready(EVENT).await {
                Ok(mut ready) if !ready.ready().is_error() => return ready.clear_ready(),
                ended => debug!(?ended, "the memory trigger ended"),
            }
        }
        self.0 = None;
        std::future::pending::<()>().await;
    }
}

fn set(path: &Path) -> io::Result<File> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for trigger in TRIGGERS {
        let set = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .and_then(|mut file| file.write_all(trigger.as_bytes()).map(|()| file));
        match set {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}
