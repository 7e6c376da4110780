use std::time::Duration;

use super::*;
use crate::condition::{ConditionKey, ConditionKind, Severity};
use crate::decide::health::Health;
use crate::decide::history::History;
use crate::decide::{Brakes, Decision, decide};
use crate::ledger::Outcome;
use crate::remedy::Remedy;
use crate::signal::{CniSignal, Keeper, UnitSignal};

fn unit(name: &str, active: ActiveState) -> Signal {
    Signal::Unit(UnitSignal {
        unit: name.to_owned(),
        active,
        sub: String::new(),
        main_pid: u32::from(active == ActiveState::Active),
        restarts: 0,
        result: String::new(),
        detail: crate::signal::UnitDetail::default(),
    })
}

fn clock(synchronised: bool, other_keeper: Option<Keeper>) -> Signal {
    Signal::Clock(ClockSignal {
        synchronised: Some(synchronised),
        other_keeper,
        ..ClockSignal::default()
    })
}

fn condition(kind: ConditionKind, subject: &str, since: Instant) -> Condition {
    Condition {
        key: ConditionKey {
            kind,
            subject: subject.to_owned(),
        },
        severity: Severity::Warning,
        since,
        evidence: "seen".to_owned(),
        escalated: false,
        log: None,
        heaviest: Vec::new(),
    }
}

/// A node with one condition, on which what is decided is done and ends as it is told to.
struct Node {
    settings: Settings,
    health: Health,
    history: History,
    conditions: Vec<Condition>,
    now: Instant,
}

impl Node {
    fn new(kind: ConditionKind, subject: &str) -> Self {
        let now = Instant::now();
        let settings = Settings::for_node("n");
        Self {
            health: Health::new(&settings.kubelet_unit),
            settings,
            history: History::default(),
            conditions: vec![condition(kind, subject, now)],
            now,
        }
    }

    fn see(&mut self, signal: &Signal) {
        self.health.observe(signal, self.now);
    }

    fn decide(&mut self) -> Decision {
        self.health.judge(&self.conditions, self.now);
        decide(&Input {
            conditions: &self.conditions,
            history: &self.history,
            health: &self.health,
            settings: &self.settings,
            brakes: &Brakes::default(),
            in_flight: &BTreeMap::new(),
            stress: None,
            now: self.now,
        })
    }

    /// Does what is decided until nothing more comes, and says to which units.
    fn until_rest(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..50 {
            let decision = self.decide();
            let acted = !decision.begin.is_empty();
            for proposal in decision.begin {
                let Remedy::RestartUnit { unit } = &proposal.remedy else {
                    panic!("{proposal:?}")
                };
                done.push(unit.clone());
                self.history.begun(&proposal.remedy, self.now);
                let detail = "active".to_owned();
                let outcome = Outcome::Succeeded { detail };
                self.history.ended(unit, &outcome, false, self.now);
            }
            for unit in decision.refill {
                self.history.refilled(&unit);
            }
            match decision.next_look {
                Some(next) => self.now = next,
                // What was begun has ended: that alone is looked at anew.
                None if acted => {}
                None => break,
            }
        }
        done
    }
}

/// All services of the configuration, none of which is installed.
fn none_installed(node: &mut Node) {
    for service in node.settings.clock.services.clone() {
        node.see(&unit(&service, ActiveState::NotFound));
    }
}

fn waits_for(node: &mut Node) -> WaitingOn {
    let decision = node.decide();
    assert!(decision.begin.is_empty(), "{decision:?}");
    decision.waiting[0].on.clone()
}

#[test]
fn the_service_that_runs_is_restarted_once_and_again_only_after_the_clock_was_kept() {
    let mut node = Node::new(ConditionKind::ClockUnsynchronised, "clock");
    none_installed(&mut node);
    node.see(&unit("systemd-timesyncd.service", ActiveState::Inactive));
    node.see(&unit("ntpd.service", ActiveState::Active));
    node.see(&clock(false, None));
    assert_eq!(node.until_rest(), ["ntpd.service"]);
    let told = node.decide().conditions;
    assert!(
        told.iter()
            .any(|one| one.key.kind == ConditionKind::RemedyExhausted),
        "{told:?}"
    );
    // Active all the time, which is no health of a service that does not do its work.
    node.now += Duration::from_hours(24);
    assert!(node.until_rest().is_empty());

    let ill = std::mem::take(&mut node.conditions);
    node.see(&clock(true, None));
    assert!(node.until_rest().is_empty());
    node.see(&clock(false, None));
    node.conditions = ill;
    assert_eq!(node.until_rest(), ["ntpd.service"]);
}

#[test]
fn the_first_that_is_wanted_is_started_when_none_runs() {
    let mut node = Node::new(ConditionKind::ClockUnsynchronised, "clock");
    none_installed(&mut node);
    node.see(&unit("chrony.service", ActiveState::Failed));
    node.see(&unit("ntp.service", ActiveState::Inactive));
    assert_eq!(node.until_rest(), ["chrony.service"]);
}

#[test]
fn nothing_is_restarted_while_somebody_else_keeps_the_clock_or_it_is_not_known_who_does() {
    let mut node = Node::new(ConditionKind::ClockUnsynchronised, "clock");
    assert_eq!(waits_for(&mut node), WaitingOn::Systemd);
    none_installed(&mut node);
    assert_eq!(waits_for(&mut node), WaitingOn::TimeService);
    node.see(&unit("chronyd.service", ActiveState::Active));
    let other = Keeper {
        pid: 9,
        name: "ntpd".to_owned(),
    };
    node.see(&clock(false, Some(other)));
    assert_eq!(waits_for(&mut node), WaitingOn::AnotherKeeper);
    node.see(&clock(false, None));
    assert_eq!(node.decide().begin.len(), 1);
}

#[test]
fn what_writes_the_cni_configuration_is_restarted_with_time_to_write_it() {
    let mut node = Node::new(ConditionKind::CniMissing, "/etc/cni/net.d");
    assert!(node.until_rest().is_empty(), "no unit writes it");
    assert!(node.decide().waiting.is_empty());

    node.settings.network.cni.unit = Some("flanneld.service".to_owned());
    node.see(&unit("flanneld.service", ActiveState::Active));
    let begun = node.now;
    let restarts = node.settings.restart.restarts as usize;
    assert_eq!(node.until_rest(), vec!["flanneld.service"; restarts]);
    let hold = node.settings.network.cni.hold;
    assert!(node.now - begun >= hold * node.settings.restart.restarts);

    let seen = |found| {
        let dir = "/etc/cni/net.d".into();
        Signal::Network(NetworkSignal::Cni(CniSignal { dir, found }))
    };
    let ill = std::mem::take(&mut node.conditions);
    node.see(&seen(CniFound::Usable));
    assert!(node.until_rest().is_empty());
    node.see(&seen(CniFound::Empty));
    node.conditions = ill;
    assert_eq!(node.until_rest().len(), restarts, "its budget is full again");
}

#[test]
fn a_node_that_is_cut_off_restarts_nothing_because_of_it() {
    for kind in [ConditionKind::NetworkIsolated, ConditionKind::DnsFailing] {
        let mut node = Node::new(kind, "network");
        node.settings.network.cni.unit = Some("flanneld.service".to_owned());
        assert!(node.until_rest().is_empty());
    }
}
