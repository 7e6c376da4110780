//! Globs → the files that match them now.
//!
//! Unlike logs, a certificate may be a symlink: `kubelet-client-current.pem` is one, to a file with a date in its name. The kubelet
//! leaves the dated files of earlier certificates lying beside it; those have expired long ago and nobody uses them, so they are left out.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::GlobMatcher;

use crate::reclaim::scope::{glob, split};

/// No more entries than this are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Directories nested deeper are not entered.
const MAX_DEPTH: usize = 8;
/// The end of a link's name to the one of several dated files that is in use.
const CURRENT: &str = "-current.pem";

/// The globs, taken apart.
#[derive(Debug)]
pub(crate) struct Finder {
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    root: PathBuf,
    depth: usize,
    matcher: GlobMatcher,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: BTreeSet<PathBuf>,
    /// Directories that could not be read.
    pub(crate) unseen: Vec<PathBuf>,
}

impl Finder {
    pub(crate) fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let route = |text: &String| {
            let (root, rest) = split(text);
            let depth = if rest.contains("**") || rest.contains('{') {
                MAX_DEPTH
            } else {
                rest.split('/').count()
            };
            Ok(Route {
                root,
                depth,
                matcher: glob(text)?.compile_matcher(),
            })
        };
        Ok(Self {
            routes: globs.iter().map(route).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn find(&self) -> Found {
        let mut found = Found::default();
        let mut left = MAX_ENTRIES;
        for route in &self.routes {
            enter(&route.root, &route.matcher, route.depth, &mut left, &mut found);
        }
        found
    }
}

fn enter(directory: &Path, matcher: &GlobMatcher, depth: usize, left: &mut usize, found: &mut Found) {
    if depth == 0 {
        return;
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            // What is not there holds nothing.
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) {
                found.unseen.push(directory.to_owned());
            }
            return;
        }
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            enter(&path, matcher, depth - 1, left, found);
        } else if matcher.is_match(&path)
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
            // A symlink to a file, too.
            && fs::metadata(&path).is_ok_and(|seen| seen.is_file())
        {
            files.push(name.to_owned());
        }
    }
    let superseded = |name: &str| {
        files
            .iter()
            .filter_map(|file| file.strip_suffix(CURRENT))
            .any(|stem| dated(name, stem))
    };
    let kept = files.iter().filter(|name| !superseded(name));
    found.files.extend(kept.map(|name| directory.join(name)));
}

/// `STEM-2024-05-01-10-00-00.pem`.
fn dated(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn finds_what_the_globs_name_and_not_what_the_kubelet_has_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for file in [
            "pki/ca.crt",
            "pki/ca.key",
            "pki/etcd/server.crt",
            "kubelet/kubelet-client-2023-01-01-00-00-00.pem",
            "kubelet/kubelet-client-2024-01-01-00-00-00.pem",
            "kubelet/own.pem",
        ] {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "x").unwrap();
        }
        symlink(
            at("kubelet/kubelet-client-2024-01-01-00-00-00.pem"),
            at("kubelet/kubelet-client-current.pem"),
        )
        .unwrap();
        symlink(at("nowhere"), at("pki/dangling.crt")).unwrap();
        let globs = ["pki/**/*.crt", "kubelet/*.pem", "pki/ca.key", "missing/*.crt"]
            .map(|glob| at(glob).display().to_string());
        let found = Finder::new(&globs).unwrap().find();
        let expected = [
            "kubelet/kubelet-client-current.pem",
            "kubelet/own.pem",
            "pki/ca.crt",
            "pki/ca.key",
            "pki/etcd/server.crt",
        ];
        assert_eq!(found.files, expected.map(at).into());
        assert!(found.unseen.is_empty(), "{found:?}");
    }
}
