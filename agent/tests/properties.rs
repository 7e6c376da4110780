//! What must hold of any history of signals: the real diagnosis, decisions and history over virtual time.
//!
//! `BLACKSTART_HISTORIES=100000` sets how many are drawn (`make properties`); a failure prints its seed, and `BLACKSTART_SEED=7` with
//! `BLACKSTART_HISTORIES=1` repeats that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackstart_agent::brakes::{Freeze, Held, Hold, Scope, Standing};
use blackstart_agent::condition::{Condition, ConditionKey, ConditionKind};
use blackstart_agent::config::{CoordinatorSettings, GateRole, PERMIT_WAIT, Settings};
use blackstart_agent::decide::health::Health;
use blackstart_agent::decide::history::{History, Rung};
use blackstart_agent::decide::permits::Permits;
use blackstart_agent::decide::{Brakes, Decision, Input, WaitingOn, decide};
use blackstart_agent::diagnose::Diagnosis;
use blackstart_agent::ledger::Outcome;
use blackstart_agent::permit::{Answer, Desk, Saying, Use, Verdict, needed};
use blackstart_agent::remedy::Remedy;
use blackstart_agent::signal::{
    ActiveState, Certificate, CertificateFile, CertificatesSignal, Cgroup, CgroupKind, CgroupUse,
    ClockSignal, CniFound, CniSignal, ContainerSignal, DiskSignal, DnsSignal, Exit, HoldersSignal,
    KernelEvent, LoadSignal, LogId, LogSignal, MemorySignal, MountState, MountsSignal, NetworkSignal,
    PathSignal, PlegSignal, PodContainers, ProbeOutcome, ProbeSignal, ProbeTarget, ReachSignal, Runtime,
    RuntimeAnswer, RuntimeSignal, Signal, StaticPod, StaticPodsSignal, UnitDetail, UnitMemory,
    UnitMemorySignal, UnitPhase, UnitSignal, Writable,
};
use blackstart_proto::remedy::RemedyKind;
use blackstart_proto::tls::TlsFiles;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

const UNITS: [&str; 4] = [
    "kubelet.service",
    "docker.service",
    "containerd.service",
    "sshd.service",
];
const PROTECTED: &str = "sshd.service";
const DEFAULT: u64 = 2_000;
const STEPS: usize = 40;

fn settings() -> Settings {
    let mut settings = Settings::for_node("n");
    settings.units = UNITS.map(str::to_owned).into();
    settings.protect.units = vec!["ssh*".to_owned()];
    settings.reclaim.budget = 3;
    settings.memory.may_restart = vec!["app.service".to_owned()];
    settings.runtime.may_restart_containers = vec!["a".to_owned()];
    settings.gate.role = GateRole::ControlPlane;
    settings.coordinator = Some(CoordinatorSettings {
        addresses: Vec::new(),
        tls: TlsFiles::in_dir(std::path::Path::new("/pki"), "n"),
        report_interval: Duration::from_secs(2),
        permit_wait: PERMIT_WAIT,
    });
    settings
}

/// One history.
struct World {
    random: StdRng,
    settings: Settings,
    now: Instant,
    diagnosis: Diagnosis,
    history: History,
    health: Health,
    standing: Standing,
    gate_held: bool,
    permits: Desk,
    /// What the coordinator permitted by this test's own account: which request, and until when.
    permitted: BTreeMap<String, Instant>,
    /// There has been no session since then.
    away_since: Option<Instant>,
    in_flight: BTreeMap<String, Remedy>,
    /// Remedies of each subject since its budget was last refilled, by this test's own account.
    spent: BTreeMap<(String, Rung), Vec<Instant>>,
    kinds: BTreeSet<&'static str>,
    /// File systems that were ever told to fill: their rate has a rule of its own.
    filling: BTreeSet<std::path::PathBuf>,
    begun: u64,
    held_back: u64,
    by_permit: u64,
}

impl World {
    fn new(seed: u64, start: Instant) -> Self {
        let settings = settings();
        Self {
            random: StdRng::seed_from_u64(seed),
            diagnosis: Diagnosis::new(&settings),
            health: Health::new(&settings.kubelet_unit),
            settings,
            now: start,
            history: History::default(),
            standing: Standing::default(),
            gate_held: false,
            permits: Desk::new(seed),
            permitted: BTreeMap::new(),
            away_since: None,
            in_flight: BTreeMap::new(),
            spent: BTreeMap::new(),
            kinds: BTreeSet::new(),
            filling: BTreeSet::new(),
            begun: 0,
            held_back: 0,
            by_permit: 0,
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).unwrap()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.random_range(0..limit)
    }

    fn log(&mut self) -> LogId {
        let ino = self.below(3);
        LogId {
            dev: 1,
            ino,
            path: format!("/var/log/{ino}.log").into(),
            deleted: ino == 2,
        }
    }

    fn kernel(&mut self) -> KernelEvent {
        let (device, why) = ("sda".to_owned(), "it said so".to_owned());
        match self.below(10) {
            0 => KernelEvent::OomKill {
                pid: 7,
                task: "java".into(),
                whole_machine: self.chance(50),
            },
            1 => KernelEvent::ReadOnly { device },
            2 => KernelEvent::FilesystemError { device, why },
            3 => KernelEvent::IoError { device },
            4 => KernelEvent::HungTask {
                pid: 7,
                task: "java".into(),
            },
            5 => KernelEvent::Lockup { why },
            6 => KernelEvent::Hardware { why },
            7 => KernelEvent::NicReset { device },
            8 => KernelEvent::ConntrackFull,
            _ => KernelEvent::Lost { count: 3 },
        }
    }

    fn unit(&mut self) -> Signal {
        let active = [
            ActiveState::Active,
            ActiveState::Active,
            ActiveState::Failed,
            ActiveState::Failed,
            ActiveState::Inactive,
            ActiveState::Activating,
            ActiveState::Deactivating,
            ActiveState::Reloading,
            ActiveState::NotFound,
            ActiveState::Unknown,
        ];
        let phases = [
            UnitPhase::Settled,
            UnitPhase::Waiting,
            UnitPhase::Starting,
            UnitPhase::Stopping,
            UnitPhase::RestartDelay,
        ];
        let (active, unit) = (self.pick(&active), self.pick(&UNITS));
        Signal::Unit(UnitSignal {
            unit: unit.to_owned(),
            active,
            sub: String::new(),
            main_pid: u32::try_from(self.below(3)).unwrap(),
            restarts: u32::try_from(self.below(20)).unwrap(),
            result: self.pick(&["", "exit-code", "start-limit-hit"]).to_owned(),
            detail: UnitDetail {
                masked: self.chance(5),
                restarts_itself: self.chance(50),
                phase: self.pick(&phases),
                last_exit: Some(Exit::Status(1)),
            },
        })
    }

    fn probe(&mut self) -> Signal {
        let outcome = match self.below(6) {
            0 | 1 => ProbeOutcome::Healthy,
            2 => ProbeOutcome::TimedOut,
            3 => ProbeOutcome::Refused,
            4 => ProbeOutcome::Unhealthy { status: 500 },
            _ => unobservable_probe(),
        };
        let target = self.pick(&[ProbeTarget::Kubelet, ProbeTarget::Kubelet, ProbeTarget::ApiServer]);
        Signal::Probe(ProbeSignal {
            target,
            outcome,
            took: Duration::from_millis(3),
        })
    }

    fn runtime(&mut self) -> Signal {
        let after = Duration::from_secs(3);
        let why = String::new();
        let answer = match self.below(5) {
            0 => RuntimeAnswer::Answered,
            1 | 2 => RuntimeAnswer::TimedOut { after },
            3 => RuntimeAnswer::Failed { why },
            _ => RuntimeAnswer::Unobservable { why },
        };
        let runtime = self.pick(&[Runtime::Docker, Runtime::Containerd]);
        Signal::Runtime(RuntimeSignal { runtime, answer })
    }

    fn pleg(&mut self) -> Signal {
        let message = "PLEG is not healthy".to_owned();
        Signal::Pleg(match self.below(4) {
            0 => PlegSignal::Quiet,
            1 => PlegSignal::Starting { message },
            2 => PlegSignal::Unhealthy { message },
            _ => PlegSignal::Unobservable { why: String::new() },
        })
    }

    fn network(&mut self) -> Signal {
        Signal::Network(match self.below(4) {
            0 => NetworkSignal::Path(PathSignal {
                had_route: self.chance(50),
                ..PathSignal::default()
            }),
            1 => NetworkSignal::Reach(ReachSignal {
                coordinator: self.pick(&[None, Some(true), Some(false)]),
                peers: vec![(
                    ([10, 0, 0, 1], 10250).into(),
                    self.pick(&[None, Some(true), Some(false)]),
                )],
            }),
            2 => NetworkSignal::Cni(CniSignal {
                dir: "/etc/cni/net.d".into(),
                found: if self.chance(50) {
                    CniFound::Usable
                } else {
                    CniFound::Empty
                },
            }),
            _ => NetworkSignal::Dns(DnsSignal {
                name: "registry".into(),
                resolved: if self.chance(50) {
                    Ok(())
                } else {
                    Err(String::new())
                },
            }),
        })
    }

    fn disk(&mut self) -> Signal {
        let mount_point = self.pick(&["/", "/var"]);
        Signal::Disk(DiskSignal {
            mount_point: mount_point.into(),
            bytes_total: 100 << 30,
            bytes_available: self.below(40) << 30,
            // Without a fixed number on one of them: bytes and inodes have a hysteresis each.
            inodes_total: if mount_point == "/" { 0 } else { 1000 },
            inodes_free: self.below(1000),
            time_to_full: self.chance(30).then(|| Duration::from_secs(20)),
        })
    }

    /// Any signal; every kind comes.
    #[expect(clippy::too_many_lines, reason = "one kind of signal after the other")]
    fn signal(&mut self) -> Signal {
        match self.below(28) {
            0..=3 => self.unit(),
            4 => Signal::UnitsUnobservable { why: String::new() },
            5..=7 => self.probe(),
            8 | 9 => self.disk(),
            10 | 11 => Signal::Log(LogSignal {
                log: self.log(),
                mount_point: "/var".into(),
                allocated: self.below(4) << 30,
                growth_per_second: self.below(200) << 20,
            }),
            12 => Signal::LogGone(self.log()),
            13 => Signal::Kernel(self.kernel()),
            14 => Signal::Memory(MemorySignal {
                total: 100,
                available: self.below(20),
                some_percent: 0.0,
                full_percent: if self.chance(30) { 40.0 } else { 0.0 },
                largest: Vec::new(),
                cgroups: self.chance(80).then(|| {
                    vec![CgroupUse {
                        cgroup: Cgroup {
                            kind: CgroupKind::Unit,
                            name: "app.service".into(),
                        },
                        bytes: 60,
                    }]
                }),
            }),
            15 => Signal::Clock(ClockSignal {
                synchronised: self.pick(&[None, Some(true), Some(false)]),
                jump_ms: if self.chance(30) { 60_000 } else { 0 },
                behind: Duration::from_secs(self.below(100)),
                ..ClockSignal::default()
            }),
            16 | 17 => self.runtime(),
            18 => Signal::Container(ContainerSignal {
                name: self.pick(&["a", "b"]).into(),
                image: "app".into(),
                running: self.chance(50),
                unhealthy: self.chance(30),
                restarts: self.below(10),
                failures: self.below(10),
                oom_kills: self.below(3),
                last_exit: Some(1),
            }),
            19 => Signal::Mounts(MountsSignal {
                mounts: vec![MountState {
                    mount_point: "/var".into(),
                    device: "/dev/sda".into(),
                    writable: if self.chance(50) {
                        Writable::Yes
                    } else {
                        Writable::Mounted { meant: true }
                    },
                }],
            }),
            20 => Signal::Holders(HoldersSignal {
                mount_point: "/var".into(),
                crowded: Vec::new(),
                deleted: Vec::new(),
            }),
            21 | 22 => Signal::StaticPods(StaticPodsSignal {
                pods: vec![StaticPod {
                    name: "etcd".into(),
                    manifest: "etcd.yaml".into(),
                    version: 1,
                    containers: match self.below(3) {
                        0 => PodContainers::Unknown,
                        1 => PodContainers::Running,
                        _ => PodContainers::NotRunning(vec!["etcd".into()]),
                    },
                    health: None,
                }],
                invalid: Vec::new(),
                missing: Vec::new(),
                unseen: None,
            }),
            23 => self.pleg(),
            24 | 25 => self.network(),
            26 => Signal::UnitMemory(UnitMemorySignal {
                units: vec![UnitMemory {
                    unit: "app.service".into(),
                    bytes: self.below(1 << 34),
                    life: 1,
                }],
            }),
            _ if self.chance(50) => Signal::Load(LoadSignal {
                one_minute: if self.chance(50) { 50.0 } else { 0.5 },
                five_minutes: 1.0,
                processors: 4,
                cpu_some_percent: 0.0,
                io_some_percent: 0.0,
                io_full_percent: 0.0,
                blocked: None,
                hanging: Vec::new(),
                heaviest: Vec::new(),
            }),
            _ => Signal::Certificates(CertificatesSignal {
                now: Duration::from_hours(500_000),
                kept: true,
                files: vec![CertificateFile {
                    path: "/etc/kubernetes/pki/apiserver.crt".into(),
                    content: Ok(vec![Certificate {
                        subject: "CN=apiserver".into(),
                        not_before: 0,
                        not_after: self.pick(&[1_700_000_000, 1_800_001_000, 1_900_000_000]),
                    }]),
                }],
                unseen: Vec::new(),
            }),
        }
    }

    /// Holds, freezes and silence come and go.
    fn brake(&mut self) {
        let until = self.chance(50).then(|| self.now + Duration::from_mins(1));
        if self.chance(50) {
            let kind = self.pick(&[
                ConditionKind::UnitFailed,
                ConditionKind::KubeletUnhealthy,
                ConditionKind::RuntimeHung,
                ConditionKind::DiskPressure,
                ConditionKind::LogRunaway,
            ]);
            self.standing.freezes.clear();
            if let Some(until) = until {
                let why = String::new();
                self.standing.freezes.push(Freeze { kind, why, until });
            }
            return;
        }
        self.standing.holds.clear();
        if self.chance(50) {
            let kind = self.pick(&RemedyKind::ALL);
            let what = self.pick(&[Held::Remedy(kind), Held::Remedy(kind), Held::Every, Held::Silence]);
            self.standing.holds.push(Hold {
                scope: Scope::Node,
                what,
                by: "ann".into(),
                reason: "at work".into(),
                until,
            });
        }
    }

    fn step(&mut self) {
        let pause = self.pick(&[0, 10, 300, 2_000, 2_000, 31_000, 200_000, 700_000]);
        self.now += Duration::from_millis(pause);
        match self.below(12) {
            0 => self.brake(),
            10 => self.away_since = self.chance(30).then_some(self.now),
            11 => self.answer(),
            1 => {
                self.gate_held = self.chance(20);
                self.diagnosis.set_gate_held(self.gate_held);
            }
            2 | 3 => self.finish(),
            _ => self.see(),
        }
        self.pass();
    }

    fn see(&mut self) {
        let signal = self.signal();
        self.kinds.insert(signal.name());
        if let Signal::Disk(disk) = &signal
            && disk.time_to_full.is_some()
        {
            self.filling.insert(disk.mount_point.clone());
        }
        let before = self.stands();
        self.diagnosis.observe(&signal, self.now);
        self.health.observe(&signal, self.now);
        let after = self.stands();
        match &signal {
            // Lost observability neither raises nor clears.
            Signal::UnitsUnobservable { .. }
            | Signal::Probe(ProbeSignal {
                outcome: ProbeOutcome::Unobservable { .. },
                ..
            })
            | Signal::Runtime(RuntimeSignal {
                answer: RuntimeAnswer::Unobservable { .. },
                ..
            })
            | Signal::Pleg(PlegSignal::Unobservable { .. }) => assert_eq!(before, after, "{signal:?}"),
            // Inside the hysteresis nothing flaps: between the two percentages what stood stands, and what did not does not.
            Signal::Disk(disk) if disk.inodes_total == 0 && !self.filling.contains(&disk.mount_point) => {
                let bytes = (disk.bytes_total - disk.bytes_available) * 100 / disk.bytes_total;
                let key = key(
                    ConditionKind::DiskPressure,
                    &disk.mount_point.display().to_string(),
                );
                let (low, high) = (81, 84);
                if (low..=high).contains(&bytes) {
                    assert_eq!(before.contains(&key), after.contains(&key), "{signal:?}");
                }
            }
            Signal::Memory(memory) if memory.full_percent == 0.0 && (6..8).contains(&memory.available) => {
                let of = |stands: &BTreeSet<ConditionKey>| {
                    stands.iter().any(|key| key.kind == ConditionKind::MemoryPressure)
                };
                assert!(of(&before) || !of(&after), "{signal:?}");
            }
            Signal::Unit(_)
            | Signal::Probe(_)
            | Signal::Disk(_)
            | Signal::Log(_)
            | Signal::LogGone(_)
            | Signal::Kernel(_)
            | Signal::Memory(_)
            | Signal::Clock(_)
            | Signal::Runtime(_)
            | Signal::Container(_)
            | Signal::Load(_)
            | Signal::Certificates(_)
            | Signal::Mounts(_)
            | Signal::Holders(_)
            | Signal::StaticPods(_)
            | Signal::UnitMemory(_)
            | Signal::Pleg(_)
            | Signal::Network(_) => {}
        }
    }

    /// The coordinator answers what it was asked.
    fn answer(&mut self) {
        if self.away_since.is_some() {
            return;
        }
        for said in self.permits.said() {
            let verdict = match (&said.what, self.below(4)) {
                (Saying::Return(_), _) => Verdict::Returned,
                (Saying::Ask(_), 0) => Verdict::Wait { on: "another".into() },
                (Saying::Ask(_), 1) => Verdict::Refused { why: String::new() },
                (Saying::Ask(_), _) => {
                    let until = self.now + Duration::from_mins(1);
                    self.permitted.insert(said.id.clone(), until);
                    Verdict::Granted { until }
                }
            };
            if !matches!(verdict, Verdict::Granted { .. }) {
                self.permitted.remove(&said.id);
            }
            let (id, epoch) = (said.id, 1);
            self.permits.answered(Answer { id, epoch, verdict }, self.now);
        }
    }

    /// Nothing that the cluster feels is begun without a permit while there is a coordinator.
    fn check_permit(&mut self, remedy: &Remedy) {
        let Some(kind) = needed(remedy, &self.settings) else {
            return;
        };
        let long = self
            .away_since
            .is_some_and(|since| self.now - since >= PERMIT_WAIT);
        let bounce = matches!(remedy, Remedy::BounceStaticPod { .. });
        let subject = remedy.subject();
        let permitted = self.permits.said().into_iter().any(|said| {
            let asks =
                matches!(&said.what, Saying::Ask(wish) if wish.kind == kind && wish.subject == subject);
            asks && self
                .permitted
                .get(&said.id)
                .is_some_and(|until| *until > self.now)
        });
        assert!(permitted || (long && !bounce), "{remedy}: without a permit");
        self.by_permit += u64::from(permitted);
        let used = self.permits.used(kind, &subject);
        assert_eq!(used.is_some(), permitted, "{remedy}");
    }

    fn stands(&self) -> BTreeSet<ConditionKey> {
        let standing = self.diagnosis.conditions(self.now);
        standing.into_iter().map(|condition| condition.key).collect()
    }

    fn finish(&mut self) {
        let Some((subject, remedy)) = self.in_flight.pop_first() else {
            return;
        };
        let detail = String::new();
        let outcome = if self.chance(50) {
            Outcome::Succeeded { detail }
        } else {
            Outcome::Failed { detail }
        };
        self.history.ended(&subject, &outcome, false, self.now);
        self.permits.ended(&subject, Use::Unused);
        if let (Remedy::ReclaimLog { log }, Outcome::Succeeded { .. }) = (&remedy, &outcome) {
            self.diagnosis.observe(&Signal::LogGone(log.clone()), self.now);
        }
    }

    fn pass(&mut self) {
        let standing = self.diagnosis.conditions(self.now);
        self.health.judge(&standing, self.now);
        let brakes = Brakes {
            gate_held: self.gate_held,
            systemd_away: self.health.unobservable_since().is_some(),
            ledger_until: None,
            permits: Permits {
                away_since: self.away_since,
                granted: self.permits.granted(),
                told: self.permits.told(),
            },
            lacks: None,
            standing: self.standing.at(self.now),
        };
        let decision = decide(&Input {
            conditions: &standing,
            history: &self.history,
            health: &self.health,
            settings: &self.settings,
            brakes: &brakes,
            in_flight: &self.in_flight,
            stress: self.diagnosis.stress(),
            now: self.now,
        });
        assert!(decision.next_look.is_none_or(|next| next > self.now));
        self.check(&standing, &brakes, &decision);
        for unit in &decision.refill {
            self.history.refilled(unit);
            self.spent.retain(|(subject, _), _| subject != unit);
        }
        for proposal in decision.begin {
            self.begun += 1;
            self.check_permit(&proposal.remedy);
            let subject = proposal.remedy.subject();
            let rung = Rung::of(&proposal.remedy).unwrap();
            self.spent
                .entry((subject.clone(), rung))
                .or_default()
                .push(self.now);
            self.history.begun(&proposal.remedy, self.now);
            assert!(
                self.in_flight.insert(subject.clone(), proposal.remedy).is_none(),
                "{subject}: two at a time"
            );
        }
        self.permits.want(&decision.wishes, self.now);
        self.within_budgets();
    }

    fn check(&mut self, standing: &[Condition], brakes: &Brakes, decision: &Decision) {
        let now = self.now;
        for proposal in &decision.begin {
            let remedy = &proposal.remedy;
            let causes: Vec<_> = standing
                .iter()
                .filter(|condition| mends(remedy, condition, &self.settings))
                .collect();
            assert!(!causes.is_empty(), "{remedy}: nothing stands");
            let thawed = causes
                .iter()
                .any(|cause| brakes.standing.freeze(cause.key.kind, now).is_none());
            assert!(thawed, "{remedy}: frozen");
            assert!(brakes.standing.silence(now).is_none(), "{remedy}: silenced");
            assert!(
                brakes.standing.hold(remedy.kind(), now).is_none(),
                "{remedy}: held"
            );
            assert_ne!(remedy.subject(), PROTECTED, "protected");
            assert!(!(self.gate_held && remedy.subject() == self.settings.kubelet_unit));
        }
        for waiting in &decision.waiting {
            let told = match &waiting.on {
                WaitingOn::Held { .. } => brakes
                    .standing
                    .holds
                    .iter()
                    .any(|hold| hold.what != Held::Silence),
                WaitingOn::Silenced { .. } => brakes.standing.silence(now).is_some(),
                WaitingOn::Frozen { .. } => brakes.standing.freeze(waiting.kind, now).is_some(),
                WaitingOn::Protected { .. } => waiting.subject == PROTECTED,
                WaitingOn::Running
                | WaitingOn::BackOff { .. }
                | WaitingOn::Settling { .. }
                | WaitingOn::Turn
                | WaitingOn::BootGate
                | WaitingOn::Systemd
                | WaitingOn::Ledger { .. }
                | WaitingOn::Logs { .. }
                | WaitingOn::NotAllowed
                | WaitingOn::AnotherKeeper
                | WaitingOn::TimeService
                | WaitingOn::MemoryHolders
                | WaitingOn::Dependency { .. }
                | WaitingOn::Recovery { .. }
                | WaitingOn::Privilege(_)
                | WaitingOn::NotAComponent
                | WaitingOn::Permit { .. }
                | WaitingOn::OtherBounce
                | WaitingOn::First { .. }
                | WaitingOn::Hold { .. } => continue,
            };
            self.held_back += 1;
            assert!(told, "{waiting:?}");
        }
    }

    fn within_budgets(&self) {
        let Settings {
            restart,
            reclaim,
            runtime,
            memory,
            static_pods,
            ..
        } = &self.settings;
        for ((subject, rung), at) in &self.spent {
            let recent = |window: Duration| at.iter().filter(|at| self.now - **at < window).count();
            let (count, budget) = match rung {
                Rung::Restart => (at.len(), restart.restarts),
                Rung::KillRestart => (at.len(), restart.kill_restarts),
                Rung::Reclaim => (recent(reclaim.window), reclaim.budget),
                Rung::Vacuum | Rung::Prune => (recent(Duration::from_mins(30)), 1),
                Rung::RestartContainer => (
                    recent(runtime.container_restart_window),
                    runtime.container_restarts,
                ),
                Rung::Bounce => (at.len(), static_pods.bounces),
                Rung::Relieve => (recent(memory.restart_window), memory.restarts),
                Rung::Protect => (recent(Duration::from_mins(10)), 1),
            };
            assert!(
                count <= usize::try_from(budget).unwrap(),
                "{subject}: {count} times {rung:?}"
            );
        }
    }
}

fn unobservable_probe() -> ProbeOutcome {
    ProbeOutcome::Unobservable { why: String::new() }
}

fn key(kind: ConditionKind, subject: &str) -> ConditionKey {
    ConditionKey {
        kind,
        subject: subject.to_owned(),
    }
}

/// Whether a remedy is for that condition.
fn mends(remedy: &Remedy, standing: &Condition, settings: &Settings) -> bool {
    let condition = &standing.key;
    let (subject, about) = (remedy.subject(), &condition.subject);
    match remedy {
        Remedy::RestartUnit { .. } if condition.kind == ConditionKind::ClockUnsynchronised => {
            settings.clock.services.contains(&subject)
        }
        Remedy::RestartUnit { .. } if condition.kind == ConditionKind::CniMissing => {
            settings.network.cni.unit.as_ref() == Some(&subject)
        }
        Remedy::KillRestartUnit { .. } if condition.kind == ConditionKind::KubeletUnhealthy => {
            subject == settings.kubelet_unit
        }
        Remedy::RestartUnit { .. } | Remedy::KillRestartUnit { .. }
            if condition.kind == ConditionKind::KubeletPlegUnhealthy =>
        {
            subject == settings.kubelet_unit
        }
        Remedy::KillRestartUnit { .. } if condition.kind == ConditionKind::UnitJobHung => subject == *about,
        Remedy::RestartUnit { .. } | Remedy::KillRestartUnit { .. } => {
            matches!(
                condition.kind,
                ConditionKind::UnitFailed | ConditionKind::UnitInactive
            ) && subject == *about
        }
        Remedy::RestartRuntime { .. } => condition.kind == ConditionKind::RuntimeHung && subject == *about,
        Remedy::ReclaimLog { log } => {
            condition.kind == ConditionKind::LogRunaway && standing.log.as_ref() == Some(log)
        }
        Remedy::Prune { .. } | Remedy::VacuumJournal { .. } => {
            matches!(
                condition.kind,
                ConditionKind::DiskPressure | ConditionKind::DiskFilling | ConditionKind::InodePressure
            ) && subject == *about
        }
        Remedy::RestartContainer { .. } => {
            condition.kind == ConditionKind::ContainerUnhealthy && subject == *about
        }
        Remedy::BounceStaticPod { .. } => {
            condition.kind == ConditionKind::ControlPlaneComponentDown && subject == *about
        }
        Remedy::RelieveMemory { .. } => condition.kind == ConditionKind::MemoryPressure,
        Remedy::ProtectUnits => condition.kind == ConditionKind::Overload,
        Remedy::ReleaseKubelet { .. }
        | Remedy::StopKubelet { .. }
        | Remedy::StartKubelet { .. }
        | Remedy::Etcd(_)
        | Remedy::ControlPlane(_)
        | Remedy::HoldManifest { .. }
        | Remedy::ReleaseManifest { .. } => false,
    }
}

fn set<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn over_any_history_of_signals_the_laws_of_the_agent_hold() {
    let first: u64 = set("BLACKSTART_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let count: u64 = set("BLACKSTART_HISTORIES").unwrap_or(DEFAULT);
    let start = Instant::now();
    let (mut kinds, mut begun, mut held_back, mut by_permit) = (BTreeSet::new(), 0, 0, 0);
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, start);
            for _ in 0..STEPS {
                world.step();
            }
            (world.kinds, world.begun, world.held_back, world.by_permit)
        });
        match run {
            Ok((seen, did, waited, permitted)) => {
                by_permit += permitted;
                kinds.extend(seen);
                begun += did;
                held_back += waited;
            }
            Err(panic) => {
                println!("BLACKSTART_SEED={seed} BLACKSTART_HISTORIES=1 repeats it");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} histories from seed {first}: {begun} remedies begun, {held_back} waits for people");
    if count >= 1000 {
        assert_eq!(kinds.len(), 19, "a kind of signal never came: {kinds:?}");
        assert!(begun > count && held_back > count / 10, "{begun} {held_back}");
        assert!(by_permit > count / 100, "{by_permit} by permit");
    }
}
