//! Opens a log so that it is the one that was seen, and one that may be touched.
//!
//! Between look and act a name can change hands: rotation puts another file there, an application can put a symlink
//! there. So the name is opened without a right to anything (`O_PATH`, no symlink followed), what it leads to is
//! compared with what was seen, and the same inode is then opened for reading and writing through `/proc/self/fd`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::ReclaimError;
use super::scope::{Permit, Scope};
use super::writers::former_path;
use crate::signal::LogId;

/// A file that is the one that was seen, and may be touched. It cannot be read or written yet.
#[derive(Debug)]
pub(super) struct Located {
    handle: File,
}

impl Located {
    /// Finds a log by its name.
    pub(super) fn by_name(log: &LogId, scope: &Scope) -> Result<Self, ReclaimError> {
        Self::find(log, &log.path, libc::O_PATH | libc::O_NOFOLLOW, scope)
    }

    /// Finds a deleted log by the first of these descriptors under `/proc` that still leads to it.
    pub(super) fn by_handles(log: &LogId, handles: &[PathBuf], scope: &Scope) -> Result<Self, ReclaimError> {
        for handle in handles {
            match Self::find(log, handle, libc::O_PATH, scope) {
                // Closed, or given to another file, since it was seen.
                Err(
                    ReclaimError::Gone { .. }
                    | ReclaimError::Replaced { .. }
                    | ReclaimError::NotRegular { .. },
                ) => {}
                found => return found,
            }
        }
        Err(ReclaimError::Gone {
            path: log.path.clone(),
        })
    }

    fn find(log: &LogId, name: &Path, flags: i32, scope: &Scope) -> Result<Self, ReclaimError> {
        let path = || log.path.clone();
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(name)
            .map_err(|source| {
                if source.kind() == ErrorKind::NotFound || source.raw_os_error() == Some(libc::ESRCH) {
                    ReclaimError::Gone { path: path() }
                } else {
                    ReclaimError::io("open", log, source)
                }
            })?;
        let found = handle
            .metadata()
            .map_err(|source| ReclaimError::io("look at", log, source))?;
        if !found.is_file() {
            return Err(ReclaimError::NotRegular { path: path() });
        }
        if (found.dev(), found.ino()) != (log.dev, log.ino) {
            return Err(ReclaimError::Replaced { path: path() });
        }
        let located = Self { handle };
        let real = located
            .real_path(log.deleted)
            .map_err(|source| ReclaimError::io("find the real path of", log, source))?;
        match scope.permits(&real) {
            Permit::Allowed => Ok(located),
            Permit::Outside => Err(ReclaimError::Outside { path: real }),
            Permit::Protected => Err(ReclaimError::Protected { path: real }),
        }
    }

    /// The name that the kernel knows it by; for a deleted file the one it had.
    fn real_path(&self, deleted: bool) -> io::Result<PathBuf> {
        let link = fs::read_link(self.proc_path())?;
        Ok(if deleted {
            former_path(&link).unwrap_or(link)
        } else {
            link
        })
    }

    fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Opens it for reading, and for writing if `write`. Never waits for a lease.
    pub(super) fn open(&self, log: &LogId, write: bool) -> Result<File, ReclaimError> {
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.proc_path())
            .map_err(|source| {
                if source.kind() == ErrorKind::ReadOnlyFilesystem {
                    ReclaimError::ReadOnly {
                        path: log.path.clone(),
                    }
                } else {
                    ReclaimError::io("open for writing", log, source)
                }
            })
    }
}

/// Beginnings of formats that are worthless without their head, whatever they are called.
const FORMATS: [(&[u8], &str); 11] = [
    (b"LPKSHHRH", "a systemd journal"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"redb\x1a\n", "a redb database"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"\x7fELF", "an ELF file or core dump"),
    (b"JAVA PROFILE", "a Java heap dump"),
    (b"FLR\0", "a Java flight recording"),
];

/// The known binary format that the file begins with.
pub(super) fn binary_format(file: &File) -> io::Result<Option<&'static str>> {
    let mut head = [0; 16];
    let read = file.read_at(&mut head, 0)?;
    Ok(FORMATS
        .iter()
        .find(|(magic, _)| head[..read].starts_with(magic))
        .map(|(_, name)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogSettings;

    #[test]
    fn a_deleted_log_is_found_by_whichever_descriptor_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap().join("app.log");
        let other = File::create(dir.path().join("other")).unwrap();
        let held = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let seen = held.metadata().unwrap();
        let log = LogId {
            dev: seen.dev(),
            ino: seen.ino(),
            path: path.clone(),
            deleted: true,
        };
        let scope = Scope::new(&LogSettings {
            globs: vec![path.display().to_string()],
            ..LogSettings::default()
        })
        .unwrap();
        let descriptor = |number: i32| PathBuf::from(format!("/proc/self/fd/{number}"));
        let closed = [descriptor(1_000_000), descriptor(other.as_raw_fd())];
        let gone = Located::by_handles(&log, &closed, &scope).unwrap_err();
        assert!(matches!(gone, ReclaimError::Gone { .. }), "{gone}");
        let [first, second] = closed;
        let handles = [first, second, descriptor(held.as_raw_fd())];
        Located::by_handles(&log, &handles, &scope).unwrap();
    }
}
