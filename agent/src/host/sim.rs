//! A simulated machine, for drills and simulation.
//!
//! Only what [`Host`] stands for is simulated: units, health endpoints, disks. Settings, ledger, boot identity and boot
//! gate are real files, and the agent on top is the real one.
//!
//! ```text
//! SimCluster   which masters' kubelets are up ─► are the API servers ready? (a quorum, and a delay)
//!   └ SimHost      the units of one machine, its faults, and its own record of what its kubelet did
//!       └ SimMachine   power: boot gate ─► kubelet, agent beside it; all of it gone at once when cut
//! ```
//!
//! Nothing ticks: what a unit or an API server is at an instant follows from when it was started.

mod cluster;
mod machine;
mod units;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use cluster::SimCluster;
pub use machine::SimMachine;
pub use units::SimFault;

use super::{Host, HostError, UnitAction};
use crate::gate::GateState;
use crate::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};
use units::{Start, Unit};

/// The kubelet's unit on every simulated machine.
pub const KUBELET: &str = "kubelet.service";
/// Units that come up with the machine, gate or not.
const AT_BOOT: [&str; 2] = ["containerd.service", "docker.service"];

/// Something that the machine itself saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimEvent {
    /// Power came back.
    PoweredOn,
    /// Power went.
    PowerCut,
    /// The boot gate let the kubelet go, and why; or it failed, which opens it too.
    GateOpened(Result<GateState, String>),
    /// The kubelet's process began.
    KubeletStarted {
        /// Its `/healthz` answers from then on, unless something happens to it.
        healthy_after: Duration,
    },
    /// The kubelet's process ended.
    KubeletStopped,
    /// A fault was laid.
    Fault(SimFault),
    /// The agent ended by itself, which it never should.
    AgentEnded(String),
}

/// A [`SimEvent`] and when it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimRecord {
    /// When.
    pub at: Instant,
    /// What.
    pub event: SimEvent,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimStage {
    /// It has no power.
    Dark,
    /// Its boot gate holds the kubelet.
    Held,
    /// Its kubelet runs, and is not healthy.
    Starting,
    /// Its kubelet is healthy.
    Healthy,
    /// Its gate is open, and no kubelet runs.
    Down,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct SimSpec {
    /// Its name, as its cluster knows it.
    pub name: String,
    /// Runs an API server beside its kubelet.
    pub is_master: bool,
    /// From the start of the kubelet's process to its first healthy answer.
    pub kubelet_start: Duration,
    /// Its file systems: where mounted, and how large.
    pub disks: Vec<(PathBuf, u64)>,
}

/// One simulated machine as its agent sees it.
#[derive(Debug)]
pub struct SimHost {
    spec: SimSpec,
    cluster: Arc<SimCluster>,
    state: Mutex<State>,
    /// Counts changes of units: those who watch look again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    units: BTreeMap<&'static str, Unit>,
    disks: BTreeMap<PathBuf, Space>,
    record: Vec<SimRecord>,
    next_pid: u32,
}

#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    available: u64,
}

impl SimHost {
    /// A machine without power.
    pub fn new(spec: SimSpec, cluster: Arc<SimCluster>) -> Self {
        let units = AT_BOOT.into_iter().chain([KUBELET]);
        let space = |&(ref at, total): &(PathBuf, u64)| {
            let available = total / 2;
            (at.clone(), Space { total, available })
        };
        let state = State {
            units: units.map(|name| (name, Unit::default())).collect(),
            disks: spec.disks.iter().map(space).collect(),
            record: Vec::new(),
            next_pid: 1000,
        };
        Self {
            spec,
            cluster,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Everything that it saw, in order: its own word, whatever anybody else says of it.
    pub fn record(&self) -> Vec<SimRecord> {
        self.lock().record.clone()
    }

    /// The kubelet runs and answers.
    pub fn kubelet_is_healthy(&self, now: Instant) -> bool {
        self.lock().units[KUBELET].is_healthy(now)
    }

    /// What it is doing, in a word.
    pub fn stage(&self, now: Instant) -> SimStage {
        let state = self.lock();
        let kubelet = &state.units[KUBELET];
        let since_boot = state
            .record
            .iter()
            .rev()
            .take_while(|record| record.event != SimEvent::PowerCut);
        let mut powered = false;
        let mut opened = false;
        for record in since_boot {
            powered |= record.event == SimEvent::PoweredOn;
            opened |= matches!(record.event, SimEvent::GateOpened(_));
        }
        match (powered, opened, kubelet.is_up()) {
            (false, _, _) => SimStage::Dark,
            (true, _, true) if kubelet.is_healthy(now) => SimStage::Healthy,
            (true, _, true) => SimStage::Starting,
            (true, false, false) => SimStage::Held,
            (true, true, false) => SimStage::Down,
        }
    }

    /// When the API server here became, or will become, ready, as things stand. `None` on workers.
    pub fn api_server_ready_at(&self) -> Option<Instant> {
        self.cluster.ready_at(&self.spec.name)
    }

    /// Lays a fault.
    pub fn inject(&self, fault: SimFault) {
        let now = Instant::now();
        self.change(|state| {
            state.note(now, SimEvent::Fault(fault));
            let unit = fault.unit();
            let was_up = state.units[unit].is_up();
            if let Some(unit) = state.units.get_mut(unit) {
                unit.suffer(fault);
            }
            state.note_stop(unit, was_up, now);
        });
    }

    /// Leaves so much of a disk free. Others than the machine's own are no matter.
    pub fn set_available(&self, mount_point: &Path, bytes: u64) {
        if let Some(space) = self.lock().disks.get_mut(mount_point) {
            space.available = bytes.min(space.total);
        }
    }

    /// Power is here: what needs no gate comes up.
    fn boot(&self) {
        let now = Instant::now();
        self.change(|state| {
            state.note(now, SimEvent::PoweredOn);
            for unit in AT_BOOT {
                state.start(unit, now, Duration::ZERO);
            }
        });
    }

    /// What happened to the machine as a whole.
    fn note(&self, event: SimEvent) {
        self.lock().note(Instant::now(), event);
    }

    /// systemd goes on to the kubelet.
    fn start_kubelet(&self) {
        self.start(KUBELET);
    }

    /// Power is gone, and every process with it.
    fn lose_power(&self) {
        let now = Instant::now();
        self.change(|state| {
            let was_up = state.units[KUBELET].is_up();
            for unit in state.units.values_mut() {
                *unit = Unit::default();
            }
            state.note_stop(KUBELET, was_up, now);
            state.note(now, SimEvent::PowerCut);
        });
        self.cluster.left(&self.spec.name);
    }

    fn start(&self, unit: &'static str) -> Start {
        let now = Instant::now();
        let takes = if unit == KUBELET {
            self.spec.kubelet_start
        } else {
            Duration::ZERO
        };
        let start = self.change(|state| state.start(unit, now, takes));
        if start == Start::Began && unit == KUBELET && self.spec.is_master {
            self.cluster.joins(&self.spec.name, now + takes);
        }
        start
    }

    fn kill(&self, unit: &'static str) {
        let now = Instant::now();
        self.change(|state| {
            let was_up = state.units[unit].is_up();
            if let Some(unit) = state.units.get_mut(unit) {
                unit.die("signal");
            }
            state.note_stop(unit, was_up, now);
        });
    }

    /// Stops it politely, which what hangs never does.
    async fn stop(&self, unit: &'static str) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if !self.lock().units[unit].is_hung() {
                let now = Instant::now();
                self.change(|state| {
                    let was_up = state.units[unit].is_up();
                    if let Some(unit) = state.units.get_mut(unit) {
                        unit.stop();
                    }
                    state.note_stop(unit, was_up, now);
                });
                return;
            }
            // The sender lives as long as this machine.
            let _ = changes.changed().await;
        }
    }

    fn look(&self, unit: &str) -> UnitSignal {
        let state = self.lock();
        state
            .units
            .get(unit)
            .map_or_else(|| Unit::not_found(unit), |known| known.signal(unit))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every unit of a machine by its own name.
fn known(unit: &str) -> Option<&'static str> {
    AT_BOOT.into_iter().chain([KUBELET]).find(|known| *known == unit)
}

impl State {
    fn note(&mut self, at: Instant, event: SimEvent) {
        self.record.push(SimRecord { at, event });
    }

    fn note_stop(&mut self, unit: &str, was_up: bool, now: Instant) {
        if unit == KUBELET && was_up && !self.units[KUBELET].is_up() {
            self.note(now, SimEvent::KubeletStopped);
        }
    }

    fn start(&mut self, name: &'static str, now: Instant, takes: Duration) -> Start {
        self.next_pid += 1;
        let pid = self.next_pid;
        let Some(unit) = self.units.get_mut(name) else {
            return Start::Refused;
        };
        let start = unit.start(pid, now + takes);
        if start == Start::Began && name == KUBELET {
            self.note(now, SimEvent::KubeletStarted { healthy_after: takes });
        }
        start
    }
}

impl Host for SimHost {
    async fn watch_units(&self, units: Vec<String>, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
        let mut changes = self.changes.subscribe();
        let mut sent: BTreeMap<String, UnitSignal> = BTreeMap::new();
        loop {
            changes.mark_unchanged();
            for unit in &units {
                let now = self.look(unit);
                if sent.get(unit) == Some(&now) {
                    continue;
                }
                if signals.send(Signal::Unit(now.clone())).await.is_err() {
                    return;
                }
                sent.insert(unit.clone(), now);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender lives as long as this machine.
                _ = changes.changed() => {}
            }
        }
    }

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        Ok(self.look(unit))
    }

    async fn unit_action(&self, unit: &str, action: UnitAction) -> Result<(), HostError> {
        let refused = |action, why: &str| HostError::Refused {
            action,
            unit: unit.to_owned(),
            why: why.to_owned(),
        };
        let Some(unit) = known(unit) else {
            return Err(refused("find", "no such unit on this machine"));
        };
        match action {
            UnitAction::Restart => {
                self.stop(unit).await;
                match self.start(unit) {
                    Start::Began | Start::AlreadyUp => Ok(()),
                    Start::Refused => Err(refused("restart", "job ended with failed")),
                }
            }
            UnitAction::Stop => {
                self.stop(unit).await;
                Ok(())
            }
            UnitAction::Kill | UnitAction::KillMain => {
                self.kill(unit);
                Ok(())
            }
            UnitAction::Weigh(_) => Ok(()),
            UnitAction::ResetFailed => {
                self.change(|state| state.units.get_mut(unit).map(Unit::reset_failed));
                Ok(())
            }
        }
    }

    async fn probe(&self, target: ProbeTarget, deadline: Duration) -> ProbeOutcome {
        let now = Instant::now();
        let kubelet = self.lock().units[KUBELET].clone();
        match target {
            ProbeTarget::Kubelet if kubelet.is_hung() => {
                sleep(deadline).await;
                ProbeOutcome::TimedOut
            }
            ProbeTarget::Kubelet if kubelet.is_healthy(now) => ProbeOutcome::Healthy,
            ProbeTarget::Kubelet => ProbeOutcome::Refused,
            // The API server is a static pod: a kubelet started it, and it outlives that kubelet.
            ProbeTarget::ApiServer => self.cluster.probe(&self.spec.name, now),
        }
    }

    fn disk_usage(&self, mount_point: &Path) -> io::Result<DiskSignal> {
        let space = self.lock().disks.get(mount_point).copied();
        let space = space.ok_or_else(|| {
            let what = format!("{} is no mount point of this machine", mount_point.display());
            io::Error::new(io::ErrorKind::NotFound, what)
        })?;
        Ok(DiskSignal {
            mount_point: mount_point.to_owned(),
            bytes_total: space.total,
            bytes_available: space.available,
            inodes_total: 0,
            inodes_free: 0,
            time_to_full: None,
        })
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::ActiveState;

    fn master(name: &str, cluster: &Arc<SimCluster>) -> Arc<SimHost> {
        let spec = SimSpec {
            name: name.to_owned(),
            is_master: true,
            kubelet_start: Duration::from_secs(2),
            disks: vec![("/".into(), 1000)],
        };
        Arc::new(SimHost::new(spec, Arc::clone(cluster)))
    }

    async fn healthz(host: &SimHost) -> ProbeOutcome {
        host.probe(ProbeTarget::Kubelet, Duration::from_secs(1)).await
    }

    async fn readyz(host: &SimHost) -> ProbeOutcome {
        host.probe(ProbeTarget::ApiServer, Duration::from_secs(1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn api_servers_need_a_quorum_of_kubelets_and_their_time() {
        let cluster = Arc::new(SimCluster::new(2, Duration::from_secs(5)));
        let (a, b) = (master("a", &cluster), master("b", &cluster));
        a.boot();
        a.start_kubelet();
        assert_eq!(healthz(&a).await, ProbeOutcome::Refused);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(healthz(&a).await, ProbeOutcome::Healthy);
        assert_eq!(readyz(&a).await, ProbeOutcome::Unhealthy { status: 500 });
        b.start_kubelet();
        sleep(Duration::from_secs(6)).await;
        assert_eq!(readyz(&a).await, ProbeOutcome::Unhealthy { status: 500 });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(readyz(&a).await, ProbeOutcome::Healthy);
        b.lose_power();
        assert_eq!(readyz(&a).await, ProbeOutcome::Unhealthy { status: 500 });
        assert_eq!(readyz(&b).await, ProbeOutcome::Refused);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_ignores_a_restart_until_it_is_killed() {
        let host = master("a", &Arc::new(SimCluster::new(1, Duration::ZERO)));
        host.boot();
        host.start_kubelet();
        sleep(Duration::from_secs(2)).await;
        host.inject(SimFault::Hang(KUBELET));
        assert_eq!(healthz(&host).await, ProbeOutcome::TimedOut);
        let restart = host.unit_action(KUBELET, UnitAction::Restart);
        let politely = tokio::time::timeout(Duration::from_mins(5), restart).await;
        assert!(politely.is_err());
        host.unit_action(KUBELET, UnitAction::Kill).await.unwrap();
        assert_eq!(host.look(KUBELET).active, ActiveState::Failed);
        host.unit_action(KUBELET, UnitAction::ResetFailed).await.unwrap();
        host.unit_action(KUBELET, UnitAction::Restart).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(healthz(&host).await, ProbeOutcome::Healthy);
        let starts = host
            .record()
            .into_iter()
            .filter(|record| matches!(record.event, SimEvent::KubeletStarted { .. }));
        assert_eq!(starts.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_refuses_does_so_as_often_as_it_was_told() {
        let host = master("a", &Arc::new(SimCluster::new(1, Duration::ZERO)));
        host.inject(SimFault::RefuseStart(KUBELET, 2));
        for _ in 0..2 {
            host.unit_action(KUBELET, UnitAction::Restart).await.unwrap_err();
            assert_eq!(host.look(KUBELET).active, ActiveState::Failed);
        }
        host.unit_action(KUBELET, UnitAction::Restart).await.unwrap();
        assert_eq!(host.look(KUBELET).active, ActiveState::Active);
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_hear_of_every_change() {
        let host = master("a", &Arc::new(SimCluster::new(1, Duration::ZERO)));
        let (to, mut signals) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let watching = {
            let (host, stop) = (Arc::clone(&host), stop.clone());
            async move { host.watch_units(vec![KUBELET.to_owned()], to, stop).await }
        };
        let told = async {
            let mut states = Vec::new();
            for act in [SimHost::start_kubelet, |host: &SimHost| host.kill(KUBELET)] {
                let Some(Signal::Unit(unit)) = signals.recv().await else {
                    panic!()
                };
                states.push(unit.active);
                act(&host);
            }
            let Some(Signal::Unit(unit)) = signals.recv().await else {
                panic!()
            };
            states.push(unit.active);
            stop.cancel();
            states
        };
        let ((), states) = tokio::join!(watching, told);
        assert_eq!(
            states,
            [ActiveState::Inactive, ActiveState::Active, ActiveState::Failed]
        );
    }
}
