//! Watched file systems → [`Signal::Disk`].
//!
//! A look is one `statvfs` (microseconds). How soon the next one comes follows what is at stake (`period`). The
//! worst case that it is made for: 1 GB/s into an idle file system of 4 GiB. Looks are 1 s apart; the first one after
//! the beginning sees up to 1 GB gone, the second at least 1 GB, which is at least half the true rate over at most two looks, so less than 7 s
//! to full: noticed at the latest 2 s after the beginning, with more than 2 s left. From then on looks come
//! every 50 to 200 ms.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::beat::Beat;
use super::rate::Rate;
use crate::config::DiskSettings;
use crate::host::Host;
use crate::signal::{DiskSignal, Signal};

/// What is known of each disk, by mount point; what the log watcher takes its attention from.
pub type Picture = BTreeMap<PathBuf, DiskSignal>;

/// Looks are never closer than this.
const SHORTEST: Duration = Duration::from_millis(50);
/// Looks at a disk that does not fill are never closer than this: idling has to cost nothing.
const SHORTEST_CALM: Duration = Duration::from_millis(500);
/// Looks are never farther apart than this.
const LONGEST: Duration = Duration::from_secs(1);
/// The fastest writer that is reckoned with, bytes a second.
const BURST: u64 = 2 << 30;
/// Looks during the time that such a writer would need, or that the present rate leaves.
const LOOKS_TO_FULL: u32 = 20;
const LOOKS_IN_BURST: u32 = 2;

/// An unchanged disk is told again after this: whoever lost a signal has it back.
const REPEAT: Duration = Duration::from_secs(5);
/// A mount point that cannot be looked at is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// A `statvfs` that takes longer is given up: its server or device hangs.
const DEADLINE: Duration = Duration::from_secs(2);
/// A rate that leaves more time than this is no filling.
const HORIZON: Duration = Duration::from_hours(24);

/// Watches `disks` until `stop`. Tells each one at every noticeable change, and again every 5 s. A disk that
/// cannot be looked at is not told: neither raises nor clears anything. A mount point that turns out to be a plain
/// directory on another watched disk (`/var` on `/`) is left out.
pub async fn watch<H: Host>(
    host: Arc<H>,
    disks: Vec<DiskSettings>,
    picture: watch::Sender<Picture>,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let watched = disks.iter().map(|disk| Disk {
        host: Arc::clone(&host),
        mount_point: disk.mount_point.clone(),
        around: disks
            .iter()
            .map(|other| other.mount_point.clone())
            .filter(|other| *other != disk.mount_point && disk.mount_point.starts_with(other))
            .collect(),
        picture: &picture,
        signals: &signals,
        beat,
        stop: &stop,
        at_once: false,
        hung: None,
    });
    join_all(watched.map(Disk::watch)).await;
}

struct Disk<'a, H> {
    host: Arc<H>,
    mount_point: PathBuf,
    around: Vec<PathBuf>,
    picture: &'a watch::Sender<Picture>,
    signals: &'a mpsc::Sender<Signal>,
    beat: Beat,
    stop: &'a CancellationToken,
    /// The last look found that the next cannot hang.
    at_once: bool,
    /// A look that has not come back: none is begun beside it, or a dead server would take every thread that may block.
    hung: Option<JoinHandle<io::Result<Seen>>>,
}

/// What a look brought.
struct Seen {
    /// `None` for a plain directory on another watched disk.
    disk: Option<DiskSignal>,
    /// Another one cannot hang.
    at_once: bool,
}

impl<H: Host> Disk<'_, H> {
    async fn watch(mut self) {
        let mut rate: Option<Rate> = None;
        let mut told: Option<(Instant, DiskSignal)> = None;
        let mut observable = true;
        loop {
            let begun = Instant::now();
            let next = match self.look().await {
                Ok(Some(mut seen)) => {
                    observable = true;
                    let now = Instant::now();
                    let used = seen.bytes_total.saturating_sub(seen.bytes_available);
                    let rate = rate.get_or_insert_with(|| Rate::new(seen.bytes_total / 128));
                    rate.observe(now, used);
                    seen.time_to_full = time_to_full(seen.bytes_available, rate.per_second());
                    let next = period(seen.bytes_available, seen.time_to_full);
                    if told
                        .as_ref()
                        .is_none_or(|(at, last)| now.duration_since(*at) >= REPEAT || differs(last, &seen))
                    {
                        self.picture.send_modify(|picture| {
                            picture.insert(self.mount_point.clone(), seen.clone());
                        });
                        told = Some((now, seen.clone()));
                        tokio::select! {
                            () = self.stop.cancelled() => return,
                            sent = self.signals.send(Signal::Disk(seen)) => if sent.is_err() { return },
                        }
                    }
                    next
                }
                Ok(None) => RETRY,
                Err(error) => {
                    if observable {
                        warn!(mount_point = %self.mount_point.display(), %error, "disk cannot be looked at");
                    }
                    observable = false;
                    RETRY
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.beat.pause(begun, next) => {}
            }
        }
    }

    /// `None` for a plain directory on another watched disk.
    async fn look(&mut self) -> io::Result<Option<DiskSignal>> {
        let at_once = std::mem::take(&mut self.at_once);
        let looked = if at_once {
            look(&*self.host, &self.mount_point, &self.around)
        } else {
            self.look_aside().await
        };
        looked.map(|seen| {
            self.at_once = seen.at_once;
            seen.disk
        })
    }

    /// On a thread that may hang, and is given up then.
    async fn look_aside(&mut self) -> io::Result<Seen> {
        let mut look = self.hung.take().unwrap_or_else(|| self.begin_look());
        match timeout(DEADLINE, &mut look).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(join)) => Err(io::Error::other(join)),
            Err(_) => {
                self.hung = Some(look);
                Err(io::Error::from(io::ErrorKind::TimedOut))
            }
        }
    }

    fn begin_look(&self) -> JoinHandle<io::Result<Seen>> {
        let (host, path, around) = (
            Arc::clone(&self.host),
            self.mount_point.clone(),
            self.around.clone(),
        );
        tokio::task::spawn_blocking(move || look(&*host, &path, &around))
    }
}

fn look<H: Host>(host: &H, path: &Path, around: &[PathBuf]) -> io::Result<Seen> {
    let (seen, at_once) = host.disk_look(path)?;
    let around: Vec<_> = around
        .iter()
        .map(|other| (other, host.disk_look(other)))
        .collect();
    let shadow = around.iter().find(|(other, looked)| {
        let alike = |(other, _): &(DiskSignal, bool)| other.bytes_total == seen.bytes_total;
        looked.as_ref().is_ok_and(alike) && same_device(path, other)
    });
    if let Some((other, _)) = shadow {
        debug!(mount_point = %path.display(), on = %other.display(), "not a mount of its own");
    }
    Ok(Seen {
        at_once: at_once && around.iter().all(|(_, looked)| matches!(looked, Ok((_, true)))),
        disk: shadow.is_none().then_some(seen),
    })
}

fn same_device(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// How long until the next look.
fn period(available: u64, time_to_full: Option<Duration>) -> Duration {
    let burst = Duration::from_millis(available.saturating_mul(1000) / BURST);
    let calm = (burst / LOOKS_IN_BURST).clamp(SHORTEST_CALM, LONGEST);
    time_to_full.map_or(calm, |time| {
        (time / LOOKS_TO_FULL).clamp(SHORTEST, LONGEST).min(calm)
    })
}

fn time_to_full(available: u64, rate: u64) -> Option<Duration> {
    available
        .saturating_mul(1000)
        .checked_div(rate)
        .map(Duration::from_millis)
        .filter(|time| *time <= HORIZON)
}

/// By more than a thousandth of the disk, or a tenth of its time to full.
fn differs(last: &DiskSignal, now: &DiskSignal) -> bool {
    let far = |one: u64, other: u64, of: u64| one.abs_diff(other) > of / 1000;
    far(last.bytes_available, now.bytes_available, now.bytes_total)
        || far(last.inodes_free, now.inodes_free, now.inodes_total)
        || (last.bytes_total, last.inodes_total) != (now.bytes_total, now.inodes_total)
        || match (last.time_to_full, now.time_to_full) {
            (Some(last), Some(now)) => last.abs_diff(now) > last / 10,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn looks_come_closer_as_time_runs_out() {
        let millis = |available, time: Option<u64>| {
            u64::try_from(period(available, time.map(Duration::from_millis)).as_millis()).unwrap()
        };
        assert_eq!(millis(1000 * GIB, None), 1000);
        assert_eq!(millis(4 * GIB, None), 1000);
        assert_eq!(millis(3 * GIB, None), 750);
        assert_eq!(millis(GIB / 2, None), 500);
        assert_eq!(millis(4 * GIB, Some(8000)), 400);
        assert_eq!(millis(4 * GIB, Some(2000)), 100);
        assert_eq!(millis(0, Some(0)), 50);
    }

    /// The worst case of the module's documentation, with the real functions and every phase of the looks.
    #[test]
    fn a_gigabyte_a_second_into_4_gib_is_noticed_with_time_left() {
        let start = Instant::now();
        for phase in 0..1000_u64 {
            let mut rate = Rate::new(4 * GIB / 128);
            // Calm looks, then the writer begins at millisecond 10,000.
            let mut at = phase;
            let noticed = loop {
                let written = at.saturating_sub(10_000) * 1_000_000;
                let available = (4 * GIB).saturating_sub(written);
                rate.observe(start + Duration::from_millis(at), written);
                let time = time_to_full(available, rate.per_second());
                if time.is_some_and(|time| time <= Duration::from_mins(1)) {
                    break at;
                }
                assert!(available > 0, "full before it was noticed");
                at += u64::try_from(period(available, time).as_millis()).unwrap();
            };
            assert!(noticed <= 12_000, "{noticed}");
        }
    }

    #[test]
    fn what_does_not_fill_within_a_day_does_not_fill() {
        assert_eq!(time_to_full(GIB, 0), None);
        assert_eq!(time_to_full(GIB, 1), None);
        assert_eq!(time_to_full(1000, 10), Some(Duration::from_secs(100)));
        assert_eq!(time_to_full(0, 10), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn looks_stay_within_their_bounds(available: u64, millis in prop::option::of(0_u64..1 << 40)) {
            let period = period(available, millis.map(Duration::from_millis));
            prop_assert!((SHORTEST..=LONGEST).contains(&period));
        }
    }
}
