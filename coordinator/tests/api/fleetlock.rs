//! `FleetLock` over real HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use blackstart_coordinator::config::Settings;
use blackstart_coordinator::fleetlock::{FleetLockSettings, FleetLockTls};
use blackstart_proto::v1::GateState;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, sleep};
use tokio_rustls::TlsConnector;

use crate::support::{Agent, World, within};

const PRE_REBOOT: &str = "/v1/pre-reboot";
const STEADY: &str = "/v1/steady-state";

/// An address that nobody listens on.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn served_at(listen: SocketAddr, tls: Option<FleetLockTls>) -> impl FnOnce(&mut Settings) {
    move |settings| settings.fleetlock = Some(FleetLockSettings { listen, tls })
}

fn client(id: &str) -> String {
    format!("{{\"client_params\": {{\"id\": \"{id}\", \"group\": \"biz\"}}}}")
}

/// Status and body of the answer; `None` when there was none.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
    body: &str,
) -> Option<(u16, String)> {
    let length = body.len();
    let request = format!("{head} HTTP/1.1\r\nHost: c\r\nContent-Length: {length}\r\n\r\n{body}");
    let head_only = request.replacen(" HTTP/1.1\r\n", " HTTP/1.1\r\nfleet-lock-protocol: true\r\n", 1);
    let request = if head.starts_with("BARE ") {
        request.replacen("BARE ", "", 1)
    } else {
        head_only
    };
    // It may be refused before all of it was read.
    let _refused = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Asks until somebody listens.
async fn ask(at: SocketAddr, head: &str, body: &str) -> (u16, String) {
    within(head, async {
        loop {
            if let Ok(stream) = TcpStream::connect(at).await
                && let Some(answer) = exchange(stream, head, body).await
            {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn post(at: SocketAddr, path: &str, node: &str) -> (u16, String) {
    ask(at, &format!("POST {path}"), &client(node)).await
}

/// Everybody is well, again and again, until the lock is had.
async fn locked(at: SocketAddr, node: &str, agents: &mut [Agent]) {
    within(&format!("{node}'s lock"), async {
        loop {
            for agent in &mut *agents {
                agent.reports(GateState::Passed, true).await;
            }
            let (status, body) = post(at, PRE_REBOOT, node).await;
            if status == 200 {
                return;
            }
            assert_eq!(status, 409, "{body}");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn agents(world: &World) -> Vec<Agent> {
    vec![
        world.agent("biz-1", "a").await,
        world.agent("biz-2", "a").await,
        world.agent("biz-3", "a").await,
    ]
}

#[tokio::test]
async fn a_lock_outlasts_the_coordinator_and_is_one_at_a_time_until_the_node_is_steady() {
    let at = free().await;
    let mut world = World::with(served_at(at, None)).await;
    let mut fleet = agents(&world).await;
    locked(at, "biz-2", &mut fleet).await;
    // Recursive, by the protocol.
    assert_eq!(post(at, PRE_REBOOT, "biz-2").await, (200, String::new()));
    let (status, body) = post(at, PRE_REBOOT, "biz-3").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["kind"].as_str()), (409, Some("failed_lock")));
    assert!(body["value"].as_str().unwrap().contains("biz-2"), "{body}");
    drop(fleet);
    world.stop().await;

    world.start(served_at(at, None)).await;
    let mut fleet = agents(&world).await;
    for agent in &mut fleet {
        agent.reports(GateState::Passed, true).await;
    }
    let (status, body) = post(at, PRE_REBOOT, "biz-3").await;
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("biz-2"), "{body}");
    assert_eq!(post(at, STEADY, "biz-2").await, (200, String::new()));
    assert_eq!(
        post(at, STEADY, "biz-2").await,
        (200, String::new()),
        "nothing was held"
    );
    locked(at, "biz-3", &mut fleet).await;
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_request_of_the_protocol_is_refused_with_kind_and_value() {
    let at = free().await;
    let mut world = World::with(served_at(at, None)).await;
    let large = format!("{{\"client_params\": \"{}\"}}", "x".repeat(8192));
    let group = client("biz-2").replace("\"group\": \"biz\"", "\"group\": \"default\"");
    for (head, body, status, kind) in [
        (format!("GET {PRE_REBOOT}"), client("biz-2"), 405, "bad_method"),
        (
            format!("POST {PRE_REBOOT}/"),
            client("biz-2"),
            404,
            "unknown_path",
        ),
        (
            format!("BARE POST {PRE_REBOOT}"),
            client("biz-2"),
            400,
            "bad_header",
        ),
        (format!("POST {PRE_REBOOT}"), "{}".to_owned(), 400, "bad_request"),
        (format!("POST {PRE_REBOOT}"), large, 400, "bad_request"),
        (format!("POST {PRE_REBOOT}"), client("nobody"), 404, "unknown_id"),
        (format!("POST {PRE_REBOOT}"), group, 400, "wrong_group"),
    ] {
        let (answered, told) = ask(at, &head, &body).await;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            (answered, told["kind"].as_str()),
            (status, Some(kind)),
            "{head}: {told}"
        );
        assert!(
            told["value"].as_str().is_some_and(|value| !value.is_empty()),
            "{told}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn with_an_authority_only_its_clients_are_served() {
    let at = free().await;
    let mut world = World::new().await;
    world.stop().await;
    let own = world.files("coordinator");
    let tls = FleetLockTls {
        certificate: own.certificate,
        key: own.key,
        ca: Some(own.ca.clone()),
    };
    world.start(served_at(at, Some(tls))).await;
    let connect = async |name: Option<&str>| {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&own.ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match name.map(|name| world.files(name)) {
            None => config.with_no_client_auth(),
            Some(files) => {
                let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("coordinator.blackstart").unwrap();
        let stream = within("the listener", async {
            loop {
                if let Ok(stream) = TcpStream::connect(at).await {
                    return stream;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .ok()?;
        exchange(stream, &format!("POST {STEADY}"), &client("biz-2")).await
    };
    assert_eq!(connect(Some("biz-2")).await, Some((200, String::new())));
    assert_eq!(
        connect(None).await,
        None,
        "nobody is served without a certificate"
    );
    let plain = TcpStream::connect(at).await.unwrap();
    let answer = exchange(plain, &format!("POST {STEADY}"), &client("biz-2")).await;
    assert_eq!(answer, None, "nor without TLS");
    world.stop().await;
}
