//! What nix and tokio have no safe call for.
#![allow(
    unsafe_code,
    reason = "adjtimex has no safe wrapper in nix or rustix, tokio leaves it to its caller that a descriptor stays open, and the kernel \
              that nothing is lost with what is given back"
)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::ptr::with_exposed_provenance_mut;
use std::{io, slice};

use nix::libc;
use nix::unistd::{SysconfVar, sysconf};
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

/// Gives back the pages of the program's own file, and what its allocator keeps and does not use. Of the file, what is run again comes back from
/// the kernel's cache at its first use, 16 pages at a time (`fault_around_bytes`); what only a start needed does not.
///
/// # Errors
/// The kernel refuses; nothing is lost.
pub(crate) fn give_back() -> io::Result<()> {
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
    let page = page.ok_or(io::ErrorKind::Unsupported)?;
    let mut segments: Vec<Range<usize>> = Vec::new();
    // SAFETY: `of_program` takes the pointer for what it is, and the vector lives until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(of_program), (&raw mut segments).cast()) };
    for segment in segments {
        // Whole pages of this segment only.
        let (begin, end) = (segment.start.next_multiple_of(page), segment.end / page * page);
        if begin >= end {
            continue;
        }
        // SAFETY: a segment of the program that is mapped read-only for as long as the process lives: nothing in it was ever written, so that
        // what is read there later, from the file again, is the same.
        let given = unsafe {
            libc::madvise(
                with_exposed_provenance_mut(begin),
                end - begin,
                libc::MADV_DONTNEED,
            )
        };
        if given != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
    Ok(())
}

/// Collects the segments of the first object, which is the program itself (`dl_iterate_phdr(3)`), that are never written. What the loader writes to and
/// protects then (`PT_GNU_RELRO`) lies in a segment that may be written; relocations of the text itself are refused by linkers (`-z text`).
unsafe extern "C" fn of_program(info: *mut libc::dl_phdr_info, _: usize, segments: *mut c_void) -> c_int {
    // SAFETY: the loader gives a valid description, which it keeps until the call returns.
    let info = unsafe { &*info };
    // SAFETY: likewise of so many headers.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    // SAFETY: what `give_back` passed, which nobody else looks at meanwhile.
    let segments = unsafe { &mut *segments.cast::<Vec<Range<usize>>>() };
    let at = |address| usize::try_from(address).ok();
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        if let (Some(base), Some(begin), Some(length)) =
            (at(info.dlpi_addr), at(header.p_vaddr), at(header.p_filesz))
        {
            segments.push(base + begin..base + begin + length);
        }
    }
    // The program is the first: no more is asked for.
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 64] = [7; 64];

    /// Also what the loader relocated: a table of pointers.
    #[test]
    fn what_was_given_back_is_there_when_it_is_asked_for() {
        let names: [&str; 3] = std::hint::black_box(["text", "constants", "pointers"]);
        for _ in 0..3 {
            give_back().unwrap();
            assert_eq!(std::hint::black_box(&CONSTANT), &[7; 64]);
            assert_eq!(names.concat(), "textconstantspointers");
        }
    }

    #[test]
    fn the_kernel_answers() {
        let discipline = clock_discipline().unwrap();
        assert!(discipline.max_error_us >= 0, "{discipline:?}");
    }
}
