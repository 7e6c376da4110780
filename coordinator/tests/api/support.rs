//! A real coordinator on loopback, with real certificates; and agents that do what a test tells them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use blackstart_coordinator::config::Settings;
use blackstart_coordinator::notify::Notify;
use blackstart_coordinator::pki::Authority;
use blackstart_coordinator::run::{RunError, run};
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::line::{self, LINE};
use blackstart_proto::tls::{TlsFiles, client_config};
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::line_message::Body as Line;
use blackstart_proto::v1::{
    AgentMessage, Attestation, BootIdentity, CommandResult, CommandStatus, CoordinatorMessage, GateState,
    Goodbye, GoodbyeReason, Hello, LineMessage, PermitAnswer, PreviousShutdown, Report,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

/// Nothing that these tests wait for takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for it, and says what for when it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("waited for {what} in vain"))
}

/// One cluster, `biz`: master `biz-1`, workers `biz-2` and `biz-3`; and an empty-handed node of the authority, `stranger`.
pub(crate) const NODES: [&str; 3] = ["biz-1", "biz-2", "biz-3"];

const INVENTORY: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane, rack: r1}
      - {name: biz-2, address: 10.0.0.2}
      - {name: biz-3, address: 10.0.0.3}
";

/// A directory with certificates, and the coordinator that lives in it.
pub(crate) struct World {
    dir: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl World {
    /// With a coordinator that runs.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::of(INVENTORY, change).await
    }

    /// With another fleet of the same nodes.
    pub(crate) async fn of(inventory: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("pki")).unwrap();
        authority.issue_coordinator("coordinator").unwrap();
        authority.issue_operator("ann").unwrap();
        for node in NODES.iter().chain(&["stranger"]) {
            authority.issue_node(node).unwrap();
        }
        fs::write(dir.path().join("inventory.yaml"), inventory).unwrap();
        fs::write(dir.path().join("boot_id"), "boot-of-the-coordinator").unwrap();
        let mut world = Self { dir, running: None };
        world.start(change).await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn start(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings {
            tls: self.files("coordinator"),
            state_dir: self.path("state"),
            runtime_dir: self.path("run"),
            boot_id_file: self.path("boot_id"),
            inventory: self.path("inventory.yaml"),
            ..Settings::default()
        };
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(settings, vec![listener], Notify::none(), stop.clone()));
        self.running = Some(Running { address, stop, task });
    }

    /// Ends the coordinator in order; whatever it ran into is a failure.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.cancel();
        within("the coordinator's end", running.task)
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        let found = TlsFiles::in_dir(&self.path("pki"), name);
        assert!(found.certificate.exists(), "{}", found.certificate.display());
        found
    }

    /// How `name` of this authority shows itself.
    pub(crate) fn tls(&self, name: &str) -> ClientTlsConfig {
        client_config(&self.files(name).read().unwrap())
    }

    /// A connection with whatever certificate.
    pub(crate) async fn connect(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address()))
            .unwrap()
            .tls_config(tls)
            .unwrap();
        within("a connection", endpoint.connect()).await
    }

    pub(crate) async fn operator(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.connect(self.tls("ann")).await.unwrap())
    }

    /// A line, by whoever shows this.
    pub(crate) async fn line(&self, files: &TlsFiles) -> io::Result<Way> {
        self.line_of(Some(files)).await
    }

    /// A line, by somebody who may have nothing to show.
    pub(crate) async fn line_of(&self, files: Option<&TlsFiles>) -> io::Result<Way> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("pki/ca.crt")).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match files {
            None => config.with_no_client_auth(),
            Some(files) => {
                let own = CertificateDer::from_pem_file(&files.certificate).unwrap();
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                config.with_client_auth_cert(vec![own], key).unwrap()
            }
        };
        config.alpn_protocols = vec![LINE.to_vec()];
        let name = ServerName::try_from(COORDINATOR_DNS_NAME).unwrap();
        within("a line", async {
            let stream = TcpStream::connect(self.address()).await?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(LINE));
            Ok(Way::Line(Box::new(stream)))
        })
        .await
    }

    /// Both ways to hold a session, by whoever has these files.
    pub(crate) async fn ways(&self, files: &TlsFiles) -> [Way; 2] {
        let channel = self.connect(client_config(&files.read().unwrap())).await.unwrap();
        [Way::Channel(channel), self.line(files).await.unwrap()]
    }

    /// An agent of `node` that has said hello in this boot.
    pub(crate) async fn agent(&self, node: &str, boot: &str) -> Agent {
        let line = self.line(&self.files(node)).await.unwrap();
        let mut agent = Agent::open(line, hello(node, boot)).await.unwrap();
        let welcome = agent.told().await.unwrap();
        assert!(matches!(welcome, Told::Welcome(_)), "{welcome:?}");
        agent
    }
}

/// A directory of another authority, which issues certificates of the same names.
pub(crate) fn other_authority(dir: &Path) -> TlsFiles {
    let authority = Authority::create(&dir.join("other")).unwrap();
    authority.issue_node("biz-1").unwrap()
}

/// The hello of `node` after an unclean end.
pub(crate) fn hello(node: &str, boot: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        agent_version: "1.2.3".to_owned(),
        boot: Some(BootIdentity {
            boot_id: boot.to_owned(),
            nonce: format!("{boot}-of-{node}"),
            previous_shutdown: PreviousShutdown::Unclean.into(),
        }),
        highest_epoch: 0,
        report_interval_ms: 1000,
    }
}

/// What a session is held on.
pub(crate) enum Way {
    Channel(Channel),
    Line(Box<TlsStream<TcpStream>>),
}

impl From<Channel> for Way {
    fn from(channel: Channel) -> Self {
        Self::Channel(channel)
    }
}

/// What the coordinator says.
pub(crate) enum Heard {
    Call(Box<Streaming<CoordinatorMessage>>),
    Line(line::Incoming<ReadHalf<TlsStream<TcpStream>>>),
}

impl Heard {
    async fn message(&mut self) -> Result<Option<CoordinatorMessage>, Status> {
        let line = match self {
            Self::Call(call) => return call.message().await,
            Self::Line(line) => line,
        };
        let Some(message) = line.next::<LineMessage>().await? else {
            return Ok(None);
        };
        match message.body {
            Some(Line::Message(message)) => Ok(Some(message)),
            Some(Line::End(end)) => Err(end.into()),
            None => Ok(Some(CoordinatorMessage::default())),
        }
    }
}

/// One session, in the hands of a test.
pub(crate) struct Agent {
    say: mpsc::Sender<AgentMessage>,
    told: Heard,
    /// Already told: that the session has begun.
    first: Option<CoordinatorMessage>,
    sequence: u64,
    /// Answers to requests for permits that came between others.
    pub(crate) permits: Vec<PermitAnswer>,
}

impl Agent {
    pub(crate) async fn open(way: impl Into<Way>, hello: Hello) -> Result<Self, Status> {
        Self::open_with(way, Body::Hello(hello)).await
    }

    pub(crate) async fn open_with(way: impl Into<Way>, first: Body) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(16);
        say.send(AgentMessage { body: Some(first) }).await.unwrap();
        let (told, first) = match way.into() {
            Way::Channel(channel) => {
                let mut client = AgentServiceClient::new(channel);
                let told = within("the session", client.session(ReceiverStream::new(said))).await?;
                (Heard::Call(Box::new(told.into_inner())), None)
            }
            Way::Line(stream) => {
                let (read, write) = split(*stream);
                tokio::spawn(say_all(line::Outgoing::new(write), said));
                let mut told = Heard::Line(line::Incoming::new(read, 1 << 20));
                let first = within("the session", told.message()).await?;
                (told, first)
            }
        };
        Ok(Self {
            say,
            told,
            first,
            sequence: 0,
            permits: Vec::new(),
        })
    }

    /// Asks for a sign of life, and waits for it.
    pub(crate) async fn is_answered(&mut self) {
        self.say.send(AgentMessage::default()).await.unwrap();
        let sign = within("a sign of life", self.told.message()).await;
        assert_eq!(sign.unwrap(), Some(CoordinatorMessage::default()));
    }

    pub(crate) async fn say(&self, body: Body) {
        // A session that the coordinator ended takes nothing more: the test sees that when it listens.
        let _ended = self.say.send(AgentMessage { body: Some(body) }).await;
    }

    /// The next that it is told.
    pub(crate) async fn told(&mut self) -> Result<Told, Status> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => within("a word of the coordinator", self.told.message()).await?,
        };
        Ok(message.expect("the session goes on").body.expect("a body"))
    }

    /// Until the session ends: why.
    pub(crate) async fn ends(&mut self) -> Status {
        loop {
            if let Err(status) = self.told().await {
                return status;
            }
        }
    }

    pub(crate) fn report_of(&mut self, gate: GateState, healthy: bool) -> Report {
        self.sequence += 1;
        Report {
            attestation: Some(Attestation {
                gate: gate.into(),
                kubelet_active: healthy,
                kubelet_healthy: healthy,
                apiserver_ready: healthy,
                apiserver_latency_ms: 0,
                apiserver_error: 0,
                age_ms: 0,
                waiting_on: String::new(),
                manifests: Vec::new(),
            }),
            sequence: self.sequence,
            ..Report::default()
        }
    }

    /// Reports, and waits for the answer; commands that come before it are kept for [`Agent::command`].
    pub(crate) async fn reports(&mut self, gate: GateState, healthy: bool) -> Answered {
        let report = self.report_of(gate, healthy);
        self.say(Body::Report(report)).await;
        let mut commands = Vec::new();
        loop {
            match self.told().await.unwrap() {
                Told::Ack(ack) => {
                    assert_eq!(ack.sequence, self.sequence);
                    return Answered {
                        hold: ack.hold,
                        waiting_on: ack.waiting_on,
                        commands,
                    };
                }
                Told::Command(command) => commands.push(command),
                // For those who wait for it.
                Told::Brakes(_) | Told::EtcdQuestion(_) | Told::ControlPlaneQuestion(_) => {}
                Told::PermitAnswer(answer) => self.permits.push(answer),
                Told::Welcome(_) => panic!("a second welcome"),
            }
        }
    }

    pub(crate) async fn answers(&self, command_id: &str) {
        let result = CommandResult {
            command_id: command_id.to_owned(),
            status: CommandStatus::Done.into(),
            detail: String::new(),
        };
        self.say(Body::Result(result)).await;
    }

    /// Says goodbye, and waits until the coordinator has ended the session for it.
    pub(crate) async fn leaves(mut self, reason: GoodbyeReason) {
        let reason = reason.into();
        self.say(Body::Goodbye(Goodbye { reason })).await;
        let last = within("the session's end", self.told.message()).await;
        assert!(matches!(last, Ok(None)), "{last:?}");
    }
}

/// Says one thing after the other, until all is said or nobody listens.
async fn say_all(
    mut line: line::Outgoing<WriteHalf<TlsStream<TcpStream>>>,
    mut said: mpsc::Receiver<AgentMessage>,
) {
    while let Some(message) = said.recv().await {
        if line.send(&message).await.is_err() {
            return;
        }
    }
    let _gone = line.end().await;
}

/// What came back for a report.
pub(crate) struct Answered {
    pub(crate) hold: bool,
    pub(crate) waiting_on: String,
    pub(crate) commands: Vec<blackstart_proto::v1::Command>,
}
