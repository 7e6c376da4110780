//! Which pods had a manifest before: `static-pods` in the state directory, a name a line.
//!
//! Read anew at each look, so that a line may be taken out by hand when a pod was removed on purpose.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Its name below the state directory.
pub(crate) const FILE: &str = "static-pods";

/// Names of the pods that had a manifest; none where nothing was learned.
pub(crate) fn read(state_dir: &Path) -> io::Result<BTreeSet<String>> {
    match fs::read_to_string(state_dir.join(FILE)) {
        Ok(text) => Ok(text
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Adds `present`, if that is new; all that are known then.
pub(crate) fn learn(state_dir: &Path, present: impl Iterator<Item = String>) -> io::Result<BTreeSet<String>> {
    let mut known = read(state_dir)?;
    let before = known.len();
    known.extend(present);
    if known.len() > before {
        let aside = state_dir.join(format!("{FILE}.new"));
        let lines: Vec<_> = known.iter().map(String::as_str).collect();
        fs::write(&aside, lines.join("\n") + "\n")?;
        fs::File::open(&aside)?.sync_all()?;
        fs::rename(&aside, state_dir.join(FILE))?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_known_until_its_line_is_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let learn = |names: &[&str]| {
            let known = learn(dir.path(), names.iter().map(|name| (*name).to_owned())).unwrap();
            known.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(learn(&["etcd", "kube-apiserver"]), ["etcd", "kube-apiserver"]);
        assert_eq!(learn(&["etcd"]), ["etcd", "kube-apiserver"]);
        fs::write(dir.path().join(FILE), "etcd\n").unwrap();
        assert_eq!(learn(&["etcd"]), ["etcd"]);
    }
}
