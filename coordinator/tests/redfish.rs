//! A machine's power by a Redfish service that is not ours: `sushy-emulator`, with its fake machines, over TLS.
//!
//! Its machines take up to eleven seconds to obey, as hardware does.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blackstart_coordinator::inventory::{self, NodeName};
use blackstart_coordinator::power::settings::{BmcSettings, Fingerprint};
use blackstart_coordinator::power::{BmcError, Bmcs, PowerState, Word};
use rand::Rng;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const PROGRAM: &str = "sushy-emulator";
/// Below the ports that systems give out by themselves.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const UUID: &str = "4c4c4544-0042-3510-8051-b2c04f4d3732";
const USER: &str = "blackstart";
const PASSWORD: &str = "correct horse";
/// bcrypt of the password.
const HASH: &str = "$2b$04$QZn2SejFF6iKBCA0DOgejumNjXrxD0XGjVXe8m.B6BHGhHTBZSQFa";
/// It starts, and its machines obey, within less.
const DEADLINE: Duration = Duration::from_mins(1);

/// Where `make needs-testbed` installs it, or on the path.
fn program() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let own = target.join("sushy/bin").join(PROGRAM);
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|dir| dir.join(PROGRAM));
    std::iter::once(own)
        .chain(on_path)
        .find(|program| program.exists())
}

struct Emulator {
    process: Child,
    address: SocketAddr,
    fingerprint: Fingerprint,
    dir: TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Emulator {
    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let key = KeyPair::generate().unwrap();
        // A name that nobody uses, as controllers come with.
        let params = CertificateParams::new(vec!["idrac-7XK1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(at("cert.pem"), certificate.pem()).unwrap();
        fs::write(at("key.pem"), key.serialize_pem()).unwrap();
        fs::write(at("htpasswd"), format!("{USER}:{HASH}\n")).unwrap();
        fs::create_dir(at("state")).unwrap();
        let port = loop {
            let port = rand::rng().random_range(PORTS);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                break port;
            }
        };
        let path = |name: &str| at(name).display().to_string();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\nSUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{UUID}', 'name': 'biz-4', 'power_state': 'On', \
             'nics': []}}]\n",
            path("cert.pem"),
            path("key.pem"),
            path("htpasswd"),
            path("state"),
        );
        fs::write(at("emulator.conf"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let process = Command::new(program)
            .arg("--config")
            .arg(at("emulator.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            fingerprint: Fingerprint::of(certificate.der()),
            dir,
        }
    }

    /// As somebody with this password.
    fn bmcs(&self, password: &str) -> Bmcs {
        let credentials = self.dir.path().join("bmc.yaml");
        fs::write(&credentials, format!("user: {USER}\npassword: \"{password}\"\n")).unwrap();
        fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "clusters:\n  - name: biz\n    nodes:\n      - {{name: biz-1, address: 10.0.0.1, role: control-plane}}\n      - {{name: biz-4, \
             address: 10.0.0.4, bmc: {{address: \"{}\", fingerprint: \"{}\"}}}}\n",
            self.address, self.fingerprint
        );
        let inventory = inventory::parse("inventory.yaml", &text).unwrap().inventory;
        Bmcs::new(&BmcSettings::new(credentials), &inventory).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// What is said of its power, once something is.
async fn said(bmcs: &Bmcs, emulator: &Emulator, like: impl Fn(&Word) -> bool) -> Word {
    let began = Instant::now();
    let node = NodeName("biz-4".to_owned());
    loop {
        bmcs.ask(&node, Duration::ZERO).await;
        let word = bmcs.word(&node);
        if like(&word) {
            return word;
        }
        assert!(began.elapsed() < DEADLINE, "{word:?}\n{}", emulator.log());
        // There is nothing to await: it is another program's word that changes.
        sleep(Duration::from_millis(200)).await;
    }
}

fn is(state: PowerState) -> impl Fn(&Word) -> bool {
    move |word| matches!(word, Word::Told(reading) if reading.state == state)
}

#[tokio::test]
async fn a_machine_is_seen_on_and_its_power_is_cut_and_it_is_seen_off() {
    let Some(program) = program() else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "there is no {PROGRAM}; make needs-testbed installs it"
        );
        println!("SKIPPED: there is no {PROGRAM}; make needs-testbed installs it");
        return;
    };
    let emulator = Emulator::start(&program);
    let bmcs = emulator.bmcs(PASSWORD);
    // Of its only machine the path is found.
    let word = said(&bmcs, &emulator, is(PowerState::On)).await;
    let Word::Told(reading) = word else {
        panic!("{word:?}")
    };
    assert_eq!(reading.uuid.as_deref(), Some(UUID));
    assert!(reading.source.contains(UUID), "{}", reading.source);

    let denied = said(&emulator.bmcs("wrong"), &emulator, |word| {
        matches!(word, Word::Failed { .. })
    })
    .await;
    assert!(
        matches!(
            &denied,
            Word::Failed {
                why: BmcError::Denied(401),
                ..
            }
        ),
        "{denied:?}"
    );
    let bmcs = emulator.bmcs(PASSWORD);
    let node = NodeName("biz-4".to_owned());
    let other = bmcs
        .force_off(&node, "00112233-4455-6677-8899-aabbccddeeff")
        .await;
    assert!(
        matches!(&other, Err(BmcError::NoReset(why)) if why.contains("another machine")),
        "{other:?}"
    );
    bmcs.force_off(&node, &UUID.to_uppercase()).await.unwrap();
    said(&bmcs, &emulator, is(PowerState::Off)).await;
}
