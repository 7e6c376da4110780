//! What takes a disk that is short → [`Signal::Holders`]: the directories with the most files, and deleted files that are held open.
//!
//! Evidence for people: nobody knows what may go of these but they. (Deleted *logs* are reclaimed by themselves.) Looked for only while a disk
//! is short, once a minute, within bounds: a walk may not make a disk slower that is in trouble already.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::disk::Picture;
use crate::config::DiskSettings;
use crate::diagnose::disk::{bytes_percent, inodes_percent};
use crate::reclaim::writers::{Deleted, deleted_files};
use crate::signal::{Crowd, HeldOpen, HoldersSignal, Signal};

/// How often is looked.
const PERIOD: Duration = Duration::from_mins(1);
/// A walk ends after so many entries, or so long.
const MAX_ENTRIES: u64 = 300_000;
const WALK: Duration = Duration::from_secs(2);
/// So many of each are told.
const TOLD: usize = 3;
/// Smaller deleted files are no matter, bytes.
const WORTH: u64 = 1 << 20;

/// Looks until `stop` at those disks that `picture` says are short.
pub async fn watch(
    disks: Vec<DiskSettings>,
    mut picture: watch::Receiver<Picture>,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    loop {
        let short = {
            let until = picture.wait_for(|picture| !short(picture, &disks).is_empty());
            tokio::select! {
                () = stop.cancelled() => return,
                seen = until => match seen {
                    Ok(picture) => short(&picture, &disks),
                    Err(_) => return,
                },
            }
        };
        for mount_point in short {
            let looked = tokio::task::spawn_blocking(move || look(&mount_point));
            // A look that hangs on a dead device must not hold up the stop.
            let seen = tokio::select! {
                () = stop.cancelled() => return,
                seen = looked => seen,
            };
            match seen {
                Ok(Some(seen)) => {
                    if signals.send(Signal::Holders(seen)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    error!(%error, "what takes a disk is looked for no more");
                    return;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}

fn short(picture: &Picture, disks: &[DiskSettings]) -> Vec<PathBuf> {
    let is_short = |disk: &&DiskSettings| {
        picture
            .get(&disk.mount_point)
            .is_some_and(|seen| bytes_percent(seen).max(inodes_percent(seen)) >= disk.raise_percent)
    };
    let short = disks.iter().filter(is_short);
    short.map(|disk| disk.mount_point.clone()).collect()
}

/// `None` where the disk cannot be looked at.
fn look(mount_point: &Path) -> Option<HoldersSignal> {
    let dev = fs::metadata(mount_point).ok()?.dev();
    let mut deleted = deleted_files(&[dev]);
    deleted.retain(|file| file.stat.allocated >= WORTH);
    deleted.sort_by_key(|file| std::cmp::Reverse(file.stat.allocated));
    deleted.truncate(TOLD);
    Some(HoldersSignal {
        mount_point: mount_point.to_owned(),
        crowded: crowded(mount_point, dev),
        deleted: deleted.into_iter().filter_map(held).collect(),
    })
}

/// The directories with the most entries, as far as the walk gets: level by level, on this file system alone.
fn crowded(mount_point: &Path, dev: u64) -> Vec<Crowd> {
    let (begun, mut left) = (Instant::now(), MAX_ENTRIES);
    let mut crowds: Vec<Crowd> = Vec::new();
    let mut to_do = VecDeque::from([mount_point.to_owned()]);
    while let Some(directory) = to_do.pop_front() {
        if left == 0 || begun.elapsed() >= WALK {
            break;
        }
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        let mut count = 0;
        for entry in entries.flatten() {
            count += 1;
            left = left.saturating_sub(1);
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && entry.metadata().is_ok_and(|found| found.dev() == dev) {
                to_do.push_back(entry.path());
            }
            if left == 0 {
                break;
            }
        }
        crowds.push(Crowd {
            directory,
            entries: count,
        });
        crowds.sort_by_key(|crowd| std::cmp::Reverse(crowd.entries));
        crowds.truncate(TOLD);
    }
    crowds
}

fn held(file: Deleted) -> Option<HeldOpen> {
    // `/proc/PID/fd/N`.
    let pid = file.handle.iter().nth(2)?.to_str()?.parse().ok()?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Some(HeldOpen {
        path: file.former,
        pid,
        unit: unit(&cgroup),
        allocated: file.stat.allocated,
    })
}

/// The unit in `/proc/PID/cgroup`: the innermost that is a service or a scope.
fn unit(cgroup: &str) -> Option<String> {
    let is_unit = |part: &&str| {
        Path::new(part)
            .extension()
            .is_some_and(|end| end == "service" || end == "scope")
    };
    cgroup
        .lines()
        .find_map(|line| line.rsplit('/').find(is_unit))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_fullest_directory_comes_first_and_deleted_files_have_an_owner() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for (name, files) in [("few", 2), ("many/deep", 50), ("some", 10)] {
            fs::create_dir_all(root.join(name)).unwrap();
            for file in 0..files {
                fs::write(root.join(name).join(file.to_string()), "").unwrap();
            }
        }
        let path = root.join("gone");
        let mut held = fs::File::create(&path).unwrap();
        held.write_all(&vec![1; 64 << 20]).unwrap();
        fs::remove_file(&path).unwrap();
        let seen = look(&root).unwrap();
        let first = &seen.crowded[0];
        assert_eq!((&first.directory, first.entries), (&root.join("many/deep"), 50));
        let ours = seen.deleted.iter().find(|file| file.path == path).unwrap();
        assert!(ours.pid == std::process::id() && ours.allocated >= 64 << 20);
    }

    #[test]
    fn the_unit_is_the_innermost_service_or_scope() {
        let of = |line: &str| unit(line);
        assert_eq!(
            of("0::/system.slice/docker.service\n").as_deref(),
            Some("docker.service")
        );
        let pod = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-9.scope\n";
        assert_eq!(of(pod).as_deref(), Some("cri-containerd-9.scope"));
        assert_eq!(of("0::/\n"), None);
    }
}
