use std::net::{IpAddr, Ipv4Addr};

use blackstart_proto::boot::BootIdentity;

use super::*;
use crate::fleet::message::{Condition, RemedyOutcome, RemedyRecord};
use crate::fleet::view::{ApiServerAnswer, ApiServerError, Attestation, GateState};
use crate::inventory::{Cluster, NodeSpec, Role};

const SILENT_AFTER: Duration = Duration::from_secs(6);

fn name() -> NodeName {
    NodeName("biz-1".to_owned())
}

fn inventory() -> Inventory {
    let cluster = ClusterName("biz".to_owned());
    let node = NodeSpec {
        name: name(),
        cluster: cluster.clone(),
        role: Role::ControlPlane,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        rack: None,
        machine_id: None,
        bmc: None,
    };
    Inventory {
        clusters: vec![Cluster {
            vip: None,
            name: cluster,
            after: Vec::new(),
            nodes: vec![name()],
        }],
        nodes: [(name(), node)].into(),
    }
}

fn boot(id: &str) -> BootIdentity {
    BootIdentity {
        boot_id: id.to_owned(),
        nonce: id.to_owned(),
        previous_shutdown: PreviousShutdown::Unclean,
    }
}

fn report(gate: GateState, healthy: bool, now: Instant) -> Report {
    Report {
        attestation: Attestation {
            gate,
            kubelet_active: healthy,
            kubelet_healthy: healthy,
            apiserver_ready: false,
            apiserver: None,
            observed_at: now,
            waiting_on: String::new(),
            manifests: std::collections::BTreeMap::new(),
        },
        conditions: Vec::new(),
        units: Vec::new(),
        disks: Vec::new(),
        remedies: Vec::new(),
        holds: Vec::new(),
        silenced: false,
        sequence: 1,
    }
}

fn condition(subject: &str, escalated: bool, now: Instant) -> Condition {
    Condition {
        kind: "UnitFailed".to_owned(),
        subject: subject.to_owned(),
        severity: Severity::Warning,
        since: now,
        evidence: "exit code 1".to_owned(),
        escalated,
        silenced: false,
        waiting_on: String::new(),
        heaviest: Vec::new(),
    }
}

/// One node's fleet, and a clock that is moved by hand.
struct World {
    state: State,
    now: Instant,
    told: Vec<EventKind>,
}

impl World {
    fn new(remembered: &BTreeMap<NodeName, KnownBoot>) -> Self {
        let now = Instant::now();
        Self {
            state: State::new(&inventory(), remembered, SILENT_AFTER, false, now),
            now,
            told: Vec::new(),
        }
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let (_, events) = self.state.tick(self.now);
        self.tell(events);
    }

    fn tell(&mut self, events: Vec<NewEvent>) {
        for event in events {
            assert_eq!(event.node, Some(name()));
            assert_eq!(event.cluster, Some(ClusterName("biz".to_owned())));
            self.told.push(event.kind);
        }
    }

    fn told(&mut self) -> Vec<EventKind> {
        std::mem::take(&mut self.told)
    }

    fn hello(&mut self, boot_id: &str) -> SessionId {
        let hello = Hello {
            agent_version: "1".to_owned(),
            boot: boot(boot_id),
            highest_epoch: 7,
            report_interval: Duration::from_secs(1),
        };
        let (id, events) = self.state.hello(&name(), hello, self.now).unwrap();
        self.tell(events);
        id
    }

    fn says(&mut self, session: SessionId, report: Report) -> bool {
        match self.state.report(&name(), session, report, self.now) {
            Some((events, _)) => {
                self.tell(events);
                true
            }
            None => false,
        }
    }

    /// Does this report change what is decided on?
    fn is_news(&mut self, session: SessionId, report: Report) -> bool {
        self.now += Duration::from_secs(2);
        self.state.report(&name(), session, report, self.now).unwrap().1
    }

    fn ends(&mut self, session: SessionId) {
        let events = self.state.ended(&name(), session, self.now);
        self.tell(events);
    }

    fn view(&self) -> NodeView {
        self.state.view(self.now).nodes[&name()].clone()
    }

    fn restarted(&mut self) -> Self {
        Self::new(&self.state.take_unsaved().into_iter().collect())
    }
}

#[test]
fn a_node_goes_through_its_phases() {
    let mut world = World::new(&BTreeMap::new());
    assert_eq!(world.view().phase, Phase::Unknown);
    let session = world.hello("a");
    assert_eq!(
        (world.view().phase, world.view().highest_epoch),
        (Phase::NotReady, 7)
    );
    let now = world.now;
    for (gate, healthy, phase) in [
        (GateState::Held, false, Phase::Held),
        // A kubelet that answers behind a held gate was started by hand: the gate still counts.
        (GateState::Held, true, Phase::Held),
        (GateState::Released, false, Phase::NotReady),
        (GateState::Released, true, Phase::Ready),
        (GateState::Absent, false, Phase::NotReady),
    ] {
        assert!(world.says(session, report(gate, healthy, now)));
        assert_eq!(world.view().phase, phase, "{gate:?} {healthy}");
    }
    let events = world.state.goodbye(&name(), session, Leave::Shutdown, world.now);
    world.tell(events);
    let view = world.view();
    assert_eq!(
        (view.phase, view.in_session, view.lost_at),
        (Phase::Stopped, false, None)
    );
    // The end of its stream is no loss.
    world.ends(session);
    assert_eq!(world.view().phase, Phase::Stopped);
    assert_eq!(
        world.told(),
        [EventKind::SessionUp, EventKind::NewBoot, EventKind::Goodbye]
    );
}

#[test]
fn a_stream_that_ends_without_a_goodbye_is_a_loss_until_the_node_is_back() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    let now = world.now;
    world.says(session, report(GateState::Passed, true, now));
    world.later(1);
    world.ends(session);
    let view = world.view();
    assert_eq!((view.phase, view.lost_at), (Phase::Silent, Some(world.now)));
    assert_eq!(view.attestation, None, "what a lost node said is no evidence");
    world.later(1);
    world.hello("a");
    let view = world.view();
    assert_eq!((view.in_session, view.lost_at), (true, None));
    assert_eq!(view.previous_boot, None, "the same boot is no new one");
    assert_eq!(
        world.told(),
        [
            EventKind::SessionUp,
            EventKind::NewBoot,
            EventKind::SessionLost,
            EventKind::SessionUp
        ]
    );
}

#[test]
fn silence_is_a_loss_and_the_silent_session_is_over() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    world.later(5);
    let now = world.now;
    assert!(world.says(session, report(GateState::Passed, true, now)));
    world.later(5);
    assert_eq!(world.view().phase, Phase::Ready);
    assert_eq!(
        world.state.next_silence(),
        Some(world.now + Duration::from_secs(1))
    );
    world.later(1);
    assert_eq!(world.view().phase, Phase::Silent);
    assert_eq!(world.state.next_silence(), None);
    let now = world.now;
    assert!(!world.says(session, report(GateState::Passed, true, now)));
    assert_eq!(world.view().phase, Phase::Silent);
}

#[test]
fn an_agent_that_means_to_report_seldom_is_given_three_of_its_intervals() {
    let mut world = World::new(&BTreeMap::new());
    let hello = |secs| Hello {
        agent_version: String::new(),
        boot: boot("a"),
        highest_epoch: 0,
        report_interval: Duration::from_secs(secs),
    };
    world.state.hello(&name(), hello(10), world.now).unwrap();
    assert_eq!(
        world.state.next_silence(),
        Some(world.now + Duration::from_secs(30))
    );
    world.state.hello(&name(), hello(1_000_000), world.now).unwrap();
    assert_eq!(world.state.next_silence(), Some(world.now + LONGEST_SILENCE));
}

#[test]
fn a_newer_session_replaces_the_older_whose_words_and_end_mean_nothing() {
    let mut world = World::new(&BTreeMap::new());
    let old = world.hello("a");
    let new = world.hello("b");
    let now = world.now;
    assert!(world.says(new, report(GateState::Held, false, now)));
    assert!(!world.says(old, report(GateState::Passed, true, now)));
    world.ends(old);
    let view = world.view();
    assert_eq!(
        (view.phase, view.in_session, view.lost_at),
        (Phase::Held, true, None)
    );
    assert_eq!(view.previous_boot, Some(boot("a")));
    assert_eq!(view.new_boot_at, Some(world.now));
}

#[test]
fn a_restarted_coordinator_knows_which_boot_each_node_was_in() {
    let mut world = World::new(&BTreeMap::new());
    world.hello("a");
    let mut world = world.restarted();
    assert_eq!(world.view().phase, Phase::Silent, "known, and not heard yet");
    assert_eq!(world.view().lost_at, None, "this process lost nobody");
    world.hello("a");
    let view = world.view();
    assert_eq!((view.new_boot_at, view.previous_boot), (None, None));
    world.hello("b");
    let view = world.view();
    assert_eq!(view.previous_boot, Some(boot("a")));
    assert_eq!(view.new_boot_at, Some(world.now));
    // And once more, with both.
    let world = world.restarted();
    assert_eq!(world.view().boot, Some(boot("b")));
    assert_eq!(world.view().previous_boot, Some(boot("a")));
}

#[test]
fn what_a_run_had_in_charge_stays_attended_for_its_boot_and_across_a_restart() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    let attended = |world: &World| world.state.node(&name()).unwrap().attended();
    world.state.attend([&name()]);
    assert!(!attended(&world), "nobody knows yet how it stands");
    let now = world.now;
    world.says(session, report(GateState::Held, false, now));
    world.state.attend([&name()]);
    let mut world = world.restarted();
    world.hello("a");
    assert!(attended(&world));
    world.hello("b");
    assert!(!attended(&world));
}

#[test]
fn only_a_change_is_saved_and_what_could_not_be_is_offered_again() {
    let mut world = World::new(&BTreeMap::new());
    world.hello("a");
    assert_eq!(world.state.take_unsaved().len(), 1);
    world.hello("a");
    let session = world.hello("a");
    let now = world.now;
    world.says(session, report(GateState::Passed, true, now));
    assert_eq!(world.state.take_unsaved(), []);
    world.state.still_unsaved([name()]);
    assert_eq!(world.state.take_unsaved().len(), 1);
}

#[test]
fn conditions_are_told_when_they_come_escalate_and_go_and_a_loss_clears_none() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    world.told();
    let now = world.now;
    let with = |conditions: Vec<Condition>| Report {
        conditions,
        ..report(GateState::Passed, true, now)
    };
    let [kubelet, docker] = ["kubelet.service", "docker.service"].map(|unit| condition(unit, false, now));
    world.says(session, with(vec![kubelet.clone()]));
    assert_eq!(world.told(), [EventKind::ConditionRaised]);
    world.says(session, with(vec![kubelet.clone()]));
    assert_eq!(world.told(), []);
    world.says(
        session,
        with(vec![docker, condition("kubelet.service", true, now)]),
    );
    assert_eq!(
        world.told(),
        [EventKind::ConditionRaised, EventKind::ConditionRaised]
    );
    world.ends(session);
    assert_eq!(world.told(), [EventKind::SessionLost]);
    assert_eq!(world.state.node(&name()).unwrap().conditions().len(), 2);
    let session = world.hello("a");
    world.told();
    world.says(session, with(vec![kubelet]));
    assert_eq!(world.told(), [EventKind::ConditionCleared]);
}

#[test]
fn remedies_are_told_once_when_they_ended_and_only_the_newest_are_kept() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    world.told();
    let now = world.now;
    let record = |sequence, outcome, command_id: &str| RemedyRecord {
        sequence,
        remedy: "restart-unit".to_owned(),
        subject: "kubelet.service".to_owned(),
        outcome,
        reason: "UnitFailed".to_owned(),
        detail: String::new(),
        at_unix_ms: 0,
        took: Duration::ZERO,
        dry_run: false,
        command_id: command_id.to_owned(),
    };
    let with = |remedies| Report {
        remedies,
        ..report(GateState::Passed, true, now)
    };
    world.says(session, with(vec![record(1, RemedyOutcome::Started, "")]));
    assert_eq!(world.told(), []);
    for _ in 0..2 {
        world.says(session, with(vec![record(1, RemedyOutcome::Succeeded, "")]));
    }
    assert_eq!(world.told(), [EventKind::Remedy]);
    world.says(
        session,
        with(vec![record(2, RemedyOutcome::Succeeded, "run-1/release/1")]),
    );
    assert_eq!(world.told(), [], "what we asked for is told by its run");
    let many = (3..200).map(|n| record(n, RemedyOutcome::Failed, "")).collect();
    world.says(session, with(many));
    let kept: Vec<_> = world
        .state
        .node(&name())
        .unwrap()
        .remedies()
        .map(|kept| kept.sequence)
        .collect();
    assert_eq!(kept, (136..200).collect::<Vec<_>>());
}

#[test]
fn a_node_that_is_not_declared_gets_no_session() {
    let mut world = World::new(&BTreeMap::new());
    let hello = Hello {
        agent_version: String::new(),
        boot: boot("a"),
        highest_epoch: 0,
        report_interval: Duration::ZERO,
    };
    let stranger = NodeName("stranger".to_owned());
    assert!(world.state.hello(&stranger, hello, world.now).is_none());
}

#[test]
fn only_what_changes_a_decision_is_news() {
    let mut world = World::new(&BTreeMap::new());
    let session = world.hello("a");
    let now = world.now;
    let ready = || report(GateState::Passed, true, now);
    assert!(world.is_news(session, ready()), "the first");
    assert!(!world.is_news(session, ready()), "the same again");
    let mut answered = ready();
    answered.attestation.apiserver = Some(ApiServerAnswer::Ready(Duration::from_millis(5)));
    assert!(
        world.is_news(session, answered.clone()),
        "an answer where there was none"
    );
    answered.attestation.apiserver = Some(ApiServerAnswer::Ready(Duration::from_millis(6)));
    answered.attestation.observed_at = now + Duration::from_secs(4);
    assert!(
        !world.is_news(session, answered.clone()),
        "as good an answer, later"
    );
    answered.attestation.apiserver = Some(ApiServerAnswer::Failed(ApiServerError::Overloaded));
    assert!(world.is_news(session, answered), "a bad answer");

    world.is_news(session, ready());
    for (what, change) in [
        (
            "a kubelet that is ill",
            (|report| report.attestation.kubelet_healthy = false) as fn(&mut Report),
        ),
        ("a gate", |report| report.attestation.gate = GateState::Held),
        ("what it waits for", |report| {
            report.attestation.waiting_on = "etcd".to_owned();
        }),
        ("silence on purpose", |report| report.silenced = true),
        ("a condition", |report| {
            report.conditions = vec![condition(
                "kubelet.service",
                false,
                report.attestation.observed_at,
            )];
        }),
    ] {
        let mut changed = ready();
        change(&mut changed);
        assert!(world.is_news(session, changed.clone()), "{what}");
        assert!(!world.is_news(session, changed), "{what}, again");
        assert!(world.is_news(session, ready()), "{what}, gone");
    }
}
