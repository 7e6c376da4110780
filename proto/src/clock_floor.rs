//! What time it is at least: a clock that fell back over a power loss must not make every certificate invalid.
//!
//! ```text
//!  clock ──┐
//!          ├─ the later ──► what certificates and tokens are measured by
//!  floor ──┘
//!    ▲ raised to the clock while it can be believed, and kept on disk
//! ```
//!
//! A floor never falls. So it is not raised by a clock that has just been switched on (it may be set any moment), nor by one that is more
//! than [`LEAP`] ahead of it: that is more likely wrong than right, and would make everything expire for good. Such a clock still counts
//! as long as it says so; once it is set right, all is as before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A clock is believed only after it has run for so long: time synchronisation has had its chance.
pub const SETTLED_AFTER: Duration = Duration::from_mins(10);
/// A clock that is farther ahead of the floor is not believed. A year, and what a long outage needs.
pub const LEAP: Duration = Duration::from_hours(400 * 24);
/// How often the floor is to be raised.
pub const KEEP_EVERY: Duration = Duration::from_hours(1);

/// What became of a floor that was to be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// To this, seconds since the Unix epoch.
    To(u64),
    /// The clock is behind it by so many seconds.
    Behind(u64),
    /// The clock is farther ahead than is believed, by so many seconds.
    Leap(u64),
}

/// Decides whether `floor` follows `clock`, both seconds since the Unix epoch.
pub const fn raised(floor: u64, clock: u64) -> Raised {
    if clock < floor {
        return Raised::Behind(floor - clock);
    }
    // Of a floor that was never set nothing is known.
    if floor > 0 && clock - floor > LEAP.as_secs() {
        return Raised::Leap(clock - floor);
    }
    Raised::To(clock)
}

/// A floor, and the file that it is kept in. It counts for TLS wherever it is given as the time.
#[derive(Debug)]
pub struct ClockFloor {
    path: Option<PathBuf>,
    floor: AtomicU64,
}

impl ClockFloor {
    /// The one that is kept in `path`. One that is not there, or cannot be read, is none: then the clock alone counts.
    pub fn open(path: &Path) -> Self {
        let kept = fs::read_to_string(path).ok();
        let floor = kept.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Self {
            path: Some(path.to_owned()),
            floor: AtomicU64::new(floor),
        }
    }

    /// The clock alone.
    pub const fn none() -> Self {
        Self {
            path: None,
            floor: AtomicU64::new(0),
        }
    }

    /// The later of clock and floor, seconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        clock().max(self.floor.load(Ordering::Relaxed))
    }

    /// So much the clock is behind the floor.
    pub fn behind(&self) -> Duration {
        Duration::from_secs(self.floor.load(Ordering::Relaxed).saturating_sub(clock()))
    }

    /// It is certainly past `at`: something was made then that is vouched for. Kept on disk with the next [`Self::keep`].
    pub fn is_past(&self, at: u64) {
        self.floor.fetch_max(at, Ordering::Relaxed);
    }

    /// Takes in what somebody else has kept in its file since.
    pub fn look(&self) {
        if let Some(path) = &self.path {
            self.is_past(Self::open(path).floor.into_inner());
        }
    }

    /// Raises the floor to the clock, if that is to be believed, and keeps it on disk; durable once this has returned.
    ///
    /// # Errors
    /// The file cannot be written; the floor counts all the same for as long as the process lives.
    pub fn keep(&self) -> io::Result<Raised> {
        let raised = raised(self.floor.load(Ordering::Relaxed), clock());
        if let Raised::To(to) = raised {
            self.is_past(to);
        }
        if let Some(path) = &self.path {
            write(path, self.floor.load(Ordering::Relaxed))?;
        }
        Ok(raised)
    }
}

impl TimeProvider for ClockFloor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

/// Before 1970 it is 1970.
fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn write(path: &Path, floor: u64) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let mut file = File::create(&aside)?;
    file.write_all(format!("{floor}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_floor_follows_a_clock_that_can_be_believed_and_never_falls() {
        let floor = 1_800_000_000;
        for (clock, expected) in [
            (floor, Raised::To(floor)),
            (floor + 1, Raised::To(floor + 1)),
            (floor + 400 * DAY, Raised::To(floor + 400 * DAY)),
            (floor + 400 * DAY + 1, Raised::Leap(400 * DAY + 1)),
            (floor - 365 * DAY, Raised::Behind(365 * DAY)),
            (0, Raised::Behind(floor)),
        ] {
            assert_eq!(raised(floor, clock), expected, "{clock}");
        }
        assert_eq!(raised(0, floor), Raised::To(floor));
    }

    #[test]
    fn a_clock_that_fell_back_is_held_up_by_what_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock-floor");
        let first = ClockFloor::open(&path);
        assert_eq!(first.behind(), Duration::ZERO);
        assert!(matches!(first.keep().unwrap(), Raised::To(_)));
        let kept: u64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        assert!(kept.abs_diff(clock()) < 600);
        // As if it had been kept a year from now, and the clock had fallen back since.
        let ahead = clock() + 365 * DAY;
        fs::write(&path, format!("{ahead}\n")).unwrap();
        let later = ClockFloor::open(&path);
        assert_eq!(later.now(), ahead);
        assert!(later.behind() > Duration::from_hours(364 * 24));
        assert!(matches!(later.keep().unwrap(), Raised::Behind(_)));
        assert_eq!(ClockFloor::open(&path).now(), ahead);
        first.look();
        assert_eq!(first.now(), ahead);
    }

    #[test]
    fn what_a_power_loss_left_of_the_file_is_no_floor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock-floor");
        fs::write(&path, "18000\0\0\0").unwrap();
        assert!(ClockFloor::open(&path).now().abs_diff(clock()) < 600);
    }
}
