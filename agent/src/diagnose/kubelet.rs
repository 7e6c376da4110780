//! [`Signal::Probe`] of the kubelet and [`Signal::Unit`] of its unit → `KubeletUnhealthy`. Pure.
//!
//! Raised while the unit is active and `failures_to_raise` probes in a row have failed: refused, timed out, or any
//! status but 200. One healthy probe clears it. So does the end of the process that was found sick: the next one is
//! judged for itself, after a [`GRACE`] in which it may still be starting. A unit that is not active is the matter of
//! [`super::units`].
//!
//! What cannot be observed neither raises nor clears: a probe that could not be made is as if it had not been tried,
//! and while systemd cannot be asked no failure counts, for nobody knows whether the kubelet is meant to answer.

use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::ProbeSettings;
use crate::signal::{ActiveState, ProbeOutcome, ProbeTarget, Signal, UnitSignal};

/// Failures do not count before the unit has been active for so long.
pub const GRACE: Duration = Duration::from_secs(10);

/// The kubelet's health.
#[derive(Debug, Clone)]
pub struct Kubelet {
    unit: String,
    failures_to_raise: u32,
    url: String,
    gate_held: bool,
    /// The process that runs; `None` while none does, or before one was seen.
    running: Option<Running>,
    /// Its unit cannot be observed.
    blind: bool,
}

#[derive(Debug, Clone)]
struct Running {
    main_pid: u32,
    since: Instant,
    failures: Option<Failures>,
}

/// Failed probes in a row.
#[derive(Debug, Clone)]
struct Failures {
    count: u32,
    since: Instant,
    last: ProbeOutcome,
}

impl Kubelet {
    /// Nothing seen yet.
    pub fn new(unit: &str, settings: &ProbeSettings) -> Self {
        let target = &settings.target;
        Self {
            unit: unit.to_owned(),
            failures_to_raise: settings.failures_to_raise,
            url: format!(
                "{}://{}{}",
                if target.tls { "https" } else { "http" },
                target.address,
                target.path
            ),
            gate_held: false,
            running: None,
            blind: false,
        }
    }

    /// Judges by another number from now on.
    pub fn retune(&mut self, failures_to_raise: u32) {
        self.failures_to_raise = failures_to_raise;
    }

    /// While the boot gate holds the kubelet, its silence is no failure.
    pub fn set_gate_held(&mut self, held: bool) {
        self.gate_held = held;
        if held && let Some(running) = &mut self.running {
            running.failures = None;
        }
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other signal, a later one too, is for another area"
    )]
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        match signal {
            Signal::Unit(unit) if unit.unit == self.unit => self.unit_seen(unit, now),
            Signal::UnitsUnobservable { .. } => self.blind = true,
            Signal::Probe(probe) if probe.target == ProbeTarget::Kubelet => self.probed(&probe.outcome, now),
            _ => {}
        }
    }

    fn unit_seen(&mut self, unit: &UnitSignal, now: Instant) {
        match unit.active {
            ActiveState::Active | ActiveState::Reloading => {
                self.blind = false;
                if self
                    .running
                    .as_ref()
                    .is_none_or(|running| running.main_pid != unit.main_pid)
                {
                    self.running = Some(Running {
                        main_pid: unit.main_pid,
                        since: now,
                        failures: None,
                    });
                }
            }
            ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::NotFound => {
                self.blind = false;
                self.running = None;
            }
            ActiveState::Unknown => self.blind = true,
        }
    }

    fn probed(&mut self, outcome: &ProbeOutcome, now: Instant) {
        let Some(running) = &mut self.running else { return };
        match outcome {
            ProbeOutcome::Healthy => running.failures = None,
            ProbeOutcome::Unhealthy { .. } | ProbeOutcome::TimedOut | ProbeOutcome::Refused => {
                let in_grace = now.saturating_duration_since(running.since) < GRACE;
                if self.blind || self.gate_held || in_grace {
                    return;
                }
                let failures = running.failures.get_or_insert_with(|| Failures {
                    count: 0,
                    since: now,
                    last: outcome.clone(),
                });
                failures.count = failures.count.saturating_add(1);
                failures.last = outcome.clone();
            }
            ProbeOutcome::Unobservable { .. } => {}
        }
    }

    /// What stands.
    pub fn condition(&self) -> Option<Condition> {
        let failures = self.running.as_ref()?.failures.as_ref()?;
        if failures.count < self.failures_to_raise || self.gate_held {
            return None;
        }
        let answer = match &failures.last {
            ProbeOutcome::Unhealthy { status } => format!("answers {status}"),
            ProbeOutcome::TimedOut => "does not answer in time".to_owned(),
            ProbeOutcome::Refused | ProbeOutcome::Healthy | ProbeOutcome::Unobservable { .. } => {
                "refuses connections".to_owned()
            }
        };
        Some(Condition {
            key: ConditionKey {
                kind: ConditionKind::KubeletUnhealthy,
                subject: self.unit.clone(),
            },
            severity: Severity::Critical,
            since: failures.since,
            evidence: format!(
                "its unit is active, and {} {answer}: {} probes in a row failed",
                self.url, failures.count
            ),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::{ProbeSignal, UnitDetail};

    const SECOND: Duration = Duration::from_secs(1);

    fn kubelet() -> Kubelet {
        Kubelet::new("kubelet.service", &ProbeSettings::new(10248, "/healthz"))
    }

    fn unit(active: ActiveState, main_pid: u32) -> Signal {
        Signal::Unit(UnitSignal {
            unit: "kubelet.service".to_owned(),
            active,
            sub: String::new(),
            main_pid,
            restarts: 0,
            result: "success".to_owned(),
            detail: UnitDetail::default(),
        })
    }

    fn probe(outcome: ProbeOutcome) -> Signal {
        Signal::Probe(ProbeSignal {
            target: ProbeTarget::Kubelet,
            outcome,
            took: Duration::ZERO,
        })
    }

    fn unobservable() -> ProbeOutcome {
        ProbeOutcome::Unobservable { why: String::new() }
    }

    /// A kubelet that has been active for longer than the grace.
    fn settled(start: Instant) -> Kubelet {
        let mut kubelet = kubelet();
        kubelet.observe(&unit(ActiveState::Active, 7), start);
        kubelet
    }

    #[test]
    fn three_failures_in_a_row_raise_and_one_success_clears() {
        let start = Instant::now();
        let mut kubelet = settled(start);
        let mut now = start + GRACE;
        for outcome in [
            ProbeOutcome::Refused,
            ProbeOutcome::TimedOut,
            ProbeOutcome::Healthy,
            ProbeOutcome::TimedOut,
            unobservable(),
            ProbeOutcome::Refused,
        ] {
            now += SECOND;
            kubelet.observe(&probe(outcome), now);
            assert_eq!(kubelet.condition(), None);
        }
        kubelet.observe(&probe(ProbeOutcome::Unhealthy { status: 500 }), now);
        let condition = kubelet.condition().unwrap();
        assert_eq!(condition.since, start + GRACE + 4 * SECOND);
        assert_eq!(
            condition.evidence,
            "its unit is active, and http://127.0.0.1:10248/healthz answers 500: 3 probes in a row failed"
        );
        kubelet.observe(&probe(ProbeOutcome::Healthy), now);
        assert_eq!(kubelet.condition(), None);
    }

    #[test]
    fn a_new_process_is_judged_for_itself_and_has_its_grace() {
        let start = Instant::now();
        let mut kubelet = settled(start);
        let sick = |kubelet: &mut Kubelet, at| {
            for _ in 0..3 {
                kubelet.observe(&probe(ProbeOutcome::TimedOut), at);
            }
        };
        sick(&mut kubelet, start + GRACE);
        assert!(kubelet.condition().is_some());
        let restarted = start + 2 * GRACE;
        kubelet.observe(&unit(ActiveState::Active, 8), restarted);
        sick(&mut kubelet, restarted + GRACE - SECOND);
        assert_eq!(kubelet.condition(), None);
        sick(&mut kubelet, restarted + GRACE);
        assert!(kubelet.condition().is_some());
        kubelet.observe(&unit(ActiveState::Failed, 0), restarted + GRACE);
        assert_eq!(kubelet.condition(), None);
    }

    #[test]
    fn one_that_does_not_run_or_is_held_is_not_expected_to_answer() {
        let start = Instant::now();
        let mut stopped = kubelet();
        let mut held = settled(start);
        held.set_gate_held(true);
        for _ in 0..5 {
            stopped.observe(&probe(ProbeOutcome::Refused), start + GRACE);
            held.observe(&probe(ProbeOutcome::Refused), start + GRACE);
        }
        assert_eq!(stopped.condition(), None);
        assert_eq!(held.condition(), None);
        stopped.observe(&unit(ActiveState::Active, 1), start + GRACE);
        assert_eq!(stopped.condition(), None);
        held.set_gate_held(false);
        assert_eq!(held.condition(), None);
    }

    proptest! {
        /// From any history on: unobservable probes change nothing, nor do failures while systemd cannot be asked.
        #[test]
        fn blindness_neither_raises_nor_clears(
            history in prop::collection::vec((0_u32..15, 0_usize..8), 0..40),
            blindness in prop::collection::vec((0_u32..15, 0_usize..3), 0..20),
        ) {
            let mut now = Instant::now();
            let mut kubelet = settled(now);
            let signal = |at| match at {
                0 | 1 => probe(ProbeOutcome::TimedOut),
                2 => probe(ProbeOutcome::Refused),
                3 => probe(ProbeOutcome::Healthy),
                4 => unit(ActiveState::Active, 7),
                5 => unit(ActiveState::Active, 8),
                6 => unit(ActiveState::Failed, 0),
                _ => probe(unobservable()),
            };
            for (seconds, at) in history {
                now += seconds * SECOND;
                let before = kubelet.condition().is_some();
                kubelet.observe(&signal(at), now);
                let after = kubelet.condition().is_some();
                // Only a failed probe raises; only health or another process clears.
                prop_assert!(before || !after || at <= 2);
                prop_assert!(!before || after || matches!(at, 3..=6));
            }
            kubelet.observe(&Signal::UnitsUnobservable { why: String::new() }, now);
            let stood = kubelet.condition().is_some();
            for (seconds, at) in blindness {
                now += seconds * SECOND;
                let outcome = [ProbeOutcome::TimedOut, ProbeOutcome::Refused, unobservable()][at].clone();
                kubelet.observe(&probe(outcome), now);
                kubelet.observe(&unit(ActiveState::Unknown, 0), now);
                prop_assert_eq!(kubelet.condition().is_some(), stood);
            }
        }
    }
}
