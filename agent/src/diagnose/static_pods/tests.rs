use super::*;
use crate::config::Settings;
use crate::signal::{ProbeSignal, UnitSignal};
use ConditionKind as Kind;

const GRACE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_secs(2);

struct World {
    pods: StaticPods,
    now: Instant,
    signal: StaticPodsSignal,
}

fn pod(health: ProbeOutcome) -> StaticPod {
    StaticPod {
        name: "etcd".to_owned(),
        manifest: "etcd.yaml".to_owned(),
        version: 1,
        containers: PodContainers::Unknown,
        health: Some(("http://127.0.0.1:2381/health".to_owned(), health)),
    }
}

impl World {
    /// A kubelet that has been well for long enough, and a pod that is up.
    fn new() -> Self {
        let settings = Settings::for_node("n");
        let static_pods = StaticPodSettings {
            failures_to_raise: 3,
            start_grace: GRACE,
            ..StaticPodSettings::default()
        };
        let mut world = Self {
            pods: StaticPods::new(static_pods, "kubelet.service", &settings.kubelet),
            now: Instant::now(),
            signal: StaticPodsSignal {
                pods: vec![pod(ProbeOutcome::Healthy)],
                ..StaticPodsSignal::default()
            },
        };
        world.kubelet(ActiveState::Active, 1);
        world.answers(ProbeOutcome::Healthy);
        world.look();
        world.now += GRACE;
        world
    }

    fn kubelet(&mut self, active: ActiveState, main_pid: u32) {
        let unit = UnitSignal {
            unit: "kubelet.service".to_owned(),
            active,
            sub: String::new(),
            main_pid,
            restarts: 0,
            result: String::new(),
            detail: crate::signal::UnitDetail::default(),
        };
        self.pods.observe(&Signal::Unit(unit), self.now);
    }

    fn answers(&mut self, outcome: ProbeOutcome) {
        let probe = ProbeSignal {
            target: ProbeTarget::Kubelet,
            outcome,
            took: Duration::ZERO,
        };
        self.pods.observe(&Signal::Probe(probe), self.now);
    }

    fn look(&mut self) {
        self.now += LOOK;
        self.pods
            .observe(&Signal::StaticPods(self.signal.clone()), self.now);
    }

    fn kinds(&self) -> Vec<(Kind, String)> {
        let standing = self.pods.conditions(self.now);
        standing
            .into_iter()
            .map(|one| (one.key.kind, one.key.subject))
            .collect()
    }

    fn is_down(&mut self, looks: u32) -> bool {
        self.signal.pods = vec![pod(ProbeOutcome::TimedOut)];
        for _ in 0..looks {
            self.look();
        }
        self.kinds() == [(Kind::ControlPlaneComponentDown, "etcd".to_owned())]
    }
}

#[test]
fn so_many_looks_in_a_row_raise_it_and_one_answer_clears_it() {
    let mut world = World::new();
    assert!(!world.is_down(2));
    assert!(world.is_down(1));
    let evidence = &world.pods.conditions(world.now)[0].evidence;
    assert!(
        evidence.contains("does not answer in time") && evidence.contains("port alone"),
        "{evidence}"
    );
    world.signal.pods = vec![pod(ProbeOutcome::Healthy)];
    world.look();
    assert_eq!(world.kinds(), []);
    assert!(!world.is_down(2), "counted anew");
}

#[test]
fn a_port_that_answers_outweighs_a_list_without_the_container_and_where_there_is_none_the_list_decides() {
    let not = || PodContainers::NotRunning(vec!["etcd".to_owned()]);
    for (health, containers, expected) in [
        (Some(ProbeOutcome::Healthy), not(), State::Up),
        (Some(ProbeOutcome::Refused), PodContainers::Running, State::Down),
        (
            Some(ProbeOutcome::Unhealthy { status: 503 }),
            PodContainers::Unknown,
            State::Down,
        ),
        (
            Some(ProbeOutcome::Unobservable { why: String::new() }),
            not(),
            State::Down,
        ),
        (None, not(), State::Down),
        (None, PodContainers::Running, State::Up),
        (None, PodContainers::Unknown, State::Unknown),
    ] {
        let pod = StaticPod {
            health: health.clone().map(|health| (String::new(), health)),
            containers: containers.clone(),
            ..pod(ProbeOutcome::Healthy)
        };
        assert_eq!(State::of(&pod), expected, "{health:?} {containers:?}");
    }
}

#[test]
fn nothing_is_said_of_pods_while_their_kubelet_is_down_hung_new_or_held() {
    let dead: fn(&mut World) = |world| world.kubelet(ActiveState::Failed, 0);
    let hung: fn(&mut World) = |world| {
        for _ in 0..3 {
            world.answers(ProbeOutcome::TimedOut);
        }
    };
    let new: fn(&mut World) = |world| {
        world.kubelet(ActiveState::Active, 2);
        world.answers(ProbeOutcome::Healthy);
    };
    let held: fn(&mut World) = |world| world.pods.set_gate_held(true);
    for (what, ill) in [("dead", dead), ("hung", hung), ("new", new), ("held", held)] {
        let mut world = World::new();
        ill(&mut world);
        assert!(!world.is_down(10), "{what}");
        let mut world = World::new();
        assert!(world.is_down(3));
        ill(&mut world);
        assert_eq!(world.kinds(), [], "{what}, and it stood before");
    }
    // A new kubelet has its grace, and then its pods count again.
    let mut world = World::new();
    new(&mut world);
    assert!(world.is_down(33));
}

#[test]
fn a_manifest_that_is_new_or_written_anew_has_its_grace() {
    let mut world = World::new();
    world.signal.pods = vec![StaticPod {
        version: 2,
        ..pod(ProbeOutcome::Refused)
    }];
    for _ in 0..30 {
        world.look();
    }
    assert_eq!(world.kinds(), []);
    for _ in 0..3 {
        world.look();
    }
    assert_eq!(world.kinds().len(), 1);
}

#[test]
fn looks_that_events_bring_count_only_as_time_passes() {
    let mut world = World::new();
    world.is_down(1);
    for _ in 0..100 {
        world
            .pods
            .observe(&Signal::StaticPods(world.signal.clone()), world.now);
    }
    assert_eq!(world.kinds(), []);
}

#[test]
fn what_cannot_be_seen_neither_raises_nor_clears() {
    let mut world = World::new();
    assert!(world.is_down(3));
    world.signal = StaticPodsSignal {
        unseen: Some("the disk hangs".to_owned()),
        ..StaticPodsSignal::default()
    };
    world.look();
    assert_eq!(world.kinds().len(), 1);

    let mut world = World::new();
    let blind = Signal::UnitsUnobservable { why: String::new() };
    world.pods.observe(&blind, world.now);
    assert!(!world.is_down(10));
}

#[test]
fn a_missing_manifest_is_told_at_once_and_one_that_is_out_only_when_it_stays_out() {
    let mut world = World::new();
    world.signal = StaticPodsSignal {
        missing: vec![MissingManifest {
            pod: "etcd".to_owned(),
            held: None,
        }],
        invalid: vec![("x.yaml".to_owned(), "not a pod".to_owned())],
        ..StaticPodsSignal::default()
    };
    world.look();
    let invalid = (
        Kind::StaticPodManifestInvalid,
        "/etc/kubernetes/manifests/x.yaml".to_owned(),
    );
    let missing = (Kind::StaticPodManifestMissing, "etcd".to_owned());
    assert_eq!(world.kinds(), [missing.clone(), invalid.clone()]);
    world.signal.missing[0].held = Some("/etc/kubernetes/blackstart-held/etcd/etcd.yaml".into());
    world.look();
    assert_eq!(world.kinds(), std::slice::from_ref(&invalid));
    let due = world.pods.next_change(world.now).unwrap();
    assert!(due > world.now + StaticPodSettings::default().gone_deadline);
    world.now = due;
    assert_eq!(world.kinds(), [missing, invalid]);
    assert_eq!(world.pods.next_change(world.now), None);
    // The one is back, the other is gone.
    world.signal = StaticPodsSignal::default();
    world.look();
    assert_eq!(world.kinds(), []);
}

#[test]
fn nothing_is_missed_of_what_is_set_aside_and_a_bounce_that_left_one_out_still_is() {
    let mut world = World::new();
    let missing = |pod: &str| MissingManifest {
        pod: pod.to_owned(),
        held: Some(format!("/held/{pod}/{pod}.yaml").into()),
    };
    world.signal.pods.clear();
    world.signal.missing = vec![missing("etcd"), missing("kube-scheduler")];
    world.pods.set_aside(&[Held {
        component: blackstart_proto::component::Component::Scheduler,
        run_id: "cold-start-1".to_owned(),
        reason: String::new(),
        since: Duration::ZERO,
    }]);
    world.look();
    world.now += Duration::from_hours(1);
    let standing = world.pods.conditions(world.now);
    let subjects: Vec<_> = standing.iter().map(|one| one.key.subject.as_str()).collect();
    assert_eq!(subjects, ["etcd"], "{standing:?}");
    assert_eq!(
        world.pods.manifest("kube-controller-manager"),
        ManifestState::Absent
    );
    assert_eq!(
        world.pods.manifest("etcd"),
        ManifestState::Unknown,
        "a bounce has it"
    );
}
