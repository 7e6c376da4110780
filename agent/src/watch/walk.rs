//! The configured globs → the files that match them now.
//!
//! Walks component by component, so that `/opt/*/logs/*` lists `/opt` and the `logs` directories and nothing else.
//! No symlink is followed, and no directory of a file system that is not watched is entered.
//!
//! Nearly all files are small. Each costs one entry of its directory and one look at its attributes from there; only a large one has a
//! path made for it and held against the globs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::GlobMatcher;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};

use crate::reclaim::scope::{Permit, Scope, glob};
use crate::reclaim::writers::{Stat, stat, stat_in};

/// No more entries than this are looked at in one walk.
const MAX_ENTRIES: usize = 500_000;
/// Directories nested deeper are not entered.
const MAX_DEPTH: usize = 32;

/// The globs, taken apart.
#[derive(Debug)]
pub(super) struct Walker {
    scope: Scope,
    routes: Vec<(PathBuf, Vec<Step>)>,
}

#[derive(Debug)]
enum Step {
    /// One component.
    Name(GlobMatcher),
    /// Everything below; the whole glob decides.
    Any,
}

impl Walker {
    pub(super) fn new(scope: Scope) -> Result<Self, globset::Error> {
        let mut routes = Vec::new();
        for (prefix, rest) in scope.walks() {
            let mut steps = Vec::new();
            for component in rest.split('/') {
                // Alternatives may span components: `{a,b/c}`.
                if component.contains("**") || component.contains(['{', '}']) {
                    steps.push(Step::Any);
                    break;
                }
                steps.push(Step::Name(glob(component)?.compile_matcher()));
            }
            routes.push((prefix, steps));
        }
        Ok(Self { scope, routes })
    }

    /// Whether `path` may be touched.
    pub(super) fn allows(&self, path: &Path) -> bool {
        self.scope.permits(path) == Permit::Allowed
    }

    /// Visits every regular file on `devices` that may be touched and takes `least` bytes on disk; one that several globs name, several
    /// times.
    pub(super) fn walk(&self, devices: &[u64], least: u64, found: &mut dyn FnMut(PathBuf, Stat)) {
        let mut walk = Walk {
            walker: self,
            devices,
            least,
            found,
            left: MAX_ENTRIES,
        };
        for (prefix, steps) in &self.routes {
            walk.enter(prefix, steps, MAX_DEPTH);
        }
    }
}

struct Walk<'a> {
    walker: &'a Walker,
    devices: &'a [u64],
    least: u64,
    found: &'a mut dyn FnMut(PathBuf, Stat),
    left: usize,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path, steps: &[Step], depth: usize) {
        let watched = stat(directory, false)
            .is_ok_and(|seen| seen.kind == FileType::Directory && self.devices.contains(&seen.dev));
        if depth == 0 || !watched {
            return;
        }
        let Some((step, rest)) = steps.split_first() else {
            return;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(mut entries) = openat(CWD, directory, flags, Mode::empty()).and_then(Dir::new) else {
            return;
        };
        while let Some(Ok(entry)) = entries.read() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let (matches, last, below) = match step {
                Step::Name(matcher) => (matcher.is_match(name), rest.is_empty(), rest),
                Step::Any => (true, true, steps),
            };
            if !matches {
                continue;
            }
            // Not every file system tells the kind here.
            let mut kind = entry.file_type();
            let mut seen = None;
            if kind == FileType::Unknown || (kind == FileType::RegularFile && last) {
                seen = entries.fd().ok().and_then(|fd| stat_in(fd, name).ok());
                kind = seen.map_or(kind, |seen| seen.kind);
            }
            if kind == FileType::Directory {
                self.enter(&directory.join(name), below, depth - 1);
            } else if let Some(seen) = seen
                && last
                && seen.kind == FileType::RegularFile
                && seen.allocated >= self.least
            {
                let path = directory.join(name);
                if self.walker.allows(&path) {
                    (self.found)(path, seen);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::config::LogSettings;

    #[test]
    fn finds_what_the_globs_name_and_nothing_behind_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for file in [
            "opt/a/logs/one.log",
            "opt/b/logs/two.log",
            "opt/b/other/three.log",
            "opt/logs/four.log",
            "log/five",
            "log/deep/er/six",
            "log/state.db",
            "secret/seven",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        symlink(root.join("secret"), root.join("log/way")).unwrap();
        symlink(root.join("secret/seven"), root.join("log/link")).unwrap();
        let globs = ["opt/*/logs/*.log", "log/**", "opt/{a/logs,b/logs}/one*"];
        let scope = Scope::new(&LogSettings {
            globs: globs
                .iter()
                .map(|glob| format!("{}/{glob}", root.display()))
                .collect(),
            ..LogSettings::default()
        })
        .unwrap();
        let walker = Walker::new(scope).unwrap();
        let device = fs::metadata(&root).unwrap().dev();
        let found = |devices: &[u64]| {
            let mut found = Vec::new();
            walker.walk(devices, 0, &mut |path, _| {
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
            });
            found.sort();
            found.dedup();
            found
        };
        assert_eq!(
            found(&[device]),
            [
                "log/deep/er/six",
                "log/five",
                "opt/a/logs/one.log",
                "opt/b/logs/two.log"
            ]
        );
        assert!(found(&[device + 1]).is_empty());
    }
}
