//! Three masters of the plan's business cluster: static pods that are processes, each run from its manifest by a stand-in kubelet; the real agents;
//! a real coordinator, a process of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blackstart_agent::config::{ComponentSettings, CoordinatorSettings, Settings};
use blackstart_agent::run::{Notify, run};
use blackstart_coordinator::pki::{Authority, PkiError};
use blackstart_proto::part::Part;
use blackstart_proto::tls::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::coordinator::{Coordinator, free_port};
use super::super::power_loss::{Place, issue};
use super::super::seen::millis;
use super::super::topology::{Role, Topology};
use super::chronicle::{Health, Out};
use super::kubelet::{Kubelet, What};
use super::machine::Machine;
use super::part::Mood;
use crate::failure::Failure;
use crate::settings::{Connection, Shows};

/// Health ports are looked at so often, to judge by; an answer may take so long.
const LOOK: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_millis(300);
/// What API servers are told of etcd at first.
pub(super) const OLD_ETCD: &str = "https://127.0.0.1:2379";

/// One master.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    /// Where each part answers.
    pub(super) health: Vec<(Part, SocketAddr)>,
    pub(super) kubelet: Option<Kubelet>,
    agent: Option<(CancellationToken, JoinHandle<Option<String>>)>,
    settings: Settings,
    /// Its member, where the drill has etcd.
    pub(super) etcd: Option<Member>,
}

/// Where a member of etcd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) client: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
}

/// Of etcd.
pub(super) const ETCD: &str = "etcd";

impl Master {
    /// The process of a static pod; 0: it has none now.
    pub(super) fn process(&self, pod: &str) -> u32 {
        let kubelet = self.kubelet.as_ref();
        kubelet
            .and_then(|kubelet| kubelet.process(pod))
            .unwrap_or_default()
    }

    /// The manifest of its member.
    pub(super) fn etcd_manifest(&self) -> PathBuf {
        self.dir.join("manifests/etcd.yaml")
    }

    /// Where its member's data is.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    /// Each static pod, with where it is asked.
    fn watched(&self) -> Vec<(String, String, SocketAddr, &'static str)> {
        let parts = self
            .health
            .iter()
            .map(|(part, at)| (self.name.clone(), part.pod().to_owned(), *at, "/healthz"));
        let member = self.etcd.map(|member| {
            (
                self.name.clone(),
                ETCD.to_owned(),
                member.metrics,
                "/health?serializable=true",
            )
        });
        parts.chain(member).collect()
    }

    pub(super) fn manifest(&self, part: Part) -> PathBuf {
        self.dir.join("manifests").join(format!("{part}.yaml"))
    }

    pub(super) fn certificate(&self, part: Part) -> PathBuf {
        self.dir.join("pki").join(format!("{}.crt", part.as_str()))
    }

    fn mood(&self, part: Part) -> PathBuf {
        self.dir.join("moods").join(part.pod())
    }

    pub(super) fn set(&self, part: Part, mood: Mood) -> io::Result<()> {
        mood.write(&self.mood(part))
    }

    /// Where the agent's ledger is.
    pub(super) fn ledger(&self) -> PathBuf {
        self.settings.ledger()
    }
}

/// All of it. What runs ends when it is dropped.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) masters: Vec<Master>,
    pub(super) cluster: String,
    pub(super) coordinator: Coordinator,
    pub(super) connection: Connection,
    /// Of another operator.
    pub(super) second: Connection,
    began: Instant,
    health: Arc<Mutex<Vec<Health>>>,
    watch: JoinHandle<()>,
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

impl Bed {
    /// Lays everything out below `place`, and starts it; with this program of etcd's, if the drill has one.
    pub(super) fn start(place: &Place, cluster: &str, etcd: Option<&Path>) -> Result<Self, Failure> {
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
        let program = std::env::current_exe().map_err(failed)?;
        let mut masters = Vec::new();
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
            let master = Master::lay_out(&machine.name, &at, &pki, coordinator.address(), &mut ports);
            let mut master = master.map_err(failed)?;
            if let (Some(member), Some(program)) = (member, etcd) {
                master
                    .with_etcd(member, program, &list.join(","))
                    .map_err(failed)?;
            }
            master.begin(&program);
            masters.push(master);
        }
        let health = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        let watched = masters.iter().flat_map(Master::watched).collect();
        Ok(Self {
            masters,
            cluster: cluster.to_owned(),
            connection: Connection {
                coordinators: vec![coordinator.address()],
                shows: Shows::Certificate(tls),
                timeout: Duration::from_secs(10),
            },
            second: Connection {
                coordinators: vec![coordinator.address()],
                shows: Shows::Certificate(second),
                timeout: Duration::from_secs(10),
            },
            coordinator,
            began,
            watch: tokio::spawn(watch(watched, began, Arc::clone(&health))),
            health,
        })
    }

    /// The drill's clock.
    pub(super) fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// How health ports were seen to answer, each time that it changed.
    pub(super) fn health(&self) -> Vec<Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every part answers.
    pub(super) fn is_well(&self) -> bool {
        let health = self.health();
        self.masters
            .iter()
            .flat_map(Master::watched)
            .all(|(node, pod, ..)| {
                let last = health.iter().rev().find(|one| one.node == node && one.pod == pod);
                last.is_some_and(|last| last.well)
            })
    }

    /// When which manifest was away.
    pub(super) fn outs(&self) -> Vec<Out> {
        let mut outs: Vec<Out> = Vec::new();
        for master in &self.masters {
            for seen in master.kubelet.iter().flat_map(Kubelet::record) {
                let at = millis(seen.at.saturating_duration_since(self.began));
                let is_this = |out: &&mut Out| out.node == master.name && out.pod == seen.pod;
                match seen.what {
                    What::Went => outs.push(Out {
                        node: master.name.clone(),
                        pod: seen.pod,
                        gone_ms: at,
                        back_ms: None,
                    }),
                    What::Changed => outs.push(Out {
                        node: master.name.clone(),
                        pod: seen.pod,
                        gone_ms: at,
                        back_ms: Some(at),
                    }),
                    What::Came => {
                        let open = outs.iter_mut().rev().find(is_this);
                        if let Some(out) = open.filter(|out| out.back_ms.is_none()) {
                            out.back_ms = Some(at);
                        }
                    }
                }
            }
        }
        outs.sort_by_key(|out| out.gone_ms);
        outs
    }

    /// Ends the agents, and waits for them: their ledgers are closed then.
    pub(super) async fn stop_agents(&mut self) {
        for master in &mut self.masters {
            if let Some((stop, task)) = &mut master.agent {
                stop.cancel();
                let _ended = timeout(Duration::from_secs(10), task).await;
            }
        }
        self.watch.abort();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.watch.abort();
        for master in &self.masters {
            if let Some((stop, task)) = &master.agent {
                stop.cancel();
                task.abort();
            }
        }
    }
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
) -> io::Result<Vec<Option<(String, Member)>>> {
    let machines = topology.machines().map(|(_, machine)| machine.name.clone());
    machines
        .map(|name| {
            if !has_etcd {
                return Ok(None);
            }
            let member = Member {
                client: ports.next()?,
                peer: ports.next()?,
                metrics: ports.next()?,
            };
            Ok(Some((name, member)))
        })
        .collect()
}

impl Master {
    /// Its files. Nothing runs yet.
    fn lay_out(
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
        let mut health = Vec::new();
        for part in Part::ALL {
            let address = ports.next()?;
            health.push((part, address));
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
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            health,
            kubelet: None,
            agent: None,
            settings,
            etcd: None,
        })
    }

    /// A member of etcd beside it.
    fn with_etcd(&mut self, member: Member, program: &Path, list: &str) -> io::Result<()> {
        let text = etcd_text(&self.name, &member, program, (&self.data(), list));
        fs::write(self.etcd_manifest(), text)?;
        let settings = &mut self.settings;
        settings.static_pods.components.push(ComponentSettings::new(
            ETCD,
            member.metrics.port(),
            "/health?serializable=true",
        ));
        settings.etcd.snapshots.dir = self.dir.join("snapshots");
        settings.etcd.snapshots.min_free = 1 << 20;
        settings.etcd.tools = ["etcdutl", "etcdctl"]
            .map(|tool| program.with_file_name(tool))
            .into();
        self.etcd = Some(member);
        Ok(())
    }

    /// Its kubelet and its agent run from now on. `program` is this command.
    fn begin(&mut self, program: &Path) {
        self.kubelet = Some(Kubelet::start(&self.dir, &self.name, program));
        let stop = CancellationToken::new();
        let (until, given) = (stop.clone(), self.settings.clone());
        let agent = tokio::spawn(async move {
            let ended = run(given, Arc::new(Machine), Notify::none(), until).await;
            ended.err().map(|error| error.to_string())
        });
        self.agent = Some((stop, agent));
    }
}

/// As kubeadm writes it, but for TLS.
fn etcd_text(name: &str, member: &Member, program: &Path, (data, list): (&Path, &str)) -> String {
    let Member {
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

/// Asks every health port, again and again.
async fn watch(
    watched: Vec<(String, String, SocketAddr, &'static str)>,
    began: Instant,
    seen: Arc<Mutex<Vec<Health>>>,
) {
    let one = async |(node, pod, at, path): (String, String, SocketAddr, &'static str)| {
        let mut last = None;
        loop {
            let well = matches!(timeout(ANSWER, asked(at, path)).await, Ok(Ok(true)));
            if last != Some(well) {
                last = Some(well);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Health {
                    at_ms: millis(began.elapsed()),
                    node: node.clone(),
                    pod: pod.clone(),
                    well,
                });
            }
            sleep(LOOK).await;
        }
    };
    futures_util::future::join_all(watched.into_iter().map(one)).await;
}

async fn asked(at: SocketAddr, path: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(at).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
