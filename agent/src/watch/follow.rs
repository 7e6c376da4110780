//! The largest logs, looked at again and again: their size, growth and end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rustix::fs::FileType;
use tokio::time::Instant;

use super::rate::Rate;
use super::walk::Walker;
use crate::reclaim::writers::{Stat, deleted_files, stat};
use crate::signal::{LogId, LogSignal, Signal};

/// No more logs than this are followed on one disk: the largest.
const MAX_FOLLOWED: usize = 256;
/// No more logs than this are told at first sight for one disk; what was told once is told on.
const MAX_TOLD: usize = 16;

/// What is known of the logs.
#[derive(Debug)]
pub(super) struct Follower {
    walker: Walker,
    min_size: u64,
    mount_points: Vec<PathBuf>,
    followed: BTreeMap<(u64, u64), Followed>,
    gone: Vec<LogId>,
}

#[derive(Debug)]
struct Followed {
    log: LogId,
    mount_point: PathBuf,
    /// Where it is looked at: its path, or a descriptor under `/proc`.
    at: PathBuf,
    allocated: u64,
    rate: Rate,
    told: Option<LogSignal>,
}

/// What one look brought.
#[derive(Debug)]
pub(super) struct Look {
    /// What to tell.
    pub(super) signals: Vec<Signal>,
    /// A log is no longer where it was: renamed, deleted, closed. It may still be written.
    pub(super) lost: bool,
}

impl Follower {
    pub(super) fn new(walker: Walker, min_size: u64, mount_points: Vec<PathBuf>) -> Self {
        Self {
            walker,
            min_size,
            mount_points,
            followed: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    /// Looks for logs that have a name.
    pub(super) fn find_named(&mut self) {
        let mounts = self.mounts();
        let mut found = Vec::new();
        let mut take = |path, seen| found.push((path, seen));
        self.walker.walk(&devices(&mounts), self.min_size, &mut take);
        for (path, seen) in found {
            self.add(&mounts, path.clone(), path, seen, false);
        }
        self.bound();
    }

    /// Looks for logs that are deleted and held open.
    pub(super) fn find_deleted(&mut self) {
        let mounts = self.mounts();
        for deleted in deleted_files(&devices(&mounts)) {
            if deleted.stat.allocated >= self.min_size && self.walker.allows(&deleted.former) {
                self.add(&mounts, deleted.former, deleted.handle, deleted.stat, true);
            }
        }
        self.bound();
    }

    /// Looks at each followed log, and tells those on `attended` disks.
    pub(super) fn look(&mut self, attended: &BTreeSet<PathBuf>, now: Instant) -> Look {
        let before = self.followed.len();
        let gone = &mut self.gone;
        self.followed.retain(|(dev, ino), followed| {
            let seen = stat(&followed.at, followed.log.deleted)
                .ok()
                .filter(|seen| (seen.dev, seen.ino) == (*dev, *ino) && seen.kind == FileType::RegularFile);
            if let Some(seen) = &seen {
                followed.allocated = seen.allocated;
                followed.rate.observe(now, seen.allocated);
            } else if followed.told.is_some() {
                gone.push(followed.log.clone());
            }
            seen.is_some()
        });
        let lost = self.followed.len() < before;
        let mut signals: Vec<_> = self.gone.drain(..).map(Signal::LogGone).collect();
        for mount_point in &self.mount_points {
            let mut here: Vec<_> = self
                .followed
                .values_mut()
                .filter(|followed| followed.mount_point == *mount_point)
                .collect();
            if attended.contains(mount_point) {
                here.sort_by_key(|followed| std::cmp::Reverse(followed.weight()));
                signals.extend(
                    here.into_iter()
                        .enumerate()
                        .filter(|(place, followed)| *place < MAX_TOLD || followed.told.is_some())
                        .filter_map(|(_, followed)| followed.tell()),
                );
            } else {
                signals.extend(
                    here.into_iter()
                        .filter_map(|followed| followed.told.take())
                        .map(|told| Signal::LogGone(told.log)),
                );
            }
        }
        Look { signals, lost }
    }

    fn add(&mut self, mounts: &[(u64, PathBuf)], path: PathBuf, at: PathBuf, seen: Stat, deleted: bool) {
        let Some((_, mount_point)) = mounts.iter().find(|(dev, _)| *dev == seen.dev) else {
            return;
        };
        let log = LogId {
            dev: seen.dev,
            ino: seen.ino,
            path,
            deleted,
        };
        let rate = match self.followed.remove(&(seen.dev, seen.ino)) {
            Some(known) if known.log == log => {
                self.followed
                    .insert((seen.dev, seen.ino), Followed { at, ..known });
                return;
            }
            // The same log under another name: a rotation.
            Some(known) => {
                if known.told.is_some() {
                    self.gone.push(known.log);
                }
                known.rate
            }
            None => Rate::new(0),
        };
        self.followed.insert(
            (seen.dev, seen.ino),
            Followed {
                log,
                mount_point: mount_point.clone(),
                at,
                allocated: seen.allocated,
                rate,
                told: None,
            },
        );
    }

    /// Forgets all but the largest and those that were told.
    fn bound(&mut self) {
        for mount_point in &self.mount_points {
            let mut sizes: Vec<_> = self
                .followed
                .values()
                .filter(|followed| followed.mount_point == *mount_point)
                .map(|followed| followed.allocated)
                .collect();
            if sizes.len() > MAX_FOLLOWED {
                sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
                let least = sizes[MAX_FOLLOWED];
                self.followed.retain(|_, followed| {
                    followed.mount_point != *mount_point
                        || followed.allocated > least
                        || followed.told.is_some()
                });
            }
        }
    }

    /// Each watched device; a mount point that is a plain directory on an earlier one does not count.
    fn mounts(&self) -> Vec<(u64, PathBuf)> {
        let mut mounts: Vec<(u64, PathBuf)> = Vec::new();
        for mount_point in &self.mount_points {
            if let Ok(seen) = stat(mount_point, true)
                && mounts.iter().all(|(dev, _)| *dev != seen.dev)
            {
                mounts.push((seen.dev, mount_point.clone()));
            }
        }
        mounts
    }
}

impl Followed {
    /// What it takes, and will take within some seconds.
    fn weight(&self) -> u64 {
        self.allocated
            .saturating_add(self.rate.per_second().saturating_mul(10))
    }

    /// `None` when that was told already.
    fn tell(&mut self) -> Option<Signal> {
        let signal = LogSignal {
            log: self.log.clone(),
            mount_point: self.mount_point.clone(),
            allocated: self.allocated,
            growth_per_second: self.rate.per_second(),
        };
        if self.told.as_ref() == Some(&signal) {
            return None;
        }
        self.told = Some(signal.clone());
        Some(Signal::Log(signal))
    }
}

fn devices(mounts: &[(u64, PathBuf)]) -> Vec<u64> {
    mounts.iter().map(|(dev, _)| *dev).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::LogSettings;
    use crate::reclaim::scope::Scope;

    const MIB: usize = 1 << 20;

    fn follower(root: &Path) -> Follower {
        let scope = Scope::new(&LogSettings {
            globs: vec![format!("{}/**", root.display())],
            ..LogSettings::default()
        })
        .unwrap();
        Follower::new(Walker::new(scope).unwrap(), MIB as u64, vec![root.to_owned()])
    }

    fn names(look: &Look) -> Vec<String> {
        let name = |log: &LogId| log.path.file_name().unwrap().to_string_lossy().into_owned();
        look.signals
            .iter()
            .map(|signal| match signal {
                Signal::Log(seen) if seen.log.deleted => format!("deleted {}", name(&seen.log)),
                Signal::Log(seen) => name(&seen.log),
                Signal::LogGone(log) => format!("gone {}", name(log)),
                Signal::Unit(_)
                | Signal::UnitsUnobservable { .. }
                | Signal::Probe(_)
                | Signal::Disk(_)
                | Signal::Kernel(_)
                | Signal::Memory(_)
                | Signal::Clock(_)
                | Signal::Runtime(_)
                | Signal::Container(_)
                | Signal::Load(_)
                | Signal::Certificates(_)
                | Signal::Mounts(_)
                | Signal::Holders(_)
                | Signal::StaticPods(_)
                | Signal::UnitMemory(_)
                | Signal::Pleg(_)
                | Signal::Network(_) => panic!("{signal:?}"),
            })
            .collect()
    }

    struct Logs {
        _dir: tempfile::TempDir,
        root: PathBuf,
        attended: BTreeSet<PathBuf>,
    }

    fn logs() -> Logs {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        Logs {
            attended: BTreeSet::from([root.clone()]),
            _dir: dir,
            root,
        }
    }

    #[test]
    fn tells_the_largest_first_and_how_fast_it_grows() {
        let logs = logs();
        fs::write(logs.root.join("small"), vec![b'x'; MIB]).unwrap();
        fs::write(logs.root.join("tiny"), "x").unwrap();
        let mut large = File::create(logs.root.join("large")).unwrap();
        large.write_all(&vec![b'x'; 2 * MIB]).unwrap();
        let mut follower = follower(&logs.root);
        follower.find_named();
        let start = Instant::now();
        assert_eq!(names(&follower.look(&logs.attended, start)), ["large", "small"]);
        large.write_all(&vec![b'x'; MIB]).unwrap();
        let look = follower.look(&logs.attended, start + Duration::from_secs(1));
        let [Signal::Log(seen)] = &look.signals[..] else {
            panic!("{look:?}")
        };
        assert_eq!(seen.allocated, 3 * MIB as u64);
        assert_eq!(seen.growth_per_second, MIB as u64);
        // Nothing new, nothing told; a calm disk, everything forgotten.
        let later = start + Duration::from_millis(1001);
        let calm = follower.look(&BTreeSet::new(), later);
        assert_eq!(calm.signals.len(), 2);
        assert!(follower.look(&BTreeSet::new(), later).signals.is_empty());
    }

    #[test]
    fn follows_a_log_through_rotation_and_deletion() {
        let logs = logs();
        let path = logs.root.join("app.log");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(&vec![b'x'; 2 * MIB]).unwrap();
        let mut follower = follower(&logs.root);
        let now = Instant::now();
        follower.find_named();
        assert_eq!(names(&follower.look(&logs.attended, now)), ["app.log"]);

        let rotated = logs.root.join("app.log.1");
        fs::rename(&path, &rotated).unwrap();
        let look = follower.look(&logs.attended, now);
        assert!(look.lost);
        assert_eq!(names(&look), ["gone app.log"]);
        follower.find_named();
        assert_eq!(names(&follower.look(&logs.attended, now)), ["app.log.1"]);

        fs::remove_file(&rotated).unwrap();
        assert!(follower.look(&logs.attended, now).lost);
        follower.find_deleted();
        assert_eq!(names(&follower.look(&logs.attended, now)), ["deleted app.log.1"]);
        file.write_all(&vec![b'x'; MIB]).unwrap();
        assert_eq!(
            names(&follower.look(&logs.attended, now + Duration::from_secs(1))),
            ["deleted app.log.1"]
        );
        drop(file);
        assert_eq!(names(&follower.look(&logs.attended, now)), ["gone app.log.1"]);
    }
}
