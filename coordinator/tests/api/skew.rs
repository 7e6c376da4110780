//! Agents of another version: what one of 0.1.0 said and heard, byte for byte, is said again to today's coordinator and today's agent; and
//! what a later one may add is passed over.
//!
//! `BLACKSTART_WRITE_TRANSCRIPT=1 cargo test -p blackstart-coordinator --test api a_session_of_today` records a session of this version, which
//! is kept from then on beside those of earlier ones.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_agent::host::sim::{SimCluster, SimMachine, SimStage};
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::line::LINE;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1::agent_message::Body as Up;
use blackstart_proto::v1::coordinator_message::Body as Down;
use blackstart_proto::v1::line_message::Body as Line;
use blackstart_proto::v1::{
    AgentMessage, ColdStartRequest, CommandStatus, Condition, CoordinatorMessage, GateState, GetRunRequest,
    LineMessage, ListNodesRequest, NodePhase, RunState,
};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::masters::master_at;
use crate::support::{World, within};

const NODE: &str = "biz-1";
/// Frames: who says it, and its bytes without their length.
type Transcript = Vec<(Who, Vec<u8>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Agent,
    Coordinator,
}

fn kept() -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(path: &PathBuf) -> Transcript {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (who, hex) = line.split_at(2);
            let bytes = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            let who = if who == "> " { Who::Agent } else { Who::Coordinator };
            (who, bytes.collect())
        })
        .collect()
}

fn written(transcript: &Transcript) -> String {
    let mut text = format!(
        "# A session of an agent of {0} with a coordinator of {0} on a line: > the agent, < the coordinator.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (who, frame) in transcript {
        text.push_str(if *who == Who::Agent { "> " } else { "< " });
        for byte in frame {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

async fn next_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

async fn say(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) {
    to.write_u32(u32::try_from(frame.len()).unwrap()).await.unwrap();
    to.write_all(frame).await.unwrap();
    to.flush().await.unwrap();
}

fn agent_says(frame: &[u8]) -> Option<Up> {
    AgentMessage::decode(frame).unwrap().body
}

fn coordinator_says(frame: &[u8]) -> Option<Down> {
    match LineMessage::decode(frame).unwrap().body? {
        Line::Message(message) => message.body,
        Line::End(end) => panic!("the session ends: {end:?}"),
    }
}

/// A line to the coordinator, as this node.
async fn dial(address: SocketAddr, files: &TlsFiles) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&files.ca).unwrap())
        .unwrap();
    let own = CertificateDer::from_pem_file(&files.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(vec![own], key).unwrap();
    config.alpn_protocols = vec![LINE.to_vec()];
    let name = ServerName::try_from(COORDINATOR_DNS_NAME).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// Takes lines as a coordinator does, and does with each what is given.
async fn listen<T: Future<Output = ()> + Send + 'static>(
    world: &World,
    take: impl Fn(tokio_rustls::server::TlsStream<TcpStream>) -> T + Send + 'static,
) -> SocketAddr {
    let files = world.files("coordinator");
    let own = CertificateDer::from_pem_file(&files.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![own], key).unwrap();
    config.alpn_protocols = vec![LINE.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(take(stream));
            }
        }
    });
    address
}

fn held(report: &Up) -> bool {
    matches!(report, Up::Report(report)
        if report.attestation.as_ref().is_some_and(|attested| attested.gate() == GateState::Held))
}

/// A node whose agent speaks with whoever is at this address.
fn switched_on(world: &World, at: SocketAddr) -> SimMachine {
    let cluster = Arc::new(SimCluster::new(1, Duration::from_millis(100)));
    let mut machine = master_at(world, NODE, &cluster, world.files(NODE), at);
    machine.power_on().unwrap();
    machine
}

/// The same, and its power was cut.
async fn after_a_power_loss(world: &World, at: SocketAddr) -> SimMachine {
    let mut machine = switched_on(world, at);
    // What is cut before it knows its boot has none to remember.
    within("the first boot", async {
        while machine.host().stage(Instant::now()) != SimStage::Healthy {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    machine.cut_power();
    machine.power_on().unwrap();
    machine
}

async fn cold_start(world: &World) -> String {
    let request = ColdStartRequest {
        reason: "a test".to_owned(),
        ..ColdStartRequest::default()
    };
    let started = world.operator().await.start_cold_start(request).await;
    started.unwrap().into_inner().id
}

/// Waits for a coordinator's view of the node.
async fn is_ready(world: &World) -> String {
    let mut operator = world.operator().await;
    within("the node to be ready", async {
        loop {
            let nodes = operator.list_nodes(ListNodesRequest::default()).await;
            let nodes = nodes.unwrap().into_inner().nodes;
            let node = nodes.into_iter().find(|node| node.name == NODE).unwrap();
            if node.phase() == NodePhase::Ready {
                return node.agent_version;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Everything of the last session, as it was spoken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_today_has_all_that_is_kept_of_one() {
    let world = World::new().await;
    let (to, files) = (world.address(), world.files(NODE));
    let heard = Arc::new(Mutex::new(Transcript::new()));
    let (recorded, (tell, mut told)) = (Arc::clone(&heard), mpsc::unbounded_channel());
    let tap = listen(&world, move |agent| {
        let (heard, files, tell) = (Arc::clone(&heard), files.clone(), tell.clone());
        async move {
            heard.lock().unwrap().clear();
            let (mut from_agent, mut to_agent) = split(agent);
            let (mut from_coordinator, mut to_coordinator) = split(dial(to, &files).await);
            let up = async {
                while let Some(frame) = next_frame(&mut from_agent).await {
                    say(&mut to_coordinator, &frame).await;
                    if let Some(body) = agent_says(&frame) {
                        tell.send(body).unwrap();
                    }
                    heard.lock().unwrap().push((Who::Agent, frame));
                }
            };
            let down = async {
                while let Some(frame) = next_frame(&mut from_coordinator).await {
                    heard.lock().unwrap().push((Who::Coordinator, frame.clone()));
                    say(&mut to_agent, &frame).await;
                }
            };
            tokio::select! { () = up => {}, () = down => {} }
        }
    })
    .await;
    let mut machine = after_a_power_loss(&world, tap).await;
    within("the gate to hold", async {
        while !held(&told.recv().await.unwrap()) {}
    })
    .await;
    cold_start(&world).await;
    within("the command's outcome", async {
        while !matches!(told.recv().await.unwrap(), Up::Result(_)) {}
    })
    .await;
    is_ready(&world).await;
    machine.cut_power();
    let spoken = recorded.lock().unwrap().clone();
    let up: Vec<_> = spoken
        .iter()
        .filter(|(who, _)| *who == Who::Agent)
        .filter_map(|(_, frame)| agent_says(frame))
        .collect();
    assert!(matches!(up[0], Up::Hello(_)) && up.iter().any(held), "{up:#?}");
    if std::env::var_os("BLACKSTART_WRITE_TRANSCRIPT").is_some() {
        let name = format!("tests/api/transcripts/{}.txt", env!("CARGO_PKG_VERSION"));
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, written(&spoken)).unwrap();
    }
}

/// The agent's half of each transcript, to a coordinator of today: it brings the node back, and believes its outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_of_other_versions_said_is_understood() {
    for path in kept() {
        let transcript = read(&path);
        let world = World::new().await;
        let line = dial(world.address(), &world.files(NODE)).await;
        let (mut from, mut to) = split(line);
        let mut run = None;
        let mut command = VecDeque::new();
        for (_, frame) in transcript.iter().filter(|(who, _)| *who == Who::Agent) {
            match agent_says(frame) {
                // It has the number of a command that this coordinator has not given.
                Some(Up::Result(mut result)) => {
                    while command.is_empty() {
                        let heard = within("a command", next_frame(&mut from)).await.unwrap();
                        if let Some(Down::Command(order)) = coordinator_says(&heard) {
                            command.push_back(order.command_id);
                        }
                    }
                    result.command_id = command.pop_front().unwrap();
                    let body = Some(Up::Result(result));
                    say(&mut to, &AgentMessage { body }.encode_to_vec()).await;
                }
                Some(Up::Report(report)) => {
                    say(&mut to, frame).await;
                    within("its acknowledgement", async {
                        loop {
                            match coordinator_says(&next_frame(&mut from).await.unwrap()) {
                                Some(Down::Ack(ack)) if ack.sequence == report.sequence => return,
                                Some(Down::Command(order)) => command.push_back(order.command_id),
                                _ => {}
                            }
                        }
                    })
                    .await;
                    if run.is_none() && held(&Up::Report(report)) {
                        run = Some(cold_start(&world).await);
                    }
                }
                Some(Up::Goodbye(_)) => break,
                _ => say(&mut to, frame).await,
            }
        }
        let version = is_ready(&world).await;
        assert!(path.ends_with(format!("{version}.txt")), "{}", path.display());
        let id = run.expect("the gate was held");
        let detail = world.operator().await.get_run(GetRunRequest { id }).await;
        let detail = detail.unwrap().into_inner();
        let state = detail
            .summary
            .as_ref()
            .map(blackstart_proto::v1::RunSummary::state);
        assert!(
            matches!(state, Some(RunState::Running | RunState::Succeeded)),
            "{detail:#?}"
        );
    }
}

/// The coordinator's half of each, to an agent of today: it obeys, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_coordinators_of_other_versions_said_is_obeyed() {
    for path in kept() {
        let script: VecDeque<_> = read(&path)
            .into_iter()
            .filter(|(who, _)| *who == Who::Coordinator)
            .map(|(_, frame)| frame)
            .collect();
        let world = World::new().await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let at = listen(&world, move |stream| speaks(stream, script.clone(), tell.clone())).await;
        let mut machine = after_a_power_loss(&world, at).await;
        let done = within("the outcome of a command", async {
            loop {
                if let Up::Result(result) = told.recv().await.unwrap() {
                    return result;
                }
            }
        })
        .await;
        assert_eq!(done.status(), CommandStatus::Done, "{done:?}");
        within("the kubelet", async {
            loop {
                if let Up::Report(report) = told.recv().await.unwrap()
                    && report
                        .attestation
                        .is_some_and(|attested| attested.kubelet_healthy)
                {
                    return;
                }
            }
        })
        .await;
        machine.cut_power();
    }
}

/// Plays a coordinator: a word, up to an acknowledgement, for each report; and the last acknowledgement again when there is no more.
async fn speaks(
    mut stream: tokio_rustls::server::TlsStream<TcpStream>,
    mut script: VecDeque<Vec<u8>>,
    tell: mpsc::UnboundedSender<Up>,
) {
    let is_ack = |frame: &[u8]| matches!(coordinator_says(frame), Some(Down::Ack(_)));
    let last = script.iter().rfind(|frame| is_ack(frame)).cloned();
    while let Some(frame) = next_frame(&mut stream).await {
        let Some(body) = agent_says(&frame) else {
            say(&mut stream, &[]).await;
            continue;
        };
        let wants = matches!(body, Up::Hello(_) | Up::Report(_));
        let hello = matches!(body, Up::Hello(_));
        let _gone = tell.send(body);
        if !wants {
            continue;
        }
        while let Some(next) = script.pop_front().or_else(|| last.clone()) {
            say(&mut stream, &next).await;
            if hello || is_ack(&next) {
                break;
            }
        }
    }
}

/// A field that no version of today knows.
const UNKNOWN: [u8; 3] = [0x98, 0x06, 0x01];

/// A field with a message in it, whose last field is one that nobody knows.
fn later(field: u8, message: &impl Message) -> Vec<u8> {
    let mut inner = message.encode_to_vec();
    inner.extend(UNKNOWN);
    let mut outer = vec![field << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut outer);
    outer.extend(inner);
    outer.extend(UNKNOWN);
    outer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_agent_adds_costs_it_no_session() {
    let world = World::new().await;
    let (mut from, mut to) = split(dial(world.address(), &world.files(NODE)).await);
    say(&mut to, &later(1, &crate::support::hello(NODE, "a"))).await;
    // Something that it may say one day; the coordinator takes it for nothing worse than a question for a sign of life.
    say(&mut to, &later(15, &AgentMessage::default())).await;
    let mut report = blackstart_proto::v1::Report {
        sequence: 1,
        ..Default::default()
    };
    report.attestation = Some(blackstart_proto::v1::Attestation {
        gate: 99,
        ..Default::default()
    });
    report.conditions.push(Condition {
        kind: "NotYetInvented".to_owned(),
        severity: 99,
        subject: "something new".to_owned(),
        ..Condition::default()
    });
    say(&mut to, &later(2, &report)).await;
    let result = blackstart_proto::v1::CommandResult {
        status: 99,
        ..Default::default()
    };
    say(&mut to, &later(3, &result)).await;
    report.sequence = 2;
    say(&mut to, &later(2, &report)).await;
    within("the second acknowledgement", async {
        loop {
            let heard = next_frame(&mut from).await.expect("the session goes on");
            if matches!(coordinator_says(&heard), Some(Down::Ack(ack)) if ack.sequence == 2) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_coordinator_adds_costs_the_agent_no_session() {
    let world = World::new().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let message = |body: Vec<u8>| {
        // In a line's message, beside fields that nobody knows.
        let mut frame = vec![1 << 3 | 2];
        prost::encoding::encode_varint(body.len() as u64, &mut frame);
        frame.extend(body);
        frame.extend(UNKNOWN);
        frame
    };
    let ack = blackstart_proto::v1::Ack {
        sequence: 1,
        ..Default::default()
    };
    let command = blackstart_proto::v1::Command {
        command_id: "later-1".to_owned(),
        epoch: 7,
        expires_in_ms: 60_000,
        action: None,
    };
    let welcome = blackstart_proto::v1::Welcome {
        epoch: 7,
        coordinator_version: "99.0.0".to_owned(),
        ..Default::default()
    };
    let script: VecDeque<_> = [
        message(later(1, &welcome)),
        // A word that it does not know, and an order that it cannot carry out.
        message(later(15, &CoordinatorMessage::default())),
        later(15, &CoordinatorMessage::default()),
        message(later(3, &command)),
        message(later(2, &ack)),
    ]
    .into();
    let at = listen(&world, move |stream| speaks(stream, script.clone(), tell.clone())).await;
    let mut machine = switched_on(&world, at);
    let refused = within("a refusal", async {
        loop {
            if let Up::Result(result) = told.recv().await.unwrap() {
                return result;
            }
        }
    })
    .await;
    assert_eq!(refused.status(), CommandStatus::Refused, "{refused:?}");
    // And on it goes, in the same session.
    within("five more reports", async {
        for _ in 0..5 {
            loop {
                match told.recv().await.unwrap() {
                    Up::Report(_) => break,
                    Up::Hello(_) => panic!("a new session"),
                    Up::Result(_)
                    | Up::Goodbye(_)
                    | Up::PermitRequest(_)
                    | Up::PermitReturn(_)
                    | Up::EtcdAnswer(_)
                    | Up::ControlPlaneAnswer(_) => {}
                }
            }
        }
    })
    .await;
    machine.cut_power();
}
