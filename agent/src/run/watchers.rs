//! Keeps the watchers running. One that cannot start, or breaks, never takes the agent down: its part of the node is not
//! seen meanwhile, which neither raises nor clears anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::Settings;
use crate::host::Host;
use crate::link::LinkState;
use crate::signal::{ProbeTarget, Signal};
use crate::watch::beat::Beat;
use crate::watch::network::{self, Surroundings};
use crate::watch::{
    certificates, clock, disk, holders, kernel, load, logs, memory, mounts, pleg, probe, runtime,
    static_pods, unit_memory,
};

/// A watcher that broke is started again after this.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Watcher {
    Units,
    Kubelet,
    ApiServer,
    Disks,
    Logs,
    Kernel,
    Memory,
    Load,
    Clock,
    Certificates,
    Runtimes,
    Mounts,
    Holders,
    StaticPods,
    UnitMemory,
    Pleg,
    Network,
}

/// All watchers of one node.
#[derive(Debug)]
pub(super) struct Watchers<H> {
    host: Arc<H>,
    settings: Arc<Settings>,
    /// New settings come here.
    in_force: watch::Receiver<Arc<Settings>>,
    /// Logs are watched.
    logs: bool,
    signals: mpsc::Sender<Signal>,
    /// How it stands with the coordinator; `None` without one.
    link: Option<watch::Receiver<LinkState>>,
    /// What the log watcher takes its attention from.
    disks: watch::Sender<disk::Picture>,
    beat: Beat,
    stop: CancellationToken,
    running: JoinSet<()>,
    names: HashMap<Id, Watcher>,
    /// Each watcher's own end.
    stops: HashMap<Watcher, CancellationToken>,
    /// Asked to end, to begin again with other settings.
    again: HashSet<Watcher>,
}

impl<H: Host> Watchers<H> {
    pub(super) fn new(
        host: Arc<H>,
        mut in_force: watch::Receiver<Arc<Settings>>,
        logs: bool,
        signals: mpsc::Sender<Signal>,
        link: Option<watch::Receiver<LinkState>>,
        beat: Beat,
        stop: CancellationToken,
    ) -> Self {
        let settings = Arc::clone(&in_force.borrow_and_update());
        Self {
            host,
            settings,
            in_force,
            logs,
            signals,
            link,
            disks: watch::Sender::new(disk::Picture::new()),
            beat,
            stop,
            running: JoinSet::new(),
            names: HashMap::new(),
            stops: HashMap::new(),
            again: HashSet::new(),
        }
    }

    /// Returns when all have ended, which they do at the stop.
    pub(super) async fn run(mut self) {
        self.start(Watcher::Units);
        self.start(Watcher::Kubelet);
        if self.settings.api_server.is_some() {
            self.start(Watcher::ApiServer);
        }
        if !self.settings.disks.is_empty() {
            self.start(Watcher::Disks);
        }
        if self.logs {
            self.start(Watcher::Logs);
        }
        if self.host.machine().is_some() {
            for watcher in [
                Watcher::Kernel,
                Watcher::Memory,
                Watcher::Load,
                Watcher::Clock,
                Watcher::Certificates,
                Watcher::Runtimes,
                Watcher::Mounts,
                Watcher::Holders,
                Watcher::StaticPods,
                Watcher::UnitMemory,
                Watcher::Pleg,
                Watcher::Network,
            ] {
                self.start(watcher);
            }
        }
        let mut tuned = true;
        loop {
            let ended = tokio::select! {
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => ended,
                    None => return,
                },
                changed = self.in_force.changed(), if tuned => {
                    tuned = changed.is_ok();
                    self.retune();
                    continue;
                }
            };
            let (id, broke) = match ended {
                Ok((id, ())) => (id, false),
                Err(error) => (error.id(), true),
            };
            let Some(watcher) = self.names.remove(&id) else {
                continue;
            };
            if self.stop.is_cancelled() {
                continue;
            }
            if self.again.remove(&watcher) {
                self.start(watcher);
                continue;
            }
            if broke {
                error!(?watcher, "watcher broke; it is started again in {AGAIN:?}");
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = sleep(AGAIN) => self.start(watcher),
                }
            } else {
                warn!(?watcher, "watcher gave up: its part of the node is not seen");
            }
        }
    }

    /// Lets those begin again whose settings have changed.
    fn retune(&mut self) {
        let new = Arc::clone(&self.in_force.borrow_and_update());
        let old = std::mem::replace(&mut self.settings, Arc::clone(&new));
        let disks = old.disks != new.disks;
        let changed = [
            (
                Watcher::Units,
                old.units != new.units || !old.helpers().eq(new.helpers()),
            ),
            (Watcher::Kubelet, old.kubelet != new.kubelet),
            (Watcher::ApiServer, old.api_server != new.api_server),
            (Watcher::Disks, disks),
            (Watcher::Mounts, disks),
            (Watcher::Holders, disks),
            (Watcher::Logs, disks || old.logs != new.logs),
            (Watcher::Certificates, old.preflight != new.preflight),
            (Watcher::Runtimes, old.runtime != new.runtime),
            (Watcher::StaticPods, old.static_pods != new.static_pods),
            (
                Watcher::Memory,
                memory::Tense::of(&old.memory) != memory::Tense::of(&new.memory),
            ),
            (Watcher::Load, old.load != new.load),
            (Watcher::UnitMemory, old.leak_units() != new.leak_units()),
            (Watcher::Pleg, old.pleg != new.pleg),
            (Watcher::Network, old.network != new.network),
            (Watcher::Clock, old.clock.services != new.clock.services),
        ];
        for (watcher, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            match self.stops.get(&watcher) {
                Some(stop) if self.names.values().any(|running| *running == watcher) => {
                    self.again.insert(watcher);
                    stop.cancel();
                }
                // It had nothing to watch, and gave up.
                Some(_) => self.start(watcher),
                None => {}
            }
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "what each watcher needs, one after the other"
    )]
    fn start(&mut self, watcher: Watcher) {
        let (settings, host) = (&self.settings, Arc::clone(&self.host));
        let (signals, stop, beat) = (self.signals.clone(), self.stop.child_token(), self.beat);
        self.stops.insert(watcher, stop.clone());
        let started = match watcher {
            Watcher::Units => {
                let mut units = settings.units.clone();
                if !units.contains(&settings.kubelet_unit) {
                    units.push(settings.kubelet_unit.clone());
                }
                if host.machine().is_some() {
                    for helper in settings.helpers() {
                        if !units.contains(helper) {
                            units.push(helper.clone());
                        }
                    }
                }
                self.running
                    .spawn(async move { host.watch_units(units, signals, stop).await })
            }
            Watcher::Kubelet => self.running.spawn(probe::watch(
                host,
                ProbeTarget::Kubelet,
                settings.kubelet.clone(),
                signals,
                beat,
                stop,
            )),
            Watcher::ApiServer => {
                let Some(api_server) = settings.api_server.clone() else {
                    return;
                };
                self.running.spawn(probe::watch(
                    host,
                    ProbeTarget::ApiServer,
                    api_server,
                    signals,
                    beat,
                    stop,
                ))
            }
            Watcher::Disks => self.running.spawn(disk::watch(
                host,
                settings.disks.clone(),
                self.disks.clone(),
                signals,
                beat,
                stop,
            )),
            Watcher::Logs => self.running.spawn(logs::watch(
                settings.logs.clone(),
                settings.disks.clone(),
                self.disks.subscribe(),
                signals,
                stop,
            )),
            Watcher::Runtimes => {
                self.running
                    .spawn(runtime::watch(settings.runtime.clone(), signals, beat, stop))
            }
            Watcher::Network => {
                let Some(machine) = host.machine() else { return };
                let around = Surroundings {
                    sources: machine.network,
                    runtime_dir: settings.runtime_dir.clone(),
                    coordinator: self.link.clone(),
                    beat,
                };
                let watching = network::watch(settings.network.clone(), around, signals, stop);
                self.running.spawn(watching)
            }
            Watcher::Pleg => self.running.spawn(pleg::watch(
                settings.kubelet_unit.clone(),
                settings.pleg.clone(),
                signals,
                stop,
            )),
            Watcher::Holders => self.running.spawn(holders::watch(
                settings.disks.clone(),
                self.disks.subscribe(),
                signals,
                stop,
            )),
            Watcher::Mounts => {
                let Some(machine) = host.machine() else { return };
                let mount_points = settings.disks.iter().map(|disk| disk.mount_point.clone());
                self.running.spawn(mounts::watch(
                    machine.mounts,
                    mount_points.collect(),
                    signals,
                    beat,
                    stop,
                ))
            }
            Watcher::StaticPods => self.running.spawn(static_pods::watch(
                settings.static_pods.clone(),
                settings.runtime.docker.socket.clone(),
                settings.state_dir.clone(),
                signals,
                beat,
                stop,
            )),
            Watcher::Kernel
            | Watcher::Memory
            | Watcher::Load
            | Watcher::Clock
            | Watcher::Certificates
            | Watcher::UnitMemory => {
                let Some(machine) = host.machine() else { return };
                let (state_dir, globs) = (settings.state_dir.clone(), settings.certificates());
                let (limits, units) = (settings.load.clone(), settings.leak_units().to_vec());
                let sources = load::Sources {
                    proc: machine.proc.clone(),
                    cgroups: machine.cgroups.clone(),
                };
                let services = settings.clock.services.clone();
                let tense = memory::Tense::of(&settings.memory);
                self.running.spawn(async move {
                    match watcher {
                        Watcher::Kernel => kernel::watch(&machine.kmsg, signals, stop).await,
                        Watcher::Memory => memory::watch(machine.memory, tense, signals, beat, stop).await,
                        Watcher::Load => load::watch(sources, limits, signals, beat, stop).await,
                        Watcher::UnitMemory => {
                            unit_memory::watch(units, machine.cgroups, machine.proc, signals, stop).await;
                        }
                        Watcher::Clock => {
                            clock::watch(state_dir, machine.clocks, services, signals, beat, stop).await;
                        }
                        Watcher::Certificates => {
                            certificates::watch(globs, state_dir, machine.clocks, signals, stop).await;
                        }
                        Watcher::Units
                        | Watcher::Kubelet
                        | Watcher::ApiServer
                        | Watcher::Disks
                        | Watcher::Logs
                        | Watcher::Runtimes
                        | Watcher::Mounts
                        | Watcher::Holders
                        | Watcher::StaticPods
                        | Watcher::Pleg
                        | Watcher::Network => {}
                    }
                })
            }
        };
        self.names.insert(started.id(), watcher);
    }
}
