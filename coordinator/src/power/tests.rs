//! Against a Redfish service over TLS, on good days and bad ones.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_apiserver::bmc::{Bmc, Mood, PASSWORD, USER};
use blackstart_apiserver::{Authority, Double, NodeSpec, Options, Tls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::settings::{BmcSettings, Fingerprint};
use super::*;

const NODE: &str = "worker-1";
/// Short, since most of these tests wait for it.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A machine, its controller, and files that are good for it.
struct Bed {
    double: Double,
    bmc: Bmc,
    tls: Tls,
    dir: TempDir,
}

fn node() -> NodeName {
    NodeName(NODE.to_owned())
}

impl Bed {
    async fn new() -> Self {
        let authority = Authority::new().unwrap();
        let mut tls = authority.server(&["127.0.0.1".parse().unwrap()]).unwrap();
        tls.client_authorities.clear();
        let double = Double::start(Options::default()).await.unwrap();
        double.with(|world| world.add_nodes(&[NodeSpec::worker(NODE), NodeSpec::worker("worker-2")]));
        let bmc = double.bmc(&tls).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bed = Self {
            double,
            bmc,
            tls,
            dir,
        };
        bed.write("ca.crt", &authority.certificate);
        bed.credentials(PASSWORD);
        bed
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn credentials(&self, password: &str) -> PathBuf {
        self.write("bmc.yaml", &format!("user: {USER}\npassword: \"{password}\"\n"))
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&CertificateDer::from_pem_slice(self.tls.certificate.as_bytes()).unwrap())
    }

    /// By its inventory, in which the controller is told so.
    fn bmcs(&self, told: &str, ca: bool) -> Result<Bmcs, SetupError> {
        let text = format!(
            "clusters:\n  - name: biz\n    nodes:\n      - {{name: m, address: 10.0.0.1, role: control-plane}}\n      - {{name: {NODE}, \
             address: 10.0.0.2, bmc: {{address: \"{}\"{told}}}}}\n",
            self.bmc.address()
        );
        let inventory = crate::inventory::parse("f", &text).unwrap().inventory;
        let settings = BmcSettings {
            ca: ca.then(|| self.dir.path().join("ca.crt")),
            timeout: TIMEOUT,
            ..BmcSettings::new(self.dir.path().join("bmc.yaml"))
        };
        Bmcs::new(&settings, &inventory)
    }

    /// Known by its fingerprint, and its machine by its path.
    fn pinned(&self) -> Bmcs {
        let told = format!(
            ", system: {}, fingerprint: \"{}\"",
            Bmc::system(NODE),
            self.fingerprint()
        );
        self.bmcs(&told, false).unwrap()
    }
}

async fn word(bmcs: &Bmcs) -> Word {
    bmcs.ask(&node(), Duration::ZERO).await;
    bmcs.word(&node())
}

async fn state(bmcs: &Bmcs) -> PowerState {
    match word(bmcs).await {
        Word::Told(reading) => reading.state,
        other @ (Word::None | Word::NotAsked | Word::Failed { .. }) => panic!("{other:?}"),
    }
}

async fn failure(bmcs: &Bmcs) -> BmcError {
    match word(bmcs).await {
        Word::Failed { why, .. } => why,
        other @ (Word::None | Word::NotAsked | Word::Told(_)) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_says_whether_its_machine_has_power() {
    let bed = Bed::new().await;
    let bmcs = bed.pinned();
    assert_eq!(bmcs.word(&node()), Word::NotAsked);
    assert_eq!(bmcs.word(&NodeName("m".to_owned())), Word::None);
    assert_eq!(state(&bmcs).await, PowerState::On);
    bed.double.with(|world| world.power_off(NODE));
    assert_eq!(state(&bmcs).await, PowerState::Off);
    // Who asks again soon is answered with what is known.
    let asked = bed.bmc.questions();
    bmcs.ask(&node(), Duration::from_mins(1)).await;
    assert_eq!(bed.bmc.questions(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_an_authority_needs_no_fingerprint() {
    let bed = Bed::new().await;
    let told = format!(", system: {}", Bmc::system(NODE));
    assert_eq!(state(&bed.bmcs(&told, true).unwrap()).await, PowerState::On);
    let error = bed.bmcs(&told, false).unwrap_err();
    assert!(
        matches!(&error, SetupError::Unknowable(name) if name == NODE),
        "{error}"
    );
    // Of another authority.
    bed.write("ca.crt", &Authority::new().unwrap().certificate);
    let error = failure(&bed.bmcs(&told, true).unwrap()).await;
    assert!(matches!(error, BmcError::Certificate(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_goes_to_one_who_shows_another_certificate() {
    let bed = Bed::new().await;
    let other = Fingerprint::of(b"another certificate");
    let bmcs = bed.bmcs(&format!(", fingerprint: \"{other}\""), false).unwrap();
    let error = failure(&bmcs).await;
    assert!(
        matches!(&error, BmcError::Certificate(why) if why.contains("another certificate than `bmc.fingerprint`")),
        "{error}"
    );
    assert_eq!(bed.bmc.questions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_machines_behind_one_controller_none_is_guessed() {
    let bed = Bed::new().await;
    let told = format!(", fingerprint: \"{}\"", bed.fingerprint());
    let error = failure(&bed.bmcs(&told, false).unwrap()).await;
    assert!(
        matches!(&error, BmcError::Systems(names) if names.contains("/redfish/v1/Systems/worker-2")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bad_day_it_is_said_what_is_wrong_and_nothing_is_proof() {
    let bed = Bed::new().await;
    bed.double.with(|world| world.power_off(NODE));
    let bmcs = bed.pinned();
    for (mood, words) in [
        (Mood::Hangs, "does not answer"),
        (Mood::Garbage, "not as Redfish has it"),
        (Mood::Huge, "cannot be read"),
        (Mood::Denies, "refuses the credentials (401)"),
        (Mood::Redirects, "308"),
    ] {
        bed.bmc.set_mood(mood);
        let error = failure(&bmcs).await.to_string();
        assert!(error.contains(words), "{mood:?}: {error}");
        let turned_away = bmcs.force_off(&node(), "").await;
        assert!(turned_away.is_err(), "{mood:?}");
    }
    for (said, expected) in [
        ("PoweringOff", PowerState::PoweringOff),
        ("Paused", PowerState::Paused),
        ("off", PowerState::NotKnown),
    ] {
        bed.bmc.set_mood(Mood::Says(said));
        assert_eq!(state(&bmcs).await, expected);
    }
    assert_eq!(bed.bmc.resets(), Vec::<String>::new());
    // Nobody there.
    drop(bed.bmc);
    let error = failure(&bmcs).await;
    assert!(
        matches!(&error, BmcError::Unreachable(_)) && error.to_string().contains("no proof"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_read_anew_and_refused_when_others_can_read_them() {
    let bed = Bed::new().await;
    let bmcs = bed.pinned();
    let file = bed.credentials("yesterday's");
    assert_eq!(failure(&bmcs).await, BmcError::Denied(401));
    bed.credentials(PASSWORD);
    assert_eq!(state(&bmcs).await, PowerState::On);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = failure(&bmcs).await;
    assert!(
        matches!(&error, BmcError::Credentials(why) if why.contains("chmod 600")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn power_is_cut_and_seen_off_and_never_that_of_another_machine() {
    let bed = Bed::new().await;
    let bmcs = bed.pinned();
    let own = bed
        .double
        .with(|world| world.get("nodes", "", NODE).unwrap()["status"]["nodeInfo"]["systemUUID"].clone());
    let own = own.as_str().unwrap();
    bed.bmc.set_mood(Mood::AnotherMachine);
    let error = bmcs.force_off(&node(), own).await.unwrap_err();
    assert!(error.to_string().contains("another machine"), "{error}");
    assert_eq!(bed.bmc.resets(), Vec::<String>::new());
    bed.bmc.set_mood(Mood::Well);
    bmcs.force_off(&node(), own).await.unwrap();
    // Hardware takes its time.
    assert_eq!(state(&bmcs).await, PowerState::On);
    assert_eq!(state(&bmcs).await, PowerState::Off);
    // Once is enough.
    bmcs.force_off(&node(), own).await.unwrap();
    assert_eq!(bed.bmc.resets(), [NODE]);
}
