//! Writes certificates and keys: whole or not at all, with their modes from the beginning.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::EnrolError;

/// For its owner alone.
pub(super) const PRIVATE: u32 = 0o600;

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnrolError {
    let path = path.to_owned();
    move |source| EnrolError::File { action, path, source }
}

/// For its owner alone; one that is there stays as it is.
pub(super) fn make_directory(dir: &Path) -> Result<(), EnrolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make directory", dir))
}

/// In place of what is there. Durable once this has returned.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), EnrolError> {
    let aside = aside(path);
    put(&aside, content)
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()))
        .map_err(failed("write", path))
}

/// Whether a file could be replaced, before anybody is asked for what goes into it.
pub(super) fn can_write(path: &Path) -> Result<(), EnrolError> {
    let aside = aside(path);
    put(&aside, b"")
        .and_then(|()| fs::remove_file(&aside))
        .map_err(failed("write", path))
}

fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    PathBuf::from(aside)
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    // A leftover may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives `paths` to whoever owns `dir`: what root wrote, the agent's own user has to replace.
pub(super) fn give_to_owner_of(dir: &Path, paths: &[&Path]) -> Result<(), EnrolError> {
    let owner = fs::metadata(dir).map_err(failed("look at", dir))?;
    for path in paths {
        let own = fs::metadata(path).map_err(failed("look at", path))?;
        if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
            chown(path, Some(owner.uid()), Some(owner.gid()))
                .map_err(failed("give to the agent's user", path))?;
        }
    }
    Ok(())
}
