//! Three masters: real etcd processes with TLS, each run from its manifest by a stand-in kubelet; the real agents; a real coordinator; and
//! the command itself before it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::config::{ComponentSettings, CoordinatorSettings, ProbeSettings, Settings};
use blackstart_agent::run::{Notify, run};
use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::TlsFiles;
use rand::Rng;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::kubelet::Kubelet;
use crate::ports::free_port;
use crate::power::Powered;

/// Nothing here takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_mins(2);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) const MASTERS: [&str; 3] = ["biz-1", "biz-2", "biz-3"];

/// So many snapshots agents keep.
pub(crate) const KEEP: u32 = 2;

/// A loopback address that is nobody else's: with the ports of one address for all, what is down for a while finds its port taken when it comes back.
fn free_host() -> Ipv4Addr {
    let mut random = rand::rng();
    loop {
        let host = Ipv4Addr::new(
            127,
            random.random_range(1..=254),
            random.random_range(0..=255),
            random.random_range(1..=254),
        );
        if TcpListener::bind((host, 2379)).is_ok() {
            return host;
        }
    }
}

const INVENTORY: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane}
      - {name: biz-2, address: 10.0.0.2, role: control-plane}
      - {name: biz-3, address: 10.0.0.3, role: control-plane}
";

/// Debian bookworm's own, 3.4.
const OWN: &str = "/usr/bin/etcd";
/// Where `deploy/ensure-etcd-3.5` unpacks that of trixie.
const NEXT: &str = "/var/cache/blackstart/etcd-3.5/usr/bin/etcd";

/// The etcd that is on this machine, 3.4 and 3.5; or those alone that `BLACKSTART_ETCD` names (paths with colons between them), each with
/// its tool beside it. For one that is missing a test says SKIPPED; in CI it has to run.
pub(crate) fn programs(test: &str) -> Vec<PathBuf> {
    let named = std::env::var("BLACKSTART_ETCD").unwrap_or_else(|_| format!("{OWN}:{NEXT}"));
    let is_there = |program: &PathBuf| {
        let tools = ["etcdutl", "etcdctl"].map(|tool| program.with_file_name(tool));
        let is_whole = program.exists() && tools.iter().any(|tool| tool.exists());
        if !is_whole {
            let why = format!(
                "{test}: there is no {} with etcdutl or etcdctl beside it; make needs-testbed brings it",
                program.display()
            );
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            println!("SKIPPED {why}");
        }
        is_whole
    };
    named.split(':').map(PathBuf::from).filter(is_there).collect()
}

/// etcd's own tool of the same version.
pub(crate) fn tool(program: &Path) -> PathBuf {
    let beside = ["etcdutl", "etcdctl"].map(|tool| program.with_file_name(tool));
    let found = beside.into_iter().find(|tool| tool.exists());
    found.unwrap()
}

/// As `etcd --version` says it, for the image's tag.
fn version(program: &Path) -> String {
    let said = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    version.unwrap().to_owned()
}

/// One master.
pub(crate) struct Master {
    pub(crate) name: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) client: SocketAddr,
    peer: SocketAddr,
    metrics: SocketAddr,
    /// Where something stands in place of its API server.
    api: SocketAddr,
    /// So often it has booted.
    boots: u32,
    kubelet: Option<Kubelet>,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Master {
    pub(crate) fn manifest(&self) -> PathBuf {
        self.dir.join("manifests/etcd.yaml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    fn peer_url(&self) -> String {
        format!("https://{}", self.peer)
    }
}

/// All of it. What runs ends when it is dropped.
pub(crate) struct Bed {
    pub(crate) masters: Vec<Master>,
    coordinator: Option<Child>,
    address: SocketAddr,
    program: PathBuf,
    /// More of the coordinator's configuration.
    config: &'static str,
    /// Agents ask whether their API servers are ready.
    asks_api: bool,
    /// Agents that are started take snapshots by themselves so often; `None`: a test says when.
    pub(crate) every: Option<Duration>,
    dir: TempDir,
}

impl Bed {
    /// With everything running, and a leader.
    pub(crate) async fn new(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let authority = Authority::create(&root.join("pki")).unwrap();
        authority.issue_coordinator("coordinator").unwrap();
        authority.issue_operator("ann").unwrap();
        authority.issue_operator("ben").unwrap();
        fs::write(root.join("inventory.yaml"), INVENTORY).unwrap();
        Authority::create(&root.join("etcd-pki")).unwrap();
        let masters: Vec<_> = MASTERS
            .map(|name| {
                authority.issue_node(name).unwrap();
                let host = free_host();
                let at = |port| SocketAddr::from((host, port));
                Master {
                    name,
                    dir: root.join(name),
                    client: at(2379),
                    peer: at(2380),
                    metrics: at(2381),
                    api: at(6443),
                    boots: 1,
                    kubelet: None,
                    agent: None,
                }
            })
            .into();
        let mut bed = Self {
            masters,
            coordinator: None,
            address: free_port(),
            program: program.to_owned(),
            config: "",
            asks_api: false,
            every: None,
            dir,
        };
        let cluster: Vec<_> = bed
            .masters
            .iter()
            .map(|master| format!("{}={}", master.name, master.peer_url()))
            .collect();
        for (at, name) in MASTERS.into_iter().enumerate() {
            let files = bed.certificate(name, 2090);
            let text = bed.text(&bed.masters[at], &files, &cluster.join(","));
            let master = &mut bed.masters[at];
            fs::create_dir_all(master.dir.join("manifests")).unwrap();
            fs::write(master.manifest(), text).unwrap();
            master.kubelet = Some(Kubelet::start(&master.dir));
        }
        bed.start_coordinator();
        for at in 0..bed.masters.len() {
            bed.start_agent(at);
        }
        bed.until_etcd("all members are well", |etcd| etcd["voters_healthy"] == 3)
            .await;
        bed
    }

    /// A certificate for the member on a node, for both directions as kubeadm makes them, that expires with this year.
    pub(crate) fn certificate(&self, name: &str, year: i32) -> TlsFiles {
        let pki = self.dir.path().join("etcd-pki");
        let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
        let mut params = CertificateParams::default();
        let masters = self.masters.iter().map(|master| master.client.ip());
        // etcd looks whether the address that a peer connects from is one of its certificate's.
        let own = IpAddr::from(Ipv4Addr::LOCALHOST);
        params.subject_alt_names = masters.chain([own]).map(SanType::IpAddress).collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let files = TlsFiles::in_dir(&pki, name);
        fs::write(&files.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// The files of a client of etcd.
    pub(crate) fn client_files(&self) -> TlsFiles {
        TlsFiles::in_dir(&self.dir.path().join("etcd-pki"), "biz-1")
    }

    /// As kubeadm writes it.
    fn text(&self, master: &Master, tls: &TlsFiles, cluster: &str) -> String {
        let Master {
            name,
            client,
            metrics,
            ..
        } = master;
        let (peer, data) = (master.peer_url(), master.data());
        let (certificate, key, ca) = (tls.certificate.display(), tls.key.display(), tls.ca.display());
        let version = version(&self.program);
        let (program, data) = (self.program.display(), data.display());
        let (host, port) = (metrics.ip(), metrics.port());
        format!(
            "\
apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - {program}
    - --advertise-client-urls=https://{client}
    - --cert-file={certificate}
    - --client-cert-auth=true
    - --data-dir={data}
    - --initial-advertise-peer-urls={peer}
    - --initial-cluster={cluster}
    - --key-file={key}
    - --listen-client-urls=https://{client}
    - --listen-metrics-urls=http://{metrics}
    - --listen-peer-urls={peer}
    - --logger=zap
    - --name={name}
    - --peer-cert-file={certificate}
    - --peer-client-cert-auth=true
    - --peer-key-file={key}
    - --peer-trusted-ca-file={ca}
    - --trusted-ca-file={ca}
    image: registry.k8s.io/etcd:{version}
    livenessProbe: {{httpGet: {{host: {host}, path: \"/health?serializable=true\", port: {port}}}}}
    name: etcd
  hostNetwork: true
"
        )
    }

    pub(crate) fn start_coordinator(&mut self) {
        let root = self.dir.path();
        let at = root.join("coordinator");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("boot_id"), "boot").unwrap();
        let (dir, pki, root) = (at.display(), root.join("pki"), root.display());
        let (address, pki, more) = (self.address, pki.display(), self.config);
        let text = format!(
            "\
listen: [\"{address}\"]
tls: {{ca: {pki}/ca.crt, certificate: {pki}/coordinator.crt, key: {pki}/coordinator.key}}
state_dir: {dir}/state
runtime_dir: {dir}/run
boot_id_file: {dir}/boot_id
inventory: {root}/inventory.yaml
{more}"
        );
        fs::write(at.join("coordinator.yaml"), text).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(at.join("log"))
            .unwrap();
        // The command has a coordinator in it, for drills. It ends with its standard input.
        let process = Command::new(env!("CARGO_BIN_EXE_blackstart"))
            .args(["drill", "coordinator"])
            .arg(at.join("coordinator.yaml"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.coordinator = Some(process);
    }

    /// As `kill -9`.
    pub(crate) fn kill_coordinator(&mut self) {
        if let Some(mut process) = self.coordinator.take() {
            let _ended_already = process.kill();
            let _status = process.wait();
        }
    }

    pub(crate) fn start_agent(&mut self, at: usize) {
        let pki = self.dir.path().join("pki");
        let master = &mut self.masters[at];
        let dir = |name: &str| master.dir.join(name);
        fs::write(dir("boot_id"), format!("boot-{}\n", master.boots)).unwrap();
        let mut settings = Settings {
            state_dir: dir("state"),
            runtime_dir: dir("run"),
            boot_id_file: dir("boot_id"),
            units: Vec::new(),
            disks: Vec::new(),
            coordinator: Some(CoordinatorSettings {
                addresses: vec![self.address],
                tls: TlsFiles::in_dir(&pki, master.name),
                report_interval: Duration::from_millis(300),
                permit_wait: Duration::from_mins(2),
            }),
            ..Settings::for_node(master.name)
        };
        // Whether this machine's own runtimes are well has nothing to do with these nodes.
        settings.runtime.docker.socket = if std::env::var("EXP").is_ok() {
            "/tmp/flk/dead.sock".into()
        } else {
            dir("docker.sock")
        };
        settings.runtime.containerd.socket = dir("containerd.sock");
        settings.logs.globs = Vec::new();
        settings.preflight.certificates = Vec::new();
        settings.etcd.snapshots.dir = dir("snapshots");
        settings.etcd.tools = ["etcdutl", "etcdctl"]
            .map(|tool| self.program.with_file_name(tool))
            .into();
        settings.etcd.snapshots.min_free = 1 << 20;
        settings.etcd.snapshots.keep = KEEP;
        settings.etcd.snapshots.every = self.every;
        let pods = &mut settings.static_pods;
        pods.manifests = dir("manifests");
        pods.held = dir("blackstart-held");
        pods.components = vec![ComponentSettings::new(
            "etcd",
            master.metrics.port(),
            "/health?serializable=true",
        )];
        // Its own decisions are not what is looked at here.
        pods.failures_to_raise = 100;
        pods.out_at_least = Duration::from_secs(1);
        pods.gone_deadline = Duration::from_secs(20);
        pods.ready_deadline = Duration::from_secs(5);
        if self.asks_api {
            settings.api_server = Some(ProbeSettings::new(master.api.port(), "/readyz"));
        }
        let stop = CancellationToken::new();
        let host = Arc::new(Powered {
            api: master.api,
            etcd: master.metrics,
        });
        let until = stop.clone();
        let task = tokio::spawn(async move {
            run(settings, host, Notify::none(), until).await.unwrap();
        });
        master.agent = Some((stop, task));
    }

    /// Something in place of each API server: a static pod that listens. Where.
    pub(crate) fn start_api_servers(&self) -> Vec<SocketAddr> {
        let start = |master: &Master| {
            let health = master.api;
            let text = format!(
                "\
kind: Pod
metadata: {{name: kube-apiserver, namespace: kube-system}}
spec:
  hostNetwork: true
  containers:
  - name: kube-apiserver
    command: [listen, \"{health}\"]
    livenessProbe: {{httpGet: {{host: {}, path: /livez, port: {}}}}}
",
                health.ip(),
                health.port()
            );
            fs::write(master.dir.join("manifests/kube-apiserver.yaml"), text).unwrap();
            health
        };
        self.masters.iter().map(start).collect()
    }

    /// As its crash: nothing of it goes on.
    pub(crate) async fn kill_agent(&mut self, at: usize) {
        if let Some((_, task)) = self.masters[at].agent.take() {
            task.abort();
            let _aborted = task.await;
        }
    }

    /// The command, as Ann types it.
    pub(crate) fn blackstart(&self, arguments: &[&str]) -> Output {
        self.by("ann", arguments)
    }

    /// The command, as another operator types it.
    pub(crate) fn by(&self, operator: &str, arguments: &[&str]) -> Output {
        let file = |name: String| self.dir.path().join("pki").join(name);
        Command::new(env!("CARGO_BIN_EXE_blackstart"))
            .args(["--coordinator", &self.address.to_string()])
            .arg("--tls-ca")
            .arg(file("ca.crt".to_owned()))
            .arg("--tls-cert")
            .arg(file(format!("{operator}.crt")))
            .arg("--tls-key")
            .arg(file(format!("{operator}.key")))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap()
    }

    /// What it prints as JSON, once it is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        arguments: &[&str],
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = Instant::now() + DEADLINE;
        let arguments: Vec<_> = arguments.iter().copied().chain(["-o", "json"]).collect();
        loop {
            let answer = self.blackstart(&arguments);
            let json: Option<Value> = serde_json::from_slice(&answer.stdout).ok();
            if let Some(json) = json.as_ref().filter(|json| wanted(json)) {
                return json.clone();
            }
            assert!(
                Instant::now() < until,
                "waited for {what} in vain: {json:#?} {}\n{}",
                String::from_utf8_lossy(&answer.stderr),
                self.logs()
            );
            sleep(LOOK).await;
        }
    }

    pub(crate) async fn until_etcd(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(what, &["etcd", "status", "biz"], wanted).await
    }

    /// The last words of everybody, for whoever looks for why a test failed.
    fn logs(&self) -> String {
        let tail = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(15).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("--- {}\n{}\n", path.display(), lines.join("\n"))
        };
        let etcds = self.masters.iter().map(|master| master.dir.join("etcd.log"));
        std::iter::once(self.dir.path().join("coordinator/log"))
            .chain(etcds)
            .map(tail)
            .collect()
    }

    /// Has a fenced member join anew, so that there are so many voters.
    pub(crate) async fn grow(&self, at: usize, voters: u64) {
        let node = self.masters[at].name;
        let is_halted = |run: &Value| run["state"] == "halted";
        let begin = ["runbook", "run", "etcd-member", node, "--yes"];
        let run = self.until("a run", &begin, |run| run["id"].is_string()).await;
        let run = run["id"].as_str().unwrap();
        let status = ["runbook", "status", run];
        loop {
            let seen = self
                .until("a question, or its end", &status, |run| {
                    assert!(!is_halted(run), "{run:#}");
                    run["wants_approval"] == true || run["state"] == "succeeded"
                })
                .await;
            if seen["state"] == "succeeded" {
                break;
            }
            let _already = self.blackstart(&["runbook", "approve", run]);
        }
        self.until_etcd("another voter", |etcd| etcd["voters_healthy"] == voters)
            .await;
    }

    pub(crate) fn stop_kubelet(&mut self, at: usize) {
        self.masters[at].kubelet = None;
    }

    /// As its master's power: etcd ends without a word.
    pub(crate) fn kill_kubelet(&mut self, at: usize) {
        if let Some(kubelet) = self.masters[at].kubelet.take() {
            kubelet.lose_power();
        }
    }

    /// The power of everything is lost, and the coordinator comes back with this in its configuration as well: nobody else does yet.
    pub(crate) async fn lose_power(&mut self, config: &'static str) {
        self.kill_coordinator();
        for at in 0..self.masters.len() {
            self.kill_kubelet(at);
            self.kill_agent(at).await;
            let master = &mut self.masters[at];
            master.boots += 1;
            let _there_was_none = fs::remove_dir_all(master.dir.join("run"));
        }
        (self.config, self.asks_api) = (config, true);
        self.start_coordinator();
    }

    pub(crate) fn start_kubelet(&mut self, at: usize) {
        let master = &mut self.masters[at];
        master.kubelet = Some(Kubelet::start(&master.dir));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.kill_coordinator();
        for master in &mut self.masters {
            if let Some((stop, task)) = master.agent.take() {
                stop.cancel();
                task.abort();
            }
        }
    }
}
