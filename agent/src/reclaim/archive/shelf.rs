//! All archives: what they are called, how much room they have, which go.
//!
//! `20261123T101112.123456Z-4711-0-67108864-var-log-app.log.zst`: when, the log's inode, the range that was cut, the log's path. In the order
//! of their names the archives of one inode are its log again: `zstdcat *-4711-*-var-log-app.log.zst`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::config::LogSettings;
use crate::reclaim::scope::split;

/// What is being written is called so.
const PARTIAL: &str = ".partial";
const ENDING: &str = ".zst";
/// So much of a path stays in the name, bytes from its end; a name may have 255.
const PATH: usize = 120;

/// The name of the archive of `range` of a log.
pub(super) fn name(at: Timestamp, ino: u64, range: &Range<u64>, log: &Path) -> String {
    let path = log.display().to_string();
    let plain: String = path
        .trim_start_matches('/')
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '/' { c } else { '-' })
        .collect();
    let end = &plain[plain.len().saturating_sub(PATH)..];
    let at = at.strftime("%Y%m%dT%H%M%S%.6fZ");
    format!("{at}-{ino}-{}-{}-{end}{ENDING}", range.start, range.end)
}

/// What it is called while it is written.
pub(super) fn partial(name: &str) -> String {
    format!(".{name}{PARTIAL}")
}

/// It is one of ours: nothing else in the directory is ever touched.
fn is_archive(name: &str) -> bool {
    let mut parts = name.strip_suffix(ENDING).unwrap_or_default().splitn(5, '-');
    let mut next = || parts.next().unwrap_or_default();
    let time = next();
    let dated = time.len() == 23 && time.ends_with('Z') && time.as_bytes()[8] == b'T';
    let numbers = [next(), next(), next()];
    let numbered = numbers
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    dated && numbered && !next().is_empty()
}

/// Removes what was left half written by an agent that died, or by a thread that nobody waited for.
pub(super) fn sweep(dir: &Path, older_than: Duration) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(inner) = name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(PARTIAL))
        else {
            continue;
        };
        let age = entry
            .metadata()
            .and_then(|found| found.modified())
            .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if is_archive(inner) && age.is_ok_and(|age| age > older_than) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes the oldest until all take no more than `max_bytes`; never `newest`.
pub(super) fn thin(dir: &Path, max_bytes: u64, newest: &str) -> io::Result<()> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && is_archive(&name)
        {
            archives.push((name, entry.metadata()?.len()));
        }
    }
    archives.sort();
    let mut total: u64 = archives.iter().map(|(_, size)| size).sum();
    for (name, size) in archives {
        if total <= max_bytes {
            break;
        }
        if name == newest {
            continue;
        }
        match fs::remove_file(dir.join(&name)) {
            // Another archive's end has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => total -= size,
        }
    }
    Ok(())
}

/// What is wrong with the place of the archive: logs lie on its own file system, and it would fill what it is to empty. Directories that are
/// not there are no matter: each archive looks again.
///
/// # Errors
/// What is wrong, for people.
pub fn well_placed(settings: &LogSettings) -> Result<(), String> {
    let Some(archive) = &settings.archive else {
        return Ok(());
    };
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let Some(taken) = device(&archive.dir) else {
        return Ok(());
    };
    let prefixes = settings.globs.iter().map(|glob| split(glob).0);
    let beside: BTreeSet<_> = prefixes
        .filter(|dir| device(dir) == Some(taken))
        .map(|dir| dir.display().to_string())
        .collect();
    if beside.is_empty() {
        return Ok(());
    }
    Err(format!(
        "logs.archive.dir: {} is on the file system that has the logs in {}; name a directory on another one, or take these out of logs.globs",
        archive.dir.display(),
        beside.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ArchiveSettings;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    #[test]
    fn names_sort_by_time_and_are_known_again() {
        let of = |second, path: &str| name(at(second), 47, &(0..4096), Path::new(path));
        assert_eq!(
            of(0, "/var/log/app.log"),
            "20231114T221320.000000Z-47-0-4096-var-log-app.log.zst"
        );
        assert!(of(0, "/z") < of(1, "/a"));
        let long = of(0, &format!("/{}", "ä/".repeat(300)));
        assert!(is_archive(&long) && partial(&long).len() < 255, "{long}");
        for other in ["app.zst", "20231114T221320.000000Z-a-0-1-x.zst", "x", ""] {
            assert!(!is_archive(other), "{other}");
        }
    }

    #[test]
    fn the_oldest_go_and_neither_the_newest_nor_what_is_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..4).map(|n| name(at(n), 1, &(0..1), Path::new("/a"))).collect();
        for name in &names {
            fs::write(dir.path().join(name), [0; 100]).unwrap();
        }
        fs::write(dir.path().join("a-file-of-somebody-elses.zst"), [0; 1000]).unwrap();
        let left = || names.iter().filter(|name| dir.path().join(name).exists()).count();
        thin(dir.path(), 250, &names[3]).unwrap();
        assert_eq!(left(), 2);
        thin(dir.path(), 10, &names[3]).unwrap();
        assert!(left() == 1 && dir.path().join(&names[3]).exists());
        assert!(dir.path().join("a-file-of-somebody-elses.zst").exists());
    }

    #[test]
    fn only_what_was_left_behind_long_ago_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir
            .path()
            .join(partial(&name(at(0), 1, &(0..1), Path::new("/a"))));
        let other = dir.path().join(".other.partial");
        for path in [&partial, &other] {
            fs::write(path, "x").unwrap();
        }
        sweep(dir.path(), Duration::from_hours(1)).unwrap();
        assert!(partial.exists());
        sweep(dir.path(), Duration::ZERO).unwrap();
        assert!(!partial.exists() && other.exists());
    }

    #[test]
    fn an_archive_beside_its_logs_is_misplaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = LogSettings {
            globs: vec![
                format!("{}/*.log", dir.path().display()),
                "/proc/*.log".to_owned(),
            ],
            ..LogSettings::default()
        };
        well_placed(&settings).unwrap();
        settings.archive = Some(ArchiveSettings::at(dir.path().to_owned()));
        let why = well_placed(&settings).unwrap_err();
        assert!(
            why.contains(&format!("the logs in {};", dir.path().display())),
            "{why}"
        );
        settings.archive = Some(ArchiveSettings::at(dir.path().join("not-there")));
        well_placed(&settings).unwrap();
    }
}
