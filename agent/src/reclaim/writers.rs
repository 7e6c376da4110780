//! Who has which file open, from `/proc/*/fd` and `fdinfo`.
//!
//! One pass costs two system calls for each open file of the node (2 to 3 µs), and looks only at attributes that the
//! kernel has at hand, so a hung network mount does not hang it. What it cannot see (a writer behind an overlay mount,
//! a descriptor on its way through a socket) is why a log that grows without a visible writer counts as
//! [`Writers::Unknown`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, makedev, statx};

use super::plan::Writers;

/// No more descriptors than this are looked at in one pass; beyond it the pass is incomplete.
const MAX_DESCRIPTORS: usize = 500_000;

/// No more descriptors than this are kept of one file.
const MAX_HANDLES: usize = 64;

/// How `/proc/PID/fd/N` calls a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// What identifies a file, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Device number.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// Bytes on disk.
    pub(crate) allocated: u64,
    /// Apparent size, bytes.
    pub(crate) size: u64,
    /// Names it has.
    pub(crate) links: u32,
    /// What it is.
    pub(crate) kind: FileType,
}

/// Attributes without asking a network server for them, and without following a symlink unless `follow`.
pub(crate) fn stat(path: &Path, follow: bool) -> io::Result<Stat> {
    let no_follow = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    stat_at(CWD, path.as_os_str(), no_follow)
}

/// The same of what `directory` has by this name; a symlink is not followed.
pub(crate) fn stat_in(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    stat_at(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn stat_at(directory: BorrowedFd<'_>, path: &OsStr, no_follow: AtFlags) -> io::Result<Stat> {
    let found = statx(
        directory,
        path,
        no_follow | AtFlags::STATX_DONT_SYNC,
        StatxFlags::BASIC_STATS,
    );
    match found {
        Ok(found) => Ok(Stat {
            dev: makedev(found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
            allocated: found.stx_blocks * 512,
            size: found.stx_size,
            links: found.stx_nlink,
            kind: FileType::from_raw_mode(found.stx_mode.into()),
        }),
        // Kernels before 4.11 have no statx, and old container runtimes forbid it.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            let found = rustix::fs::statat(directory, path, no_follow)?;
            Ok(Stat {
                dev: found.st_dev,
                ino: found.st_ino,
                allocated: u64::try_from(found.st_blocks).unwrap_or(0) * 512,
                size: u64::try_from(found.st_size).unwrap_or(0),
                links: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
                kind: FileType::from_raw_mode(found.st_mode),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// How a descriptor may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only names the file (`O_PATH`).
    Name,
    /// Not at all.
    Read,
    /// At the end only.
    Append,
    /// Anywhere.
    Positioned,
}

/// Everybody who has one file open.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    /// Descriptors that reach it, under `/proc`. Each may be closed by now: a child between fork and exec holds its
    /// parent's for a moment.
    pub(crate) handles: Vec<PathBuf>,
    appending: usize,
    positioned: usize,
    complete: bool,
}

impl Census {
    /// `busy`: the log was written lately.
    pub(crate) fn writers(&self, busy: bool) -> Writers {
        match (self.positioned, self.appending) {
            (1.., _) => Writers::Positioned(self.positioned + self.appending),
            _ if !self.complete => Writers::Unknown,
            (0, 1..) => Writers::Appending(self.appending),
            (0, 0) if busy => Writers::Unknown,
            (0, 0) => Writers::None,
        }
    }
}

/// Looks for everybody who has the file open, and who has mapped it for writing.
pub(crate) fn census(dev: u64, ino: u64) -> Census {
    let mut census = Census {
        handles: Vec::new(),
        appending: 0,
        positioned: 0,
        complete: true,
    };
    let mut readable = true;
    census.complete = each_open_file(&mut |open| {
        if open.stat.dev != dev || open.stat.ino != ino {
            return;
        }
        match access(&open.info) {
            Ok(Access::Name) => return,
            Ok(Access::Read) => {}
            Ok(Access::Append) => census.appending += 1,
            Ok(Access::Positioned) => census.positioned += 1,
            Err(error) => readable &= vanished(&error),
        }
        if census.handles.len() < MAX_HANDLES {
            census.handles.push(open.path.clone());
        }
    });
    census.complete &= readable;
    // Only a mapping can make a difference now: a mapped writer is one whose offsets must stay.
    if census.positioned == 0 {
        match shared_mappings(dev, ino) {
            Ok(count) => census.positioned += count,
            Err(_) => census.complete = false,
        }
    }
    census
}

/// A file without a name that somebody holds open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// What it is and takes.
    pub(crate) stat: Stat,
    /// The name it had.
    pub(crate) former: PathBuf,
    /// One descriptor that reaches it, under `/proc`.
    pub(crate) handle: PathBuf,
}

/// Regular files on `devices` that are deleted but held open, each once.
pub(crate) fn deleted_files(devices: &[u64]) -> Vec<Deleted> {
    let mut found = BTreeMap::new();
    each_open_file(&mut |open| {
        if open.stat.links == 0
            && devices.contains(&open.stat.dev)
            && let Some(former) = former_path(&open.link)
        {
            found
                .entry((open.stat.dev, open.stat.ino))
                .or_insert_with(|| Deleted {
                    stat: open.stat,
                    former,
                    handle: open.path.clone(),
                });
        }
    });
    found.into_values().collect()
}

/// The name that a deleted file had, from its link under `/proc/PID/fd`.
pub(crate) fn former_path(link: &Path) -> Option<PathBuf> {
    let name = link.as_os_str().as_bytes().strip_suffix(DELETED)?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(name.to_vec())))
}

/// An open regular file.
struct OpenFile {
    /// `/proc/PID/fd/N`.
    path: PathBuf,
    /// `/proc/PID/fdinfo/N`.
    info: PathBuf,
    /// What `path` points at.
    link: PathBuf,
    stat: Stat,
}

/// A directory of `/proc` for each process.
fn processes() -> io::Result<impl Iterator<Item = PathBuf>> {
    Ok(fs::read_dir("/proc")?
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path()))
}

/// What cannot be seen of `process` is no gap: it is gone, or it is init, which a container may hide from its root,
/// and which writes no logs.
fn no_gap(process: &Path, error: &io::Error) -> bool {
    vanished(error) || process == Path::new("/proc/1")
}

/// Visits every open regular file; false when some could not be seen.
fn each_open_file(visit: &mut dyn FnMut(&OpenFile)) -> bool {
    let Ok(processes) = processes() else { return false };
    let mut complete = true;
    let mut left = MAX_DESCRIPTORS;
    for process in processes {
        let descriptors = match fs::read_dir(process.join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                complete &= no_gap(&process, &error);
                continue;
            }
        };
        for descriptor in descriptors.flatten() {
            if left == 0 {
                return false;
            }
            left -= 1;
            let path = descriptor.path();
            let link = match fs::read_link(&path) {
                Ok(link) => link,
                Err(error) => {
                    complete &= no_gap(&process, &error);
                    continue;
                }
            };
            // Sockets, pipes and anonymous inodes are the most, and have no path.
            if !link.is_absolute() || link.starts_with("/dev") || link.starts_with("/proc") {
                continue;
            }
            match stat(&path, true) {
                Ok(stat) if stat.kind == FileType::RegularFile => visit(&OpenFile {
                    info: process.join("fdinfo").join(descriptor.file_name()),
                    path,
                    link,
                    stat,
                }),
                Ok(_) => {}
                Err(error) => complete &= no_gap(&process, &error),
            }
        }
    }
    complete
}

/// The process or descriptor ended while we looked: it is no writer any more.
fn vanished(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// From the `flags:` line of `fdinfo`.
fn access(info: &Path) -> io::Result<Access> {
    parse_access(&fs::read_to_string(info)?).ok_or_else(|| io::Error::from(ErrorKind::InvalidData))
}

pub(crate) fn parse_access(info: &str) -> Option<Access> {
    let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(octal.trim(), 8).ok()?;
    Some(if flags & libc::O_PATH != 0 {
        Access::Name
    } else if flags & libc::O_ACCMODE == libc::O_RDONLY {
        Access::Read
    } else if flags & libc::O_APPEND != 0 {
        Access::Append
    } else {
        Access::Positioned
    })
}

/// How many shared writable mappings of the file there are.
fn shared_mappings(dev: u64, ino: u64) -> io::Result<usize> {
    let mut count = 0;
    for process in processes()? {
        let maps = match fs::File::open(process.join("maps")) {
            Ok(maps) => maps,
            Err(error) if no_gap(&process, &error) => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::with_capacity(1 << 16, maps).split(b'\n') {
            match line {
                Ok(line) => count += usize::from(maps_for_writing(&line, dev, ino)),
                Err(error) if vanished(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

/// A line of `/proc/PID/maps`: `7f00-7f10 rw-s 00000000 07:00 12 /path`.
pub(crate) fn maps_for_writing(line: &[u8], dev: u64, ino: u64) -> bool {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let Some([_, b'w', _, b's']) = fields.nth(1) else {
        return false;
    };
    let mut text = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (_offset, device, inode) = (text(), text(), text());
    let device = device
        .and_then(|device| device.split_once(':'))
        .and_then(|(major, minor)| {
            Some(makedev(
                u32::from_str_radix(major, 16).ok()?,
                u32::from_str_radix(minor, 16).ok()?,
            ))
        });
    device == Some(dev) && inode.and_then(|inode| inode.parse().ok()) == Some(ino)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn reads_the_flags_of_a_descriptor() {
        let access = |flags: &str| parse_access(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\n"));
        assert_eq!(access("0100000"), Some(Access::Read));
        assert_eq!(access("0102001"), Some(Access::Append));
        assert_eq!(access("0102002"), Some(Access::Append));
        assert_eq!(access("0100001"), Some(Access::Positioned));
        assert_eq!(access("012000000"), Some(Access::Name));
        assert_eq!(parse_access("pos:\t0\n"), None);
    }

    #[test]
    fn sees_only_shared_writable_mappings_of_the_file() {
        let dev = makedev(7, 0x1f);
        let maps = |line: &str| maps_for_writing(line.as_bytes(), dev, 12);
        assert!(maps("7f00-7f10 rw-s 00000000 07:1f 12                  /a b"));
        assert!(!maps("7f00-7f10 rw-p 00000000 07:1f 12 /a"));
        assert!(!maps("7f00-7f10 r--s 00000000 07:1f 12 /a"));
        assert!(!maps("7f00-7f10 rw-s 00000000 07:1f 13 /a"));
        assert!(!maps("7f00-7f10 rw-p 00000000 00:00 0"));
        assert!(!maps(""));
    }

    #[test]
    fn one_positioned_writer_outweighs_all_that_append() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let open = |append: bool| {
            OpenOptions::new()
                .create(true)
                .write(true)
                .append(append)
                .open(&path)
        };
        fs::write(&path, "x").unwrap();
        let of = stat(&path, false).unwrap();
        let writers = |busy| {
            // Other processes of this machine may be out of our sight; then "unknown" is right.
            let census = census(of.dev, of.ino);
            Some(census.writers(busy)).filter(|_| census.complete)
        };
        for (busy, expected) in [(false, Writers::None), (true, Writers::Unknown)] {
            assert!(writers(busy).is_none_or(|writers| writers == expected));
        }
        let _appends = open(true).unwrap();
        assert!(writers(true).is_none_or(|writers| writers == Writers::Appending(1)));
        let _positioned = open(false).unwrap();
        assert!(writers(true).is_none_or(|writers| writers == Writers::Positioned(2)));
    }

    #[test]
    fn finds_a_deleted_file_once_under_its_former_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap().join("gone.log");
        fs::write(&path, [7; 5000]).unwrap();
        let _held = (fs::File::open(&path).unwrap(), fs::File::open(&path).unwrap());
        let of = stat(&path, false).unwrap();
        fs::remove_file(&path).unwrap();
        let found: Vec<_> = deleted_files(&[of.dev])
            .into_iter()
            .filter(|deleted| deleted.stat.ino == of.ino)
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].former, path);
        assert_eq!(found[0].stat.size, 5000);
    }
}
