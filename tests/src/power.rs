//! The cut itself.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: neither data nor the file system's journal is written any more.
const NO_FLUSH: u32 = 2;

mod raw {
    #![allow(
        unsafe_code,
        missing_docs,
        reason = "made by the macro; one of the few ioctls without a safe wrapper"
    )]
    nix::ioctl_read!(fs_shutdown, b'X', 125, u32);
}

/// Makes the file system that is mounted at `path` lose everything that was not synced, and refuse everything from now on.
fn shut_down(path: &Path) -> io::Result<()> {
    let root = File::open(path)?;
    let mut how = NO_FLUSH;
    #[expect(unsafe_code, reason = "the kernel reads one u32 that outlives the call")]
    // SAFETY: the descriptor is open, and `how` is a valid u32 for the length of the call.
    unsafe { raw::fs_shutdown(root.as_raw_fd(), &raw mut how) }?;
    Ok(())
}

/// Takes a node's power away: its disk first, then, with its init, all that runs in it. Nothing in it is told.
///
/// # Errors
/// The disk or the process is not there.
pub fn cut(init: Pid, disk: &Path) -> io::Result<()> {
    shut_down(disk)?;
    kill(init, Signal::SIGKILL)?;
    Ok(())
}
