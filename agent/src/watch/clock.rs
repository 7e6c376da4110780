//! The clocks → [`Signal::Clock`]: is the wall clock kept, and by whom, did it jump, is it, or the machine's own clock, behind what this node
//! has already seen.
//!
//! After a power loss the wall clock lies: a dead battery begins at 1970 or at the firmware's date, and every certificate is "not yet valid". The
//! node remembers the latest time that it trusted in its state directory (the floor): a clock behind the floor is wrong, whoever says otherwise.
//! The machine's own clock (RTC) is held against the same floor: a battery that died shows there before the next power loss makes it matter. Jumps are told by comparing the wall clock with `CLOCK_BOOTTIME`, which only ever advances.

mod keeper;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::beat::Beat;
use crate::signal::{ClockSignal, Keeper as ClockKeeper, Signal};
use crate::sys;

/// Between looks.
const PERIOD: Duration = Duration::from_secs(10);
/// The floor is written anew when it is so far behind.
const FLOOR_STEP: Duration = Duration::from_mins(10);
/// A smaller change against the boot clock is slewing, not a jump.
const JUMP: Duration = Duration::from_secs(1);
/// The machine's own clock: seconds since the Unix epoch, as text.
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";
/// It is read so often; reading waits for the chip.
const RTC_PERIOD: Duration = Duration::from_mins(5);
/// Who else keeps the clock is looked for so often: among all processes, and nothing is done about a clock before it has run free for minutes.
const OTHER_PERIOD: Duration = Duration::from_mins(1);
/// The floor's file in the state directory: seconds since the Unix epoch, as text.
pub(crate) const FLOOR_FILE: &str = "clock-floor";

/// The clocks at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Wall clock, since the Unix epoch.
    pub wall: Duration,
    /// `CLOCK_BOOTTIME`.
    pub boot: Duration,
    /// Is the wall clock kept by a time service; `None`: cannot be told.
    pub synchronised: Option<bool>,
}

impl Clocks {
    /// Reads the machine's.
    pub fn read() -> Self {
        Self {
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            boot: clock_of_boot(),
            synchronised: sys::clock_discipline().ok().map(|kept| kept.synchronised),
        }
    }
}

/// Watches until `stop`. `read` is [`Clocks::read`] except where a test has clocks of its own; `services` are the units that may keep them.
pub async fn watch(
    state_dir: PathBuf,
    read: fn() -> Clocks,
    services: Vec<String>,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut keeper = Keeper::new(read_floor(&state_dir));
    let mut rtc_read: Option<Instant> = None;
    let mut other: Option<(Option<ClockKeeper>, Instant)> = None;
    loop {
        let begun = Instant::now();
        if rtc_read.is_none_or(|last| last.elapsed() >= RTC_PERIOD) {
            rtc_read = Some(Instant::now());
            keeper.rtc = read_rtc(Path::new(RTC)).map(|rtc| (rtc, clock_of_boot()));
        }
        let mut look = keeper.look(read());
        if look.signal.synchronised == Some(false) {
            let known = other.take().filter(|(_, at)| at.elapsed() < OTHER_PERIOD);
            let (found, at) = match known {
                Some(known) => known,
                None => (other_keeper(services.clone()).await, Instant::now()),
            };
            look.signal.other_keeper.clone_from(&found);
            other = Some((found, at));
        }
        if let Some(floor) = look.new_floor {
            let dir = state_dir.clone();
            let written = tokio::task::spawn_blocking(move || write_floor(&dir, floor)).await;
            if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
                warn!(%error, "the clock's floor cannot be kept");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            sent = signals.send(Signal::Clock(look.signal)) => if sent.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = beat.pause(begun, PERIOD) => {}
        }
    }
}

async fn other_keeper(services: Vec<String>) -> Option<ClockKeeper> {
    let looked = tokio::task::spawn_blocking(move || keeper::other(Path::new("/proc"), &services));
    looked.await.ok().flatten()
}

/// What is remembered between looks. Pure.
#[derive(Debug)]
struct Keeper {
    floor: Duration,
    last: Option<Clocks>,
    /// The machine's own clock, and the boot clock when it was read.
    rtc: Option<(Duration, Duration)>,
}

struct Look {
    signal: ClockSignal,
    new_floor: Option<Duration>,
}

impl Keeper {
    const fn new(floor: Duration) -> Self {
        Self {
            floor,
            last: None,
            rtc: None,
        }
    }

    fn look(&mut self, now: Clocks) -> Look {
        let jump_ms = self.last.map_or(0, |last| {
            let passed = now.boot.saturating_sub(last.boot);
            millis(now.wall) - millis(last.wall.saturating_add(passed))
        });
        self.last = Some(now);
        let jumped = jump_ms.unsigned_abs() >= JUMP.as_millis().try_into().unwrap_or(u64::MAX);
        // Only a clock that somebody keeps may raise the floor: one wrong jump ahead must not make every right time look wrong.
        let raise = now.synchronised == Some(true) && now.wall >= self.floor.saturating_add(FLOOR_STEP);
        if raise {
            self.floor = now.wall;
        }
        Look {
            signal: ClockSignal {
                synchronised: now.synchronised,
                jump_ms: if jumped { jump_ms } else { 0 },
                behind: self.floor.saturating_sub(now.wall),
                rtc_behind: self.rtc.map(|(rtc, read_at)| {
                    let shows = rtc.saturating_add(now.boot.saturating_sub(read_at));
                    self.floor.saturating_sub(shows)
                }),
                other_keeper: None,
            },
            new_floor: raise.then_some(self.floor),
        }
    }
}

fn clock_of_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

/// `None` on machines without one, such as many virtual ones.
fn read_rtc(file: &Path) -> Option<Duration> {
    let text = fs::read_to_string(file).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The latest time that this node has trusted; zero where none is known.
pub(crate) fn read_floor(state_dir: &Path) -> Duration {
    let path = state_dir.join(FLOOR_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            if let Ok(seconds) = text.trim().parse() {
                return Duration::from_secs(seconds);
            }
            warn!(path = %path.display(), "not a number of seconds; the clock's floor begins anew");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            debug!(path = %path.display(), "no clock floor yet");
        }
        Err(error) => warn!(path = %path.display(), %error, "the clock's floor cannot be read"),
    }
    Duration::ZERO
}

fn write_floor(state_dir: &Path, floor: Duration) -> io::Result<()> {
    let path = state_dir.join(FLOOR_FILE);
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    writeln!(file, "{}", floor.as_secs())?;
    file.sync_all()?;
    fs::rename(&aside, &path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::condition::ConditionKind;
    use crate::config::ClockSettings;
    use crate::diagnose::clock::Clock as Diagnosis;

    const NOW: u64 = 1_790_000_000;

    fn clocks(wall: u64, boot: u64, synchronised: bool) -> Clocks {
        Clocks {
            wall: Duration::from_secs(wall),
            boot: Duration::from_secs(boot),
            synchronised: Some(synchronised),
        }
    }

    #[test]
    fn a_clock_a_year_back_is_behind_the_floor_whoever_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(read_floor(dir.path()));
        let floor = keeper.look(clocks(NOW, 10, true)).new_floor.unwrap();
        write_floor(dir.path(), floor).unwrap();
        let year = 365 * 24 * 3600;
        for kept in [true, false] {
            let mut after_the_power_loss = Keeper::new(read_floor(dir.path()));
            let look = after_the_power_loss.look(clocks(NOW - year, 1, kept));
            assert_eq!(look.signal.behind, Duration::from_secs(year));
            assert_eq!(look.new_floor, None);
        }
    }

    #[test]
    fn a_clock_that_nobody_keeps_never_raises_the_floor() {
        let mut keeper = Keeper::new(Duration::from_secs(NOW));
        assert_eq!(keeper.look(clocks(NOW * 2, 10, false)).new_floor, None);
        assert_eq!(
            keeper.look(clocks(NOW + 60, 70, true)).signal.behind,
            Duration::ZERO
        );
    }

    #[test]
    fn a_jump_is_told_and_time_that_passed_is_none() {
        let mut keeper = Keeper::new(Duration::ZERO);
        keeper.look(clocks(NOW, 100, true));
        assert_eq!(keeper.look(clocks(NOW + 3600, 3700, true)).signal.jump_ms, 0);
        assert_eq!(
            keeper.look(clocks(NOW + 3600 - 30, 3710, true)).signal.jump_ms,
            -40_000
        );
    }

    #[test]
    fn a_machine_whose_battery_died_is_behind_the_floor_though_the_wall_clock_was_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let rtc = dir.path().join("since_epoch");
        let mut keeper = Keeper::new(Duration::from_secs(NOW));
        assert_eq!(keeper.look(clocks(NOW, 100, true)).signal.rtc_behind, None);
        fs::write(&rtc, "946684800\n").unwrap();
        keeper.rtc = read_rtc(&rtc).map(|shown| (shown, Duration::from_secs(100)));
        let mut diagnosis = Diagnosis::new(ClockSettings::default());
        let mut told = |signal: ClockSignal| {
            let now = Instant::now();
            diagnosis.observe(&Signal::Clock(signal), now);
            let standing = diagnosis.conditions(now).into_iter();
            standing.map(|one| one.key.kind).collect::<Vec<_>>()
        };
        let signal = keeper.look(clocks(NOW + 60, 160, true)).signal;
        let behind = signal.rtc_behind;
        assert_eq!(behind, Some(Duration::from_secs(NOW - 946_684_800 - 60)));
        assert_eq!(told(signal), [ConditionKind::RtcBehind]);
        fs::write(&rtc, format!("{NOW}\n")).unwrap();
        keeper.rtc = read_rtc(&rtc).map(|shown| (shown, Duration::from_secs(160)));
        let signal = keeper.look(clocks(NOW + 70, 170, true)).signal;
        assert_eq!(signal.rtc_behind, Some(Duration::ZERO));
        assert_eq!(told(signal), []);
    }

    #[test]
    fn a_torn_floor_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FLOOR_FILE), "17900\0\0").unwrap();
        assert_eq!(read_floor(dir.path()), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_floor_never_falls_and_no_clock_does_harm(
            looks in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 1..50),
        ) {
            let mut keeper = Keeper::new(Duration::ZERO);
            let mut floor = Duration::ZERO;
            for (wall, boot, kept) in looks {
                let look = keeper.look(clocks(wall.into(), boot.into(), kept));
                if let Some(new) = look.new_floor {
                    prop_assert!(new > floor);
                    floor = new;
                }
            }
        }
    }
}
