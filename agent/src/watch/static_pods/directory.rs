//! The directory of manifests, and the one where a manifest lies while it is out.
//!
//! ```text
//!  manifests/etcd.yaml ──move out──► held/etcd/etcd.yaml ──put back──► manifests/etcd.yaml
//! ```
//! Names are opened beneath their directory, and no symbolic link is followed. What is out lies in a directory of its pod's name, so
//! that it is found again from the ledger alone. A move never replaces a file, and both directories are synced after it: what the
//! ledger says next is then true also after a power loss.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::config::StaticPodSettings;

use super::manifest::{MAX_BYTES, Manifest, is_pod_name};

/// A file that the kubelet takes for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name in the directory.
    pub(crate) file: String,
    /// Differs when it was written anew.
    pub(crate) version: u64,
    /// What it says, or why it cannot be read, for people.
    pub(crate) manifest: Result<Manifest, String>,
}

/// Reads all manifests, in the order of their names. As for the kubelet, every file is one whose name does not begin with a dot.
///
/// # Errors
/// The directory cannot be read; `NotFound` where there is none.
pub(crate) fn read(dir: &Path) -> io::Result<Vec<Found>> {
    let open = open_dir(dir)?;
    let mut found: Vec<Found> = Vec::new();
    for name in names(dir)? {
        let (version, mut manifest) = match read_file(&open, &name) {
            Ok((version, text)) => (version, Manifest::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => (0, Err(explain(&error))),
        };
        if let Ok(this) = &manifest {
            let same = |other: &&Found| {
                let other = other.manifest.as_ref();
                other.is_ok_and(|other| other.name == this.name && other.namespace == this.namespace)
            };
            if let Some(other) = found.iter().find(same) {
                manifest = Err(format!(
                    "it is the same pod as {}, and only one of the two can run",
                    other.file
                ));
            }
        }
        found.push(Found {
            file: name,
            version,
            manifest,
        });
    }
    Ok(found)
}

/// The names of all files that the kubelet takes for manifests, in their order.
///
/// # Errors
/// The directory cannot be read; `NotFound` where there is none.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What is not UTF-8 is no name that a tool gives; it could not be moved back by the ledger's word.
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && !entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// What a manifest says, whole.
///
/// # Errors
/// It is not there, is not a regular file, or is too large.
pub(crate) fn text(dir: &Path, file: &str) -> io::Result<String> {
    read_file(&open_dir(dir)?, file).map(|(_, text)| text)
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => "it is a symbolic link, which is not followed here".to_owned(),
        _ if error.kind() == ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

fn open_dir(dir: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?.into())
}

/// A regular file beneath `dir`, of bounded length.
fn open_file(dir: &File, name: &str) -> io::Result<File> {
    // Opening a pipe would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

fn read_file(dir: &File, name: &str) -> io::Result<(u64, String)> {
    let file = open_file(dir, name)?;
    let mut text = String::new();
    if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok((hasher.finish(), text))
}

/// Both directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Where the kubelet looks.
    pub(crate) manifests: PathBuf,
    /// Where a manifest lies while it is out.
    pub(crate) held: PathBuf,
}

/// What became of a manifest that was to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Back {
    /// It lies where the kubelet looks.
    Moved,
    /// None was out.
    NoneOut,
    /// Somebody has put another one there meanwhile; this one stays where it is.
    Superseded(PathBuf),
}

impl Places {
    /// As they are configured.
    pub(crate) fn of(settings: &StaticPodSettings) -> Self {
        Self {
            manifests: settings.manifests.clone(),
            held: settings.held.clone(),
        }
    }

    /// Pods whose manifests are out, each with its manifest.
    pub(crate) fn out(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let pods = match fs::read_dir(&self.held) {
            Ok(pods) => pods,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut out = Vec::new();
        for pod in pods {
            let pod = pod?;
            let Ok(name) = pod.file_name().into_string() else {
                continue;
            };
            if pod.file_type()?.is_dir() {
                for file in fs::read_dir(pod.path())? {
                    out.push((name.clone(), file?.path()));
                }
            }
        }
        out.sort();
        Ok(out)
    }

    /// Moves `pod`'s manifest out, in one step; where it lies then. Durable once it has returned.
    ///
    /// # Errors
    /// It is not there, is not a regular file, or the two directories are not on one file system. Nothing has changed.
    pub(crate) fn move_out(&self, pod: &str, file: &str) -> io::Result<PathBuf> {
        let from = open_dir(&self.manifests)?;
        open_file(&from, file).map_err(|error| io::Error::new(error.kind(), explain(&error)))?;
        make_dir(&self.held)?;
        let held = open_dir(&self.held)?;
        match mkdirat(&held, pod, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let to = open_beneath(&held, pod)?;
        if to.metadata()?.dev() != from.metadata()?.dev() {
            return Err(io::Error::other(format!(
                "{} is on another file system than {}: set static_pods.held to a directory beside it",
                self.held.display(),
                self.manifests.display()
            )));
        }
        // Before the move, or a power loss could leave the file in a directory that never was.
        held.sync_all()?;
        rename(&from, &to, file)?;
        sync([&to, &from])?;
        Ok(self.held.join(pod).join(file))
    }

    /// Moves back what is out of `pod`. Durable once it has returned; may be done twice.
    ///
    /// # Errors
    /// It could not be moved, and is still out.
    pub(crate) fn put_back(&self, pod: &str) -> io::Result<Back> {
        // The name is from the ledger, and becomes a path.
        if !is_pod_name(pod) {
            return Ok(Back::NoneOut);
        }
        let from = match open_dir(&self.held).and_then(|held| open_beneath(&held, pod)) {
            Ok(from) => from,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Back::NoneOut),
            Err(error) => return Err(error),
        };
        let dir = self.held.join(pod);
        let to = open_dir(&self.manifests)?;
        let mut back = Back::NoneOut;
        for entry in fs::read_dir(&dir)? {
            let Ok(file) = entry?.file_name().into_string() else {
                continue;
            };
            match rename(&from, &to, &file) {
                Ok(()) => back = Back::Moved,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let inode = |of: &File| {
                        let seen = statat(of, file.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
                        Ok::<_, Errno>((seen.st_dev, seen.st_ino))
                    };
                    // A move by link and unlink that was cut short.
                    if inode(&from)? == inode(&to)? {
                        unlinkat(&from, file.as_str(), AtFlags::empty())?;
                        back = Back::Moved;
                    } else {
                        back = Back::Superseded(dir.join(file));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        sync([&to, &from])?;
        if !matches!(back, Back::Superseded(_)) {
            // Left empty it would do no harm.
            let _stays = fs::remove_dir(&dir);
        }
        Ok(back)
    }
}

fn open_beneath(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?.into())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match rustix::fs::mkdir(dir, Mode::RWXU) {
        Ok(()) => {
            if let Some(parent) = dir.parent() {
                open_dir(parent)?.sync_all()?;
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// In one step, and never over another file.
fn rename(from: &File, to: &File, file: &str) -> io::Result<()> {
    match renameat_with(from, file, to, file, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Old kernels, and some file systems, do not know the flag. A link does not replace either.
        Err(Errno::NOSYS | Errno::INVAL) => {
            linkat(from, file, to, file, AtFlags::empty())?;
            Ok(unlinkat(from, file, AtFlags::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

fn sync<const N: usize>(dirs: [&File; N]) -> io::Result<()> {
    dirs.into_iter().try_for_each(File::sync_all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const POD: &str = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: c}]}\n";

    fn places() -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            manifests: dir.path().join("manifests"),
            held: dir.path().join("held"),
        };
        fs::create_dir(&places.manifests).unwrap();
        (dir, places)
    }

    #[test]
    fn a_file_that_is_no_manifest_is_told_and_disturbs_no_other() {
        let (dir, places) = places();
        let at = |name: &str| places.manifests.join(name);
        fs::write(at("etcd.yaml"), POD).unwrap();
        fs::write(at("etcd.yaml.bak"), POD).unwrap();
        fs::write(at(".hidden"), "nothing").unwrap();
        fs::write(at("binary"), [0xff, 0xfe]).unwrap();
        fs::write(
            at("large.yaml"),
            "#".repeat(usize::try_from(MAX_BYTES).unwrap() + 1),
        )
        .unwrap();
        fs::create_dir(at("sub")).unwrap();
        symlink("/dev/zero", at("link.yaml")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = read(&places.manifests).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|one| {
                let why = one.manifest.as_ref().err().cloned().unwrap_or_default();
                (one.file.as_str(), why)
            })
            .collect();
        for (file, why) in [
            ("binary", "not UTF-8"),
            ("etcd.yaml", ""),
            ("etcd.yaml.bak", "same pod as etcd.yaml"),
            ("large.yaml", "larger than"),
            ("link.yaml", "symbolic link"),
            ("pipe", "not a regular file"),
        ] {
            let seen = told.iter().find(|(name, _)| *name == file).unwrap();
            assert!(
                seen.1.contains(why) && seen.1.is_empty() == why.is_empty(),
                "{seen:?}"
            );
        }
        assert_eq!(told.len(), 6, "{told:?}");
        drop(dir);
    }

    #[test]
    fn a_manifest_goes_out_and_comes_back_under_its_name_and_twice_is_no_harm() {
        let (_dir, places) = places();
        fs::write(places.manifests.join("any-name.yml"), POD).unwrap();
        let out = places.move_out("etcd", "any-name.yml").unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), POD);
        assert_eq!(places.out().unwrap(), [("etcd".to_owned(), out)]);
        assert!(read(&places.manifests).unwrap().is_empty());
        assert_eq!(places.put_back("etcd").unwrap(), Back::Moved);
        assert_eq!(places.put_back("etcd").unwrap(), Back::NoneOut);
        assert_eq!(read(&places.manifests).unwrap()[0].file, "any-name.yml");
        assert!(places.out().unwrap().is_empty());
    }

    #[test]
    fn a_manifest_that_was_put_there_meanwhile_is_never_replaced() {
        let (_dir, places) = places();
        let at = places.manifests.join("etcd.yaml");
        fs::write(&at, POD).unwrap();
        let out = places.move_out("etcd", "etcd.yaml").unwrap();
        fs::write(&at, "newer").unwrap();
        assert_eq!(places.put_back("etcd").unwrap(), Back::Superseded(out.clone()));
        assert_eq!(fs::read_to_string(&at).unwrap(), "newer");
        assert!(out.exists());
        // The other half of a move by link and unlink.
        fs::remove_file(&at).unwrap();
        fs::hard_link(&out, &at).unwrap();
        assert_eq!(places.put_back("etcd").unwrap(), Back::Moved);
        assert!(at.exists() && !out.exists());
    }

    #[test]
    fn a_link_is_not_moved_and_none_in_place_of_a_held_directory_is_followed() {
        let (dir, places) = places();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("etcd.yaml"), POD).unwrap();
        symlink(elsewhere.join("etcd.yaml"), places.manifests.join("etcd.yaml")).unwrap();
        let error = places.move_out("etcd", "etcd.yaml").unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        fs::create_dir_all(&places.held).unwrap();
        symlink(&elsewhere, places.held.join("scheduler")).unwrap();
        assert!(places.put_back("scheduler").is_err());
        assert!(elsewhere.join("etcd.yaml").exists());
    }
}
