//! Signal → Condition, with hysteresis and hold times. Pure.
//!
//! ```text
//!            ┌─► units     UnitFailed, UnitInactive ─┐
//!            ├─► unit_states  UnitFlapping, …        │
//!            ├─► kubelet   KubeletUnhealthy          │
//!  Signal ───┤                                       ├─► conditions(now)
//!            ├─► pleg      KubeletPlegUnhealthy      │
//!            ├─► runtime   RuntimeHung               │
//!            ├─► containers  Container…              │
//!            ├─► disk      DiskPressure, InodePressure, DiskFilling
//!            ├─► read_only  FilesystemReadOnly        │
//!            ├─► logs      LogRunaway                │
//!            ├─► kernel    what the kernel says      │
//!            ├─► memory    MemoryPressure            │
//!            ├─► leak      MemoryLeak                │
//!            ├─► load      Overload                  │
//!            ├─► clock     Clock…                    │
//!            ├─► static_pods  ControlPlane…, Static…  │
//!            ├─► certificates  Certificate…          │
//!            └─► network   NetworkIsolated, …       ─┘
//! ```
//!
//! Each area takes of the signals what is its own. What stands at an instant is a function of what was observed until
//! then: it may change with no signal coming, when a hold time is over, and [`Diagnosis::next_change`] tells when.

pub mod certificates;
pub mod clock;
pub mod containers;
pub mod disk;
pub mod kernel;
pub mod kubelet;
pub mod leak;
pub mod load;
pub mod logs;
pub mod memory;
pub mod network;
pub mod pleg;
pub mod read_only;
pub mod runtime;
pub mod static_pods;
mod trend;
pub mod unit_states;
pub mod units;

use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::component::ManifestState;
use tokio::time::Instant;

use self::certificates::Certificates;
use self::clock::Clock;
use self::containers::Containers;
use self::disk::Disks;
use self::kernel::Kernel;
use self::kubelet::Kubelet;
use self::leak::Leaks;
use self::load::Load;
use self::logs::Logs;
use self::memory::{Memory, Stress};
use self::network::Network;
use self::pleg::Pleg;
use self::read_only::ReadOnly;
use self::runtime::Runtimes;
use self::static_pods::StaticPods;
use self::unit_states::UnitStates;
use self::units::Units;
use crate::condition::Condition;
use crate::config::Settings;
use crate::set_aside::Held;
use crate::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};

/// Everything that was observed of the node.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    units: Units,
    unit_states: UnitStates,
    kubelet: Kubelet,
    pleg: Pleg,
    runtimes: Runtimes,
    containers: Containers,
    disks: Disks,
    logs: Logs,
    kernel: Kernel,
    memory: Memory,
    leaks: Leaks,
    load: Load,
    clock: Clock,
    certificates: Certificates,
    read_only: ReadOnly,
    static_pods: StaticPods,
    network: Network,
    mount_points: Vec<PathBuf>,
    kubelet_probe: Option<(ProbeOutcome, Instant)>,
    api_server_probe: Option<(ProbeOutcome, Instant)>,
    api_server_took: Duration,
}

impl Diagnosis {
    /// Nothing seen yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            units: Units::new(
                settings.units.clone(),
                &settings.kubelet_unit,
                settings.restart.inactive_hold,
            ),
            unit_states: UnitStates::new(settings),
            kubelet: Kubelet::new(&settings.kubelet_unit, &settings.kubelet),
            pleg: Pleg::new(&settings.kubelet_unit),
            runtimes: Runtimes::new(settings.runtime.clone()),
            containers: Containers::new(&settings.runtime),
            disks: Disks::new(settings.disks.clone()),
            logs: Logs::new(settings.logs.clone(), settings.disks.clone()),
            kernel: Kernel::default(),
            memory: Memory::new(settings.memory.clone()),
            leaks: Leaks::new(settings.memory.leak.clone()),
            load: Load::new(settings.load.clone()),
            clock: Clock::new(settings.clock.clone()),
            certificates: Certificates::new(settings.preflight.expires_within),
            read_only: ReadOnly::default(),
            static_pods: StaticPods::new(
                settings.static_pods.clone(),
                &settings.kubelet_unit,
                &settings.kubelet,
            ),
            network: Network::new(settings.network.clone()),
            mount_points: settings
                .disks
                .iter()
                .map(|disk| disk.mount_point.clone())
                .collect(),
            kubelet_probe: None,
            api_server_probe: None,
            api_server_took: Duration::ZERO,
        }
    }

    /// Judges by other settings from now on. What was observed stays, except of what is not watched any more.
    pub fn retune(&mut self, settings: &Settings) {
        self.units
            .retune(settings.units.clone(), settings.restart.inactive_hold);
        self.unit_states.retune(settings);
        self.kubelet.retune(settings.kubelet.failures_to_raise);
        self.runtimes.retune(settings.runtime.clone());
        self.containers.retune(&settings.runtime);
        self.disks.retune(settings.disks.clone());
        self.logs.retune(settings.logs.clone(), settings.disks.clone());
        self.memory.retune(settings.memory.clone());
        self.leaks.retune(settings.memory.leak.clone());
        self.load.retune(settings.load.clone());
        self.certificates.retune(settings.preflight.expires_within);
        self.static_pods
            .retune(settings.static_pods.clone(), &settings.kubelet);
        self.clock.retune(settings.clock.clone());
        self.network.retune(settings.network.clone());
        self.mount_points = settings
            .disks
            .iter()
            .map(|disk| disk.mount_point.clone())
            .collect();
    }

    /// Of what is set aside nothing is expected.
    pub fn set_aside(&mut self, held: &[Held]) {
        self.static_pods.set_aside(held);
    }

    /// Where the manifest of a pod is.
    pub fn manifest(&self, pod: &str) -> ManifestState {
        self.static_pods.manifest(pod)
    }

    /// While the boot gate holds the kubelet, nothing is raised of it. Its hold time begins when the gate lets go.
    pub fn set_gate_held(&mut self, held: bool) {
        self.units.set_gate_held(held);
        self.unit_states.set_gate_held(held);
        self.kubelet.set_gate_held(held);
        self.static_pods.set_gate_held(held);
    }

    /// Takes in what was seen at `now`.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        self.units.observe(signal, now);
        self.unit_states.observe(signal, now);
        self.kubelet.observe(signal, now);
        self.pleg.observe(signal, now);
        self.runtimes.observe(signal, now);
        self.containers.observe(signal, now);
        self.disks.observe(signal, now);
        self.logs.observe(signal, now);
        self.kernel.observe(signal, now);
        self.memory.observe(signal, now);
        self.leaks.observe(signal, now);
        self.load.observe(signal, now);
        self.clock.observe(signal, now);
        self.certificates.observe(signal, now);
        self.read_only.observe(signal, now);
        self.static_pods.observe(signal, now);
        self.network.observe(signal, now);
        if let Signal::Probe(probe) = signal {
            *match probe.target {
                ProbeTarget::Kubelet => &mut self.kubelet_probe,
                ProbeTarget::ApiServer => &mut self.api_server_probe,
            } = Some((probe.outcome.clone(), now));
            if probe.target == ProbeTarget::ApiServer {
                self.api_server_took = probe.took;
            }
        }
    }

    /// What stands at `now`, area by area.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let mut standing = self.units.conditions(now);
        standing.extend(self.unit_states.conditions(now));
        standing.extend(self.kubelet.condition());
        standing.extend(self.pleg.condition());
        standing.extend(self.runtimes.conditions());
        standing.extend(self.containers.conditions(now));
        standing.extend(self.disks.conditions(now));
        standing.extend(self.logs.conditions(now));
        standing.extend(self.kernel.conditions(now));
        standing.extend(self.memory.conditions());
        standing.extend(self.leaks.conditions());
        standing.extend(self.load.conditions());
        standing.extend(self.clock.conditions(now));
        standing.extend(self.certificates.conditions());
        standing.extend(self.read_only.conditions());
        standing.extend(self.static_pods.conditions(now));
        standing.extend(self.network.conditions(now));
        standing
    }

    /// When [`Self::conditions`] will change though no signal comes; always after `now`.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        [
            self.units.next_change(now),
            self.unit_states.next_change(now),
            self.containers.next_change(now),
            self.disks.next_change(now),
            self.kernel.next_change(now),
            self.clock.next_change(now),
            self.static_pods.next_change(now),
            self.network.next_change(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Memory that is critically short, and who holds it.
    pub fn stress(&self) -> Option<Stress<'_>> {
        self.memory.stress()
    }

    /// The unit as last seen.
    pub fn unit(&self, name: &str) -> Option<&UnitSignal> {
        self.units.unit(name)
    }

    /// All watched units that were seen, in the order of their names.
    pub fn units(&self) -> impl Iterator<Item = &UnitSignal> {
        self.units.iter()
    }

    /// All watched file systems that were seen, in the order of the configuration.
    pub fn disks(&self) -> impl Iterator<Item = &DiskSignal> {
        self.mount_points
            .iter()
            .filter_map(|mount_point| self.disks.usage(mount_point))
    }

    /// How long the last probe of the API server took.
    pub fn api_server_took(&self) -> Duration {
        self.api_server_took
    }

    /// What came of the last probe, and when.
    pub fn probe(&self, target: ProbeTarget) -> Option<(&ProbeOutcome, Instant)> {
        match target {
            ProbeTarget::Kubelet => &self.kubelet_probe,
            ProbeTarget::ApiServer => &self.api_server_probe,
        }
        .as_ref()
        .map(|(outcome, at)| (outcome, *at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::{ActiveState, ProbeSignal, UnitDetail};

    fn unit(active: ActiveState) -> Signal {
        Signal::Unit(UnitSignal {
            unit: "kubelet.service".to_owned(),
            active,
            sub: String::new(),
            main_pid: u32::from(active == ActiveState::Active),
            restarts: 0,
            result: String::new(),
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

    fn disk(time_to_full: Option<Duration>) -> Signal {
        Signal::Disk(DiskSignal {
            mount_point: "/var".into(),
            bytes_total: 100 << 20,
            bytes_available: 90 << 20,
            inodes_total: 0,
            inodes_free: 0,
            time_to_full,
        })
    }

    #[test]
    fn every_area_is_heard_and_can_be_asked() {
        let now = Instant::now();
        let mut diagnosis = Diagnosis::new(&Settings::for_node("n"));
        diagnosis.observe(&unit(ActiveState::Failed), now);
        diagnosis.observe(&disk(Some(Duration::from_secs(20))), now);
        diagnosis.observe(&probe(ProbeOutcome::Refused), now);
        let subjects: Vec<_> = diagnosis
            .conditions(now)
            .into_iter()
            .map(|condition| condition.key.subject)
            .collect();
        assert_eq!(subjects, ["kubelet.service", "/var"]);
        assert_eq!(
            diagnosis.unit("kubelet.service").unwrap().active,
            ActiveState::Failed
        );
        assert_eq!(diagnosis.units().count(), 1);
        assert_eq!(diagnosis.disks().count(), 1);
        assert_eq!(
            diagnosis.probe(ProbeTarget::Kubelet),
            Some((&ProbeOutcome::Refused, now))
        );
        assert_eq!(diagnosis.probe(ProbeTarget::ApiServer), None);
    }

    proptest! {
        /// The loop sleeps until `next_change`: nothing may change before, and something has to then.
        #[test]
        fn without_a_signal_conditions_change_only_when_foretold(
            history in prop::collection::vec((0_u64..20_000, 0_usize..9), 1..30),
        ) {
            let mut now = Instant::now();
            let mut diagnosis = Diagnosis::new(&Settings::for_node("n"));
            let stands = |diagnosis: &Diagnosis, at| {
                let mut keys: Vec<_> = diagnosis.conditions(at).into_iter().map(|one| one.key).collect();
                keys.sort();
                keys
            };
            for (millis, at) in history {
                now += Duration::from_millis(millis);
                let signal = match at {
                    0 => unit(ActiveState::Active),
                    1 | 2 => unit(ActiveState::Inactive),
                    3 => unit(ActiveState::Failed),
                    4 => probe(ProbeOutcome::TimedOut),
                    5 => probe(ProbeOutcome::Healthy),
                    6 => disk(Some(Duration::from_secs(30))),
                    7 => disk(None),
                    _ => Signal::UnitsUnobservable { why: String::new() },
                };
                diagnosis.observe(&signal, now);
            }
            for _ in 0..10 {
                let stood = stands(&diagnosis, now);
                let Some(next) = diagnosis.next_change(now) else {
                    prop_assert_eq!(stands(&diagnosis, now + Duration::from_hours(1)), stood);
                    return Ok(());
                };
                prop_assert!(next > now);
                prop_assert_eq!(stands(&diagnosis, next - Duration::from_nanos(1)), stood.clone());
                prop_assert_ne!(stands(&diagnosis, next), stood);
                now = next;
            }
            prop_assert!(false, "conditions never come to rest");
        }
    }
}
