//! Real agents of masters whose container runtimes hang at once: one after the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_agent::config::{
    CoordinatorSettings, GateRole, PERMIT_WAIT, ProbeSettings, RuntimeEndpoint, Settings,
};
use blackstart_agent::host::Host;
use blackstart_agent::host::sim::{SimCluster, SimHost, SimMachine, SimSpec};
use blackstart_agent::ledger::{Ledger, Outcome, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::permits::MASTERS;
use crate::support::{NODES, World, within};

const DOCKER: &str = "docker.service";

/// A dockerd that answers, unless its process is the one that hangs.
struct Dockerd {
    hangs: Arc<Mutex<Option<u32>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Dockerd {
    fn start(socket: &Path, host: Arc<SimHost>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let hangs = Arc::new(Mutex::new(None));
        let hung = Arc::clone(&hangs);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (hung, host) = (Arc::clone(&hung), Arc::clone(&host));
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let read = stream.read(&mut request).await.unwrap_or_default();
                    let pid = host.unit_state(DOCKER).await.unwrap().main_pid;
                    let events = String::from_utf8_lossy(&request[..read]).contains("/events");
                    if events || *hung.lock().unwrap() == Some(pid) {
                        // Until the other end gives up.
                        let _ended = stream.read(&mut request).await;
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]";
                    let _gone = stream.write_all(answer).await;
                });
            }
        });
        Self { hangs, task }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Master {
    machine: SimMachine,
    dockerd: Dockerd,
    ledger: PathBuf,
}

fn master(world: &World, name: &'static str, cluster: &Arc<SimCluster>) -> Master {
    let dir = world.path(name);
    std::fs::create_dir_all(&dir).unwrap();
    let spec = SimSpec {
        name: name.to_owned(),
        is_master: true,
        kubelet_start: Duration::from_millis(100),
        disks: Vec::new(),
    };
    let host = Arc::new(SimHost::new(spec, Arc::clone(cluster)));
    let dockerd = Dockerd::start(&dir.join("docker.sock"), Arc::clone(&host));
    let probe = |port, path| ProbeSettings {
        interval: Duration::from_millis(300),
        ..ProbeSettings::new(port, path)
    };
    let mut settings = Settings::for_node(name);
    settings.state_dir = dir.join("state");
    settings.runtime_dir = dir.join("run");
    settings.boot_id_file = dir.join("boot_id");
    settings.coordinator = Some(CoordinatorSettings {
        addresses: vec![world.address()],
        tls: world.files(name),
        report_interval: Duration::from_millis(300),
        permit_wait: PERMIT_WAIT,
    });
    settings.gate.role = GateRole::ControlPlane;
    settings.kubelet = probe(10248, "/healthz");
    settings.api_server = Some(probe(6443, "/readyz"));
    settings.disks.clear();
    settings.logs.globs.clear();
    settings.preflight.certificates.clear();
    settings.preflight.container_runtimes.clear();
    settings.preflight.etcd_data.clear();
    settings.runtime.docker = RuntimeEndpoint {
        socket: dir.join("docker.sock"),
        ..settings.runtime.docker
    };
    settings.runtime.containerd.socket = dir.join("containerd.sock");
    settings.runtime.interval = Duration::from_millis(300);
    settings.runtime.deadline = Duration::from_secs(1);
    let ledger = settings.ledger();
    Master {
        machine: SimMachine::new(settings, host),
        dockerd,
        ledger,
    }
}

/// The restart of the runtime that succeeded.
fn restarted(ledger: &Path) -> Option<Record> {
    let records = Ledger::read(ledger).ok()?.records;
    let is = |record: &Record| {
        record.intent.remedy == "restart-runtime" && matches!(record.outcome, Some(Outcome::Succeeded { .. }))
    };
    records.into_iter().find(is)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_masters_whose_runtimes_hang_at_once_are_mended_one_after_the_other() {
    let mut world = World::of(MASTERS, |_| {}).await;
    let cluster = Arc::new(SimCluster::new(2, Duration::from_millis(100)));
    let mut masters = NODES.map(|name| master(&world, name, &cluster));
    for master in &mut masters {
        master.machine.power_on().unwrap();
    }
    let mut operator = world.operator().await;
    within("three masters that are up", async {
        loop {
            let listed = operator
                .list_clusters(blackstart_proto::v1::ListClustersRequest {})
                .await;
            if listed.unwrap().into_inner().clusters[0].control_planes_ready == 3 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for master in &masters[..2] {
        let pid = master.machine.host().unit_state(DOCKER).await.unwrap().main_pid;
        *master.dockerd.hangs.lock().unwrap() = Some(pid);
    }
    let mut spans = Vec::new();
    for master in &masters[..2] {
        let record = within("a restarted runtime", async {
            loop {
                if let Some(record) = restarted(&master.ledger) {
                    return record;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        spans.push((record.at_unix_ms, record.at_unix_ms + record.took_ms));
    }
    spans.sort_unstable();
    assert!(spans[0].1 <= spans[1].0, "both at once: {spans:?}");
    for master in &mut masters {
        master.machine.cut_power();
    }
    world.stop().await;
}
