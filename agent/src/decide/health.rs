//! How long each watched unit, and each static pod, has been seen healthy: what refills its budget. Pure.
//!
//! Only what was *observed* counts: while systemd or the probe cannot be asked, no health lasts. It begins anew with
//! every restart of the unit, whoever made it.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Treatment;
use super::served::Served;
use crate::condition::Condition;
use crate::config::Settings;
use crate::diagnose::static_pods::State;
use crate::signal::{ActiveState, ProbeOutcome, ProbeTarget, Signal};

/// Health of all watched units.
#[derive(Debug, Clone)]
pub struct Health {
    kubelet_unit: String,
    kubelet_answers: bool,
    units: BTreeMap<String, Unit>,
    /// Since when each static pod has been up without a break.
    pods: BTreeMap<String, Instant>,
    unobservable_since: Option<Instant>,
    served: Served,
}

#[derive(Debug, Clone)]
struct Unit {
    active: bool,
    life: (u32, u32),
    since: Option<Instant>,
}

impl Health {
    /// Nothing seen yet.
    pub fn new(kubelet_unit: &str) -> Self {
        Self {
            kubelet_unit: kubelet_unit.to_owned(),
            kubelet_answers: false,
            units: BTreeMap::new(),
            pods: BTreeMap::new(),
            unobservable_since: None,
            served: Served::default(),
        }
    }

    /// Takes in what was seen at `now`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other signal, a later one too, is for another area"
    )]
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        self.served.observe(signal, now);
        match signal {
            Signal::Unit(seen) => {
                self.unobservable_since = None;
                let life = (seen.main_pid, seen.restarts);
                let unit = self.units.entry(seen.unit.clone()).or_insert(Unit {
                    active: false,
                    life,
                    since: None,
                });
                unit.active = match seen.active {
                    ActiveState::Active | ActiveState::Reloading => true,
                    ActiveState::Inactive
                    | ActiveState::Failed
                    | ActiveState::Activating
                    | ActiveState::Deactivating
                    | ActiveState::NotFound
                    | ActiveState::Unknown => false,
                };
                if !unit.active || unit.life != life {
                    unit.life = life;
                    unit.since = None;
                }
            }
            Signal::UnitsUnobservable { .. } => {
                self.unobservable_since.get_or_insert(now);
                for unit in self.units.values_mut() {
                    unit.active = false;
                    unit.since = None;
                }
            }
            Signal::Probe(seen) if seen.target == ProbeTarget::Kubelet => match seen.outcome {
                ProbeOutcome::Healthy => self.kubelet_answers = true,
                ProbeOutcome::Unobservable { .. } => self.kubelet_answers = false,
                // One bad answer is no illness: that is for the condition to say.
                ProbeOutcome::Unhealthy { .. } | ProbeOutcome::TimedOut | ProbeOutcome::Refused => {}
            },
            Signal::StaticPods(seen) => {
                let mut before = std::mem::take(&mut self.pods);
                let up = seen.pods.iter().filter(|pod| State::of(pod) == State::Up);
                self.pods = up
                    .map(|pod| (pod.name.clone(), before.remove(&pod.name).unwrap_or(now)))
                    .collect();
            }
            _ => {}
        }
    }

    /// Ends the health of every unit that a condition stands for, and lets that of the others begin.
    pub fn judge(&mut self, conditions: &[Condition], now: Instant) {
        for (name, unit) in &mut self.units {
            let kubelet = *name == self.kubelet_unit;
            let ill = conditions
                .iter()
                .any(|condition| match Treatment::of(condition.key.kind) {
                    Treatment::Ladder | Treatment::RestartRuntime | Treatment::KillUnit => {
                        condition.key.subject == *name
                    }
                    Treatment::KillKubelet | Treatment::RestartKubelet => kubelet,
                    Treatment::Reclaim
                    | Treatment::FreeDisk
                    | Treatment::FreeInodes
                    | Treatment::RestartContainer
                    | Treatment::Bounce
                    | Treatment::RelieveMemory
                    | Treatment::Protect
                    | Treatment::RestartTimeService
                    | Treatment::RestartCni
                    | Treatment::Tell => false,
                });
            let healthy = unit.active && !ill && (self.kubelet_answers || !kubelet);
            unit.since = healthy.then(|| unit.since.unwrap_or(now));
        }
    }

    /// Since when `unit`, or the static pod of that name, has been healthy without a break.
    pub fn since(&self, unit: &str) -> Option<Instant> {
        match self.units.get(unit) {
            Some(unit) => unit.since,
            None => self.pods.get(unit).copied(),
        }
    }

    /// Units that may be restarted for what they serve, of those that systemd has.
    pub fn helpers<'a>(&'a self, settings: &'a Settings) -> impl Iterator<Item = &'a String> {
        self.served.installed(settings)
    }

    /// How what units serve is.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// Since when systemd cannot be asked; `None` when it can, and before it was asked at all.
    pub fn unobservable_since(&self) -> Option<Instant> {
        self.unobservable_since
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::condition::{ConditionKey, ConditionKind, Severity};
    use crate::signal::{ProbeSignal, UnitDetail, UnitSignal};

    fn unit(name: &str, active: ActiveState, pid: u32) -> Signal {
        Signal::Unit(UnitSignal {
            unit: name.into(),
            active,
            sub: String::new(),
            main_pid: pid,
            restarts: 0,
            result: "success".into(),
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

    fn condition(kind: ConditionKind, subject: &str, since: Instant) -> Condition {
        Condition {
            key: ConditionKey {
                kind,
                subject: subject.into(),
            },
            severity: Severity::Critical,
            since,
            evidence: String::new(),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        }
    }

    #[test]
    fn lasts_until_a_restart_a_condition_or_blindness_breaks_it() {
        let start = Instant::now();
        let later = start + Duration::from_mins(1);
        let healthy = || {
            let mut health = Health::new("kubelet.service");
            health.observe(&unit("docker.service", ActiveState::Active, 7), start);
            health.judge(&[], start);
            assert_eq!(health.since("docker.service"), Some(start));
            health
        };
        let mut same = healthy();
        same.observe(&unit("docker.service", ActiveState::Active, 7), later);
        same.judge(
            &[condition(ConditionKind::UnitFailed, "other.service", later)],
            later,
        );
        assert_eq!(same.since("docker.service"), Some(start));

        let mut restarted = healthy();
        restarted.observe(&unit("docker.service", ActiveState::Active, 8), later);
        restarted.judge(&[], later);
        assert_eq!(restarted.since("docker.service"), Some(later));

        let mut ill = healthy();
        ill.judge(
            &[condition(ConditionKind::UnitFailed, "docker.service", later)],
            later,
        );
        assert_eq!(ill.since("docker.service"), None);

        let mut blind = healthy();
        blind.observe(&Signal::UnitsUnobservable { why: String::new() }, later);
        blind.judge(&[], later);
        assert_eq!(blind.since("docker.service"), None);
        assert_eq!(blind.unobservable_since(), Some(later));
        blind.observe(&unit("docker.service", ActiveState::Active, 7), later);
        assert_eq!(blind.unobservable_since(), None);
    }

    #[test]
    fn a_kubelet_has_to_answer_too() {
        let now = Instant::now();
        let mut health = Health::new("kubelet.service");
        let mut after = |signal: Signal, conditions: &[Condition]| {
            health.observe(&signal, now);
            health.judge(conditions, now);
            health.since("kubelet.service").is_some()
        };
        assert!(!after(unit("kubelet.service", ActiveState::Active, 7), &[]));
        assert!(after(probe(ProbeOutcome::Healthy), &[]));
        assert!(after(probe(ProbeOutcome::TimedOut), &[]));
        let hung = [condition(ConditionKind::KubeletUnhealthy, "kubelet.service", now)];
        assert!(!after(probe(ProbeOutcome::TimedOut), &hung));
        assert!(!after(
            probe(ProbeOutcome::Unobservable { why: String::new() }),
            &[]
        ));
    }
}
