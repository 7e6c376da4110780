//! The simulated ground: machines, their agents' settings and certificates, and what their records say afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::config::{CoordinatorSettings, DiskSettings, GateRole, ProbeSettings, Settings};
use blackstart_agent::gate::GateState;
use blackstart_agent::host::sim::{SimCluster, SimEvent, SimHost, SimMachine, SimRecord, SimSpec};
use blackstart_agent::ledger::{Ledger, Outcome};
use blackstart_proto::tls::TlsFiles;
use tokio::time::Instant;

use super::history::{Entry, Kubelet, NodeHistory};
use super::show::{Seat, Stage};
use super::topology::{Role, Topology};
use crate::failure::Failure;

/// From a quorum of masters to a ready API server.
const API_SERVER_START: Duration = Duration::from_millis(400);
/// Agents look and report this often: a drill is a rehearsal in fast motion.
const LOOK: Duration = Duration::from_millis(200);
const REPORT: Duration = Duration::from_millis(300);
const PROBE_DEADLINE: Duration = Duration::from_millis(500);

/// One machine of the drill.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) cluster: String,
    pub(super) role: Role,
    pub(super) machine: SimMachine,
}

/// All machines, by name.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) nodes: BTreeMap<String, Node>,
    /// Names in the order of the topology.
    pub(super) order: Vec<String>,
}

impl Fleet {
    /// Machines without power, each with a directory of its own below `dir`; `kubelet_start`: how long each one's kubelet takes from its
    /// start to health.
    pub(super) fn new(
        dir: &Path,
        pki: &Path,
        coordinator: SocketAddr,
        topology: &Topology,
        kubelet_start: &BTreeMap<String, Duration>,
    ) -> io::Result<Self> {
        let control_planes: BTreeMap<_, _> = topology
            .clusters
            .iter()
            .map(|cluster| {
                let control_plane = SimCluster::new(cluster.quorum(), API_SERVER_START);
                (cluster.name.as_str(), Arc::new(control_plane))
            })
            .collect();
        let mut nodes = BTreeMap::new();
        for (cluster, machine) in topology.machines() {
            let name = &machine.name;
            let root = dir.join(name);
            fs::create_dir_all(root.join("logs"))?;
            let spec = SimSpec {
                name: name.clone(),
                is_master: machine.role == Role::Master,
                kubelet_start: kubelet_start.get(name).copied().unwrap_or_default(),
                disks: vec![("/".into(), 100 << 30)],
            };
            let host = SimHost::new(spec, Arc::clone(&control_planes[cluster.name.as_str()]));
            let settings = settings(name, machine.role, &root, pki, coordinator);
            let node = Node {
                cluster: cluster.name.clone(),
                role: machine.role,
                machine: SimMachine::new(settings, Arc::new(host)),
            };
            nodes.insert(name.clone(), node);
        }
        Ok(Self {
            nodes,
            order: topology.machines().map(|(_, m)| m.name.clone()).collect(),
        })
    }

    /// Gives one machine its power back.
    pub(super) fn power_on(&mut self, name: &str) -> Result<(), Failure> {
        let Some(node) = self.nodes.get_mut(name) else {
            return Ok(());
        };
        node.machine
            .power_on()
            .map_err(|error| Failure::other(format!("start the simulated machine {name}: {error}")))
    }

    /// Takes it from one.
    pub(super) fn power_off(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.machine.cut_power();
        }
    }

    /// Takes it from all.
    pub(super) fn cut_power(&mut self) {
        for node in self.nodes.values_mut() {
            node.machine.cut_power();
        }
    }

    /// Each as it stands, in order.
    pub(super) fn seats(&self) -> Vec<Seat<'_>> {
        let now = Instant::now();
        let seat = |name| {
            let node: &Node = &self.nodes[name];
            Seat {
                cluster: &node.cluster,
                name,
                role: node.role,
                stage: node.machine.host().stage(now).into(),
            }
        };
        self.order.iter().map(String::as_str).map(seat).collect()
    }

    /// How many are in that stage.
    pub(super) fn count(&self, stage: Stage) -> usize {
        self.seats().iter().filter(|seat| seat.stage == stage).count()
    }

    /// What each did since `cut`, by its own record, and by its agent's ledger.
    pub(super) fn histories(&self, cut: Instant) -> Result<Vec<NodeHistory>, Failure> {
        let now = Instant::now();
        self.order
            .iter()
            .map(|name| history(name, &self.nodes[name], cut, now))
            .collect()
    }
}

fn settings(name: &str, role: Role, root: &Path, pki: &Path, coordinator: SocketAddr) -> Settings {
    let mut settings = Settings::for_node(name);
    settings.state_dir = root.join("state");
    settings.runtime_dir = root.join("run");
    settings.boot_id_file = root.join("boot_id");
    settings.coordinator = Some(CoordinatorSettings {
        addresses: vec![coordinator],
        tls: TlsFiles::in_dir(pki, name),
        report_interval: REPORT,
        permit_wait: blackstart_agent::config::PERMIT_WAIT,
    });
    let probe = |port, path| ProbeSettings {
        interval: LOOK,
        deadline: PROBE_DEADLINE,
        ..ProbeSettings::new(port, path)
    };
    settings.kubelet = probe(10248, "/healthz");
    settings.api_server = (role == Role::Master).then(|| probe(6443, "/readyz"));
    settings.disks = vec![DiskSettings::at("/")];
    // The logs, certificates, runtimes and etcd of the machine that the drill is held on are none of its business.
    settings.logs.globs = vec![root.join("logs/**").display().to_string()];
    settings.preflight.certificates.clear();
    settings.preflight.container_runtimes.clear();
    settings.preflight.etcd_data.clear();
    settings.gate.role = match role {
        Role::Master => GateRole::ControlPlane,
        Role::Worker => GateRole::Worker,
    };
    settings
}

fn history(name: &str, node: &Node, cut: Instant, now: Instant) -> Result<NodeHistory, Failure> {
    let ms = |at: Instant| {
        let since = at.saturating_duration_since(cut).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    };
    let host = node.machine.host();
    let mut told = NodeHistory {
        name: name.to_owned(),
        cluster: node.cluster.clone(),
        role: node.role,
        powered_ms: None,
        booted_ms: None,
        gate: None,
        kubelets: Vec::new(),
        api_ready_ms: host.api_server_ready_at().filter(|at| *at <= now).map(ms),
        healthy_at_end: host.kubelet_is_healthy(now),
        ledger: ledger(name, &node.machine.settings().ledger())?,
        agent_failed: None,
    };
    for SimRecord { at, event } in host.record() {
        match event {
            // The first life and its end are not judged.
            SimEvent::PowerCut => {
                told.powered_ms = None;
                told.booted_ms = None;
                told.gate = None;
                told.kubelets.clear();
            }
            SimEvent::PoweredOn => {
                told.powered_ms = Some(ms(at));
                // A simulated boot takes no time.
                told.booted_ms = told.powered_ms;
            }
            SimEvent::GateOpened(why) => told.gate = Some((ms(at), gate(why))),
            SimEvent::KubeletStarted { healthy_after } => told.kubelets.push(Kubelet {
                started_ms: ms(at),
                healthy_ms: Some(at + healthy_after).filter(|at| *at <= now).map(ms),
                stopped_ms: None,
            }),
            SimEvent::KubeletStopped => {
                if let Some(kubelet) = told.kubelets.last_mut() {
                    kubelet.stopped_ms = Some(ms(at));
                    kubelet.healthy_ms = kubelet.healthy_ms.filter(|healthy| *healthy < ms(at));
                }
            }
            SimEvent::Fault(_) => {}
            SimEvent::AgentEnded(why) => told.agent_failed = Some(why),
        }
    }
    Ok(told)
}

fn gate(opened: Result<GateState, String>) -> String {
    match opened {
        Ok(state) => gate_words(state).to_owned(),
        Err(why) => format!("it failed: {why}"),
    }
}

/// What a gate that ended in this state has done.
pub(super) const fn gate_words(state: GateState) -> &'static str {
    match state {
        GateState::Absent => "absent",
        GateState::Held => "it ended while it held",
        GateState::Released => "released",
        GateState::Passed => "passed by itself",
        GateState::DeadMan => "dead-man time",
    }
}

/// Every record of a ledger.
pub(super) fn ledger(name: &str, path: &Path) -> Result<Vec<Entry>, Failure> {
    let contents = Ledger::read(path)
        .map_err(|error| Failure::other(format!("read the ledger of {name} after the drill: {error}")))?;
    let entry = |record: blackstart_agent::ledger::Record| Entry {
        sequence: record.sequence.0,
        remedy: record.intent.remedy,
        command: record.intent.command_id,
        boot: record.boot,
        epoch: record.epoch,
        succeeded: matches!(record.outcome, Some(Outcome::Succeeded { .. })),
    };
    Ok(contents.records.into_iter().map(entry).collect())
}
