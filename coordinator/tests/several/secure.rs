//! etcd over TLS, with certificates of the product's own authority: who shows the right ones leads, and who does not is told which
//! line to look at.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::{TlsFiles, client_config};
use blackstart_proto::v1::ListCoordinatorsRequest;
use blackstart_proto::v1::coordinator_service_client::CoordinatorServiceClient;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tokio::process::{Child, Command};
use tonic::transport::Endpoint;

use crate::etcd::{Etcd, free_port, is_here};
use crate::world::{INVENTORY, configuration, until};

/// A server's certificate for loopback, of the authority in `pki`.
fn server_certificate(pki: &Path) -> TlsFiles {
    let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&read("ca.crt"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    // etcd is its own client as well.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let files = TlsFiles::in_dir(pki, "etcd");
    fs::write(&files.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// One coordinator, with what it says.
struct Alone {
    process: Child,
    log: std::path::PathBuf,
    said_before: usize,
}

impl Alone {
    fn start(root: &Path, listens: std::net::SocketAddr, store: &str) -> Self {
        let dir = root.join("coordinator-1");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("boot_id"), "boot").unwrap();
        let config = dir.join("coordinator.yaml");
        fs::write(&config, configuration(root, 1, (listens, listens), "5s", store)).unwrap();
        let log = dir.join("log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let said_before = fs::read_to_string(&log).unwrap().len();
        let process = Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"))
            .args(["run", "--config"])
            .arg(config)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            process,
            log,
            said_before,
        }
    }

    async fn says(&mut self, what: &[&str]) {
        let log = self.log.clone();
        let said_before = self.said_before;
        until(&format!("{what:?} in {}", log.display()), async || {
            let said = fs::read_to_string(&log).unwrap().split_off(said_before);
            what.iter().all(|what| said.contains(what)).then_some(())
        })
        .await;
        self.process.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_speaks_tls_with_etcd_and_says_which_file_is_the_wrong_one() {
    if !is_here("etcd over TLS") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, pki, strange) = (dir.path(), dir.path().join("pki"), dir.path().join("strange"));
    let authority = Authority::create(&pki).unwrap();
    authority.issue_coordinator("coordinator-1").unwrap();
    authority.issue_operator("ann").unwrap();
    let stranger = Authority::create(&strange).unwrap();
    stranger.issue_coordinator("coordinator-1").unwrap();
    fs::write(root.join("inventory.yaml"), INVENTORY).unwrap();
    let etcd = Etcd::start_with(1, Some(&server_certificate(&pki)));
    let member = etcd.addresses()[0];
    let listens = free_port();
    let ours = TlsFiles::in_dir(&pki, "coordinator-1");
    let theirs = TlsFiles::in_dir(&strange, "coordinator-1");
    let with = |ca: &TlsFiles, own: &TlsFiles| {
        format!(
            "{{endpoints: [\"https://{member}\"], ca: {}, certificate: {}, key: {}",
            ca.ca.display(),
            own.certificate.display(),
            own.key.display()
        )
    };

    let right = Alone::start(root, listens, &with(&ours, &ours));
    until("a leader over TLS", async || {
        let tls = client_config(&TlsFiles::in_dir(&pki, "ann").read().unwrap());
        let endpoint = Endpoint::from_shared(format!("https://{listens}")).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.ok()?;
        let mut service = CoordinatorServiceClient::new(channel);
        let answer = service.list_coordinators(ListCoordinatorsRequest {}).await.ok()?;
        answer.into_inner().leads.then_some(())
    })
    .await;
    drop(right);

    // etcd is of another authority than `ca` is.
    let ca = theirs.ca.display().to_string();
    Alone::start(root, listens, &with(&theirs, &ours))
        .says(&["not from the authority in", &ca, "store.etcd.ca"])
        .await;
    // etcd does not know the authority of our certificate.
    let certificate = theirs.certificate.display().to_string();
    Alone::start(root, listens, &with(&ours, &theirs))
        .says(&[
            "our certificate",
            &certificate,
            "store.etcd.certificate",
            "--trusted-ca-file",
        ])
        .await;
    // Nothing is shown at all.
    Alone::start(root, listens, &format!("{{endpoints: [\"http://{member}\"]"))
        .says(&["if this member speaks TLS, store.etcd.endpoints wants https://"])
        .await;
    let only_ca = format!("{{endpoints: [\"https://{member}\"], ca: {}", ours.ca.display());
    Alone::start(root, listens, &only_ca)
        .says(&[
            "store.etcd.ca",
            "https endpoints need all of ca, certificate and key",
        ])
        .await;
}
