//! One node: its sessions, one after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::line::{self, LINE};
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::line_message::Body as Line;
use blackstart_proto::v1::{
    AgentMessage, Attestation, BootIdentity, CoordinatorMessage, DiskStatus, GateState, Hello, LineMessage,
    PreviousShutdown, Report, UnitStatus,
};
use rand::Rng;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::split;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;

use super::wire::Wire;
use super::{Standing, is_master, name};

/// As the agent's: for a connection with its handshake, …
const DIAL: Duration = Duration::from_secs(5);
/// … for the first wait, of which a random share is waited, …
const FIRST: Duration = Duration::from_millis(250);
/// … and for the longest.
const CAP: Duration = Duration::from_secs(5);
/// The answer to a hello comes within this, and that to a report.
const ANSWER: Duration = Duration::from_secs(15);
/// As the agent's: no larger message is taken, bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// What is wanted of all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How often all connections were broken.
    pub(super) cut: u64,
    /// The first so many have lost their power, …
    pub(super) dark: usize,
    /// … and of them the first so many have it again.
    pub(super) back: usize,
}

impl Wish {
    pub(super) fn is_dark(&self, number: usize) -> bool {
        (self.back..self.dark).contains(&number)
    }
}

/// What all nodes count together.
#[derive(Debug)]
pub(super) struct Board {
    began: Instant,
    cut: AtomicU64,
    registered: AtomicUsize,
    dials: AtomicUsize,
    failures: AtomicUsize,
    trouble: Mutex<String>,
    /// When each said its last word, microseconds since the beginning.
    last_words: Vec<AtomicU64>,
}

impl Board {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            began: Instant::now(),
            cut: AtomicU64::new(0),
            registered: AtomicUsize::new(0),
            dials: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            trouble: Mutex::default(),
            last_words: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Who is registered by now does not count any more.
    pub(super) fn cut(&self) {
        self.cut.fetch_add(1, Ordering::SeqCst);
        self.registered.store(0, Ordering::SeqCst);
    }

    pub(super) fn standing(&self, wish: &Wish) -> Standing {
        let dark = self.last_words[..wish.dark].iter().skip(wish.back);
        let last = dark.map(|at| at.load(Ordering::Relaxed)).max().unwrap_or(0);
        Standing {
            registered: self.registered.load(Ordering::SeqCst),
            dials: self.dials.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            trouble: self
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            quiet: self.began.elapsed().saturating_sub(Duration::from_micros(last)),
        }
    }

    fn said(&self, number: usize) {
        let at = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_words[number].store(at, Ordering::Relaxed);
    }

    fn failed(&self, trouble: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// A session that counts as registered, until it is dropped.
struct Registered<'a> {
    board: &'a Board,
    cut: u64,
}

impl<'a> Registered<'a> {
    fn new(board: &'a Board, cut: u64) -> Self {
        if board.cut.load(Ordering::SeqCst) == cut {
            board.registered.fetch_add(1, Ordering::SeqCst);
        }
        Self { board, cut }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if self.board.cut.load(Ordering::SeqCst) == self.cut {
            self.board.registered.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) interval: Duration,
    pub(super) board: Arc<Board>,
}

/// What a node shows itself with.
pub(super) fn tls(
    roots: &Arc<RootCertStore>,
    certificate: &str,
    key: &str,
) -> anyhow::Result<Arc<ClientConfig>> {
    let own = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(vec![own], key)?;
    config.alpn_protocols = vec![LINE.to_vec()];
    Ok(Arc::new(config))
}

impl Node {
    /// Holds sessions for ever.
    pub(super) async fn live(self, mut wish: watch::Receiver<Wish>) {
        let mut boot = 1;
        let mut failures = 0;
        loop {
            let cut = wish.borrow_and_update().cut;
            let dark = Arc::new(AtomicBool::new(false));
            let mut session = Box::pin(self.session(boot, cut, &dark));
            let changed = wish.wait_for(|wish| wish.cut != cut || wish.is_dark(self.number));
            let ended = tokio::select! {
                ended = &mut session => Some(ended),
                _ = changed => None,
            };
            if wish.borrow().is_dark(self.number) {
                dark.store(true, Ordering::Relaxed);
                // Held, and not looked at: its connection stays open, as that of a machine without power does.
                if wish.wait_for(|wish| !wish.is_dark(self.number)).await.is_err() {
                    return;
                }
                boot += 1;
                failures = 0;
                continue;
            }
            drop(session);
            failures = match ended {
                Some(Attempt {
                    registered: false,
                    trouble,
                }) => {
                    self.board.failed(trouble);
                    failures + 1
                }
                Some(Attempt { registered: true, .. }) | None => 0,
            };
            let longest = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(CAP);
            let wait = longest.mul_f64(rand::rng().random_range(0.0..1.0));
            sleep(wait).await;
        }
    }

    async fn session(&self, boot: u64, cut: u64, dark: &Arc<AtomicBool>) -> Attempt {
        let mut registered = None;
        let trouble = match self.converse(boot, cut, dark, &mut registered).await {
            Ok(()) => "the coordinator ended the session".to_owned(),
            Err(error) => format!("{}: {error:#}", name(self.number)),
        };
        Attempt {
            registered: registered.is_some(),
            trouble,
        }
    }

    async fn converse<'a>(
        &'a self,
        boot: u64,
        cut: u64,
        dark: &Arc<AtomicBool>,
        registered: &mut Option<Registered<'a>>,
    ) -> anyhow::Result<()> {
        self.board.dials.fetch_add(1, Ordering::Relaxed);
        let stream = timeout(DIAL, self.connect(Arc::clone(dark))).await??;
        let (read, write) = split(stream);
        let (mut told, mut to_coordinator) =
            (line::Incoming::new(read, MAX_MESSAGE), line::Outgoing::new(write));
        to_coordinator.send(&self.hello(boot)).await?;
        let mut sequence = 1;
        let welcome = timeout(ANSWER, told.next::<LineMessage>()).await??;
        match welcome.and_then(|welcome| welcome.body) {
            Some(Line::Message(_)) => {}
            Some(Line::End(end)) => return Err(Status::from(end).into()),
            None => return Ok(()),
        }
        to_coordinator.send(&self.report(boot, sequence)).await?;
        // A fleet does not report in step.
        let first = Instant::now() + self.interval.mul_f64(rand::rng().random_range(0.0..1.0));
        let mut reports = interval_at(first, self.interval);
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                message = told.next::<LineMessage>() => {
                    heard_at = Instant::now();
                    match message?.map(|message| message.body) {
                        None => return Ok(()),
                        Some(Some(Line::End(end))) => return Err(Status::from(end).into()),
                        Some(Some(Line::Message(CoordinatorMessage { body: Some(Told::Ack(ack)) }))) if ack.sequence == 1 => {
                            *registered = Some(Registered::new(&self.board, cut));
                        }
                        // Nothing is ever done: orders are answered by nobody.
                        Some(Some(Line::Message(_)) | None) => {}
                    }
                }
                _ = reports.tick() => {
                    // As the agent: so long without an answer, and it dials anew.
                    if heard_at.elapsed() > self.interval * 3 {
                        bail!("nothing acknowledged");
                    }
                    sequence += 1;
                    to_coordinator.send(&self.report(boot, sequence)).await?;
                }
            }
        }
    }

    async fn connect(&self, dark: Arc<AtomicBool>) -> anyhow::Result<TlsStream<Wire>> {
        let name = ServerName::try_from(COORDINATOR_DNS_NAME)?;
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Ok(tls.connect(name, Wire { stream, dark }).await?)
    }

    fn hello(&self, boot: u64) -> AgentMessage {
        self.board.said(self.number);
        let name = name(self.number);
        let previous = if boot == 1 {
            PreviousShutdown::Clean
        } else {
            PreviousShutdown::Unclean
        };
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: Some(BootIdentity {
                boot_id: format!("{:08x}-7c1d-4f5e-9a3b-{boot:012x}", self.number),
                nonce: format!("{:016x}", boot << 32 | self.number as u64),
                previous_shutdown: previous.into(),
            }),
            node: name,
            highest_epoch: 0,
            report_interval_ms: u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
        };
        AgentMessage {
            body: Some(Body::Hello(hello)),
        }
    }

    /// What a healthy agent with the units and disks of an ordinary node reports.
    fn report(&self, boot: u64, sequence: u64) -> AgentMessage {
        self.board.said(self.number);
        let healthy = boot == 1;
        let gate = if healthy {
            GateState::Passed
        } else {
            GateState::Held
        };
        let master = is_master(self.number);
        let units = ["kubelet.service", "containerd.service", "docker.service"];
        let disks = [("/", 100_u64 << 30), ("/var/lib/docker", 500 << 30)];
        let report = Report {
            attestation: Some(Attestation {
                gate: gate.into(),
                kubelet_active: healthy,
                kubelet_healthy: healthy,
                apiserver_ready: master && healthy,
                // Another at each report, as any latency.
                apiserver_latency_ms: if master && healthy { 5 + sequence % 20 } else { 0 },
                ..Attestation::default()
            }),
            units: units
                .map(|unit| UnitStatus {
                    name: unit.to_owned(),
                    active_state: "active".to_owned(),
                    sub_state: "running".to_owned(),
                    restarts: 0,
                })
                .into(),
            disks: disks
                .map(|(mount_point, bytes)| DiskStatus {
                    mount_point: mount_point.to_owned(),
                    bytes_total: bytes,
                    // It is another at each report, as on any node.
                    bytes_available: bytes / 2 - (sequence % 1000) * 4096,
                    inodes_total: bytes >> 14,
                    inodes_free: bytes >> 15,
                })
                .into(),
            sequence,
            ..Report::default()
        };
        AgentMessage {
            body: Some(Body::Report(report)),
        }
    }
}

/// How a session ended.
struct Attempt {
    registered: bool,
    trouble: String,
}
