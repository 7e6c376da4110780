//! What memory that is critically short may cost: the largest unit that may be restarted. Pure.
//!
//! Memory has to have been critical for `memory.restart_hold`, and who holds it has to have been looked at: before that nothing is known to be
//! spent. Units that hold less than their share are left alone: their restart would bring nothing. After each attempt on any unit there is a
//! pause, in which its memory shows up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::{Input, Look, Proposal, WaitingOn};
use crate::condition::Condition;
use crate::diagnose::memory::Stress;
use crate::remedy::Remedy;
use crate::remedy::relieve_memory::RelieveRules;
use crate::signal::{CgroupKind, CgroupUse};

/// After an attempt memory is looked at for so long before another unit goes.
const SETTLE: Duration = Duration::from_secs(10);

/// `None`: it is only told.
pub(super) fn look(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Option<Look> {
    let (settings, now) = (input.settings, input.now);
    let policy = &settings.memory;
    let stress = input.stress.as_ref()?;
    if policy.may_restart.is_empty() {
        return None;
    }
    let until = stress.since + policy.restart_hold;
    if until > now {
        return Some(Look::Wait(WaitingOn::Hold { until }));
    }
    let under_way = |remedy: &Remedy| matches!(remedy, Remedy::RelieveMemory { .. });
    if input.in_flight.values().any(under_way) {
        return Some(Look::Wait(WaitingOn::Running));
    }
    let last = input
        .history
        .subjects()
        .flat_map(|unit| input.history.of(unit))
        .filter(|attempt| attempt.rung == Rung::Relieve)
        .map(Attempt::last_seen)
        .max();
    if let Some(until) = last.map(|last| last + SETTLE).filter(|until| *until > now) {
        return Some(Look::Wait(WaitingOn::Settling { until }));
    }
    let Some(largest) = stress.largest else {
        return Some(Look::Wait(WaitingOn::MemoryHolders));
    };
    let rules = RelieveRules::new(settings);
    let candidates: Vec<&CgroupUse> = units(largest)
        .filter(|unit| {
            u128::from(unit.bytes) * 100
                >= u128::from(stress.total) * u128::from(policy.restart_share_percent)
        })
        .filter(|unit| rules.allow(&unit.cgroup.name))
        .collect();
    let counted = |unit: &str| -> Vec<&Attempt> {
        let lately = |attempt: &&Attempt| {
            attempt.rung == Rung::Relieve
                && now.saturating_duration_since(attempt.begun) < policy.restart_window
        };
        input.history.of(unit).filter(lately).collect()
    };
    let has_budget = |unit: &&&CgroupUse| {
        counted(&unit.cgroup.name).len() < usize::try_from(policy.restarts).unwrap_or(usize::MAX)
    };
    let Some(unit) = candidates.iter().find(has_budget) else {
        let oldest = candidates
            .iter()
            .filter_map(|unit| counted(&unit.cgroup.name).first().map(|oldest| oldest.begun))
            .min();
        return Some(spent(
            condition,
            stress,
            &candidates,
            oldest.map(|at| at + policy.restart_window),
        ));
    };
    let name = &unit.cgroup.name;
    if taken.contains(name) {
        return Some(Look::Wait(WaitingOn::Running));
    }
    if input.brakes.gate_held && *name == settings.kubelet_unit {
        return Some(Look::Wait(WaitingOn::BootGate));
    }
    if input.brakes.systemd_away {
        return Some(Look::Wait(WaitingOn::Systemd));
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Some(Look::Wait(WaitingOn::Ledger { until }));
    }
    Some(Look::Begin(Proposal {
        remedy: Remedy::RelieveMemory { unit: name.clone() },
        reason: format!(
            "{}: {}; {unit} is the largest unit that may be restarted; attempt {} of {}",
            condition.key.kind,
            condition.evidence,
            counted(name).len() + 1,
            policy.restarts
        ),
    }))
}

fn units(largest: &[CgroupUse]) -> impl Iterator<Item = &CgroupUse> {
    largest
        .iter()
        .filter(|group| group.cgroup.kind == CgroupKind::Unit)
}

fn spent(
    condition: &Condition,
    stress: &Stress<'_>,
    candidates: &[&CgroupUse],
    again: Option<tokio::time::Instant>,
) -> Look {
    let why = match (
        candidates.first(),
        units(stress.largest.unwrap_or_default()).next(),
    ) {
        (Some(unit), _) => format!("{unit} was restarted as often as it may be"),
        (None, Some(largest)) => format!(
            "no unit that may be restarted (memory.may_restart) holds its share; the largest unit is {largest}"
        ),
        (None, None) => "no unit is seen that holds memory".to_owned(),
    };
    Look::Spent {
        since: stress.since,
        evidence: format!("{}: {}; {why}", condition.key.kind, condition.evidence),
        again,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::Instant;

    use super::super::health::Health;
    use super::super::history::History;
    use super::super::{Brakes, Decision, decide};
    use super::*;
    use crate::condition::{ConditionKey, ConditionKind, Severity};
    use crate::config::Settings;
    use crate::ledger::Outcome;
    use crate::signal::Cgroup;

    const GIB: u64 = 1 << 30;

    struct World {
        settings: Settings,
        history: History,
        /// `None`: nobody has looked.
        largest: Option<Vec<CgroupUse>>,
        critical: Instant,
    }

    impl World {
        fn new(may_restart: &[&str]) -> Self {
            let mut settings = Settings::for_node("n");
            settings.memory.may_restart = may_restart.iter().map(|glob| (*glob).to_owned()).collect();
            let group = |kind, name: &str, gib| CgroupUse {
                cgroup: Cgroup {
                    kind,
                    name: name.to_owned(),
                },
                bytes: gib * GIB,
            };
            Self {
                settings,
                history: History::default(),
                largest: Some(vec![
                    group(CgroupKind::Pod, "shop/cart-1", 30),
                    group(CgroupKind::Unit, "docker.service", 14),
                    group(CgroupKind::Unit, "app.service", 13),
                    group(CgroupKind::Unit, "tiny.service", 1),
                ]),
                critical: Instant::now(),
            }
        }

        fn at(&self, second: u64) -> Decision {
            let now = self.critical + Duration::from_secs(second);
            let condition = Condition {
                key: ConditionKey {
                    kind: ConditionKind::MemoryPressure,
                    subject: "memory".into(),
                },
                severity: Severity::Critical,
                since: self.critical,
                evidence: "1% available".into(),
                escalated: false,
                log: None,
                heaviest: Vec::new(),
            };
            decide(&Input {
                conditions: &[condition],
                history: &self.history,
                health: &Health::new("kubelet.service"),
                settings: &self.settings,
                brakes: &Brakes::default(),
                in_flight: &BTreeMap::new(),
                stress: Some(Stress {
                    since: self.critical,
                    total: 64 * GIB,
                    largest: self.largest.as_deref(),
                }),
                now,
            })
        }

        /// What is begun at that second; done and of help then, at the same second.
        fn restarts(&mut self, second: u64) -> Vec<String> {
            let now = self.critical + Duration::from_secs(second);
            let begun = self.at(second).begin;
            for Proposal { remedy, .. } in &begun {
                let done = Outcome::Succeeded {
                    detail: String::new(),
                };
                self.history.begun(remedy, now);
                self.history.ended(&remedy.subject(), &done, false, now);
            }
            begun.iter().map(|proposal| proposal.remedy.subject()).collect()
        }
    }

    #[test]
    fn with_nothing_allowed_it_is_told_and_no_more() {
        let decision = World::new(&[]).at(3600);
        assert_eq!((decision.begin.len(), decision.conditions.len()), (0, 1));
    }

    #[test]
    fn the_largest_that_may_goes_once_it_has_held_and_never_a_pod_or_the_runtime() {
        let mut world = World::new(&["*"]);
        assert_eq!(world.restarts(29), [] as [&str; 0]);
        assert_eq!(
            world.at(29).next_look,
            Some(world.critical + Duration::from_secs(30))
        );
        assert_eq!(world.restarts(30), ["app.service"]);
    }

    #[test]
    fn the_runtime_goes_when_it_is_named() {
        assert_eq!(World::new(&["docker.service"]).restarts(30), ["docker.service"]);
    }

    #[test]
    fn attempts_are_spaced_and_budgeted_and_then_somebody_is_told() {
        let mut world = World::new(&["*.service"]);
        let began: Vec<u64> = (0..600)
            .filter(|second| !world.restarts(*second).is_empty())
            .collect();
        assert_eq!(began, [30, 40]);
        let told = world.at(600).conditions.remove(0);
        assert_eq!(told.key.kind, ConditionKind::RemedyExhausted);
        assert!(
            told.evidence
                .contains("app.service 13.0 GiB was restarted as often as it may be"),
            "{}",
            told.evidence
        );
        // The window passes.
        assert_eq!(world.restarts(30 + 3600), ["app.service"]);
    }

    #[test]
    fn nothing_is_spent_before_somebody_has_looked_who_holds_memory() {
        let mut world = World::new(&["*"]);
        let largest = world.largest.take();
        let blind = world.at(60);
        assert_eq!((blind.begin.len(), blind.conditions.len()), (0, 1));
        assert_eq!(blind.waiting[0].on, WaitingOn::MemoryHolders);
        // A kernel that counts no memory by control group has been looked at, and has nothing to tell.
        world.largest = Some(Vec::new());
        let told = &world.at(60).conditions[0];
        assert_eq!(told.key.kind, ConditionKind::RemedyExhausted);
        assert!(
            told.evidence.contains("no unit is seen that holds memory"),
            "{}",
            told.evidence
        );
        world.largest = largest;
        assert_eq!(world.restarts(60), ["app.service"]);
    }

    #[test]
    fn small_units_are_left_alone_and_the_largest_is_named() {
        let world = World::new(&["tiny.service"]);
        let decision = world.at(60);
        assert!(decision.begin.is_empty());
        let evidence = &decision.conditions[0].evidence;
        assert!(
            evidence.contains("the largest unit is docker.service 14.0 GiB"),
            "{evidence}"
        );
    }
}
