//! [`Signal::Unit`] → `UnitFailed` and `UnitInactive`. Pure.
//!
//! | systemd says | raised |
//! |---|---|
//! | `failed` | `UnitFailed`, at once |
//! | `inactive` | `UnitInactive`, after `inactive_hold`: somebody may be at work on it |
//! | `activating`, also in its own `auto-restart` delay | nothing: systemd is at it, and ends in `active` or `failed` |
//! | anything else, or not installed | nothing |
//!
//! A unit with `Restart=` passes through `auto-restart`, never `failed`, until its start limit is hit: its first
//! restarts are systemd's, with the delay that its file asks for, and the agent does not race it.
//!
//! While a unit cannot be observed, what stood stays, nothing new is raised, and its hold time does not run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::signal::{ActiveState, Signal, UnitSignal};

/// All watched units.
#[derive(Debug, Clone)]
pub struct Units {
    watched: Vec<String>,
    kubelet: String,
    inactive_hold: Duration,
    gate_held: bool,
    seen: BTreeMap<String, Unit>,
}

#[derive(Debug, Clone)]
struct Unit {
    signal: UnitSignal,
    /// In this state since.
    since: Instant,
    /// The hold time runs from here: `since`, and what passed unobserved.
    hold_from: Instant,
    /// Cannot be observed since.
    blind: Option<Instant>,
}

impl Units {
    /// Nothing seen yet. `kubelet` is the unit that the boot gate may hold.
    pub fn new(watched: Vec<String>, kubelet: &str, inactive_hold: Duration) -> Self {
        Self {
            watched,
            kubelet: kubelet.to_owned(),
            inactive_hold,
            gate_held: false,
            seen: BTreeMap::new(),
        }
    }

    /// Judges by other settings from now on, and forgets what is not watched any more.
    pub fn retune(&mut self, watched: Vec<String>, inactive_hold: Duration) {
        self.watched = watched;
        self.inactive_hold = inactive_hold;
        let (watched, kubelet) = (&self.watched, &self.kubelet);
        self.seen
            .retain(|name, _| watched.contains(name) || name == kubelet);
    }

    /// While the boot gate holds the kubelet, its unit waits for a good reason.
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
            Signal::Unit(seen) => self.unit_seen(seen, now),
            Signal::UnitsUnobservable { .. } => {
                for unit in self.seen.values_mut() {
                    unit.blind.get_or_insert(now);
                }
            }
            _ => {}
        }
        // Its hold time begins when the gate lets go of it.
        if self.gate_held
            && let Some(kubelet) = self.seen.get_mut(&self.kubelet)
        {
            kubelet.hold_from = now;
        }
    }

    fn unit_seen(&mut self, seen: &UnitSignal, now: Instant) {
        if !self.watched.contains(&seen.unit) && seen.unit != self.kubelet {
            return;
        }
        let Some(unit) = self.seen.get_mut(&seen.unit) else {
            self.seen.insert(
                seen.unit.clone(),
                Unit {
                    signal: seen.clone(),
                    since: now,
                    hold_from: now,
                    blind: None,
                },
            );
            return;
        };
        if seen.active == ActiveState::Unknown {
            unit.blind.get_or_insert(now);
            return;
        }
        if let Some(since) = unit.blind.take() {
            unit.hold_from += now.saturating_duration_since(since);
        }
        if unit.signal.active != seen.active {
            unit.since = now;
            unit.hold_from = now;
        }
        unit.signal = seen.clone();
    }

    /// The unit as last seen.
    pub fn unit(&self, name: &str) -> Option<&UnitSignal> {
        self.seen.get(name).map(|unit| &unit.signal)
    }

    /// All units that were seen, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &UnitSignal> {
        self.seen.values().map(|unit| &unit.signal)
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        self.judged()
            .filter_map(|unit| unit.condition(self.inactive_hold, now))
            .collect()
    }

    /// When a hold time that runs now will be over.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.judged()
            .filter(|unit| unit.blind.is_none() && unit.signal.active == ActiveState::Inactive)
            .map(|unit| unit.hold_from + self.inactive_hold)
            .filter(|at| *at > now)
            .min()
    }

    fn judged(&self) -> impl Iterator<Item = &Unit> {
        self.seen
            .iter()
            .filter(|(name, _)| !(self.gate_held && **name == self.kubelet))
            .map(|(_, unit)| unit)
    }
}

impl Unit {
    fn condition(&self, inactive_hold: Duration, now: Instant) -> Option<Condition> {
        let (kind, severity) = match self.signal.active {
            ActiveState::Failed => (ConditionKind::UnitFailed, Severity::Critical),
            ActiveState::Inactive => {
                let observed_until = self.blind.map_or(now, |blind| blind.min(now));
                if observed_until.saturating_duration_since(self.hold_from) < inactive_hold {
                    return None;
                }
                (ConditionKind::UnitInactive, Severity::Warning)
            }
            ActiveState::Active
            | ActiveState::Reloading
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::NotFound
            | ActiveState::Unknown => return None,
        };
        Some(Condition {
            key: ConditionKey {
                kind,
                subject: self.signal.unit.clone(),
            },
            severity,
            since: self.since,
            evidence: self.evidence(inactive_hold),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        })
    }

    fn evidence(&self, inactive_hold: Duration) -> String {
        let UnitSignal {
            sub,
            result,
            restarts,
            ..
        } = &self.signal;
        let mut text = match self.signal.active {
            ActiveState::Inactive => {
                format!("stopped without failure and left so for {inactive_hold:?} ({sub})")
            }
            ActiveState::Failed
            | ActiveState::Active
            | ActiveState::Reloading
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::NotFound
            | ActiveState::Unknown => format!("failed: {result} ({sub})"),
        };
        if *restarts > 0 {
            let _infallible = write!(text, "; systemd has restarted it {restarts} times");
        }
        if self.blind.is_some() {
            text += "; systemd cannot be asked at present";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::UnitDetail;

    const HOLD: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    fn units() -> Units {
        Units::new(
            ["kubelet.service", "docker.service"].map(str::to_owned).into(),
            "kubelet.service",
            HOLD,
        )
    }

    fn unit(name: &str, active: ActiveState) -> Signal {
        Signal::Unit(UnitSignal {
            unit: name.to_owned(),
            active,
            sub: "dead".to_owned(),
            main_pid: 0,
            restarts: 0,
            result: "signal".to_owned(),
            detail: UnitDetail::default(),
        })
    }

    fn docker(active: ActiveState) -> Signal {
        unit("docker.service", active)
    }

    fn blind() -> Signal {
        Signal::UnitsUnobservable {
            why: "bus".to_owned(),
        }
    }

    fn raised(units: &Units, now: Instant) -> Vec<ConditionKind> {
        units
            .conditions(now)
            .into_iter()
            .map(|condition| condition.key.kind)
            .collect()
    }

    #[test]
    fn a_failure_is_raised_at_once_and_cleared_when_somebody_starts_it() {
        let now = Instant::now();
        let mut units = units();
        units.observe(&docker(ActiveState::Active), now);
        assert_eq!(raised(&units, now), []);
        units.observe(&docker(ActiveState::Failed), now);
        let condition = units.conditions(now).remove(0);
        assert_eq!(condition.key.kind, ConditionKind::UnitFailed);
        assert_eq!(condition.key.subject, "docker.service");
        assert_eq!(condition.evidence, "failed: signal (dead)");

        units.observe(&docker(ActiveState::Failed), now + SECOND);
        assert_eq!(units.conditions(now + SECOND)[0].since, now);
        units.observe(&docker(ActiveState::Activating), now + SECOND);
        assert_eq!(raised(&units, now + SECOND), []);
        units.observe(&docker(ActiveState::Failed), now + 2 * SECOND);
        assert_eq!(units.conditions(now + 2 * SECOND)[0].since, now + 2 * SECOND);
    }

    #[test]
    fn a_stopped_unit_is_left_alone_for_its_hold_time() {
        let now = Instant::now();
        let mut units = units();
        units.observe(&docker(ActiveState::Inactive), now);
        units.observe(&docker(ActiveState::Inactive), now + 20 * SECOND);
        assert_eq!(raised(&units, now + HOLD - SECOND), []);
        assert_eq!(units.next_change(now + SECOND), Some(now + HOLD));
        assert_eq!(raised(&units, now + HOLD), [ConditionKind::UnitInactive]);
        assert_eq!(units.next_change(now + HOLD), None);
        units.observe(&docker(ActiveState::Active), now + HOLD);
        assert_eq!(raised(&units, now + HOLD), []);
    }

    #[test]
    fn what_is_not_wanted_or_not_understood_or_not_watched_raises_nothing() {
        let now = Instant::now();
        let mut units = units();
        for active in [
            ActiveState::NotFound,
            ActiveState::Unknown,
            ActiveState::Deactivating,
            ActiveState::Reloading,
        ] {
            units.observe(&docker(active), now);
            assert_eq!(raised(&units, now + 2 * HOLD), [], "{active:?}");
        }
        units.observe(&unit("cron.service", ActiveState::Failed), now);
        assert_eq!(raised(&units, now), []);
    }

    #[test]
    fn a_hold_time_does_not_run_while_nothing_can_be_seen() {
        let now = Instant::now();
        let mut units = units();
        units.observe(&docker(ActiveState::Inactive), now);
        units.observe(&blind(), now + 10 * SECOND);
        assert_eq!(raised(&units, now + 100 * SECOND), []);
        assert_eq!(units.next_change(now + 11 * SECOND), None);
        units.observe(&docker(ActiveState::Inactive), now + 100 * SECOND);
        assert_eq!(raised(&units, now + 119 * SECOND), []);
        assert_eq!(raised(&units, now + 120 * SECOND), [ConditionKind::UnitInactive]);
        assert_eq!(units.conditions(now + 120 * SECOND)[0].since, now);
    }

    #[test]
    fn a_kubelet_at_the_gate_is_no_failure_and_gets_its_hold_time_afterwards() {
        let now = Instant::now();
        let mut units = units();
        units.set_gate_held(true);
        units.observe(&unit("kubelet.service", ActiveState::Inactive), now);
        units.observe(&docker(ActiveState::Failed), now + 99 * SECOND);
        assert_eq!(raised(&units, now + 100 * SECOND), [ConditionKind::UnitFailed]);
        units.set_gate_held(false);
        let opened = now + 100 * SECOND;
        assert_eq!(raised(&units, opened), [ConditionKind::UnitFailed]);
        assert_eq!(units.next_change(opened), Some(now + 99 * SECOND + HOLD));
        assert_eq!(
            raised(&units, opened + HOLD),
            [ConditionKind::UnitFailed, ConditionKind::UnitInactive]
        );
    }

    proptest! {
        /// Whatever came before: from the moment of blindness on, what stands is what stood.
        #[test]
        fn blindness_neither_raises_nor_clears(
            history in prop::collection::vec((0_u32..60, 0_usize..8), 0..30),
            blindness in prop::collection::vec((0_u32..60, any::<bool>()), 0..10),
        ) {
            const STATES: [ActiveState; 7] = [
                ActiveState::Active,
                ActiveState::Reloading,
                ActiveState::Inactive,
                ActiveState::Failed,
                ActiveState::Activating,
                ActiveState::Deactivating,
                ActiveState::NotFound,
            ];
            let mut now = Instant::now();
            let mut units = units();
            let mut last = None;
            for (seconds, state) in history {
                now += seconds * SECOND;
                last = STATES.get(state).copied().or(last);
                let signal = STATES.get(state).map_or_else(blind, |state| docker(*state));
                units.observe(&signal, now);
                for condition in units.conditions(now) {
                    prop_assert!(matches!(
                        (condition.key.kind, last),
                        (ConditionKind::UnitFailed, Some(ActiveState::Failed))
                            | (ConditionKind::UnitInactive, Some(ActiveState::Inactive))
                    ));
                }
            }
            units.observe(&blind(), now);
            let stood = raised(&units, now);
            for (seconds, all) in blindness {
                now += seconds * SECOND;
                units.observe(&if all { blind() } else { docker(ActiveState::Unknown) }, now);
                prop_assert_eq!(raised(&units, now + 2 * HOLD), stood.clone());
            }
            // The same state seen again changes nothing either.
            if let Some(last) = last {
                units.observe(&docker(last), now);
                prop_assert_eq!(raised(&units, now), stood);
            }
        }
    }
}
