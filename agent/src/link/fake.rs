//! A coordinator for the link's tests: the real protocol over real mTLS, in a runtime of its own, so that it can be killed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::leader::elsewhere;
use blackstart_proto::line::{self, LINE};
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_message::Body as Up;
use blackstart_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use blackstart_proto::v1::coordinator_message::Body as Down;
use blackstart_proto::v1::line_message::Body;
use futures_util::stream::unfold;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS12;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::split;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// As long as anything may take in these tests.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A private authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: SanType, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes the three files of a node.
    pub(super) fn enrol(&self, dir: &Path, node: &str) -> TlsFiles {
        let name = SanType::URI(format!("blackstart://node/{node}").try_into().unwrap());
        let (certificate, key) = self.issue(name, ExtendedKeyUsagePurpose::ClientAuth);
        let files = TlsFiles::in_dir(dir, node);
        fs::write(&files.ca, self.0.pem()).unwrap();
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        files
    }
}

/// How it behaves.
#[derive(Debug)]
pub(super) struct Manners {
    /// Acknowledges reports.
    pub(super) acknowledges: AtomicBool,
    /// Says with each acknowledgement that it works on the held node.
    pub(super) holds: AtomicBool,
    /// It does not answer who asks for a sign of life.
    pub(super) mute: AtomicBool,
    /// How often it was asked for one.
    pub(super) asked: watch::Sender<u32>,
    /// It follows, and sends everybody to the one that leads.
    pub(super) follows: Mutex<Option<SocketAddr>>,
}

/// A coordinator that runs until it is dropped: then it is gone at once, like one that was killed.
pub(super) struct Coordinator {
    pub(super) address: SocketAddr,
    pub(super) manners: Arc<Manners>,
    heard: mpsc::Receiver<Up>,
    say: broadcast::Sender<Down>,
    runtime: Option<Runtime>,
}

impl Coordinator {
    pub(super) async fn start(authority: &Authority) -> Self {
        Self::start_at(authority, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// An older one, which knows of no lines.
    pub(super) async fn start_of_old(authority: &Authority) -> Self {
        Self::start_with(authority, SocketAddr::from(([127, 0, 0, 1], 0)), false).await
    }

    pub(super) async fn start_at(authority: &Authority, address: SocketAddr) -> Self {
        Self::start_with(authority, address, true).await
    }

    /// Takes connections by an older TLS only, with a certificate that is a coordinator's; until it is dropped.
    pub(super) async fn of_old_tls(authority: &Authority) -> (SocketAddr, JoinHandle<()>) {
        let name = SanType::DnsName(COORDINATOR_DNS_NAME.try_into().unwrap());
        let (certificate, key) = authority.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
        let own = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_protocol_versions(&[&TLS12]).with_no_client_auth();
        let mut config = config.with_single_cert(vec![own], key).unwrap();
        config.alpn_protocols = vec![LINE.to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taking = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(tls.accept(stream).await.is_err(), "an older TLS was taken");
        });
        (address, taking)
    }

    async fn start_with(authority: &Authority, address: SocketAddr, lines: bool) -> Self {
        let name = SanType::DnsName(COORDINATOR_DNS_NAME.try_into().unwrap());
        let (certificate, key) = authority.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
        let authority = authority.0.pem();
        let listener = timeout(SOON, bind(address)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();

        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (hear, heard) = mpsc::channel(10_000);
        let say = broadcast::channel(100).0;
        let manners = Arc::new(Manners {
            acknowledges: AtomicBool::new(true),
            holds: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            asked: watch::Sender::new(0),
            follows: Mutex::new(None),
        });
        let service = Service {
            hear,
            say: say.clone(),
            manners: Arc::clone(&manners),
        };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            if lines {
                let tls = acceptor(&authority, &certificate, &key);
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(line(tls.clone(), stream, service.clone()));
                }
            }
            let tls = ServerTlsConfig::new()
                .identity(Identity::from_pem(certificate, key))
                .client_ca_root(Certificate::from_pem(authority));
            Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(AgentServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            manners,
            heard,
            say,
            runtime: Some(runtime),
        }
    }

    /// To every agent in session.
    pub(super) fn say(&self, body: Down) {
        self.say.send(body).unwrap();
    }

    pub(super) fn command(&self, command_id: &str, action: Option<wire::command::Action>) {
        self.say(Down::Command(wire::Command {
            command_id: command_id.to_owned(),
            epoch: 7,
            expires_in_ms: 60_000,
            action,
        }));
    }

    pub(super) fn heard_nothing(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }

    /// Passes over messages until `pick` takes one.
    pub(super) async fn hears<T>(&mut self, what: &str, mut pick: impl FnMut(Up) -> Option<T>) -> T {
        let hearing = async {
            loop {
                if let Some(picked) = pick(self.heard.recv().await.unwrap()) {
                    return picked;
                }
            }
        };
        timeout(SOON, hearing)
            .await
            .unwrap_or_else(|_| panic!("the coordinator never heard {what}"))
    }

    pub(super) async fn hears_hello(&mut self) -> wire::Hello {
        self.hears("a hello", |body| match body {
            Up::Hello(hello) => Some(hello),
            Up::Report(_)
            | Up::Result(_)
            | Up::Goodbye(_)
            | Up::PermitRequest(_)
            | Up::PermitReturn(_)
            | Up::EtcdAnswer(_)
            | Up::ControlPlaneAnswer(_) => None,
        })
        .await
    }

    pub(super) async fn hears_report(&mut self) -> wire::Report {
        self.hears("a report", |body| match body {
            Up::Report(report) => Some(report),
            Up::Hello(_)
            | Up::Result(_)
            | Up::Goodbye(_)
            | Up::PermitRequest(_)
            | Up::PermitReturn(_)
            | Up::EtcdAnswer(_)
            | Up::ControlPlaneAnswer(_) => None,
        })
        .await
    }

    pub(super) async fn hears_result(&mut self) -> wire::CommandResult {
        self.hears("a result", |body| match body {
            Up::Result(result) => Some(result),
            Up::Hello(_)
            | Up::Report(_)
            | Up::Goodbye(_)
            | Up::PermitRequest(_)
            | Up::PermitReturn(_)
            | Up::EtcdAnswer(_)
            | Up::ControlPlaneAnswer(_) => None,
        })
        .await
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A coordinator that was killed a moment ago may still hold its port.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("bind {address}: {error}"),
        }
    }
}

fn acceptor(authority: &str, certificate: &str, key: &str) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let own = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own], key)
        .unwrap();
    config.alpn_protocols = vec![LINE.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A session on a line. Ends when either side does.
async fn line(tls: TlsAcceptor, stream: TcpStream, service: Service) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let (read, write) = split(stream);
    let mut outgoing = line::Outgoing::new(write);
    let incoming = line::Incoming::new(read, 1 << 20);
    let inbound = unfold(incoming, |mut incoming| async move {
        let message = incoming.next().await.map_err(Status::from).transpose()?;
        Some((message, incoming))
    });
    let mut said = match service.open(Box::pin(inbound)).await {
        Ok(said) => said,
        Err(status) => ReceiverStream::new({
            let (last_word, said) = mpsc::channel(1);
            last_word.send(Err(status)).await.unwrap();
            said
        }),
    };
    while let Some(said) = said.next().await {
        let body = Some(match said {
            Ok(message) => Body::Message(message),
            Err(status) => Body::End(wire::SessionEnd::from(&status)),
        });
        if outgoing.send(&wire::LineMessage { body }).await.is_err() {
            return;
        }
    }
    let _gone = outgoing.end().await;
}

type Said = Result<wire::CoordinatorMessage, Status>;

#[derive(Clone)]
struct Service {
    hear: mpsc::Sender<Up>,
    say: broadcast::Sender<Down>,
    manners: Arc<Manners>,
}

impl Service {
    /// A session, whichever way it is held.
    async fn open(
        &self,
        mut inbound: impl Stream<Item = Result<wire::AgentMessage, Status>> + Unpin + Send + 'static,
    ) -> Result<ReceiverStream<Said>, Status> {
        let follows = *self.manners.follows.lock().unwrap();
        if let Some(leader) = follows {
            let _hello = inbound.next().await;
            return Err(elsewhere("another leads", &[leader]));
        }
        let (out, messages) = mpsc::channel(100);
        let hear = self.hear.clone();
        let mut say = self.say.subscribe();
        let manners = Arc::clone(&self.manners);
        let welcome = Down::Welcome(wire::Welcome {
            brakes: None,
            epoch: 7,
            coordinator_version: "test".into(),
            renew: false,
        });
        tokio::spawn(async move {
            let mut next = Some(welcome);
            loop {
                if let Some(body) = next.take() {
                    let message = wire::CoordinatorMessage { body: Some(body) };
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    said = say.recv() => next = said.ok(),
                    message = inbound.next() => {
                        let Some(Ok(wire::AgentMessage { body })) = message else {
                            return;
                        };
                        let Some(body) = body else {
                            // It asks for a sign of life.
                            if !manners.mute.load(Ordering::SeqCst) {
                                let sign = wire::CoordinatorMessage::default();
                                let _gone = out.send(Ok(sign)).await;
                            }
                            manners.asked.send_modify(|asked| *asked += 1);
                            continue;
                        };
                        if let Up::Report(report) = &body
                            && manners.acknowledges.load(Ordering::SeqCst)
                        {
                            next = Some(Down::Ack(wire::Ack {
                                sequence: report.sequence,
                                hold: manners.holds.load(Ordering::SeqCst),
                                waiting_on: "wave 2".into(),
                            }));
                        }
                        hear.try_send(body).unwrap();
                    }
                }
            }
        });
        Ok(ReceiverStream::new(messages))
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Said>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(self.open(request.into_inner()).await?))
    }
}
