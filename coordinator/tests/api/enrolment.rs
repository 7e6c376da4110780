//! Nodes that come by their certificates themselves: the real agent's part, over real TLS, with a real coordinator.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blackstart_agent::enrol::EnrolError;
use blackstart_agent::enrol::join::{Join, Joined, join};
use blackstart_agent::enrol::renew::{Renewal, follow};
use blackstart_coordinator::config::Settings;
use blackstart_coordinator::trust::desk::EnrolmentSettings;
use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::trust_service_client::TrustServiceClient;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Status};

use crate::support::{Agent, World, hello, within};

pub(crate) const DAY: i64 = 24 * 3600;

/// With nodes that join.
pub(crate) fn enrols(settings: &mut Settings) {
    settings.enrolment = Some(EnrolmentSettings {
        authority: settings.tls.ca.parent().unwrap().to_owned(),
        lifetime: Duration::from_hours(90 * 24),
        grace: Duration::from_hours(60 * 24),
    });
}

pub(crate) async fn trust(world: &World, operator: &str) -> TrustServiceClient<Channel> {
    TrustServiceClient::new(world.connect(world.tls(operator)).await.unwrap())
}

/// For one node, any if it is empty.
pub(crate) async fn token(world: &World, node: &str) -> v1::CreateTokenResponse {
    let request = v1::CreateTokenRequest {
        ttl_s: 3600,
        node: node.to_owned(),
        ..v1::CreateTokenRequest::default()
    };
    trust(world, "ann")
        .await
        .create_token(request)
        .await
        .unwrap()
        .into_inner()
}

/// A machine with nothing on it.
pub(crate) struct Machine(tempfile::TempDir);

impl Machine {
    pub(crate) fn new(id: char) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("machine-id"), id.to_string().repeat(32)).unwrap();
        Self(dir)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    pub(crate) fn joins(&self, world: &World, node: &str, token: &v1::CreateTokenResponse) -> Join {
        Join {
            addresses: vec![world.address()],
            token: token.token.clone(),
            ca_hash: token.ca_hash.clone(),
            node: node.to_owned(),
            state_dir: self.state(),
            config: self.0.path().join("agent.yaml"),
            machine_id: self.0.path().join("machine-id"),
            anew: false,
        }
    }

    /// Runs what an agent runs, until its certificate is another one.
    async fn renews(&self, world: &World, node: &str, files: &TlsFiles, clock: ClockFloor) {
        let before = fs::read(&files.certificate).unwrap();
        let renewal = Renewal {
            addresses: vec![world.address()],
            files: files.clone(),
            node: node.to_owned(),
            clock: Arc::new(clock),
            machine_id: self.0.path().join("machine-id"),
            wanted: Arc::default(),
        };
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow(renewal, stop.clone()));
        within("a new certificate", async {
            while fs::read(&files.certificate).unwrap() == before {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        stop.cancel();
        within("the end", following).await.unwrap();
    }
}

/// A session with these files, or why there is none.
pub(crate) async fn session(world: &World, files: &TlsFiles, node: &str) -> Result<Agent, Status> {
    let line = world.line(files).await;
    let line = line.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut agent = Agent::open(line, hello(node, "boot")).await?;
    agent.told().await?;
    Ok(agent)
}

fn refused(done: Result<Joined, EnrolError>) -> String {
    match done {
        Err(EnrolError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_node_joins_by_a_token_once_and_what_it_is_given_works() {
    let world = World::with(enrols).await;
    let token = token(&world, "biz-1").await;
    let machine = Machine::new('a');
    let joined = join(machine.joins(&world, "biz-1", &token)).await.unwrap();
    assert_eq!(
        (joined.cluster.as_str(), joined.role.as_str()),
        ("biz", "control-plane")
    );
    for file in [&joined.files.key, &joined.files.certificate] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    let config = joined.config.clone().unwrap();
    let settings = blackstart_agent::config::parse("agent.yaml", &config).unwrap();
    assert_eq!(settings.coordinator.unwrap().tls, joined.files);
    session(&world, &joined.files, "biz-1").await.unwrap();
    // It speaks for itself alone.
    let status = session(&world, &joined.files, "biz-2").await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    // The token is used up, for whoever comes by it later.
    let thief = Machine::new('b');
    let told = refused(join(thief.joins(&world, "biz-1", &token)).await);
    assert!(told.contains("used up"), "{told}");
    // And nothing of what would be secret is kept.
    let mut ann = trust(&world, "ann").await;
    let tokens = ann.list_tokens(v1::ListTokensRequest {});
    let tokens = tokens.await.unwrap().into_inner().tokens;
    assert_eq!((tokens[0].left, tokens[0].over.as_str()), (0, "used"));
    let secret = token.token.split('.').next_back().unwrap().to_owned();
    let store = fs::read(world.path("state/store.redb")).unwrap();
    assert!(!store.windows(secret.len()).any(|part| part == secret.as_bytes()));
}

#[tokio::test]
async fn who_asked_and_got_no_answer_asks_again_with_the_same_token() {
    let world = World::with(enrols).await;
    let token = token(&world, "biz-2").await;
    let machine = Machine::new('a');
    let joined = join(machine.joins(&world, "biz-2", &token)).await.unwrap();
    // As a power loss before the certificate was written leaves it.
    fs::remove_file(&joined.files.certificate).unwrap();
    let again = join(machine.joins(&world, "biz-2", &token)).await.unwrap();
    session(&world, &again.files, "biz-2").await.unwrap();
}

#[tokio::test]
async fn a_stolen_token_opens_no_other_door() {
    let world = World::with(enrols).await;
    let thief = Machine::new('b');
    // One for another node.
    let named = token(&world, "biz-1").await;
    let told = refused(join(thief.joins(&world, "biz-2", &named)).await);
    assert!(told.contains("for node biz-1 only"), "{told}");
    // One for any, where the node has joined already.
    join(Machine::new('a').joins(&world, "biz-1", &named))
        .await
        .unwrap();
    let any = token(&world, "").await;
    let told = refused(join(thief.joins(&world, "biz-1", &any)).await);
    assert!(told.contains("has joined before"), "{told}");
    // A node that nobody has declared.
    let told = refused(join(thief.joins(&world, "stranger", &any)).await);
    assert!(told.contains("not in the inventory"), "{told}");
    // Its secret is what counts.
    let mut guessed = any.clone();
    guessed.token = format!("{}.{}", any.token.split('.').next().unwrap(), "0".repeat(32));
    let told = refused(join(thief.joins(&world, "biz-2", &guessed)).await);
    assert!(told.contains("not known"), "{told}");
    // Taken back.
    let id = any.made.clone().unwrap().id;
    let mut ann = trust(&world, "ann").await;
    ann.revoke_token(v1::RevokeTokenRequest { id }).await.unwrap();
    let told = refused(join(thief.joins(&world, "biz-2", &any)).await);
    assert!(told.contains("taken back by ann"), "{told}");
}

#[tokio::test]
async fn a_token_ends() {
    let world = World::with(enrols).await;
    let mut ann = trust(&world, "ann").await;
    let request = v1::CreateTokenRequest {
        ttl_s: 1,
        ..v1::CreateTokenRequest::default()
    };
    let made = ann.create_token(request).await.unwrap().into_inner();
    within("the token's end", async {
        loop {
            let tokens = ann
                .list_tokens(v1::ListTokensRequest {})
                .await
                .unwrap()
                .into_inner();
            if tokens.tokens[0].over == "expired" {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let told = refused(join(Machine::new('a').joins(&world, "biz-1", &made)).await);
    assert!(told.contains("expired"), "{told}");
}

#[tokio::test]
async fn a_coordinator_of_another_authority_is_told_nothing() {
    let world = World::with(enrols).await;
    let made = token(&world, "biz-1").await;
    let machine = Machine::new('a');
    let mut wrong = machine.joins(&world, "biz-1", &made);
    wrong.ca_hash = format!("sha256:{}", "0".repeat(64));
    let told = join(wrong).await.unwrap_err();
    assert!(matches!(told, EnrolError::Stranger { .. }), "{told:?}");
    // The token was not used.
    join(machine.joins(&world, "biz-1", &made)).await.unwrap();
}

#[tokio::test]
async fn visitors_can_join_and_nothing_else() {
    let world = World::with(enrols).await;
    let ca = fs::read(world.path("pki/ca.crt")).unwrap();
    let nobody = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca))
        .domain_name(COORDINATOR_DNS_NAME);
    let channel = world.connect(nobody).await.unwrap();
    let no_session = Agent::open(channel.clone(), hello("biz-1", "a"))
        .await
        .err()
        .unwrap();
    let line = world.line_of(None).await.unwrap();
    let no_line = Agent::open(line, hello("biz-1", "a")).await.err().unwrap();
    let mut fleet = FleetServiceClient::new(channel.clone());
    let no_list = fleet
        .list_nodes(v1::ListNodesRequest::default())
        .await
        .unwrap_err();
    let mut trust = TrustServiceClient::new(channel);
    let no_token = trust
        .create_token(v1::CreateTokenRequest::default())
        .await
        .unwrap_err();
    for status in [no_session, no_line, no_list, no_token] {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("no certificate was shown"), "{status}");
    }
}

/// Signs a certificate with the world's authority as no coordinator would: for whatever time, in seconds from now.
pub(crate) fn signed(world: &Path, files: &TlsFiles, uri: &str, begins: i64, ends: i64) {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let ca_key = KeyPair::from_pem(&read(world.join("pki/ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(world.join("pki/ca.crt")), ca_key).unwrap();
    let key = KeyPair::from_pem(&read(files.key.clone())).unwrap();
    let mut params = CertificateParams::default();
    let at = |seconds| OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    (params.not_before, params.not_after) = (at(begins), at(ends));
    params
        .distinguished_name
        .push(DnType::CommonName, "made by a test");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if uri.starts_with("blackstart://coordinator/") {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        params
            .subject_alt_names
            .push(SanType::DnsName(COORDINATOR_DNS_NAME.try_into().unwrap()));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&[0x41; 9]));
    fs::write(&files.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
}

#[tokio::test]
async fn a_node_that_was_dark_for_a_month_has_no_session_until_it_has_renewed() {
    let world = World::with(enrols).await;
    // One that was made by hand renews as well.
    let files = world.files("biz-2");
    signed(
        &world.path(""),
        &files,
        "blackstart://node/biz-2",
        -120 * DAY,
        -30 * DAY,
    );
    assert!(session(&world, &files, "biz-2").await.is_err());
    let machine = Machine::new('a');
    machine.renews(&world, "biz-2", &files, ClockFloor::none()).await;
    session(&world, &files, "biz-2").await.unwrap();
    let mut ann = trust(&world, "ann").await;
    let listed = ann.list_certificates(v1::ListCertificatesRequest::default());
    let listed = listed.await.unwrap().into_inner().certificates;
    assert_eq!(
        (listed.len(), listed[0].node.as_str(), listed[0].bound),
        (1, "biz-2", true)
    );
}

#[tokio::test]
async fn beyond_the_grace_it_takes_an_operators_word() {
    let world = World::with(enrols).await;
    let machine = Machine::new('a');
    let made = token(&world, "biz-1").await;
    let files = join(machine.joins(&world, "biz-1", &made)).await.unwrap().files;
    signed(
        &world.path(""),
        &files,
        "blackstart://node/biz-1",
        -200 * DAY,
        -100 * DAY,
    );
    let told = blackstart_agent::enrol::renew::once(&renewal(&world, &machine, &files)).await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("beyond the grace of 60 days"), "{told}");
    let late = v1::AllowRenewalRequest {
        node: "biz-1".to_owned(),
        reason: "was dark".to_owned(),
    };
    trust(&world, "ann").await.allow_renewal(late).await.unwrap();
    machine.renews(&world, "biz-1", &files, ClockFloor::none()).await;
    session(&world, &files, "biz-1").await.unwrap();
}

fn renewal(world: &World, machine: &Machine, files: &TlsFiles) -> Renewal {
    Renewal {
        addresses: vec![world.address()],
        files: files.clone(),
        node: "biz-1".to_owned(),
        clock: Arc::new(ClockFloor::none()),
        machine_id: machine.0.path().join("machine-id"),
        wanted: Arc::default(),
    }
}

#[tokio::test]
async fn a_copied_identity_is_not_renewed_on_another_machine() {
    let world = World::with(enrols).await;
    let machine = Machine::new('a');
    let made = token(&world, "biz-1").await;
    let files = join(machine.joins(&world, "biz-1", &made)).await.unwrap().files;
    signed(
        &world.path(""),
        &files,
        "blackstart://node/biz-1",
        -100 * DAY,
        -DAY,
    );
    let told = blackstart_agent::enrol::renew::once(&renewal(&world, &Machine::new('b'), &files)).await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("bound to another machine"), "{told}");
}

/// As if it had been so many days later.
pub(crate) fn write_floor(path: &Path, days: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let floor = now.saturating_add_signed(days * DAY);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{floor}\n")).unwrap();
}

/// All clocks show a year less than it is: the certificates are of this year, which has not begun for them.
#[tokio::test]
async fn clocks_that_are_a_year_back_lock_nobody_out() {
    let ours = |world: &Path| {
        let coordinator = TlsFiles::in_dir(&world.join("pki"), "coordinator");
        let uri = "blackstart://coordinator/coordinator";
        signed(world, &coordinator, uri, 364 * DAY, 400 * DAY);
        let node = TlsFiles::in_dir(&world.join("pki"), "biz-1");
        signed(world, &node, "blackstart://node/biz-1", 300 * DAY, 370 * DAY);
    };
    let world = World::with(|settings| {
        enrols(settings);
        ours(settings.inventory.parent().unwrap());
        write_floor(&settings.clock_floor(), 365);
    })
    .await;
    let (files, machine) = (world.files("biz-1"), Machine::new('a'));
    // Without what it has kept, the node would not believe the coordinator.
    let without = blackstart_agent::enrol::renew::once(&renewal(&world, &machine, &files)).await;
    assert!(without.is_err(), "{without:?}");
    let floor = machine.state().join("clock-floor");
    write_floor(&floor, 365);
    machine
        .renews(&world, "biz-1", &files, ClockFloor::open(&floor))
        .await;
}
