//! One node: its sessions, one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::{
    AgentMessage, Attestation, BootIdentity, DiskStatus, GateState, Hello, PreviousShutdown, Report,
    UnitStatus,
};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::line::Dialler;
use super::{Standing, is_master, name};

/// As the agent's: for a connection with its handshake, …
const DIAL: Duration = Duration::from_secs(5);
/// … for the first wait, of which a random share is waited, …
const FIRST: Duration = Duration::from_millis(250);
/// … and for the longest.
const CAP: Duration = Duration::from_secs(5);
/// The answer to a hello comes within this, and that to a report.
const ANSWER: Duration = Duration::from_secs(15);
/// As the agent's: what is idle is asked for a sign of life this often, and answers within as long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);

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
    pub(super) tls: ClientTlsConfig,
    pub(super) interval: Duration,
    pub(super) board: Arc<Board>,
}

/// What a node shows itself with.
pub(super) fn tls(ca: &[u8], certificate: &str, key: &str) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(certificate, key))
        .domain_name(blackstart_proto::identity::COORDINATOR_DNS_NAME)
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
        let channel = timeout(DIAL, self.connect(Arc::clone(dark))).await??;
        // A report, and what an order is answered with.
        let (to_coordinator, outgoing) = mpsc::channel(2);
        to_coordinator.send(self.hello(boot)).await?;
        let mut service = AgentServiceClient::new(channel);
        let session = service.session(ReceiverStream::new(outgoing));
        let mut told = timeout(ANSWER, session).await??.into_inner();
        let mut sequence = 1;
        to_coordinator.send(self.report(boot, sequence)).await?;
        // A fleet does not report in step.
        let first = Instant::now() + self.interval.mul_f64(rand::rng().random_range(0.0..1.0));
        let mut reports = interval_at(first, self.interval);
        loop {
            tokio::select! {
                message = told.message() => match message?.and_then(|message| message.body) {
                    None => return Ok(()),
                    Some(Told::Ack(ack)) if ack.sequence == 1 => {
                        *registered = Some(Registered::new(&self.board, cut));
                    }
                    // Nothing is ever done: orders are answered by nobody.
                    Some(
                        Told::Ack(_) | Told::Welcome(_) | Told::Brakes(_) | Told::Command(_) | Told::PermitAnswer(_),
                    ) => {}
                },
                _ = reports.tick() => {
                    sequence += 1;
                    to_coordinator.send(self.report(boot, sequence)).await?;
                }
            }
        }
    }

    async fn connect(&self, dark: Arc<AtomicBool>) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(self.tls.clone())?
            .http2_keep_alive_interval((self.interval * 3).clamp(KEEP_ALIVE_LEAST, KEEP_ALIVE))
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_with_connector(Dialler {
                address: self.address,
                dark,
            })
            .await
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
