//! The API server as the agent sees it: HTTPS with client certificates, patches that are merged, and bad days.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::brakes::Standing;
use blackstart_agent::condition::{Condition, ConditionKey, ConditionKind, Severity};
use blackstart_agent::config::{Access, KubernetesSettings, Settings};
use blackstart_agent::gate::GateState;
use blackstart_agent::kubernetes::follow;
use blackstart_agent::picture::{Attestation, Picture};
use blackstart_agent::report::{Finding, Happening};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_mins(1);
const NODE: &str = "/api/v1/nodes/worker-1";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// How the next request is answered.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Says(u16, Option<&'static str>),
    Hangs,
}

#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    content_type: String,
    authorization: String,
    at: Instant,
}

/// What the API server holds, and what it was asked.
#[derive(Debug, Clone, Default)]
struct Store {
    conditions: BTreeMap<String, Value>,
    events: BTreeMap<String, Value>,
    moods: VecDeque<Mood>,
    seen: Vec<Seen>,
}

impl Store {
    fn status(&self, kind: &str) -> &str {
        self.conditions
            .get(kind)
            .and_then(|condition| condition["status"].as_str())
            .unwrap_or_default()
    }
}

/// Authority, and one certificate for server and client.
struct Pki {
    ca: String,
    cert: String,
    key: String,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    Pki {
        ca,
        cert: cert.pem(),
        key: key.serialize_pem(),
    }
}

impl Pki {
    fn server(&self) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject;
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.ca)).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![der(&self.cert)],
                PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// As kubeadm writes the kubelet's: the client's certificate by its file, beside.
    fn kubeconfig(&self, dir: &Path, address: SocketAddr) -> Access {
        fs::write(dir.join("client.pem"), format!("{}{}", self.cert, self.key)).unwrap();
        fs::write(dir.join("token"), "first\n").unwrap();
        let ca = data_encoding::BASE64.encode(self.ca.as_bytes());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             clusters:\n- name: default-cluster\n  cluster: {{server: \"https://{address}\", certificate-authority-data: {ca}}}\n\
             contexts:\n- name: here\n  context: {{cluster: default-cluster, namespace: default, user: default-auth}}\n\
             users:\n- name: default-auth\n  user: {{client-certificate: client.pem, client-key: client.pem, tokenFile: token}}\n"
        );
        let path = dir.join("kubelet.conf");
        fs::write(&path, text).unwrap();
        Access::Kubeconfig(path)
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, store: watch::Sender<Store>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(converse(stream, tls.clone(), store.clone()));
    }
}

async fn converse(stream: TcpStream, tls: TlsAcceptor, store: watch::Sender<Store>) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let store = store.clone();
        async move { Ok::<_, Infallible>(answer(request, &store).await) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, store: &watch::Sender<Store>) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    };
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        content_type: header("content-type"),
        authorization: header("authorization"),
        at: Instant::now(),
    };
    let (method, path) = (seen.method.clone(), seen.path.clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut mood = None;
    store.send_modify(|store| {
        store.seen.push(seen);
        mood = store.moods.pop_front();
    });
    let mut response = Response::new(Full::default());
    match mood {
        Some(Mood::Hangs) => std::future::pending().await,
        Some(Mood::Says(status, after)) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(after) = after {
                response
                    .headers_mut()
                    .insert("retry-after", after.parse().unwrap());
            }
        }
        None => {
            let mut told = (200, Value::Null);
            store.send_modify(|store| told = grant(store, &method, &path, &body));
            *response.status_mut() = StatusCode::from_u16(told.0).unwrap();
            *response.body_mut() = Full::from(told.1.to_string());
        }
    }
    response
}

/// What a real one does with it.
fn grant(store: &mut Store, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let event = path.strip_prefix(EVENTS).map(|rest| rest.trim_start_matches('/'));
    match (method.as_str(), event) {
        ("GET", None) if path == NODE => {
            let conditions: Vec<_> = store.conditions.values().cloned().collect();
            (200, json!({"kind": "Node", "status": {"conditions": conditions}}))
        }
        ("PATCH", None) if path == format!("{NODE}/status") => {
            for condition in body["status"]["conditions"].as_array().unwrap() {
                let kind = condition["type"].as_str().unwrap().to_owned();
                store.conditions.insert(kind, condition.clone());
            }
            (200, json!({"kind": "Node"}))
        }
        ("POST", Some("")) => {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            if store.events.contains_key(&name) {
                return (409, Value::Null);
            }
            store.events.insert(name, body);
            (201, Value::Null)
        }
        ("PATCH", Some(name)) => match store.events.get_mut(name) {
            Some(event) => {
                for (field, value) in body.as_object().unwrap() {
                    event[field] = value.clone();
                }
                (200, Value::Null)
            }
            None => (404, Value::Null),
        },
        _ => (405, Value::Null),
    }
}

/// An API server, and an agent's reporter that speaks to it.
struct Bench {
    dir: tempfile::TempDir,
    pki: Pki,
    address: SocketAddr,
    store: watch::Sender<Store>,
    server: Option<JoinHandle<()>>,
    picture: watch::Sender<Arc<Picture>>,
    happenings: mpsc::Sender<Happening>,
    in_force: watch::Sender<Arc<Settings>>,
    stop: CancellationToken,
    reporter: JoinHandle<()>,
}

impl Bench {
    async fn start(change: impl FnOnce(&mut KubernetesSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pki, address) = (pki(), listener.local_addr().unwrap());
        let store = watch::Sender::new(Store::default());
        let server = tokio::spawn(serve(listener, pki.server(), store.clone()));
        let mut settings = Settings::for_node("worker-1");
        let mut kubernetes = KubernetesSettings::new(pki.kubeconfig(dir.path(), address), "worker-1");
        kubernetes.deadline = Duration::from_secs(10);
        change(&mut kubernetes);
        settings.kubernetes = Some(kubernetes);
        let in_force = watch::Sender::new(Arc::new(settings));
        let (picture, seen) = watch::channel(Arc::new(picture_of(Vec::new())));
        let (happenings, happened) = mpsc::channel(4096);
        let stop = CancellationToken::new();
        let reporter = tokio::spawn(follow(in_force.subscribe(), seen, happened, stop.clone()));
        Self {
            dir,
            pki,
            address,
            store,
            server: Some(server),
            picture,
            happenings,
            in_force,
            stop,
            reporter,
        }
    }

    fn stands(&self, conditions: Vec<Condition>) {
        self.picture.send_replace(Arc::new(picture_of(conditions)));
    }

    async fn until(&self, what: &str, done: impl FnMut(&Store) -> bool) -> Store {
        let mut store = self.store.subscribe();
        let Ok(seen) = timeout(SOON, store.wait_for(done)).await else {
            panic!("{what}: {:?}", self.store.borrow());
        };
        let seen = seen.unwrap();
        seen.clone()
    }
}

fn picture_of(conditions: Vec<Condition>) -> Picture {
    Picture {
        attestation: Attestation {
            gate: GateState::Absent,
            kubelet_active: true,
            kubelet_healthy: true,
            apiserver_ready: false,
            api_server: None,
            observed_at: Instant::now(),
            waiting_on: String::new(),
            manifests: blackstart_proto::component::Manifests::new(),
        },
        conditions,
        units: Vec::new(),
        helpers: Vec::new(),
        disks: Vec::new(),
        brakes: Standing::default(),
        set_aside: std::sync::Arc::default(),
        waiting: Vec::new(),
    }
}

fn full_disk() -> Condition {
    Condition {
        key: ConditionKey {
            kind: ConditionKind::DiskPressure,
            subject: "/var".to_owned(),
        },
        severity: Severity::Warning,
        since: Instant::now(),
        evidence: "93% used".to_owned(),
        escalated: false,
        log: None,
        heaviest: Vec::new(),
    }
}

fn raised(subject: &str) -> Happening {
    Happening::Raised(Finding {
        kind: ConditionKind::UnitFailed,
        subject: subject.to_owned(),
        severity: Severity::Critical,
        evidence: "it failed".to_owned(),
        escalated: false,
    })
}

const DISK: &str = "BlackstartDiskProblem";

#[tokio::test]
async fn a_condition_is_true_then_false_then_unknown_and_only_what_changed_is_a_transition() {
    let bench = Bench::start(|_| {}).await;
    // From an agent before this one, long ago; and one of the kubelet's, which stays as it is.
    let old = |kind: &str| json!({"type": kind, "status": "False", "reason": "x", "lastTransitionTime": "2020-01-01T00:00:00Z"});
    bench.store.send_modify(|store| {
        for kind in [DISK, "BlackstartClockProblem", "Ready"] {
            store.conditions.insert(kind.to_owned(), old(kind));
        }
    });
    bench.stands(vec![full_disk()]);
    let store = bench.until("raised", |store| store.status(DISK) == "True").await;
    let disk = &store.conditions[DISK];
    assert_eq!(disk["reason"], "DiskPressure");
    assert_eq!(disk["message"], "/var: 93% used");
    assert_eq!(disk["lastTransitionTime"], disk["lastHeartbeatTime"]);
    let clock = &store.conditions["BlackstartClockProblem"];
    assert_eq!(clock["lastTransitionTime"], "2020-01-01T00:00:00Z");
    assert_ne!(clock["lastHeartbeatTime"], "2020-01-01T00:00:00Z");
    assert_eq!(store.conditions["Ready"], old("Ready"));
    let [get, patch] = store.seen.as_slice() else {
        panic!("{:?}", store.seen);
    };
    assert_eq!((&get.method, get.path.as_str()), (&Method::GET, NODE));
    assert_eq!(
        (&patch.method, patch.path.as_str()),
        (&Method::PATCH, "/api/v1/nodes/worker-1/status")
    );
    assert_eq!(patch.content_type, "application/strategic-merge-patch+json");
    assert_eq!(patch.authorization, "Bearer first");

    // A token that was replaced in place.
    fs::write(bench.dir.path().join("token"), "second").unwrap();
    bench.stands(Vec::new());
    let store = bench
        .until("cleared", |store| store.status(DISK) == "False")
        .await;
    assert_eq!(store.conditions[DISK]["reason"], "NoProblem");
    assert_ne!(
        store.conditions[DISK]["lastTransitionTime"],
        "2020-01-01T00:00:00Z"
    );
    assert_eq!(store.seen.last().unwrap().authorization, "Bearer second");

    bench.stop.cancel();
    timeout(SOON, bench.reporter).await.unwrap().unwrap();
    let store = bench.store.borrow();
    assert_eq!(store.status(DISK), "Unknown");
    assert_eq!(store.conditions["Ready"], old("Ready"));
}

#[tokio::test]
async fn a_server_that_is_busy_broken_hung_or_away_is_told_when_it_is_back() {
    let mut bench = Bench::start(|settings| {
        settings.events = false;
        settings.deadline = Duration::from_secs(2);
    })
    .await;
    bench.store.send_modify(|store| {
        store.moods = [Mood::Says(429, Some("2")), Mood::Says(500, None), Mood::Hangs].into();
    });
    bench.stands(vec![full_disk()]);
    let store = bench.until("told", |store| store.status(DISK) == "True").await;
    // It was let alone for as long as it asked.
    assert!(store.seen[1].at - store.seen[0].at >= Duration::from_secs(2));
    assert_eq!(store.seen.len(), 5, "{:?}", store.seen);

    bench
        .store
        .send_modify(|store| store.moods = [Mood::Says(409, None)].into());
    bench.stands(Vec::new());
    bench
        .until("after a conflict", |store| store.status(DISK) == "False")
        .await;

    // Nobody listens there, and then somebody does.
    bench.server.take().unwrap().abort();
    while TcpStream::connect(bench.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    bench.stands(vec![full_disk()]);
    let listener = TcpListener::bind(bench.address).await.unwrap();
    bench.server = Some(tokio::spawn(serve(
        listener,
        bench.pki.server(),
        bench.store.clone(),
    )));
    bench.until("back", |store| store.status(DISK) == "True").await;
}

#[tokio::test]
async fn a_flood_is_few_requests_and_the_same_again_is_a_count() {
    let bench = Bench::start(|settings| settings.node_conditions = false).await;
    let begun = Instant::now();
    // It is in the middle of this one when the others happen, and does not know whether it was written.
    bench
        .store
        .send_modify(|store| store.moods = [Mood::Says(500, None)].into());
    bench.happenings.send(raised("docker.service")).await.unwrap();
    bench.stands(Vec::new());
    bench.until("first", |store| store.seen.len() == 1).await;
    for number in 0..1000 {
        bench.happenings.send(raised("docker.service")).await.unwrap();
        bench
            .happenings
            .send(raised(&format!("unit-{number}.service")))
            .await
            .unwrap();
    }
    let docker = |store: &Store| {
        let mut events = store.events.values();
        events
            .find(|event| event["message"] == "docker.service: it failed")
            .cloned()
    };
    let store = bench
        .until("all of a burst", |store| {
            let count = docker(store).and_then(|event| event["count"].as_u64());
            store.seen.len() >= 20 && count > Some(500)
        })
        .await;
    let allowed = 20 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap() + 1;
    assert!(store.seen.len() <= allowed, "{}", store.seen.len());
    let event = docker(&store).unwrap();
    assert_eq!(event["reason"], "UnitFailed");
    assert_eq!(event["type"], "Warning");
    assert_eq!(
        event["involvedObject"],
        json!({"kind": "Node", "name": "worker-1", "uid": "worker-1"})
    );
    let post = &store.seen[1];
    assert_eq!((&post.method, post.path.as_str()), (&Method::POST, EVENTS));
    assert_eq!(post.content_type, "application/json");
    assert!(store.conditions.is_empty());
}

#[tokio::test]
async fn it_begins_and_ends_with_a_reload() {
    let bench = Bench::start(|_| {}).await;
    let on = bench.in_force.borrow().as_ref().clone();
    let mut off = on.clone();
    off.kubernetes = None;
    bench.in_force.send_replace(Arc::new(off));
    bench.stands(vec![full_disk()]);
    for _ in 0..100 {
        // Nobody takes them but the reporter, which drops them.
        bench.happenings.send(raised("docker.service")).await.unwrap();
    }
    while bench.happenings.capacity() < bench.happenings.max_capacity() {
        tokio::task::yield_now().await;
    }
    assert!(bench.store.borrow().seen.is_empty());
    bench.in_force.send_replace(Arc::new(on));
    let store = bench.until("on", |store| store.status(DISK) == "True").await;
    assert!(store.events.is_empty(), "{store:?}");
}
