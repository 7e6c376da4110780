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

#[test]
fn a_hung_runtime_is_killed_with_its_stacks_kept_then_left_alone_and_told() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::RuntimeHung);
    world.tell(DOCKER);
    let done = follow(&mut world, true);
    assert_eq!(done, [("restart-runtime", 0), ("restart-runtime", 60_000)]);
    let told = world.pass().conditions;
    assert!(
        told.iter()
            .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted)
    );
}

#[test]
fn a_kubelet_that_is_silent_beside_a_hung_runtime_waits_for_it() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::RuntimeHung);
    world.ill.insert(KUBELET, ConditionKind::KubeletUnhealthy);
    world.tell(DOCKER);
    world.tell(KUBELET);
    let begun = |world: &mut World| -> Vec<_> {
        let decision = world.pass();
        decision
            .begin
            .iter()
            .map(|proposal| (proposal.remedy.name(), proposal.remedy.subject()))
            .collect()
    };
    assert_eq!(begun(&mut world), [("restart-runtime", DOCKER.to_owned())]);
    assert!(begun(&mut world).is_empty(), "while it is restarted");
    world.finish(DOCKER, true);
    assert!(begun(&mut world).is_empty(), "until it answers");
    // It answers, and the kubelet still does not.
    world.ill.remove(DOCKER);
    assert_eq!(begun(&mut world), [("kill-restart-unit", KUBELET.to_owned())]);
}

#[test]
fn a_container_is_restarted_only_where_it_is_named_and_so_often() {
    let mut world = World::new();
    world.ill.insert("shop", ConditionKind::ContainerUnhealthy);
    let decision = world.pass();
    assert!(decision.begin.is_empty() && decision.waiting.is_empty());
    world.settings.runtime.may_restart_containers = vec!["shop*".to_owned()];
    world
        .ill
        .insert("default/shop-0/shop", ConditionKind::ContainerUnhealthy);
    let mut done = Vec::new();
    let exhausted = loop {
        let decision = world.pass();
        for proposal in &decision.begin {
            done.push((proposal.remedy.to_string(), (world.now - world.start).as_secs()));
            world.finish(&proposal.remedy.subject(), false);
        }
        let spent = decision
            .conditions
            .iter()
            .find(|condition| condition.key.kind == ConditionKind::RemedyExhausted);
        if let Some(spent) = spent {
            break spent.key.subject.clone();
        }
        if decision.begin.is_empty() {
            world.now = decision.next_look.unwrap();
        }
    };
    let restart = |at| ("restart-container shop".to_owned(), at);
    assert_eq!(done, [restart(0), restart(1), restart(3)]);
    assert_eq!(exhausted, "shop");
    world.now += world.settings.runtime.container_restart_window;
    assert_eq!(world.pass().begin.len(), 1, "the budget has room again");
}

#[test]
fn inodes_are_freed_where_the_files_are() {
    let mut world = World::new();
    world.ill.insert("/var", ConditionKind::InodePressure);
    let decision = world.pass();
    assert_eq!(decision.begin[0].remedy.to_string(), "prune /var");
    world.finish("/var", true);
    assert!(
        world
            .pass()
            .conditions
            .iter()
            .any(|condition| condition.escalated)
    );
}

#[test]
fn a_disk_gives_back_its_logs_then_its_journal_then_its_images_and_then_it_is_told() {
    let mut world = World::new();
    world.ill.insert("/var", ConditionKind::DiskPressure);
    let steps = |world: &mut World| -> Vec<_> {
        let mut done = Vec::new();
        for _ in 0..10 {
            let decision = world.pass();
            for proposal in &decision.begin {
                done.push((proposal.remedy.name(), (world.now - world.start).as_secs()));
                world.finish(&proposal.remedy.subject(), true);
            }
            if decision.begin.is_empty() {
                let spent = decision
                    .conditions
                    .iter()
                    .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted);
                if spent {
                    world.now = decision.next_look.unwrap();
                    return done;
                }
                world.now = decision.next_look.unwrap();
            }
        }
        panic!("never told: {done:?}");
    };
    assert_eq!(steps(&mut world), [("vacuum-journal", 30), ("prune", 30)]);
    // The budget of time has passed: once more, and no more than that.
    assert_eq!(steps(&mut world), [("vacuum-journal", 1830), ("prune", 1830)]);
}

#[test]
fn a_failed_unit_climbs_the_ladder_once_then_is_left_alone_and_told() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    assert_eq!(
        follow(&mut world, false),
        [
            ("restart-unit", 0),
            ("restart-unit", 1_000),
            ("restart-unit", 3_000),
            ("kill-restart-unit", 7_000),
            ("kill-restart-unit", 15_000),
        ]
    );
    let told = world.decide().conditions;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|condition| condition.escalated));
    assert_eq!(told[0].key.kind, ConditionKind::RemedyExhausted);
    for part in ["3 restarts and 2 kill-restarts", "it did not", "UnitFailed: seen"] {
        assert!(told[0].evidence.contains(part), "{part}: {}", told[0].evidence);
    }
    // Neither hours nor a restart of the agent nor a reboot change that.
    world.now += Duration::from_hours(5);
    world.boot += 1;
    world.restart_agent();
    assert_eq!(follow(&mut world, false), []);
}

#[test]
fn health_that_lasts_refills_and_shorter_health_does_not() {
    let mut world = World::new();
    let fail = |world: &mut World| {
        world.ill.insert(DOCKER, ConditionKind::UnitFailed);
        world.tell(DOCKER);
    };
    fail(&mut world);
    follow(&mut world, false);
    let mut after = |well: Duration| {
        world.ill.clear();
        world.tell(DOCKER);
        world.pass();
        world.now += well;
        world.pass();
        fail(&mut world);
        follow(&mut world, false).len()
    };
    let window = settings().restart.window;
    assert_eq!(after(window.checked_sub(Duration::from_secs(1)).unwrap()), 0);
    assert_eq!(after(window), 5);
}

#[test]
fn a_hung_kubelet_is_killed_and_given_time_to_come_up() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::KubeletUnhealthy);
    assert_eq!(
        follow(&mut world, true),
        [("kill-restart-unit", 0), ("kill-restart-unit", 30_000)]
    );
    assert_eq!(world.now - world.start, Duration::from_mins(1));
}

#[test]
fn a_remedy_that_does_not_help_a_log_is_spaced_and_one_that_does_is_not() {
    let mut world = World::new();
    world.ill.insert(LOG, ConditionKind::LogRunaway);
    let mut first: Vec<_> = Vec::new();
    for _ in 0..40 {
        let decision = world.pass();
        for proposal in decision.begin {
            first.push(u64::try_from((world.now - world.start).as_millis()).unwrap());
            world.finish(&proposal.remedy.subject(), first.len() > 3);
        }
        world.now += Duration::from_millis(500);
    }
    assert_eq!(first, [0, 1_000, 3_000, 7_000]);
    assert_eq!(world.history.count(LOG, Rung::Reclaim), 4);
    let decision = world.decide();
    assert!(
        decision
            .conditions
            .iter()
            .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted)
    );
    // The window moves on.
    world.now = decision.next_look.unwrap();
    assert_eq!(world.pass().begin.len(), 1);
}

#[test]
fn logs_take_turns() {
    let settings = settings();
    let now = Instant::now();
    let conditions: Vec<_> = (0..9)
        .map(|ino| Condition {
            key: ConditionKey {
                kind: ConditionKind::LogRunaway,
                subject: format!("/var/log/{ino}"),
            },
            severity: Severity::Warning,
            since: now,
            evidence: String::new(),
            escalated: false,
            log: Some(LogId {
                dev: 1,
                ino,
                path: format!("/var/log/{ino}").into(),
                deleted: false,
            }),
        })
        .collect();
    let decision = decide(&Input {
        conditions: &conditions,
        history: &History::default(),
        health: &Health::new(KUBELET),
        settings: &settings,
        brakes: &Brakes {
            gate_held: true,
            systemd_away: true,
            ledger_until: Some(now + Duration::from_secs(1)),
            ..Brakes::default()
        },
        in_flight: &BTreeMap::new(),
        stress: None,
        now,
    });
    assert_eq!(decision.begin.len(), 4);
    assert_eq!(decision.waiting.len(), 5);
}

#[test]
fn a_restart_policy_of_nothing_escalates_at_once() {
    let mut world = World::new();
    world.settings.restart = RestartPolicy {
        restarts: 0,
        kill_restarts: 0,
        ..RestartPolicy::default()
    };
    world.ill.insert(DOCKER, ConditionKind::UnitInactive);
    world.tell(DOCKER);
    assert_eq!(follow(&mut world, true), []);
    assert!(world.decide().conditions[0].escalated);
}

/// What is begun now, by subject.
fn begun(world: &mut World) -> Vec<String> {
    let decision = world.pass();
    decision
        .begin
        .iter()
        .map(|proposal| proposal.remedy.subject())
        .collect()
}

#[test]
fn a_unit_waits_for_the_one_that_it_needs_and_is_next() {
    let mut world = World::new();
    for unit in [KUBELET, DOCKER] {
        world.ill.insert(unit, ConditionKind::UnitFailed);
        world.tell(unit);
    }
    let decision = world.pass();
    assert_eq!(decision.begin.len(), 1);
    assert_eq!(decision.begin[0].remedy.subject(), DOCKER);
    let waiting = &decision.waiting[0];
    assert_eq!(waiting.subject, KUBELET);
    assert_eq!(waiting.on.to_string(), "docker.service, which it needs");
    assert_eq!(begun(&mut world), [""; 0], "while it is restarted");
    world.finish(DOCKER, false);
    assert_eq!(begun(&mut world), [""; 0], "while it has attempts left");
    world.ill.remove(DOCKER);
    world.tell(DOCKER);
    assert_eq!(begun(&mut world), [KUBELET]);
}

#[test]
fn nothing_waits_for_what_is_given_up_or_for_ever() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    follow(&mut world, false);
    world.ill.insert(KUBELET, ConditionKind::UnitFailed);
    world.tell(KUBELET);
    let decision = world.pass();
    let reason =
        "UnitFailed: seen; without docker.service, which it needs: its remedies are spent; attempt 1 of 5";
    assert_eq!(decision.begin[0].reason, reason);

    let mut world = World::new();
    for unit in [KUBELET, DOCKER] {
        world.ill.insert(unit, ConditionKind::UnitFailed);
        world.tell(unit);
    }
    assert_eq!(begun(&mut world), [DOCKER]);
    // A restart that does not end.
    let next = world.pass().next_look.unwrap();
    assert_eq!(next, world.start + world.settings.restart.order_wait);
    world.now = next;
    let decision = world.pass();
    let reason =
        "UnitFailed: seen; without docker.service, which it needs: it was waited for 5m; attempt 1 of 5";
    assert_eq!(decision.begin[0].reason, reason);
}

#[test]
fn a_unit_in_a_crash_loop_is_waited_for_until_it_stays_up() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::UnitFailed);
    world.tell(KUBELET);
    let mut conditions = world.conditions();
    conditions.push(Condition {
        key: ConditionKey {
            kind: ConditionKind::UnitFlapping,
            subject: DOCKER.into(),
        },
        escalated: true,
        ..conditions[0].clone()
    });
    let mut decide_at = |seconds: u64| {
        let now = world.start + Duration::from_secs(seconds);
        world.health.judge(&conditions, now);
        decide(&Input {
            conditions: &conditions,
            history: &world.history,
            health: &world.health,
            settings: &world.settings,
            brakes: &world.brakes,
            in_flight: &world.in_flight,
            stress: None,
            now,
        })
    };
    let decision = decide_at(0);
    assert!(decision.begin.is_empty());
    let steady = decision.next_look.unwrap() - world.start;
    assert_eq!(decide_at(steady.as_secs()).begin.len(), 1);
}

#[test]
fn a_kubelet_that_does_not_see_its_containers_is_told_first_and_restarted_later() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::KubeletPlegUnhealthy);
    let decision = world.pass();
    assert!(decision.begin.is_empty());
    let waits_for = decision.waiting[0].on.to_string();
    assert_eq!(waits_for, "the container runtime, to come right by itself");
    assert_eq!(decision.next_look, Some(world.start + Duration::from_mins(10)));
    let done = follow(&mut world, true);
    let names: Vec<_> = done.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names[..4],
        [
            "restart-unit",
            "restart-unit",
            "restart-unit",
            "kill-restart-unit"
        ]
    );
    assert_eq!(done[0].1, 600_000);
    // Long enough for three looks at what the new kubelet says.
    assert!(done[1].1 - done[0].1 >= 180_000, "{done:?}");
}

#[test]
fn a_start_that_hangs_is_killed_at_once() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitJobHung);
    world.tell(DOCKER);
    let done = follow(&mut world, false);
    assert_eq!(done, [("kill-restart-unit", 0), ("kill-restart-unit", 1_000)]);
}

#[test]
fn what_the_agent_may_not_do_is_told_and_never_attempted() {
    let mut world = World::new();
    let lack = Lack {
        function: Function::ManageUnit(DOCKER.into()),
        missing: Missing::PolkitRule,
    };
    world.brakes.lacks = Some([lack].into());
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    let decision = world.decide();
    assert_eq!(decision.begin, []);
    assert!(decision.conditions[0].escalated);
    let waits = decision.waiting[0].on.to_string();
    assert_eq!(
        waits,
        "somebody, since the agent cannot restart docker.service: missing a polkit rule"
    );
    // Somebody installs the rule.
    world.brakes.lacks = None;
    assert_eq!(world.decide().begin.len(), 1);
}
