//! A node under a clock that the test moves: what holds of any history, and how single ones go.

mod disks;
mod units;

use std::time::Duration;

use proptest::prelude::*;

use super::history::{REFILL, Rung};
use super::*;
use crate::config::{ReclaimPolicy, RestartPolicy};
use crate::ledger::{Intent, Now, Outcome, Record, Sequence};
use crate::privilege::{Function, Lack, Missing};
use crate::signal::{
    ActiveState, LogId, ProbeOutcome, ProbeSignal, ProbeTarget, Signal, UnitDetail, UnitSignal,
};

const KUBELET: &str = "kubelet.service";
const DOCKER: &str = "docker.service";
const STRANGER: &str = "stranger.service";
const LOG: &str = "/var/log/app.log";

fn settings() -> Settings {
    Settings {
        units: vec![KUBELET.into(), DOCKER.into()],
        reclaim: ReclaimPolicy {
            budget: 4,
            window: Duration::from_mins(2),
        },
        ..Settings::for_node("n")
    }
}

/// A node with its agent's memory and its ledger, under a clock that the test moves.
struct World {
    settings: Settings,
    start: Instant,
    now: Instant,
    boot: u64,
    wall_shift_ms: i64,
    records: Vec<Record>,
    history: History,
    health: Health,
    brakes: Brakes,
    in_flight: BTreeMap<String, Remedy>,
    running: BTreeMap<String, u64>,
    ill: BTreeMap<&'static str, ConditionKind>,
    agent_since: Instant,
    /// Since when each unit has been well without a break, by the world's own account.
    well: BTreeMap<&'static str, Instant>,
    pid: u32,
    log_attempts: Vec<Instant>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self {
            settings: settings(),
            start: now,
            now,
            boot: 1,
            wall_shift_ms: 0,
            records: Vec::new(),
            history: History::default(),
            health: Health::new(KUBELET),
            brakes: Brakes::default(),
            in_flight: BTreeMap::new(),
            running: BTreeMap::new(),
            ill: BTreeMap::new(),
            agent_since: now,
            well: BTreeMap::new(),
            pid: 1,
            log_attempts: Vec::new(),
        };
        world.look_around();
        world
    }

    fn clocks(&self) -> Now {
        let since = u64::try_from((self.now - self.start).as_millis()).unwrap();
        Now {
            boot: self.boot.to_string(),
            boottime_ms: since,
            unix_ms: (1 << 40_u64) + since.saturating_add_signed(self.wall_shift_ms),
        }
    }

    /// Everything is told anew, as after a start of the agent.
    fn look_around(&mut self) {
        self.well.clear();
        for unit in [KUBELET, DOCKER, STRANGER] {
            self.tell(unit);
        }
        self.health.observe(
            &Signal::Probe(ProbeSignal {
                target: ProbeTarget::Kubelet,
                outcome: ProbeOutcome::Healthy,
                took: Duration::ZERO,
            }),
            self.now,
        );
    }

    fn tell(&mut self, unit: &'static str) {
        let ill = self.ill.contains_key(unit);
        if ill || self.brakes.systemd_away {
            self.well.remove(unit);
        } else {
            self.well.entry(unit).or_insert(self.now);
        }
        if self.brakes.systemd_away {
            return;
        }
        let signal = UnitSignal {
            unit: unit.into(),
            active: if ill {
                ActiveState::Failed
            } else {
                ActiveState::Active
            },
            sub: String::new(),
            main_pid: self.pid,
            restarts: 0,
            result: String::new(),
            detail: UnitDetail::default(),
        };
        self.health.observe(&Signal::Unit(signal), self.now);
    }

    fn conditions(&self) -> Vec<Condition> {
        self.ill
            .iter()
            .map(|(subject, kind)| Condition {
                key: ConditionKey {
                    kind: *kind,
                    subject: (*subject).into(),
                },
                severity: Severity::Critical,
                since: self.agent_since,
                evidence: "seen".into(),
                escalated: false,
                log: (*subject == LOG).then(|| LogId {
                    dev: 1,
                    ino: 1,
                    path: LOG.into(),
                    deleted: false,
                }),
                heaviest: Vec::new(),
            })
            .collect()
    }

    fn decide(&mut self) -> Decision {
        let conditions = self.conditions();
        self.health.judge(&conditions, self.now);
        decide(&Input {
            conditions: &conditions,
            history: &self.history,
            health: &self.health,
            settings: &self.settings,
            brakes: &self.brakes,
            in_flight: &self.in_flight,
            stress: None,
            now: self.now,
        })
    }

    fn write(&mut self, remedy: &str, subject: &str) -> u64 {
        let clocks = self.clocks();
        let sequence = self.records.len() as u64;
        self.records.push(Record {
            sequence: Sequence(sequence),
            intent: Intent {
                remedy: remedy.into(),
                subject: subject.into(),
                reason: String::new(),
                command_id: None,
                dry_run: false,
            },
            outcome: None,
            boot: clocks.boot,
            epoch: 0,
            at_unix_ms: clocks.unix_ms,
            took_ms: 0,
            boottime_ms: clocks.boottime_ms,
        });
        sequence
    }

    fn begin(&mut self, proposal: &Proposal) {
        let subject = proposal.remedy.subject();
        let sequence = self.write(proposal.remedy.name(), &subject);
        self.history.begun(&proposal.remedy, self.now);
        if subject == LOG {
            self.log_attempts.push(self.now);
        }
        self.running.insert(subject.clone(), sequence);
        self.in_flight.insert(subject, proposal.remedy.clone());
    }

    fn finish(&mut self, subject: &str, helped: bool) {
        if self.in_flight.remove(subject).is_none() {
            return;
        }
        let outcome = if helped {
            Outcome::Succeeded {
                detail: "done".into(),
            }
        } else {
            Outcome::Failed {
                detail: "it did not".into(),
            }
        };
        let sequence = self.running.remove(subject).unwrap();
        let clocks = self.clocks();
        let record = &mut self.records[usize::try_from(sequence).unwrap()];
        record.took_ms = u64::try_from(record.age(&clocks).as_millis()).unwrap();
        record.outcome = Some(outcome.clone());
        self.history.ended(subject, &outcome, false, self.now);
    }

    fn restart_agent(&mut self) {
        self.in_flight.clear();
        self.running.clear();
        self.agent_since = self.now;
        self.history = History::replay(self.records.iter(), &self.clocks(), self.now);
        self.health = Health::new(KUBELET);
        self.look_around();
    }

    /// Attempts of a kind since the last refill, by the ledger alone.
    fn spent(&self, unit: &str, remedy: &str) -> u32 {
        let mut count = 0;
        for record in self.records.iter().filter(|record| record.intent.subject == unit) {
            if record.intent.remedy == REFILL {
                count = 0;
            } else if record.intent.remedy == remedy {
                count += 1;
            }
        }
        count
    }

    /// One pass, with everything that must hold of it.
    fn pass(&mut self) -> Decision {
        let decision = self.decide();
        assert!(decision.next_look.is_none_or(|next| next > self.now));
        for proposal in &decision.begin {
            let subject = proposal.remedy.subject();
            assert!(
                self.ill.contains_key(subject.as_str()),
                "{subject}: nothing stands"
            );
            assert!(!self.in_flight.contains_key(&subject), "{subject}: two at a time");
            assert_ne!(subject, STRANGER);
            assert!(!(self.brakes.gate_held && subject == KUBELET));
            assert!(!self.brakes.systemd_away || subject == LOG);
            self.begin(proposal);
        }
        for unit in &decision.refill {
            let well = self.well[unit.as_str()];
            assert!(
                self.now - well >= self.settings.restart.window,
                "{unit} was not well for so long"
            );
            self.write(REFILL, unit);
            self.history.refilled(unit);
        }
        for unit in [KUBELET, DOCKER] {
            let restarts = self.spent(unit, "restart-unit");
            let kills = self.spent(unit, "kill-restart-unit");
            assert!(restarts <= self.settings.restart.restarts, "{unit}: {restarts}");
            assert!(kills <= self.settings.restart.kill_restarts, "{unit}: {kills}");
            let out =
                restarts == self.settings.restart.restarts && kills == self.settings.restart.kill_restarts;
            let says = |kind| {
                decision
                    .conditions
                    .iter()
                    .any(|condition| condition.key.kind == kind && condition.key.subject == unit)
            };
            let waits = decision
                .waiting
                .iter()
                .any(|waiting| waiting.subject == unit && matches!(waiting.on, WaitingOn::Settling { .. }));
            let held = self.brakes.gate_held && unit == KUBELET;
            if out && self.ill.contains_key(unit) && !self.in_flight.contains_key(unit) && !held && !waits {
                assert!(
                    says(ConditionKind::RemedyExhausted),
                    "{unit} is given up in silence"
                );
            }
            if says(ConditionKind::RemedyExhausted) {
                assert!(self.ill.contains_key(unit) && !self.in_flight.contains_key(unit));
            }
        }
        let recent = self
            .log_attempts
            .iter()
            .filter(|at| self.now - **at < self.settings.reclaim.window)
            .count();
        assert!(recent <= usize::try_from(self.settings.reclaim.budget).unwrap());
        decision
    }
}

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Follow,
    Fail(&'static str, ConditionKind),
    Heal(&'static str),
    Finish(&'static str, bool),
    RestartAgent,
    Reboot(i64),
    Gate(bool),
    Systemd(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let unit = || prop::sample::select(vec![KUBELET, DOCKER, STRANGER]);
    let subject = || prop::sample::select(vec![KUBELET, DOCKER, LOG]);
    prop_oneof![
        3 => (0_u64..90_000).prop_map(Op::Pass),
        1 => (500_000_u64..900_000).prop_map(Op::Pass),
        6 => Just(Op::Follow),
        3 => (unit(), prop::bool::ANY).prop_map(|(unit, failed)| {
            let kind = if failed { ConditionKind::UnitFailed } else { ConditionKind::UnitInactive };
            Op::Fail(unit, kind)
        }),
        1 => Just(Op::Fail(KUBELET, ConditionKind::KubeletUnhealthy)),
        2 => Just(Op::Fail(LOG, ConditionKind::LogRunaway)),
        2 => prop::sample::select(vec![KUBELET, DOCKER, LOG]).prop_map(Op::Heal),
        8 => (subject(), prop::bool::ANY).prop_map(|(subject, helped)| Op::Finish(subject, helped)),
        1 => Just(Op::RestartAgent),
        1 => (-10_000_000_i64..10_000_000).prop_map(Op::Reboot),
        1 => prop::bool::ANY.prop_map(Op::Gate),
        1 => prop::bool::ANY.prop_map(Op::Systemd),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn over_any_history_remedies_stay_within_their_bounds(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        let mut next = None;
        for op in ops {
            match op {
                Op::Pass(millis) => world.now += Duration::from_millis(millis),
                Op::Follow => world.now = next.unwrap_or(world.now),
                Op::Fail(subject, kind) => {
                    world.ill.insert(subject, kind);
                    if subject != LOG {
                        world.tell(subject);
                    }
                }
                Op::Heal(subject) => {
                    if world.ill.remove(subject).is_some() && subject != LOG {
                        world.pid += 1;
                        world.well.clear();
                        for unit in [KUBELET, DOCKER, STRANGER] {
                            world.tell(unit);
                        }
                    }
                }
                Op::Finish(subject, helped) => world.finish(subject, helped),
                Op::RestartAgent => world.restart_agent(),
                Op::Reboot(jump) => {
                    world.boot += 1;
                    world.wall_shift_ms += jump;
                    // A log's window is by the wall clock over a reboot, which may lie.
                    world.log_attempts.clear();
                    world.ill.remove(LOG);
                    world.restart_agent();
                }
                Op::Gate(held) => world.brakes.gate_held = held,
                Op::Systemd(away) => {
                    world.brakes.systemd_away = away;
                    if away {
                        world.health.observe(&Signal::UnitsUnobservable { why: String::new() }, world.now);
                        world.well.clear();
                    }
                    for unit in [KUBELET, DOCKER, STRANGER] {
                        world.tell(unit);
                    }
                }
            }
            next = world.pass().next_look;
        }
    }
}

/// Follows `next_look`, ending each remedy in the same way, until nothing more is due: what was done, and when.
fn follow(world: &mut World, helped: bool) -> Vec<(&'static str, u64)> {
    let mut done = Vec::new();
    for _ in 0..1000 {
        let decision = world.pass();
        for proposal in &decision.begin {
            let at = u64::try_from((world.now - world.start).as_millis()).unwrap();
            done.push((proposal.remedy.name(), at));
            world.finish(&proposal.remedy.subject(), helped);
        }
        if decision.begin.is_empty() {
            match decision.next_look {
                Some(next) => world.now = next,
                None => return done,
            }
        }
    }
    panic!("no end: {done:?}");
}
