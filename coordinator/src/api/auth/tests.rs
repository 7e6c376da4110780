//! A real server and real clients over loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use blackstart_proto::tls::{TlsFiles, TlsMaterial, client_config};
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use blackstart_proto::v1::{AgentMessage, CoordinatorMessage};
use futures_util::StreamExt;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Response, Streaming};

use super::*;
use crate::api::handshake::{secured, server_tls};
use crate::api::listen::incoming;
use crate::pki::Authority;

/// Answers every call with who it takes the caller for.
#[derive(Debug)]
struct Who;

#[tonic::async_trait]
impl AgentService for Who {
    type SessionStream = tokio_stream::Empty<Result<CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let told = match (require_node(&request), require_operator(&request)) {
            (Ok(node), Err(_)) => format!("node {node}"),
            (Err(_), Ok(operator)) => format!("operator {operator}"),
            (Err(error), Err(_)) => return Err(error),
            (Ok(_), Ok(_)) => "both".to_owned(),
        };
        Err(Status::already_exists(told))
    }
}

/// A server with the certificate of `coordinator`, as long as the set lives.
async fn serve(coordinator: &TlsFiles) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = server_tls(&coordinator.read().unwrap()).unwrap();
    let secured =
        secured(incoming(vec![listener]), tls, Arc::default(), Arc::default()).map(Ok::<_, Infallible>);
    let server = Server::builder()
        .add_service(AgentServiceServer::new(Who))
        .serve_with_incoming(secured);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.await.unwrap() });
    (address, tasks)
}

async fn call(address: SocketAddr, material: &TlsMaterial) -> Result<Status, tonic::transport::Error> {
    let channel: Channel = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(client_config(material))?
        .connect()
        .await?;
    let call = AgentServiceClient::new(channel)
        .session(tokio_stream::empty::<AgentMessage>())
        .await;
    Ok(call.unwrap_err())
}

/// A certificate of the authority in `dir`, with these URI names.
fn issue_with(dir: &Path, uris: &[&str]) -> TlsMaterial {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&read("ca.crt"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap()))
        .collect();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    TlsMaterial {
        ca: read("ca.crt").into_bytes(),
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes().into(),
    }
}

#[tokio::test]
async fn callers_are_known_by_their_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let (address, _server) = serve(&authority.issue_coordinator("c").unwrap()).await;
    for (files, expected) in [
        (authority.issue_node("10.128.38.1").unwrap(), "node 10.128.38.1"),
        (authority.issue_operator("ann").unwrap(), "operator ann"),
    ] {
        let status = call(address, &files.read().unwrap()).await.unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::AlreadyExists, expected),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_certificate_must_name_exactly_one_of_us() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let (address, _server) = serve(&authority.issue_coordinator("c").unwrap()).await;
    for (uris, why) in [
        (&["https://elsewhere/x"][..], "names no blackstart:// identity"),
        (
            &["blackstart://node/a", "blackstart://operator/b"],
            "names several identities",
        ),
        (&["blackstart://root/a"], "is not blackstart://node/NAME"),
        (&["blackstart://coordinator/a"], "only nodes may call this"),
    ] {
        let status = call(address, &issue_with(dir.path(), uris)).await.unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    // Others beside ours do no harm.
    let material = issue_with(dir.path(), &["https://elsewhere/x", "blackstart://node/a"]);
    assert_eq!(call(address, &material).await.unwrap().message(), "node a");
}

#[tokio::test]
async fn who_is_of_another_authority_is_not_heard() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::create(dir.path()).unwrap();
    let stranger = Authority::create(other.path()).unwrap().issue_node("n").unwrap();
    let (address, _server) = serve(&authority.issue_coordinator("c").unwrap()).await;
    let material = TlsMaterial {
        ca: std::fs::read(dir.path().join("ca.crt")).unwrap(),
        ..stranger.read().unwrap()
    };
    // TLS 1.3 lets the client believe that it is connected until the server's alert comes.
    if let Ok(status) = call(address, &material).await {
        assert_ne!(status.code(), Code::AlreadyExists, "{status}");
    }
    // And a node cannot stand in for the coordinator.
    let node = authority.issue_node("evil").unwrap();
    let (address, _server) = serve(&node).await;
    let operator = authority.issue_operator("ann").unwrap().read().unwrap();
    assert!(call(address, &operator).await.is_err());
}

#[test]
fn a_request_without_a_certificate_is_nobodys() {
    let error = peer(&Extensions::new()).unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(matches!(
        Shown::read(b"nonsense").map(|shown| shown.peer),
        Err(why) if why.contains("cannot be read")
    ));
}
