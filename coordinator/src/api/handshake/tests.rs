use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::tls::TlsMaterial;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::listen;
use crate::pki::Authority;

const DEADLINE: Duration = Duration::from_mins(1);

/// How a node of the same authority connects.
fn connector(material: &TlsMaterial) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&material.ca).unwrap())
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(&material.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&material.key).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key);
    TlsConnector::from(Arc::new(config.unwrap()))
}

#[tokio::test]
async fn many_who_say_nothing_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let own = authority.issue_coordinator("c").unwrap().read().unwrap();
    let node = authority.issue_node("n").unwrap().read().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = secured(
        listen::incoming(vec![listener]),
        server_tls(&own).unwrap(),
        Arc::default(),
        Arc::default(),
    );
    pin!(connections);
    let mut silent = Vec::new();
    for _ in 0..SLOTS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(COORDINATOR_DNS_NAME).unwrap();
        connector(&node).connect(name, stream).await.unwrap()
    };
    let both = async { tokio::join!(client, connections.next()) };
    let (_client, server) = timeout(DEADLINE, both).await.unwrap();
    let shown = server.unwrap().connect_info().peer_certs();
    assert_eq!(shown.map(|chain| chain.len()), Some(1));
    drop(silent);
}

#[test]
fn visitors_of_one_address_leave_room_for_others() {
    let visitors = Arc::new(Visitors::default());
    let at = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
    let mut stay = Vec::new();
    for address in 1..=4 {
        stay.extend((0..1000).filter_map(|_| visitors.enter(at(address))));
        assert_eq!(stay.len(), usize::from(address) * OF_AN_ADDRESS);
    }
    assert_eq!(stay.len(), VISITORS);
    assert!(visitors.enter(at(9)).is_none());
    stay.clear();
    assert!(visitors.0.lock().unwrap().is_empty());
    assert!(visitors.enter(at(9)).is_some());
}

#[test]
fn files_that_are_none_are_told_by_what_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let whole = authority.issue_coordinator("c").unwrap().read().unwrap();
    let broken = TlsMaterial {
        key: b"nonsense".to_vec().into(),
        ..whole.clone()
    };
    assert_eq!(server_tls(&broken).unwrap_err().to_string(), "read the key");
    let foreign = TlsMaterial {
        key: authority.issue_node("n").unwrap().read().unwrap().key,
        ..whole
    };
    assert!(server_tls(&foreign).is_err(), "the key of another certificate");
}
