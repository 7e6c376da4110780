use std::collections::BTreeMap;
use std::net::SocketAddr;

use blackstart_proto::tls::TlsFiles;
use tokio::time::Instant;

use super::super::health::Health;
use super::super::history::History;
use super::super::permits::Permits;
use super::super::{Brakes, Decision, decide};
use super::*;
use crate::condition::Severity;
use crate::config::CoordinatorSettings;
use crate::ledger::Outcome;
use crate::permit::PermitKind;
use crate::signal::{PodContainers, ProbeOutcome, Signal, StaticPod, StaticPodsSignal};
use ConditionKind as Kind;

struct World {
    settings: Settings,
    standing: Vec<Condition>,
    history: History,
    health: Health,
    brakes: Brakes,
    in_flight: BTreeMap<String, Remedy>,
    now: Instant,
}

fn condition(kind: Kind, subject: &str, since: Instant) -> Condition {
    Condition {
        key: ConditionKey {
            kind,
            subject: subject.to_owned(),
        },
        severity: Severity::Critical,
        since,
        evidence: "seen".to_owned(),
        escalated: false,
        log: None,
        heaviest: Vec::new(),
    }
}

impl World {
    fn with_down(pods: &[&str]) -> Self {
        let now = Instant::now();
        Self {
            settings: Settings::for_node("n"),
            standing: pods
                .iter()
                .map(|pod| condition(Kind::ControlPlaneComponentDown, pod, now))
                .collect(),
            history: History::default(),
            health: Health::new("kubelet.service"),
            brakes: Brakes::default(),
            in_flight: BTreeMap::new(),
            now,
        }
    }

    fn with_coordinator(mut self) -> Self {
        self.settings.coordinator = Some(CoordinatorSettings {
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            tls: TlsFiles {
                ca: "/a".into(),
                certificate: "/b".into(),
                key: "/c".into(),
            },
            report_interval: Duration::from_secs(2),
            permit_wait: crate::config::PERMIT_WAIT,
        });
        self
    }

    fn decide(&self) -> Decision {
        decide(&Input {
            conditions: &self.standing,
            history: &self.history,
            health: &self.health,
            settings: &self.settings,
            brakes: &self.brakes,
            in_flight: &self.in_flight,
            now: self.now,
            stress: None,
        })
    }

    fn begun(&self) -> Vec<String> {
        let begin = self.decide().begin;
        begin.iter().map(|proposal| proposal.remedy.subject()).collect()
    }

    fn waits(&self, pod: &str) -> Option<WaitingOn> {
        let waiting = self.decide().waiting;
        waiting
            .into_iter()
            .find(|one| one.subject == pod)
            .map(|one| one.on)
    }

    fn bounced(&mut self, pod: &str, outcome: &Outcome) {
        let remedy = Remedy::BounceStaticPod { pod: pod.to_owned() };
        self.history.begun(&remedy, self.now);
        self.history.ended(pod, outcome, false, self.now);
    }
}

fn failed() -> Outcome {
    Outcome::Failed {
        detail: "not well".to_owned(),
    }
}

#[test]
fn one_at_a_time_and_what_others_need_comes_first() {
    let mut world = World::with_down(&[
        "kube-scheduler",
        "kube-apiserver",
        "etcd",
        "kube-controller-manager",
    ]);
    assert_eq!(world.begun(), ["etcd"]);
    let first = |pod: &str| {
        Some(WaitingOn::First {
            subject: pod.to_owned(),
        })
    };
    assert_eq!(world.waits("kube-apiserver"), first("etcd"));
    assert_eq!(world.waits("kube-scheduler"), first("kube-apiserver"));
    world.standing.retain(|one| one.key.subject != "etcd");
    assert_eq!(world.begun(), ["kube-apiserver"]);
    world.standing.retain(|one| one.key.subject != "kube-apiserver");
    assert_eq!(world.begun(), ["kube-scheduler"], "one of the two that are alike");
    assert_eq!(
        world.waits("kube-controller-manager"),
        Some(WaitingOn::OtherBounce)
    );
    let remedy = Remedy::BounceStaticPod { pod: "etcd".into() };
    world.in_flight.insert("etcd".to_owned(), remedy);
    assert_eq!(world.begun(), [""; 0]);
    assert_eq!(world.waits("kube-scheduler"), Some(WaitingOn::OtherBounce));
}

#[test]
fn one_that_is_gone_or_a_hung_runtime_comes_first_too() {
    for (kind, subject) in [
        (Kind::StaticPodManifestMissing, "etcd"),
        (Kind::RuntimeHung, "docker.service"),
    ] {
        let mut world = World::with_down(&["kube-apiserver"]);
        world.standing.push(condition(kind, subject, world.now));
        world.settings.units = Vec::new();
        assert!(!world.begun().contains(&"kube-apiserver".to_owned()), "{kind}");
        let expected = WaitingOn::First {
            subject: subject.to_owned(),
        };
        assert_eq!(world.waits("kube-apiserver"), Some(expected));
    }
}

#[test]
fn with_a_coordinator_etcd_and_the_api_server_need_its_permit_or_the_policy() {
    for pod in ["etcd", "kube-apiserver"] {
        let mut world = World::with_down(&[pod]).with_coordinator();
        let waits = |on: Option<&str>| {
            let on = on.map(str::to_owned);
            Some(WaitingOn::Permit { on, until: None })
        };
        assert_eq!((world.begun().len(), world.waits(pod)), (0, waits(None)));
        assert_eq!(world.decide().wishes.len(), 1);
        assert!(
            !world.decide().conditions[0].escalated,
            "it was only just asked for"
        );
        let key = |pod: &str| (PermitKind::ControlPlaneRepair, pod.to_owned());
        let later = world.now + Duration::from_mins(1);
        world.brakes.permits.granted.insert(key("another"), later);
        world.brakes.permits.told.insert(key(pod), "m-2".to_owned());
        assert_eq!(world.waits(pod), waits(Some("it waits for m-2")));
        assert!(world.decide().conditions[0].escalated);
        world.brakes.permits.granted.insert(key(pod), world.now);
        assert_eq!(
            world.begun().len(),
            0,
            "a permit that was not used in time is none"
        );
        world.brakes.permits.granted.insert(key(pod), later);
        assert_eq!(
            (world.begun(), world.decide().wishes),
            (vec![pod.to_owned()], Vec::new())
        );
        world.brakes.permits = Permits {
            away_since: Some(world.now - Duration::from_hours(1)),
            ..Permits::default()
        };
        assert_eq!(world.waits(pod), waits(Some("there is no session with it")));
        world.settings.static_pods.without_permit = true;
        assert_eq!(world.begun(), [pod]);
    }
    let world = World::with_down(&["kube-scheduler"]).with_coordinator();
    assert_eq!(world.begun(), ["kube-scheduler"]);
}

#[test]
fn what_is_no_component_held_or_without_a_ledger_is_left_alone() {
    let world = World::with_down(&["kube-vip"]);
    assert_eq!(world.waits("kube-vip"), Some(WaitingOn::NotAComponent));
    let mut world = World::with_down(&["etcd"]);
    world.brakes.gate_held = true;
    assert_eq!(world.waits("etcd"), Some(WaitingOn::BootGate));
    world.brakes = Brakes {
        ledger_until: Some(world.now + Duration::from_secs(1)),
        ..Brakes::default()
    };
    assert!(matches!(world.waits("etcd"), Some(WaitingOn::Ledger { .. })));
}

#[test]
fn after_its_bounce_it_is_for_people_until_health_has_lasted() {
    let mut world = World::with_down(&["etcd"]);
    world.bounced("etcd", &failed());
    let decision = world.decide();
    assert!(decision.begin.is_empty());
    let exhausted = &decision.conditions[0];
    assert_eq!(exhausted.key.kind, Kind::RemedyExhausted);
    assert!(exhausted.evidence.contains("not well"), "{}", exhausted.evidence);

    // Up again, by whomever.
    world.standing.clear();
    let up = StaticPod {
        name: "etcd".to_owned(),
        manifest: "etcd.yaml".to_owned(),
        version: 1,
        containers: PodContainers::Unknown,
        health: Some((String::new(), ProbeOutcome::Healthy)),
    };
    let signal = Signal::StaticPods(StaticPodsSignal {
        pods: vec![up],
        ..StaticPodsSignal::default()
    });
    world.health.observe(&signal, world.now);
    let due = world.now + world.settings.restart.window;
    assert_eq!(world.decide().next_look, Some(due));
    world.now = due;
    assert_eq!(world.decide().refill, ["etcd"]);
}

#[test]
fn what_a_bounce_that_helped_brings_is_waited_for() {
    let mut world = World::with_down(&["etcd"]);
    world.settings.static_pods.bounces = 2;
    let detail = "answers".to_owned();
    world.bounced("etcd", &Outcome::Succeeded { detail });
    let Some(WaitingOn::Settling { until }) = world.waits("etcd") else {
        panic!("{:?}", world.waits("etcd"));
    };
    world.now = until;
    assert_eq!(world.begun(), ["etcd"]);
}
