//! Logs under the configured globs → [`Signal::Log`], [`Signal::LogGone`].
//!
//! A log matters when its disk is short of space, so attention follows the disks ([`Picture`]):
//!
//! | disk | looks at known logs | walks the globs | searches `/proc` for deleted logs |
//! |---|---|---|---|
//! | calm | never | every 5 min, at most 0.02 % of a core | never |
//! | full | every 2 s | every 30 s, at most 0.05 % | every minute, at most 0.05 % |
//! | fills | every 100 ms | every second, at most 1 % | every second, at most 1 % |
//!
//! A log that is no longer where it was (rotated, deleted) makes the next walk and search due at once. Changes are not
//! asked of inotify: tens of thousands of files would need as many events as there are writes, while a walk of 20,000
//! files takes some 50 ms and is needed only when a disk fills. The walk in calm times keeps their names and attributes in
//! the kernel's memory for then.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::disk::Picture;
use super::follow::{Follower, Look};
use super::walk::Walker;
use crate::config::{DiskSettings, LogSettings};
use crate::diagnose::disk::bytes_percent;
use crate::reclaim::scope::Scope;
use crate::signal::{DiskSignal, Signal};

/// How closely a disk's logs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Attention {
    Calm,
    Full,
    Filling,
}

impl Attention {
    /// Somewhat before the disk is under pressure, so that the logs' growth is known by then.
    fn of(disk: &DiskSignal, settings: &DiskSettings) -> Self {
        let soon = settings.raise_time_to_full * 3;
        if disk.time_to_full.is_some_and(|time| time <= soon) {
            Self::Filling
        } else if bytes_percent(disk) >= settings.clear_percent {
            Self::Full
        } else {
            Self::Calm
        }
    }

    const fn look(self) -> Option<Duration> {
        match self {
            Self::Calm => None,
            Self::Full => Some(Duration::from_secs(2)),
            Self::Filling => Some(Duration::from_millis(100)),
        }
    }

    const fn walk(self) -> Pace {
        match self {
            Self::Calm => Pace::new(300, 5000),
            Self::Full => Pace::new(30, 2000),
            Self::Filling => Pace::new(1, 100),
        }
    }

    const fn search(self) -> Option<Pace> {
        match self {
            Self::Calm => None,
            Self::Full => Some(Pace::new(60, 2000)),
            Self::Filling => Some(Pace::new(1, 100)),
        }
    }
}

/// How often something is done that costs time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    least: Duration,
    share: u32,
}

impl Pace {
    /// Every `seconds`, and never more than one part in `share` of the time.
    const fn new(seconds: u64, share: u32) -> Self {
        Self {
            least: Duration::from_secs(seconds),
            share,
        }
    }

    fn interval(self, took: Duration) -> Duration {
        self.least.max(took * self.share)
    }
}

/// When something was done last, and how long it took.
#[derive(Debug, Clone, Copy)]
struct Last(Option<(Instant, Duration)>);

impl Last {
    /// When it is due; `None` for at once.
    fn due(self, pace: Pace) -> Option<Instant> {
        self.0.map(|(at, took)| at + pace.interval(took))
    }

    fn is_due(self, pace: Pace, now: Instant) -> bool {
        self.due(pace).is_none_or(|due| due <= now)
    }

    fn done(&mut self, since: Instant) {
        let now = Instant::now();
        self.0 = Some((now, now.duration_since(since)));
    }
}

/// Follows the logs on `disks` until `stop`, as closely as `picture` asks for.
pub async fn watch(
    settings: LogSettings,
    disks: Vec<DiskSettings>,
    mut picture: watch::Receiver<Picture>,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    let walker = Scope::new(&settings).and_then(Walker::new);
    let walker = match walker {
        Ok(walker) => walker,
        Err(error) => {
            error!(%error, "logs are not watched: a glob cannot be used");
            return;
        }
    };
    let mount_points: Vec<_> = disks.iter().map(|disk| disk.mount_point.clone()).collect();
    let mut round = Round {
        follower: Follower::new(walker, settings.min_size, mount_points),
        walked: Last(None),
        searched: Last(None),
    };
    loop {
        let (attention, attended) = attend(&picture.borrow_and_update(), &disks);
        let turn = tokio::task::spawn_blocking(move || {
            let told = round.turn(attention, &attended);
            (round, told)
        });
        // A turn that hangs on a dead device must not hold up the stop.
        let told = tokio::select! {
            () = stop.cancelled() => return,
            done = turn => match done {
                Ok((back, told)) => {
                    round = back;
                    told
                }
                Err(error) => {
                    error!(%error, "logs are watched no more");
                    return;
                }
            },
        };
        for signal in told {
            tokio::select! {
                () = stop.cancelled() => return,
                sent = signals.send(signal) => if sent.is_err() { return },
            }
        }
        let pause = round.pause(attention);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
            () = rises(&mut picture, &disks, attention) => {}
        }
    }
}

/// Ends when a disk asks for more attention than `attention`; never, when nobody looks at disks any more.
async fn rises(picture: &mut watch::Receiver<Picture>, disks: &[DiskSettings], attention: Attention) {
    let seen = picture
        .wait_for(|picture| attend(picture, disks).0 > attention)
        .await
        .is_ok();
    if !seen {
        std::future::pending::<()>().await;
    }
}

/// The most that a disk asks for, and the disks that ask.
fn attend(picture: &Picture, disks: &[DiskSettings]) -> (Attention, BTreeSet<PathBuf>) {
    let mut most = Attention::Calm;
    let mut attended = BTreeSet::new();
    for settings in disks {
        let Some(disk) = picture.get(&settings.mount_point) else {
            continue;
        };
        let attention = Attention::of(disk, settings);
        if attention > Attention::Calm {
            attended.insert(settings.mount_point.clone());
        }
        most = most.max(attention);
    }
    (most, attended)
}

struct Round {
    follower: Follower,
    walked: Last,
    searched: Last,
}

impl Round {
    /// One look; then whatever else is due, whose finds the next look tells. Blocks.
    fn turn(&mut self, attention: Attention, attended: &BTreeSet<PathBuf>) -> Vec<Signal> {
        let now = Instant::now();
        let Look { signals, lost } = self.follower.look(attended, now);
        if lost {
            self.walked = Last(None);
            self.searched = Last(None);
        }
        if self.walked.is_due(attention.walk(), now) {
            self.follower.find_named();
            self.walked.done(now);
        }
        if let Some(pace) = attention.search()
            && self.searched.is_due(pace, now)
        {
            let begun = Instant::now();
            self.follower.find_deleted();
            self.searched.done(begun);
        }
        signals
    }

    fn pause(&self, attention: Attention) -> Duration {
        let pace = attention.walk();
        attention.look().unwrap_or_else(|| {
            self.walked.due(pace).map_or(pace.least, |due| {
                due.saturating_duration_since(Instant::now())
                    .max(Duration::from_secs(1))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use tokio::time::timeout;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(mount_point: PathBuf, used_percent: u64, time_to_full: Option<Duration>) -> DiskSignal {
        DiskSignal {
            mount_point,
            bytes_total: 100 * MIB,
            bytes_available: (100 - used_percent) * MIB,
            inodes_total: 0,
            inodes_free: 0,
            time_to_full,
        }
    }

    #[test]
    fn attention_comes_before_pressure() {
        let settings = DiskSettings::at("/var");
        let of = |used, time: Option<u64>| {
            Attention::of(
                &disk("/var".into(), used, time.map(Duration::from_secs)),
                &settings,
            )
        };
        assert_eq!(of(79, None), Attention::Calm);
        assert_eq!(of(80, None), Attention::Full);
        assert_eq!(of(10, Some(180)), Attention::Filling);
        assert_eq!(of(10, Some(181)), Attention::Calm);
        assert_eq!(of(99, Some(1)), Attention::Filling);
    }

    #[test]
    fn what_takes_long_is_done_seldom() {
        let pace = Attention::Filling.walk();
        assert_eq!(pace.interval(Duration::from_millis(1)), Duration::from_secs(1));
        assert_eq!(pace.interval(Duration::from_secs(1)), Duration::from_secs(100));
        let calm = Attention::Calm.walk();
        assert_eq!(
            calm.interval(Duration::from_millis(200)),
            Duration::from_secs(1000)
        );
    }

    #[tokio::test]
    async fn a_filling_disk_brings_its_growing_log_and_a_calm_one_takes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let path = root.join("app.log");
        let settings = LogSettings {
            globs: vec![format!("{}/*.log", root.display())],
            min_size: MIB,
            ..LogSettings::default()
        };
        let disks = vec![DiskSettings::at(&root)];
        let (show, picture) = watch::channel(Picture::new());
        let (send, mut signals) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(super::watch(settings, disks, picture, send, stop.clone()));

        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        show.send_replace(Picture::from([(
            root.clone(),
            disk(root.clone(), 10, Some(Duration::from_secs(4))),
        )]));
        let growing = async {
            loop {
                file.write_all(&vec![b'x'; 2 << 20]).unwrap();
                while let Ok(Some(signal)) = timeout(Duration::from_millis(150), signals.recv()).await {
                    if let Signal::Log(seen) = signal
                        && seen.growth_per_second > 0
                    {
                        return seen;
                    }
                }
            }
        };
        let seen = timeout(Duration::from_secs(20), growing).await.unwrap();
        assert_eq!((seen.log.path, seen.mount_point), (path.clone(), root.clone()));

        show.send_replace(Picture::from([(root.clone(), disk(root.clone(), 10, None))]));
        let gone = async {
            loop {
                if let Signal::LogGone(log) = signals.recv().await.unwrap() {
                    return log;
                }
            }
        };
        assert_eq!(timeout(Duration::from_secs(20), gone).await.unwrap().path, path);
        stop.cancel();
        timeout(Duration::from_secs(20), watching).await.unwrap().unwrap();
    }
}
