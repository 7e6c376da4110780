//! The three ways to give back the head of a file, as system calls.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::plan::{Method, Plan};

/// The kernel keeps the file locked while it frees a range (0.2 s a GiB on a disk with discard), and its writers
/// wait: a longer head is freed in ranges of this size, between which they get on.
const RANGE: u64 = 1 << 30;

/// So much is copied at once by a truncate.
const COPY: usize = 1 << 20;

/// Passes that a truncate makes after a log that grows under it.
const CATCH_UP: u32 = 16;

/// Does what the plan says.
///
/// # Errors
/// As the kernel answered; see [`refused`].
pub(super) fn apply(file: &File, plan: Plan) -> io::Result<()> {
    match plan.method {
        Method::Collapse => {
            if plan.cut > RANGE {
                // Holes collapse in no time. Where holes cannot be made the collapse alone does it all.
                match punch(file, plan.cut) {
                    Ok(()) => {}
                    Err(error) if refused(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            allocate(file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, plan.cut)
        }
        Method::Punch => punch(file, plan.cut),
        Method::Truncate => truncate(file, plan.cut),
    }
}

/// The file system, or this file, does not allow it: another method may do.
pub(super) fn refused(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ETXTBSY | Errno::EPERM | Errno::ENOSYS)
    )
}

fn punch(file: &File, cut: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let mut offset = 0;
    while offset < cut {
        let length = RANGE.min(cut - offset);
        allocate(file, flags, offset, length)?;
        offset += length;
    }
    Ok(())
}

fn allocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
    let signed = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(Errno::EFBIG));
    let (offset, length) = (signed(offset)?, signed(length)?);
    loop {
        match fallocate(file, flags, offset, length) {
            Err(Errno::EINTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}

/// Copies what follows `cut` to the beginning, then cuts the file behind it. What is appended meanwhile is copied
/// too, until nothing came in during a pass; between that look and the cut lie two system calls, the only moment at
/// which an append can be lost. Where the log never rests, it is left as long as it was.
fn truncate(file: &File, cut: u64) -> io::Result<()> {
    let mut chunk = vec![0; COPY];
    let mut copied = 0;
    for _ in 0..CATCH_UP {
        let size = file.metadata()?.len();
        if cut + copied >= size {
            return file.set_len(copied);
        }
        while cut + copied < size {
            let want = usize::try_from(size - cut - copied).map_or(COPY, |left| left.min(COPY));
            let read = file.read_at(&mut chunk[..want], cut + copied)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if copied + read as u64 > cut {
                // The copy would reach its own source.
                return Err(io::Error::from(Errno::EBUSY));
            }
            file.write_all_at(&chunk[..read], copied)?;
            copied += read as u64;
        }
    }
    Err(io::Error::from(Errno::EBUSY))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    /// A file of numbered lines of 16 bytes.
    fn numbered(lines: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        append(&mut file, 0, lines);
        file
    }

    fn append(file: &mut File, from: u64, lines: u64) {
        let mut text = Vec::new();
        for line in from..from + lines {
            writeln!(text, "{line:>15}").unwrap();
        }
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&text).unwrap();
    }

    fn lines(file: &File) -> (u64, u64) {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let numbers: Vec<u64> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| line.trim_ascii().parse().unwrap())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        (numbers[0], numbers[numbers.len() - 1])
    }

    #[test]
    fn a_truncate_keeps_the_tail_and_what_came_after_the_look() {
        let mut file = numbered(300_000);
        let cut = 200_000 * 16;
        append(&mut file, 300_000, 1000);
        truncate(&file, cut).unwrap();
        assert_eq!(lines(&file), (200_000, 300_999));
    }

    #[test]
    fn a_truncate_whose_copy_would_reach_its_source_leaves_the_tail() {
        let file = numbered(300_000);
        let size = file.metadata().unwrap().len();
        let error = truncate(&file, 16 * 100_000).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EBUSY as i32));
        assert_eq!(file.metadata().unwrap().len(), size);
    }

    #[test]
    fn only_what_the_file_system_will_never_do_leads_to_the_next_method() {
        let refused = |errno: Errno| refused(&io::Error::from(errno));
        for errno in [Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ETXTBSY, Errno::EPERM] {
            assert!(refused(errno), "{errno}");
        }
        for errno in [Errno::EIO, Errno::ENOSPC, Errno::EROFS, Errno::EBADF] {
            assert!(!refused(errno), "{errno}");
        }
    }
}
