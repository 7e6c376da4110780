//! Masters that are processes of this machine: static pods, each run from its manifest by a stand-in kubelet; the real agents; a real coordinator,
//! a process of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::config::{ComponentSettings, CoordinatorSettings, Settings};
use blackstart_agent::run::{Notify, run};
use blackstart_coordinator::pki::{Authority, PkiError};
use blackstart_proto::part::Part;
use blackstart_proto::tls::TlsFiles;
use blackstart_tests::component::Mood;
use blackstart_tests::masters::store;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::coordinator::{Coordinator, free_port};
use super::super::power_loss::{Place, issue};
use super::super::topology::{Role, Topology};
use super::bed::{Asked, Bed, ETCD, Files, Ground, Master, OLD_ETCD};
use super::kubelet::Kubelet;
use super::machine::Machine;
use crate::failure::Failure;
use crate::settings::{Connection, Shows};

/// What runs for them.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) coordinator: Coordinator,
    runs: Vec<Runs>,
}

/// What runs for one master.
#[derive(Debug)]
struct Runs {
    kubelet: Kubelet,
    stop: CancellationToken,
    agent: JoinHandle<Option<String>>,
}

/// Where a member of etcd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemberPorts {
    client: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
}

impl Processes {
    /// Lays everything out below `place`, and starts it; with this program of etcd's, if the drill has one.
    pub(super) fn start(place: &Place, cluster: &str, etcd: Option<&Path>) -> Result<Bed, Failure> {
        let mut topology = Topology::new(&[cluster.to_owned()], None)?;
        for one in &mut topology.clusters {
            one.machines.retain(|machine| machine.role == Role::Master);
        }
        let dir = place.dir();
        let failed =
            |error: io::Error| Failure::other(format!("lay out the drill below {}: {error}", dir.display()));
        let pki = dir.join("pki");
        let of_pki = |error: PkiError| Failure::other(format!("make the drill's certificates: {error}"));
        let tls = issue(&pki, &topology).map_err(of_pki)?;
        let second = Authority::open(&pki)
            .and_then(|authority| authority.issue_operator("second"))
            .map_err(of_pki)?;
        let mut coordinator =
            Coordinator::new(&dir.join("coordinator"), &pki, (&topology, None), "").map_err(failed)?;
        coordinator.power_on().map_err(failed)?;
        let connections = [tls, second].map(|tls| Connection {
            coordinators: vec![coordinator.address()],
            shows: Shows::Certificate(tls),
            timeout: Duration::from_secs(10),
        });
        let program = std::env::current_exe().map_err(failed)?;
        let (mut masters, mut runs) = (Vec::new(), Vec::new());
        let mut ports = Ports::default();
        let members = members(&topology, etcd.is_some(), &mut ports).map_err(failed)?;
        let list: Vec<_> = members
            .iter()
            .flatten()
            .map(|(name, member)| format!("{name}=http://{}", member.peer))
            .collect();
        for ((_, machine), member) in topology.machines().zip(members) {
            let at = place.nodes().join(&machine.name);
            let member = member.map(|(_, member)| member);
            let laid_out = LaidOut::new(&machine.name, &at, &pki, coordinator.address(), &mut ports);
            let mut laid_out = laid_out.map_err(failed)?;
            if let (Some(member), Some(program)) = (member, etcd) {
                laid_out
                    .with_etcd(member, program, &list.join(","))
                    .map_err(failed)?;
            }
            let (master, run) = laid_out.begin(&program);
            masters.push(master);
            runs.push(run);
        }
        let ground = Ground::Processes(Self { coordinator, runs });
        Ok(Bed::new(ground, cluster, masters, connections))
    }

    /// The process of a static pod; 0: it has none now.
    pub(super) fn process(&self, at: usize, pod: &str) -> u32 {
        let runs = self.runs.get(at);
        runs.and_then(|runs| runs.kubelet.process(pod))
            .unwrap_or_default()
    }

    /// Ends the agents, and waits for them.
    pub(super) async fn stop_agents(&mut self) {
        for runs in &mut self.runs {
            runs.stop.cancel();
            let _ended = timeout(Duration::from_secs(10), &mut runs.agent).await;
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for runs in &self.runs {
            runs.stop.cancel();
            runs.agent.abort();
        }
    }
}

/// As kubeadm writes it, with this health port and certificate.
fn text(part: Part, health: SocketAddr, certificate: &Path) -> String {
    let etcd = match part {
        Part::ApiServer => format!("    - --etcd-servers={OLD_ETCD}\n"),
        Part::ControllerManager | Part::Scheduler => String::new(),
    };
    let path = match part {
        Part::ApiServer => "livez",
        Part::ControllerManager | Part::Scheduler => "healthz",
    };
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: {part}
  namespace: kube-system
spec:
  containers:
  - name: {part}
    command:
    - {part}
{etcd}    - --tls-cert-file={}
    livenessProbe:
      httpGet: {{host: 127.0.0.1, path: /{path}, port: {}, scheme: HTTP}}
  hostNetwork: true
",
        certificate.display(),
        health.port()
    )
}

/// Ports of one drill. Nobody listens on them before all are laid out, so that a free one could be given out twice.
#[derive(Debug, Default)]
struct Ports(BTreeSet<u16>);

impl Ports {
    fn next(&mut self) -> io::Result<SocketAddr> {
        loop {
            let address = free_port()?;
            if self.0.insert(address.port()) {
                return Ok(address);
            }
        }
    }
}

/// Ports for a member of each master; none, where there is no etcd.
fn members(
    topology: &Topology,
    has_etcd: bool,
    ports: &mut Ports,
) -> io::Result<Vec<Option<(String, MemberPorts)>>> {
    let machines = topology.machines().map(|(_, machine)| machine.name.clone());
    machines
        .map(|name| {
            if !has_etcd {
                return Ok(None);
            }
            let member = MemberPorts {
                client: ports.next()?,
                peer: ports.next()?,
                metrics: ports.next()?,
            };
            Ok(Some((name, member)))
        })
        .collect()
}

/// A master before anything runs on it.
#[derive(Debug)]
struct LaidOut {
    dir: PathBuf,
    settings: Settings,
    master: Master,
}

impl LaidOut {
    /// Its files.
    fn new(
        name: &str,
        dir: &Path,
        pki: &Path,
        coordinator: SocketAddr,
        ports: &mut Ports,
    ) -> io::Result<Self> {
        for part in ["manifests", "moods", "logs", "pki"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("boot_id"), fs::read("/proc/sys/kernel/random/uuid")?)?;
        let mut asked = Vec::new();
        for part in Part::ALL {
            let address = ports.next()?;
            asked.push(Asked {
                pod: part.pod().to_owned(),
                at: address,
                path: "/healthz",
            });
            let certificate = dir.join("pki").join(format!("{}.crt", part.as_str()));
            fs::copy(pki.join("coordinator.crt"), &certificate)?;
            Mood::Well.write(&dir.join("moods").join(part.pod()))?;
            fs::write(
                dir.join("manifests").join(format!("{part}.yaml")),
                text(part, address, &certificate),
            )?;
        }
        let mut settings = Settings {
            state_dir: dir.join("state"),
            runtime_dir: dir.join("run"),
            boot_id_file: dir.join("boot_id"),
            units: Vec::new(),
            disks: Vec::new(),
            coordinator: Some(CoordinatorSettings {
                addresses: vec![coordinator],
                tls: TlsFiles::in_dir(pki, name),
                report_interval: Duration::from_millis(300),
                permit_wait: Duration::from_mins(2),
            }),
            ..Settings::for_node(name)
        };
        settings.logs.globs = Vec::new();
        settings.preflight.certificates = Vec::new();
        settings.runtime.docker.socket = dir.join("none.sock");
        let pods = &mut settings.static_pods;
        pods.manifests = dir.join("manifests");
        pods.held = dir.join("blackstart-held");
        pods.logs = dir.join("logs");
        pods.components = Part::ALL
            .map(|part| ComponentSettings {
                port: None,
                ..ComponentSettings::new(part.pod(), 1, "/healthz")
            })
            .into();
        // What agents do by themselves is not what is rehearsed here.
        pods.failures_to_raise = 100;
        pods.deadline = Duration::from_millis(500);
        pods.out_at_least = Duration::from_millis(500);
        pods.gone_deadline = Duration::from_secs(20);
        pods.ready_deadline = Duration::from_secs(4);
        let files = Files {
            root: PathBuf::from("/"),
            etc: dir.to_owned(),
            moods: dir.join("moods"),
            data: dir.join("etcd"),
            snapshots: dir.join("snapshots"),
            ledger: settings.ledger(),
        };
        Ok(Self {
            dir: dir.to_owned(),
            settings,
            master: Master {
                name: name.to_owned(),
                files,
                asked,
                etcd: None,
            },
        })
    }

    /// A member of etcd beside it.
    fn with_etcd(&mut self, member: MemberPorts, program: &Path, list: &str) -> io::Result<()> {
        let (master, settings) = (&mut self.master, &mut self.settings);
        let text = etcd_text(&master.name, &member, program, (&master.files.data, list));
        fs::write(master.etcd_manifest(), text)?;
        let path = "/health?serializable=true";
        let component = ComponentSettings::new(ETCD, member.metrics.port(), path);
        settings.static_pods.components.push(component);
        settings.etcd.snapshots.dir.clone_from(&master.files.snapshots);
        settings.etcd.snapshots.min_free = 1 << 20;
        settings.etcd.tools = ["etcdutl", "etcdctl"]
            .map(|tool| program.with_file_name(tool))
            .into();
        master.asked.push(Asked {
            pod: ETCD.to_owned(),
            at: member.metrics,
            path,
        });
        master.etcd = Some(store::Member {
            address: member.client,
            tls: None,
        });
        Ok(())
    }

    /// Its kubelet and its agent run from now on. `program` is this command.
    fn begin(self, program: &Path) -> (Master, Runs) {
        let kubelet = Kubelet::start(&self.dir, &self.master.name, program);
        let stop = CancellationToken::new();
        let (until, given) = (stop.clone(), self.settings);
        let agent = tokio::spawn(async move {
            let ended = run(given, Arc::new(Machine), Notify::none(), until).await;
            ended.err().map(|error| error.to_string())
        });
        let runs = Runs { kubelet, stop, agent };
        (self.master, runs)
    }
}

/// As kubeadm writes it, but for TLS.
fn etcd_text(name: &str, member: &MemberPorts, program: &Path, (data, list): (&Path, &str)) -> String {
    let MemberPorts {
        client,
        peer,
        metrics,
    } = member;
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: {ETCD}
  namespace: kube-system
spec:
  containers:
  - name: {ETCD}
    command:
    - {}
    - --advertise-client-urls=http://{client}
    - --data-dir={}
    - --initial-advertise-peer-urls=http://{peer}
    - --initial-cluster={list}
    - --listen-client-urls=http://{client}
    - --listen-metrics-urls=http://{metrics}
    - --listen-peer-urls=http://{peer}
    - --logger=zap
    - --name={name}
    image: registry.k8s.io/etcd:drill
  hostNetwork: true
",
        program.display(),
        data.display()
    )
}
