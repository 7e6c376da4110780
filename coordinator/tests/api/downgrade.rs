//! Whoever would have a coordinator speak as one did years ago: an older TLS, ciphers that are broken, or none at all. And what a node that
//! joins makes of a coordinator that speaks so.

use std::sync::Arc;

use blackstart_agent::enrol::join::join;
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::line::{HTTP2, LINE};
use blackstart_proto::tls::{TlsFiles, TlsMaterial};
use blackstart_proto::v1::ListNodesRequest;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::Endpoint;

use crate::enrolment::{Machine, enrols, token};
use crate::support::{World, within};

fn chain(material: &TlsMaterial) -> (RootCertStore, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&material.ca).unwrap())
        .unwrap();
    (
        roots,
        CertificateDer::from_pem_slice(&material.certificate).unwrap(),
        PrivateKeyDer::from_pem_slice(&material.key).unwrap(),
    )
}

/// A handshake by whoever has these files, in these versions.
async fn shakes(
    world: &World,
    files: &TlsFiles,
    versions: &[&'static SupportedProtocolVersion],
    protocol: &[u8],
) -> std::io::Result<()> {
    let (roots, own, key) = chain(&files.read().unwrap());
    let config = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(vec![own], key).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(COORDINATOR_DNS_NAME).unwrap();
    within("a handshake", async {
        let stream = TcpStream::connect(world.address()).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    })
    .await
    .map(drop)
}

/// All that comes until the connection ends.
async fn says(world: &World, first: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(first).await.unwrap();
    let mut said = Vec::new();
    let ended = within("the connection's end", stream.read_to_end(&mut said)).await;
    // One that is reset has ended as well.
    drop(ended);
    said
}

/// The first that a client of the nineties says: TLS 1.0, with RC4, 3DES and CBC, and no extension.
fn client_hello_of_1999() -> Vec<u8> {
    let suites: [u16; 5] = [0x0005, 0x0004, 0x000a, 0x002f, 0x0035];
    let mut body = vec![3, 1];
    body.extend([7; 32]);
    body.push(0);
    body.extend((u16::try_from(suites.len() * 2).unwrap()).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    let mut hello = vec![1, 0];
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend(hello);
    record
}

#[tokio::test]
async fn an_older_tls_older_ciphers_and_none_at_all_get_no_answer() {
    let world = World::with(enrols).await;
    for name in ["biz-1", "ann"] {
        let files = world.files(name);
        for protocol in [LINE, HTTP2] {
            shakes(&world, &files, &[&TLS13], protocol).await.unwrap();
            // Offered both, the newer one is taken.
            shakes(&world, &files, &[&TLS12, &TLS13], protocol).await.unwrap();
            let old = shakes(&world, &files, &[&TLS12], protocol).await.unwrap_err();
            assert!(old.to_string().contains("ProtocolVersion"), "{old}");
        }
    }
    // An alert (21) that is fatal (2), and nothing else.
    let said = says(&world, &client_hello_of_1999()).await;
    assert_eq!((said.first(), said.get(5)), (Some(&21), Some(&2)), "{said:?}");
    assert!(said.len() < 16, "{said:?}");
    // HTTP/2 without TLS, and HTTP/1: no frame, no answer.
    for plain in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"POST /blackstart.v1.FleetService/ListNodes HTTP/1.1\r\nHost: c\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let said = says(&world, plain).await;
        assert!(said.first().is_none_or(|first| *first == 21), "{said:?}");
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", world.address())).unwrap();
    if let Ok(channel) = within("a connection", endpoint.connect()).await {
        let mut fleet = FleetServiceClient::new(channel);
        let asked = fleet.list_nodes(ListNodesRequest::default());
        assert!(within("an answer", asked).await.is_err());
    }
    // None of it took anything from those who come as they should.
    world.agent("biz-1", "a").await;
}

/// It has the coordinator's own key, and speaks an older TLS: it is told no token.
#[tokio::test]
async fn a_node_joins_nobody_who_speaks_an_older_tls() {
    let world = World::with(enrols).await;
    let token = token(&world, "biz-1").await;
    let (_, own, key) = chain(&world.files("coordinator").read().unwrap());
    let ca = CertificateDer::from_pem_file(world.path("pki/ca.crt")).unwrap();
    let config = ServerConfig::builder_with_protocol_versions(&[&TLS12]).with_no_client_auth();
    let mut config = config.with_single_cert(vec![own, ca], key).unwrap();
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err(), "an older TLS was taken");
        }
    });
    let machine = Machine::new('a');
    let mut asks = machine.joins(&world, "biz-1", &token);
    asks.addresses = vec![address];
    let refused = within("an end", join(asks)).await;
    assert!(refused.is_err());
    assert!(!serving.is_finished(), "{:?}", serving.await);
    // The token is as good as it was.
    join(machine.joins(&world, "biz-1", &token)).await.unwrap();
}
