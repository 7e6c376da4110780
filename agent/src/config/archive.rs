//! What of a log is kept elsewhere before its head is cut.

use std::path::PathBuf;
use std::time::Duration;

/// Where the heads of logs go before they are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// A directory on a file system that holds none of the logs.
    pub dir: PathBuf,
    /// The oldest archives go when all take more than this, bytes.
    pub max_bytes: u64,
    /// zstd's level.
    pub level: i32,
    /// Nothing is archived while less of that file system is free.
    pub min_free_percent: u64,
    /// A head that is not archived by then is cut without.
    pub deadline: Duration,
}

impl ArchiveSettings {
    /// The defaults for a directory.
    pub fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            max_bytes: 20 << 30,
            level: 3,
            min_free_percent: 10,
            deadline: Duration::from_secs(30),
        }
    }
}
