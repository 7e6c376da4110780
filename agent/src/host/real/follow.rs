//! Follows units: one session a connection, and the way back after its end.
//!
//! ```text
//!  connect ─► subscribe ─► read each unit, tell it ─► changes ─► tell ─┐
//!    ▲                                                  ▲             │   also: all read anew each 30 s
//!    │                                                  └─────────────┘
//!    └── back-off ◄─ tell that units cannot be observed ◄── bus or systemd gone, no answer
//! ```
//!
//! A change is told from the message that brings it, without asking back: that is the shortest way from the death of a
//! unit to its restart. Only the end of a unit with `Restart=` waits for [`PASSING`]: it may be systemd's to undo.
//! What was missed comes with the next reading of all, which notices a systemd that hangs as well.

use std::num::Saturating;
use std::ops::Range;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use zbus::message::{Message, Sequence};
use zbus::{MessageStream, OwnedObjectPath};

use super::bus::{Bus, Event, Reading, refusal, take_changes};
use super::unit::Properties;
use crate::signal::{ActiveState, Signal, UnitDetail, UnitSignal};

/// All units are read and told anew this often.
const REREAD: Duration = Duration::from_secs(30);
/// The first wait before a new connection; doubled for each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// An end that systemd is about to undo has been followed by the next state well before this.
const PASSING: Duration = Duration::from_millis(50);
/// That units still cannot be observed is told again this often: the reason may be another.
const RETELL: Duration = Duration::from_secs(30);
/// A session that lasted this long was a good one: the waits begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// No unit has to be read.
const NONE: Range<usize> = 0..0;

/// A connection that is up, and the units whose jobs are told on it.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) bus: Bus,
    pub(super) units: Vec<String>,
}

/// Why a session ended.
enum End {
    /// Nobody wants to know any more.
    Stopped,
    /// systemd cannot be asked.
    Lost(String),
}

/// Follows `units` until `stop`. `current` has the connection while there is one.
pub(super) async fn follow(
    address: Option<&str>,
    units: Vec<String>,
    current: &watch::Sender<Option<Current>>,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    let tell = Tell { signals, stop };
    let mut attempts = Saturating(0_u32);
    let mut told: Option<Instant> = None;
    loop {
        let begun = Instant::now();
        let connected = tokio::select! {
            () = tell.stop.cancelled() => break,
            connected = Bus::connect(address) => connected,
        };
        let end = match connected {
            Ok(bus) => {
                let mut session = Session::new(bus, &units, &tell);
                let begun = tokio::select! {
                    () = tell.stop.cancelled() => Err(End::Stopped),
                    begun = session.begin() => begun,
                };
                match begun {
                    Ok(messages) => {
                        if told.take().is_some() {
                            info!("units can be observed again");
                        }
                        current.send_replace(Some(session.current()));
                        session.run(messages).await
                    }
                    Err(end) => end,
                }
            }
            Err(why) => End::Lost(why),
        };
        if begun.elapsed() >= GOOD {
            attempts = Saturating(0);
        }
        match end {
            End::Stopped => break,
            End::Lost(why) => {
                current.send_replace(None);
                if told.is_none_or(|at| at.elapsed() >= RETELL) {
                    warn!(%why, "units cannot be observed");
                    if !tell.tell(Signal::UnitsUnobservable { why }).await {
                        break;
                    }
                    told = Some(Instant::now());
                }
            }
        }
        tokio::select! {
            () = tell.stop.cancelled() => break,
            () = sleep(backoff(attempts.0)) => attempts += 1,
        }
    }
    current.send_replace(None);
}

/// Doubled for each attempt up to a bound, with up to half of it taken off so that nodes do not move in step.
fn backoff(attempts: u32) -> Duration {
    let whole = BACKOFF_FIRST
        .saturating_mul(1 << attempts.min(16))
        .min(BACKOFF_MAX);
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}

struct Tell {
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
}

impl Tell {
    /// `false` when nobody listens any more.
    async fn tell(&self, signal: Signal) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            sent = self.signals.send(signal) => sent.is_ok(),
        }
    }
}

struct Session<'a> {
    bus: Bus,
    units: Vec<Unit<'a>>,
    tell: &'a Tell,
}

/// A followed unit.
struct Unit<'a> {
    name: &'a str,
    /// `None` where systemd has no object for it.
    path: Option<OwnedObjectPath>,
    properties: Properties,
    /// What came before has been read already.
    read_at: Sequence,
    /// What was read before is older than what is known.
    changed_at: Sequence,
    told: Option<UnitSignal>,
    /// What is known is told then, unless it has changed.
    tell_at: Option<Instant>,
}

impl<'a> Session<'a> {
    fn new(bus: Bus, units: &'a [String], tell: &'a Tell) -> Self {
        let units = units.iter().map(|name| Unit {
            name,
            path: None,
            properties: Properties::default(),
            read_at: Sequence::default(),
            changed_at: Sequence::default(),
            told: None,
            tell_at: None,
        });
        Self {
            bus,
            units: units.collect(),
            tell,
        }
    }

    fn current(&self) -> Current {
        Current {
            bus: self.bus.clone(),
            units: self.units.iter().map(|unit| unit.name.to_owned()).collect(),
        }
    }

    /// Subscribes, and tells each unit once.
    async fn begin(&mut self) -> Result<MessageStream, End> {
        let messages = self.bus.messages();
        self.bus.subscribe().await.map_err(|error| lost(&error))?;
        self.bus.follow_reloads().await.map_err(|error| lost(&error))?;
        for at in 0..self.units.len() {
            let name = self.units[at].name;
            let followed = async {
                let path = self.bus.path_of(name).await?;
                self.bus.follow_changes(&path).await?;
                Ok(path)
            };
            let path = match followed.await {
                Ok(path) => path,
                Err(error) => {
                    let why = refusal(&error).ok_or_else(|| lost(&error))?;
                    warn!(unit = name, %why, "unit cannot be followed");
                    self.say(unobservable(name, why)).await?;
                    continue;
                }
            };
            // Told before the next one is asked for: nothing waits for the slowest.
            let reading = self.bus.read(&path).await;
            self.units[at].path = Some(path);
            self.take(at, reading).await?;
            let id = &self.units[at].properties.id;
            self.bus
                .follow_jobs(if id.is_empty() { name } else { id })
                .await
                .map_err(|error| lost(&error))?;
        }
        Ok(messages)
    }

    async fn run(&mut self, mut messages: MessageStream) -> End {
        let mut reread = interval_at(Instant::now() + REREAD, REREAD);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bus = self.bus.clone();
        let mut readings = FuturesUnordered::new();
        loop {
            let tell_at = self.units.iter().filter_map(|unit| unit.tell_at).min();
            let ended = tokio::select! {
                biased;
                () = self.tell.stop.cancelled() => Err(End::Stopped),
                message = messages.next() => match message {
                    Some(Ok(message)) => match self.heed(&message).await {
                        Ok(again) => {
                            readings.extend(again.filter_map(|at| self.read_later(&bus, at)));
                            Ok(())
                        }
                        Err(end) => Err(end),
                    },
                    Some(Err(error)) => Err(lost(&error)),
                    None => Err(End::Lost("the connection to systemd was closed".to_owned())),
                },
                Some((at, reading)) = readings.next() => self.take(at, reading).await,
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    self.say_passed().await
                }
                _ = reread.tick() => {
                    self.forget_told();
                    readings.extend((0..self.units.len()).filter_map(|at| self.read_later(&bus, at)));
                    Ok(())
                }
            };
            if let Err(end) = ended {
                return end;
            }
        }
    }

    /// Deals with one message; names the units that have to be read.
    async fn heed(&mut self, message: &Message) -> Result<Range<usize>, End> {
        match self.bus.event(message) {
            Some(Event::Changed { path }) => {
                let Some(at) = self
                    .units
                    .iter()
                    .position(|unit| unit.path.as_ref() == Some(&path))
                else {
                    return Ok(NONE);
                };
                let unit = &mut self.units[at];
                if message.recv_position() < unit.read_at {
                    return Ok(NONE);
                }
                unit.changed_at = message.recv_position();
                match take_changes(message, &mut unit.properties) {
                    Ok(true) => self.say_unit(at).await?,
                    Ok(false) => {}
                    Err(error) => {
                        debug!(unit = unit.name, %error, "a change that cannot be read");
                        return Ok(at..at + 1);
                    }
                }
                if self.units[at].properties.outdated() {
                    return Ok(at..at + 1);
                }
                Ok(NONE)
            }
            Some(Event::Reloaded) => {
                // Not every systemd remembers across a reload whom to tell.
                self.bus.subscribe().await.map_err(|error| lost(&error))?;
                self.forget_told();
                Ok(0..self.units.len())
            }
            Some(Event::OwnerChanged) => Err(End::Lost("systemd has left the bus".to_owned())),
            Some(Event::JobRemoved { .. }) | None => Ok(NONE),
        }
    }

    fn forget_told(&mut self) {
        for unit in &mut self.units {
            unit.told = None;
        }
    }

    fn read_later(
        &self,
        bus: &Bus,
        at: usize,
    ) -> Option<impl Future<Output = (usize, zbus::Result<Reading>)> + use<>> {
        let path = self.units[at].path.clone()?;
        let bus = bus.clone();
        Some(async move { (at, bus.read(&path).await) })
    }

    /// Tells what was read.
    async fn take(&mut self, at: usize, reading: zbus::Result<Reading>) -> Result<(), End> {
        let unit = &mut self.units[at];
        match reading {
            Ok(reading) => {
                if reading.position < unit.changed_at {
                    unit.properties.take_file(reading.properties);
                } else {
                    unit.properties = reading.properties;
                    unit.read_at = reading.position;
                }
                self.say_unit(at).await
            }
            Err(error) => {
                let why = refusal(&error).ok_or_else(|| lost(&error))?;
                warn!(unit = unit.name, %why, "unit cannot be read");
                let name = unit.name;
                self.say(unobservable(name, why)).await
            }
        }
    }

    /// Tells a unit unless the same was told last; later, if it may be passing.
    async fn say_unit(&mut self, at: usize) -> Result<(), End> {
        let unit = &mut self.units[at];
        unit.tell_at = None;
        let signal = unit.properties.signal(unit.name);
        if unit.told.as_ref() == Some(&signal) {
            return Ok(());
        }
        if unit.properties.may_be_passing() {
            unit.tell_at = Some(Instant::now() + PASSING);
            return Ok(());
        }
        unit.told = Some(signal.clone());
        self.say(signal).await
    }

    /// Tells the units whose end was final after all.
    async fn say_passed(&mut self) -> Result<(), End> {
        let now = Instant::now();
        for at in 0..self.units.len() {
            let unit = &mut self.units[at];
            if unit.tell_at.take_if(|tell_at| *tell_at <= now).is_some() {
                let signal = unit.properties.signal(unit.name);
                unit.told = Some(signal.clone());
                self.say(signal).await?;
            }
        }
        Ok(())
    }

    async fn say(&self, signal: UnitSignal) -> Result<(), End> {
        if self.tell.tell(Signal::Unit(signal)).await {
            Ok(())
        } else {
            Err(End::Stopped)
        }
    }
}

fn lost(error: &zbus::Error) -> End {
    End::Lost(error.to_string())
}

fn unobservable(unit: &str, why: String) -> UnitSignal {
    UnitSignal {
        unit: unit.to_owned(),
        active: ActiveState::Unknown,
        sub: why,
        main_pid: 0,
        restarts: 0,
        result: String::new(),
        detail: UnitDetail::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_bound() {
        for attempts in 0..100 {
            let wait = backoff(attempts);
            let whole = Duration::from_millis(20 << attempts.min(20)).min(BACKOFF_MAX);
            assert!((whole / 2..=whole).contains(&wait), "{attempts}: {wait:?}");
        }
    }
}
