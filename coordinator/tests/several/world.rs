//! Three coordinators, each a process with lines of its own to a real etcd and to the agents; and simulated machines with
//! real agents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::config::{CoordinatorSettings, DiskSettings, GateRole, ProbeSettings};
use blackstart_agent::host::sim::{SimCluster, SimHost, SimMachine, SimSpec, SimStage};
use blackstart_agent::ledger::Ledger;
use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::{TlsFiles, client_config};
use blackstart_proto::v1::coordinator_service_client::CoordinatorServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{
    ListCoordinatorsRequest, ListCoordinatorsResponse, ListNodesRequest, ListRunsRequest, NodePhase,
    NodeSummary, RunSummary,
};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::etcd::{Etcd, Line, Proxy, free_port, signal};

/// Nothing that these tests wait for takes longer on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) const MASTER: &str = "biz-1";
pub(crate) const WORKERS: [&str; 4] = ["biz-2", "biz-3", "biz-4", "biz-5"];

pub(crate) const INVENTORY: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane}
      - {name: biz-2, address: 10.0.0.2}
      - {name: biz-3, address: 10.0.0.3}
      - {name: biz-4, address: 10.0.0.4}
      - {name: biz-5, address: 10.0.0.5}
";

/// Asks again until there is an answer, by a deadline.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = timeout(DEADLINE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            sleep(LOOK).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("waited for {what} in vain"))
}

pub(crate) struct Coordinator {
    pub(crate) dir: PathBuf,
    pub(crate) listens: SocketAddr,
    /// Before each member of etcd.
    pub(crate) to_etcd: Vec<Proxy>,
    /// Before itself.
    pub(crate) to_agents: Proxy,
    process: Option<Child>,
}

impl Coordinator {
    fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"))
            .args(["run", "--config"])
            .arg(self.dir.join("coordinator.yaml"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.process.as_ref().unwrap().id().unwrap(), which);
    }

    /// SIGSTOP, and until not one of its threads runs any more.
    pub(crate) async fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let process = self.process.as_ref().unwrap().id().unwrap();
        until("every thread to be stopped", async || {
            let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
            let is_stopped = |thread: fs::DirEntry| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ")
                    .next()
                    .is_none_or(|rest| rest.starts_with('T') || rest.is_empty())
            };
            let all = threads.map(Result::unwrap).all(is_stopped);
            all.then_some(())
        })
        .await;
    }

    /// SIGKILL, and its end.
    pub(crate) async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().await.unwrap();
    }

    /// Its end after a signal: whether it was in order.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut process = self.process.take().unwrap();
        timeout(DEADLINE, process.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    }

    pub(crate) fn cut_from_etcd(&self, line: Line) {
        for proxy in &self.to_etcd {
            proxy.set(line);
        }
    }

    /// When it last logged this, as it writes times: they can be compared.
    pub(crate) fn when(&self, what: &str) -> Option<String> {
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains(what))?;
        Some(line.split(' ').next()?.to_owned())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }
}

/// One world at a time: many at once are slower than leases on a small machine.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) etcd: Etcd,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) machines: BTreeMap<&'static str, SimMachine>,
    /// Dropped last.
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// Everything has been started; nobody need lead yet. The machines have no power.
    pub(crate) async fn new(lease: &str) -> Self {
        Self::with(lease, |_| String::new()).await
    }

    /// With more in the configuration of each coordinator, written once their directory is there.
    pub(crate) async fn with(lease: &str, more: impl FnOnce(&Path) -> String) -> Self {
        let turn = TURN.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("pki")).unwrap();
        for number in 1..=3 {
            authority
                .issue_coordinator(&format!("coordinator-{number}"))
                .unwrap();
        }
        authority.issue_operator("ann").unwrap();
        for node in [MASTER].iter().chain(&WORKERS) {
            authority.issue_node(node).unwrap();
        }
        fs::write(dir.path().join("inventory.yaml"), INVENTORY).unwrap();
        let etcd = Etcd::start(3);
        let more = more(dir.path());
        let mut coordinators = Vec::new();
        for number in 1..=3 {
            let mut coordinator = coordinator(dir.path(), number, &etcd, lease).await;
            let file = coordinator.dir.join("coordinator.yaml");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text + &more).unwrap();
            coordinator.start();
            coordinators.push(coordinator);
        }
        let addresses: Vec<_> = coordinators.iter().map(|c| c.to_agents.address).collect();
        let control_plane = Arc::new(SimCluster::new(1, Duration::from_millis(200)));
        let machines = [MASTER].into_iter().chain(WORKERS);
        let machines = machines.map(|name| (name, machine(dir.path(), name, &addresses, &control_plane)));
        Self {
            _turn: turn,
            machines: machines.collect(),
            coordinators,
            etcd,
            dir,
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        self.coordinators[index].start();
    }

    pub(crate) async fn channel(&self, name: &str, address: SocketAddr) -> Option<Channel> {
        let files = TlsFiles::in_dir(&self.dir.path().join("pki"), name);
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .unwrap()
            .tls_config(client_config(&files.read().unwrap()))
            .unwrap();
        timeout(Duration::from_secs(2), endpoint.connect())
            .await
            .ok()?
            .ok()
    }

    /// The service for operators, called with this certificate.
    pub(crate) async fn as_whom(&self, whom: &str, index: usize) -> FleetServiceClient<Channel> {
        until("a coordinator to answer", async || {
            let channel = self.channel(whom, self.coordinators[index].listens).await?;
            Some(FleetServiceClient::new(channel))
        })
        .await
    }

    /// Whoever does not lead and is not passed over, once it knows who leads.
    pub(crate) async fn follower_but(&self, but: &[usize]) -> usize {
        until("a follower that knows the leader", async || {
            for index in (0..self.coordinators.len()).filter(|index| !but.contains(index)) {
                let Some(answer) = self.asked(index).await else {
                    continue;
                };
                let known = answer.coordinators.iter().any(|coordinator| coordinator.leads);
                if !answer.leads && known {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// What a coordinator says of all of them, by a line of its own; `None` if it does not answer.
    pub(crate) async fn asked(&self, index: usize) -> Option<ListCoordinatorsResponse> {
        let channel = self.channel("ann", self.coordinators[index].listens).await?;
        let mut service = CoordinatorServiceClient::new(channel);
        let asked = service.list_coordinators(ListCoordinatorsRequest {});
        let answer = timeout(Duration::from_secs(5), asked).await.ok()?.ok()?;
        Some(answer.into_inner())
    }

    /// Which one says of itself that it leads, but for those passed over.
    pub(crate) async fn leader_but(&self, but: &[usize]) -> usize {
        until("a leader", async || {
            for index in (0..self.coordinators.len()).filter(|index| !but.contains(index)) {
                if self.coordinators[index].process.is_some()
                    && self.asked(index).await.is_some_and(|answer| answer.leads)
                {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn fleet(&self, leader: usize) -> Option<FleetServiceClient<Channel>> {
        let channel = self.channel("ann", self.coordinators[leader].listens).await?;
        Some(FleetServiceClient::new(channel))
    }

    pub(crate) async fn runs(&self, leader: usize) -> Option<Vec<RunSummary>> {
        let mut fleet = self.fleet(leader).await?;
        let answer = fleet.list_runs(ListRunsRequest {}).await.ok()?;
        Some(answer.into_inner().runs)
    }

    /// All nodes as whoever leads now sees them.
    async fn nodes(&self) -> Option<Vec<NodeSummary>> {
        let leader = self.leader_but(&[]).await;
        let mut fleet = self.fleet(leader).await?;
        let asked = ListNodesRequest {
            cluster: String::new(),
        };
        Some(fleet.list_nodes(asked).await.ok()?.into_inner().nodes)
    }

    /// Until the leader sees all of these as ready.
    pub(crate) async fn ready(&self, names: &[&str]) {
        until("nodes to be ready", async || {
            let nodes = self.nodes().await?;
            let ready = |name: &&str| {
                nodes
                    .iter()
                    .any(|node| node.name == **name && node.phase() == NodePhase::Ready)
            };
            names.iter().all(ready).then_some(())
        })
        .await;
    }

    pub(crate) fn power_on(&mut self, names: &[&'static str]) {
        for name in names {
            self.machines.get_mut(name).unwrap().power_on().unwrap();
        }
    }

    pub(crate) fn cut_power(&mut self) {
        for machine in self.machines.values_mut() {
            machine.cut_power();
        }
    }

    pub(crate) async fn stage(&self, names: &[&str], stage: SimStage) {
        until(&format!("{names:?} to be {stage:?}"), async || {
            let is = |name: &&str| self.machines[*name].host().stage(Instant::now()) == stage;
            names.iter().all(is).then_some(())
        })
        .await;
    }

    /// All was ready, and has lost its power; the leader has seen it go.
    pub(crate) async fn power_loss(&mut self) {
        let all: Vec<_> = self.machines.keys().copied().collect();
        self.power_on(&all);
        self.ready(&all).await;
        self.cut_power();
        self.silent(all.len()).await;
    }

    /// Until the leader hears nothing of so many.
    pub(crate) async fn silent(&self, count: usize) {
        until("nodes to be silent", async || {
            let nodes = self.nodes().await?;
            let silent = nodes.iter().filter(|node| node.phase() == NodePhase::Silent);
            (silent.count() == count).then_some(())
        })
        .await;
    }

    /// Every command that was obeyed anywhere, in the order of time: when, whose, its epoch. All machines have one clock here.
    pub(crate) fn obeyed(&self) -> Vec<(u64, String, u64)> {
        let mut obeyed = Vec::new();
        for (name, machine) in &self.machines {
            let contents = Ledger::read(&machine.settings().ledger()).unwrap();
            let commands = contents
                .records
                .iter()
                .filter(|record| record.intent.command_id.is_some());
            obeyed.extend(commands.map(|record| (record.at_unix_ms, (*name).to_owned(), record.epoch)));
        }
        obeyed.sort();
        obeyed
    }

    /// What the ledgers prove: once a command of an epoch was obeyed anywhere, none of a lower one ever was. How many epochs
    /// acted.
    pub(crate) fn one_hand(&self) -> usize {
        let obeyed = self.obeyed();
        println!("obeyed: {obeyed:?}");
        assert!(
            obeyed.is_sorted_by_key(|(_, _, epoch)| *epoch),
            "two epochs acted: {obeyed:?}"
        );
        let mut epochs: Vec<_> = obeyed.iter().map(|(_, _, epoch)| *epoch).collect();
        epochs.dedup();
        epochs.len()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for coordinator in &self.coordinators {
                println!("── {}\n{}", coordinator.dir.display(), coordinator.log());
            }
        }
    }
}

async fn coordinator(root: &Path, number: usize, etcd: &Etcd, lease: &str) -> Coordinator {
    let dir = root.join(format!("coordinator-{number}"));
    fs::create_dir_all(&dir).unwrap();
    let listens = free_port();
    let mut to_etcd = Vec::new();
    for member in etcd.addresses() {
        to_etcd.push(Proxy::before(member).await);
    }
    let to_agents = Proxy::before(listens).await;
    let endpoints: Vec<_> = to_etcd
        .iter()
        .map(|p| format!("\"http://{}\"", p.address))
        .collect();
    let store = format!("{{endpoints: [{}]", endpoints.join(", "));
    let advertise = to_agents.address;
    let text = configuration(root, number, (listens, advertise), lease, &store);
    fs::write(dir.join("coordinator.yaml"), text).unwrap();
    fs::write(dir.join("boot_id"), format!("boot-of-{number}")).unwrap();
    Coordinator {
        dir,
        listens,
        to_etcd,
        to_agents,
        process: None,
    }
}

/// `store`: what stands in `store.etcd` besides, as the beginning of a mapping.
pub(crate) fn configuration(
    root: &Path,
    number: usize,
    (listens, advertise): (SocketAddr, SocketAddr),
    lease: &str,
    store: &str,
) -> String {
    let at = root.join(format!("coordinator-{number}"));
    let (at, root) = (at.display(), root.display());
    format!(
        "\
listen: [\"{listens}\"]
tls: {{ca: {root}/pki/ca.crt, certificate: {root}/pki/coordinator-{number}.crt, key: {root}/pki/coordinator-{number}.key}}
state_dir: {at}/state
runtime_dir: {at}/run
boot_id_file: {at}/boot_id
inventory: {root}/inventory.yaml
silent_after: 2s
store:
  etcd: {store}, lease_ttl: {lease}, name: coordinator-{number}, advertise: [\"{advertise}\"]}}
"
    )
}

/// As on a machine of its own: what one renews is no other's.
fn own_files(root: &Path, name: &str) -> TlsFiles {
    let issued = TlsFiles::in_dir(&root.join("pki"), name);
    let own = TlsFiles::in_dir(&root.join(name).join("pki"), name);
    fs::create_dir_all(root.join(name).join("pki")).unwrap();
    for (from, to) in [
        (&issued.ca, &own.ca),
        (&issued.certificate, &own.certificate),
        (&issued.key, &own.key),
    ] {
        fs::copy(from, to).unwrap();
    }
    own
}

fn machine(
    root: &Path,
    name: &str,
    coordinators: &[SocketAddr],
    control_plane: &Arc<SimCluster>,
) -> SimMachine {
    let dir = root.join(name);
    fs::create_dir_all(dir.join("logs")).unwrap();
    let is_master = name == MASTER;
    let spec = SimSpec {
        name: name.to_owned(),
        is_master,
        kubelet_start: Duration::from_millis(100),
        disks: vec![("/".into(), 100 << 30)],
    };
    let mut settings = blackstart_agent::config::Settings::for_node(name);
    settings.state_dir = dir.join("state");
    settings.runtime_dir = dir.join("run");
    settings.boot_id_file = dir.join("boot_id");
    settings.coordinator = Some(CoordinatorSettings {
        addresses: coordinators.to_vec(),
        tls: own_files(root, name),
        report_interval: Duration::from_millis(300),
        permit_wait: blackstart_agent::config::PERMIT_WAIT,
    });
    let probe = |port, path| ProbeSettings {
        interval: Duration::from_millis(200),
        ..ProbeSettings::new(port, path)
    };
    settings.kubelet = probe(10248, "/healthz");
    settings.api_server = is_master.then(|| probe(6443, "/readyz"));
    settings.disks = vec![DiskSettings::at("/")];
    settings.logs.globs = vec![dir.join("logs/**").display().to_string()];
    settings.preflight.certificates.clear();
    settings.preflight.container_runtimes.clear();
    settings.preflight.etcd_data.clear();
    settings.gate.role = if is_master {
        GateRole::ControlPlane
    } else {
        GateRole::Worker
    };
    SimMachine::new(settings, Arc::new(SimHost::new(spec, Arc::clone(control_plane))))
}
