//! Writes the authority's files: whole or not at all, and keys for their owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;

/// Makes the directory, for its owner alone; one that is there stays as it is.
pub(super) fn make_directory(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| error("make directory", dir, source))
}

pub(super) fn write_key(path: &Path, pem: &str) -> Result<(), PkiError> {
    write(path, pem, 0o600)
}

pub(super) fn write_certificate(path: &Path, pem: &str) -> Result<(), PkiError> {
    write(path, pem, 0o644)
}

/// Names that were put into the directory survive a crash.
pub(super) fn sync_directory(dir: &Path) -> Result<(), PkiError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| error("write directory", dir, source))
}

/// Aside first, with its mode from the beginning, then renamed.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let aside = aside(path);
    let written = put(&aside, content, mode).and_then(|()| fs::rename(&aside, path));
    written.map_err(|source| {
        // Only a leftover, which the next attempt replaces.
        let _ = fs::remove_file(&aside);
        error("write", path, source)
    })
}

fn put(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    // A leftover may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn error(action: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
