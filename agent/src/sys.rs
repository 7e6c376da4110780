//! What nix and tokio have no safe call for.
#![allow(
    unsafe_code,
    reason = "adjtimex has no safe wrapper in nix or rustix, and tokio leaves it to its caller that a descriptor stays open"
)]

use std::fs::File;
use std::io;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How the kernel's clock is disciplined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Discipline {
    /// Some time service keeps it (`STA_UNSYNC` is clear).
    pub(crate) synchronised: bool,
    /// The largest error that the service vouches for, microseconds.
    pub(crate) max_error_us: i64,
}

/// Asks `adjtimex(2)`, changing nothing.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn clock_discipline() -> io::Result<Discipline> {
    // SAFETY: timex is plain data for which all zeroes is a valid value; modes = 0 asks without changing anything.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex that lives until the call returns, which is all that adjtimex(2) asks for.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Discipline {
        synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        max_error_us: timex.maxerror,
    })
}

/// A file whose readiness the runtime tells.
///
/// # Errors
/// The kernel has no events for it.
pub(crate) fn watched(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File owns its descriptor until it is dropped, and always gives the same one; the AsyncFd owns the File.
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) };
    watched.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let discipline = clock_discipline().unwrap();
        assert!(discipline.max_error_us >= 0, "{discipline:?}");
    }
}
