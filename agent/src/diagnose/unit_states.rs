//! [`Signal::Unit`] → `UnitFlapping`, `UnitMasked` and `UnitJobHung`: what is wrong with a unit that has not failed. Pure.
//!
//! | systemd says | raised |
//! |---|---|
//! | it restarted the unit `flapping_restarts` times within `flapping_window` | `UnitFlapping` |
//! | `failed`, after it had restarted it, or by its start limit | `UnitFlapping`, beside the `UnitFailed` that mends it |
//! | `masked` | `UnitMasked`, after the hold time of a stopped unit |
//! | a start or stop has been under way for `job_hung_after` | `UnitJobHung` |
//!
//! Restarts are counted by `NRestarts` and, for systemds that have none (before 235), by how often the unit was seen in its restart delay.
//! What is raised of restarts stands until there was none for the whole window. A count that falls was reset: somebody started the unit.
//!
//! A start limit that is hit shows in `Result` only when nothing else had failed before; mostly the last failure of the loop stays there. So a unit
//! with `Restart=` counts as given up as well when systemd had restarted it within the window and it has failed for good.
//!
//! While a unit cannot be observed, what stood stays, nothing new is raised, and no time runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::{Settings, UnitSettings};
use crate::signal::{ActiveState, Exit, Signal, UnitPhase, UnitSignal};
use crate::span::Span;

/// Restarts that are remembered of a unit; more than `flapping_restarts` can be.
const KEEP: usize = 128;

/// All watched units.
#[derive(Debug, Clone)]
pub struct UnitStates {
    settings: UnitSettings,
    masked_hold: Duration,
    watched: Vec<String>,
    kubelet: String,
    gate_held: bool,
    seen: BTreeMap<String, Unit>,
}

#[derive(Debug, Clone)]
struct Unit {
    signal: UnitSignal,
    last_exit: Option<Exit>,
    restarts: Restarts,
    /// It has failed for good, though systemd was to restart it.
    given_up: bool,
    /// Masked since.
    masked: Option<Instant>,
    /// In this phase, of this life, since.
    phase_since: Instant,
    /// Cannot be observed since.
    blind: Option<Instant>,
}

/// When systemd restarted it, as far back as the window reaches.
#[derive(Debug, Clone, Default)]
struct Restarts {
    /// By `NRestarts`.
    counted: VecDeque<Instant>,
    /// By its restart delay.
    seen: VecDeque<Instant>,
    raised: Option<Raised>,
}

#[derive(Debug, Clone, Copy)]
struct Raised {
    /// The first of those that raised it.
    since: Instant,
    /// The last one that was seen.
    last: Instant,
}

impl UnitStates {
    /// Nothing seen yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.unit_states.clone(),
            masked_hold: settings.restart.inactive_hold,
            watched: settings.units.clone(),
            kubelet: settings.kubelet_unit.clone(),
            gate_held: false,
            seen: BTreeMap::new(),
        }
    }

    /// Judges by other settings from now on, and forgets what is not watched any more.
    pub fn retune(&mut self, settings: &Settings) {
        self.settings = settings.unit_states.clone();
        self.masked_hold = settings.restart.inactive_hold;
        self.watched.clone_from(&settings.units);
        let (watched, kubelet) = (&self.watched, &self.kubelet);
        self.seen
            .retain(|name, _| watched.contains(name) || name == kubelet);
    }

    /// While the boot gate holds the kubelet, its start waits for a good reason.
    pub fn set_gate_held(&mut self, held: bool) {
        self.gate_held = held;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other signal, a later one too, is for another area"
    )]
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        match signal {
            Signal::Unit(seen) if self.watched.contains(&seen.unit) || seen.unit == self.kubelet => {
                self.unit_seen(seen, now);
            }
            Signal::UnitsUnobservable { .. } => {
                for unit in self.seen.values_mut() {
                    unit.blind.get_or_insert(now);
                }
            }
            _ => {}
        }
        if self.gate_held
            && let Some(kubelet) = self.seen.get_mut(&self.kubelet)
        {
            kubelet.phase_since = now;
        }
    }

    fn unit_seen(&mut self, seen: &UnitSignal, now: Instant) {
        let unknown = seen.active == ActiveState::Unknown;
        let Some(unit) = self.seen.get_mut(&seen.unit) else {
            if !unknown {
                self.seen.insert(seen.unit.clone(), Unit::new(seen, now));
            }
            return;
        };
        if unknown {
            unit.blind.get_or_insert(now);
            return;
        }
        unit.take(seen, &self.settings, now);
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let mut standing = Vec::new();
        for (name, unit) in &self.seen {
            standing.extend(unit.flapping(&self.settings, now));
            standing.extend(unit.masked(self.masked_hold, now));
            if !(self.gate_held && *name == self.kubelet) {
                standing.extend(unit.job_hung(self.settings.job_hung_after, now));
            }
        }
        standing
    }

    /// When what stands will change though no signal comes.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let of = |(name, unit): (&String, &Unit)| {
            if unit.blind.is_some() {
                return None;
            }
            let calm = unit
                .restarts
                .raised
                .filter(|_| !unit.given_up)
                .map(|raised| raised.last + self.settings.flapping_window);
            let masked = unit.masked.map(|since| since + self.masked_hold);
            let hung = (unit.has_a_job() && !(self.gate_held && *name == self.kubelet))
                .then(|| unit.phase_since + self.settings.job_hung_after);
            [calm, masked, hung]
                .into_iter()
                .flatten()
                .filter(|at| *at > now)
                .min()
        };
        self.seen.iter().filter_map(of).min()
    }
}

impl Unit {
    fn new(seen: &UnitSignal, now: Instant) -> Self {
        let mut restarts = Restarts::default();
        let given_up = hit_its_start_limit(seen);
        if given_up {
            restarts.given_up(now);
        }
        Self {
            signal: seen.clone(),
            last_exit: seen.detail.last_exit,
            restarts,
            given_up,
            masked: seen.detail.masked.then_some(now),
            phase_since: now,
            blind: None,
        }
    }

    fn take(&mut self, seen: &UnitSignal, settings: &UnitSettings, now: Instant) {
        if let Some(blind) = self.blind.take() {
            self.shift(now.saturating_duration_since(blind));
        }
        let (before, after) = (&self.signal, seen);
        let counted = if after.restarts >= before.restarts {
            after.restarts - before.restarts
        } else {
            after.restarts
        };
        let delayed =
            after.detail.phase == UnitPhase::RestartDelay && before.detail.phase != after.detail.phase;
        let another_life = counted > 0 || before.detail.phase != after.detail.phase;
        self.restarts.add(counted, u32::from(delayed), settings, now);
        self.given_up = hit_its_start_limit(after)
            || (after.active == ActiveState::Failed
                && (self.given_up || (after.detail.restarts_itself && self.restarts.count() > 0)));
        if self.given_up {
            self.restarts.given_up(now);
        }
        if another_life {
            self.phase_since = now;
        }
        self.masked = after.detail.masked.then(|| self.masked.unwrap_or(now));
        self.last_exit = after.detail.last_exit.or(self.last_exit);
        self.signal = seen.clone();
    }

    /// Time that passed unobserved counts for nothing.
    fn shift(&mut self, by: Duration) {
        self.phase_since += by;
        let Restarts {
            counted,
            seen,
            raised,
        } = &mut self.restarts;
        for at in counted.iter_mut().chain(seen) {
            *at += by;
        }
        if let Some(raised) = raised {
            raised.last += by;
        }
        if let Some(masked) = &mut self.masked {
            *masked += by;
        }
    }

    fn observed_until(&self, now: Instant) -> Instant {
        self.blind.map_or(now, |blind| blind.min(now))
    }

    const fn has_a_job(&self) -> bool {
        matches!(
            self.signal.detail.phase,
            UnitPhase::Starting | UnitPhase::Stopping
        )
    }

    fn flapping(&self, settings: &UnitSettings, now: Instant) -> Option<Condition> {
        let raised = self.restarts.raised?;
        let quiet = self.observed_until(now).saturating_duration_since(raised.last);
        if !self.given_up && quiet >= settings.flapping_window {
            return None;
        }
        let mut evidence = if self.given_up {
            format!(
                "started too often, and given up by systemd ({})",
                self.signal.result
            )
        } else {
            format!(
                "dies and is restarted again and again: {} times within {}",
                self.restarts.count(),
                Span(settings.flapping_window)
            )
        };
        if let Some(exit) = self.last_exit {
            let _infallible = write!(evidence, "; it ended with {exit} the last time");
        }
        let again = self.signal.active != ActiveState::Failed && self.restarts.count() > 0;
        if again {
            evidence += "; systemd restarts it by itself, and the agent does not add to that";
        }
        let severity = if again || self.given_up {
            Severity::Critical
        } else {
            Severity::Warning
        };
        Some(self.condition(
            ConditionKind::UnitFlapping,
            severity,
            raised.since,
            evidence,
            again,
        ))
    }

    fn masked(&self, hold: Duration, now: Instant) -> Option<Condition> {
        let since = self.masked?;
        if self.observed_until(now).saturating_duration_since(since) < hold {
            return None;
        }
        let evidence = match self.signal.active {
            ActiveState::Active | ActiveState::Reloading => {
                "masked: it runs still, and will not be started again, after a power loss neither"
            }
            ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::NotFound
            | ActiveState::Unknown => "masked: it does not run, and nobody can start it",
        };
        let kind = ConditionKind::UnitMasked;
        Some(self.condition(kind, Severity::Warning, since, evidence.to_owned(), false))
    }

    fn job_hung(&self, after: Duration, now: Instant) -> Option<Condition> {
        let what = match self.signal.detail.phase {
            UnitPhase::Starting => "start",
            UnitPhase::Stopping => "stop",
            UnitPhase::Settled | UnitPhase::Waiting | UnitPhase::RestartDelay => return None,
        };
        if self
            .observed_until(now)
            .saturating_duration_since(self.phase_since)
            < after
        {
            return None;
        }
        let evidence = format!(
            "its {what} has been under way for more than {} ({})",
            Span(after),
            self.signal.sub
        );
        let kind = ConditionKind::UnitJobHung;
        Some(self.condition(kind, Severity::Critical, self.phase_since, evidence, false))
    }

    fn condition(
        &self,
        kind: ConditionKind,
        severity: Severity,
        since: Instant,
        mut evidence: String,
        escalated: bool,
    ) -> Condition {
        if self.blind.is_some() {
            evidence += "; systemd cannot be asked at present";
        }
        Condition {
            key: ConditionKey {
                kind,
                subject: self.signal.unit.clone(),
            },
            severity,
            since,
            evidence,
            escalated,
            log: None,
            heaviest: Vec::new(),
        }
    }
}

impl Restarts {
    /// Within the window, by whichever account has more of them.
    fn count(&self) -> usize {
        self.counted.len().max(self.seen.len())
    }

    fn add(&mut self, counted: u32, seen: u32, settings: &UnitSettings, now: Instant) {
        let window = settings.flapping_window;
        if self
            .raised
            .is_some_and(|raised| now.saturating_duration_since(raised.last) >= window)
        {
            self.raised = None;
        }
        for (list, new) in [(&mut self.counted, counted), (&mut self.seen, seen)] {
            let new = usize::try_from(new).unwrap_or(KEEP).min(KEEP);
            list.extend(std::iter::repeat_n(now, new));
            let too_many = list.len().saturating_sub(KEEP);
            list.drain(..too_many);
            while list
                .front()
                .is_some_and(|at| now.saturating_duration_since(*at) >= window)
            {
                list.pop_front();
            }
        }
        if counted + seen == 0 {
            return;
        }
        let first = self.counted.front().into_iter().chain(self.seen.front()).min();
        let enough = self.count() >= usize::try_from(settings.flapping_restarts).unwrap_or(usize::MAX);
        if let Some(raised) = &mut self.raised {
            raised.last = now;
        } else if enough {
            let since = first.copied().unwrap_or(now);
            self.raised = Some(Raised { since, last: now });
        }
    }

    fn given_up(&mut self, now: Instant) {
        let since = self.raised.map_or(now, |raised| raised.since);
        self.raised = Some(Raised { since, last: now });
    }
}

fn hit_its_start_limit(seen: &UnitSignal) -> bool {
    seen.active == ActiveState::Failed && seen.result == "start-limit-hit"
}

#[cfg(test)]
mod tests;
