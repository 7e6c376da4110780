//! What was seen of disks and logs.

use std::path::PathBuf;
use std::time::Duration;

/// Usage of one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSignal {
    /// Where it is mounted (as configured).
    pub mount_point: PathBuf,
    /// Size in bytes.
    pub bytes_total: u64,
    /// Bytes that unprivileged writers may still use (`f_bavail`).
    pub bytes_available: u64,
    /// Inodes in all; 0 where the file system has no fixed number.
    pub inodes_total: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// At the present rate it is full after this; `None` when it does not fill.
    pub time_to_full: Option<Duration>,
}

/// One log, also when it has no name any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// Device number of its file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Its path when last seen; for a deleted file the one it had.
    pub path: PathBuf,
    /// Deleted, but held open: reachable through `/proc/<pid>/fd/<fd>` alone.
    pub deleted: bool,
}

/// Size and growth of one log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSignal {
    /// Which log.
    pub log: LogId,
    /// The configured mount point that holds it.
    pub mount_point: PathBuf,
    /// Bytes allocated on disk (`st_blocks * 512`): a punched log is long but small.
    pub allocated: u64,
    /// Bytes a second that it grows, averaged over the last looks.
    pub growth_per_second: u64,
}

/// What takes a disk that is short, the most first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldersSignal {
    /// Where it is mounted (as configured).
    pub mount_point: PathBuf,
    /// The directories with the most entries, as far as was looked.
    pub crowded: Vec<Crowd>,
    /// Files that are deleted and held open: their space is free when they are closed.
    pub deleted: Vec<HeldOpen>,
}

/// A directory with many entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crowd {
    /// Which.
    pub directory: PathBuf,
    /// Entries.
    pub entries: u64,
}

/// A deleted file that somebody holds open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOpen {
    /// The name it had.
    pub path: PathBuf,
    /// Who holds it, one of them.
    pub pid: u32,
    /// The unit of that process.
    pub unit: Option<String>,
    /// Bytes on disk.
    pub allocated: u64,
}

/// All watched mount points at which something is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsSignal {
    /// In the order of the configuration.
    pub mounts: Vec<MountState>,
}

/// What is mounted at a watched mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountState {
    /// Where (as configured).
    pub mount_point: PathBuf,
    /// What, as the kernel calls it: mostly a block device.
    pub device: String,
    /// Whether it can be written.
    pub writable: Writable,
}

/// Whether a file system can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// Yes.
    Yes,
    /// It is mounted read-only.
    Mounted {
        /// `/etc/fstab` mounts it read-write.
        meant: bool,
    },
    /// The kernel gave it up after an error, whatever its mount says.
    Withdrawn {
        /// What tells so, for people.
        why: String,
    },
}
