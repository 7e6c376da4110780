//! Operators who renew their own certificates: the command as it is typed, with a real coordinator over real TLS.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use blackstart_coordinator::audit::file::files;
use blackstart_coordinator::config::Settings;
use blackstart_coordinator::notify::Notify;
use blackstart_coordinator::pki::{Authority, IssueOptions, Seen};
use blackstart_coordinator::run::run;
use blackstart_coordinator::trust::desk::EnrolmentSettings;
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::tls::TlsFiles;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const INVENTORY: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane}
";

fn issue(authority: &Authority, operator: &str, days: u32) -> TlsFiles {
    let options = IssueOptions { days, replace: true };
    let whose = PeerIdentity::Operator(operator.to_owned());
    authority.issue(&whose, options).unwrap()
}

fn blackstart(address: SocketAddr, files: &TlsFiles, words: &[&str]) -> Output {
    block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_blackstart"))
            .args(words)
            .args(["--coordinator", &address.to_string()])
            .arg("--tls-ca")
            .arg(&files.ca)
            .arg("--tls-cert")
            .arg(&files.certificate)
            .arg("--tls-key")
            .arg(&files.key)
            .env_clear()
            .output()
            .unwrap()
    })
}

fn said(output: &Output) -> (bool, String) {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), err)
}

fn days_left(path: &Path) -> i64 {
    let ends = Seen::read(path).unwrap().ends;
    (ends.as_second() - Timestamp::now().as_second()) / (24 * 3600)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_warned_and_renews_with_a_key_that_is_made_here() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let authority = Authority::create(&pki).unwrap();
    let own = authority.issue_coordinator("coordinator").unwrap();
    fs::write(dir.path().join("inventory.yaml"), INVENTORY).unwrap();
    fs::write(dir.path().join("boot_id"), "boot").unwrap();
    let settings = Settings {
        tls: own,
        state_dir: dir.path().join("state"),
        runtime_dir: dir.path().join("run"),
        boot_id_file: dir.path().join("boot_id"),
        inventory: dir.path().join("inventory.yaml"),
        enrolment: Some(EnrolmentSettings {
            authority: pki.clone(),
            lifetime: Duration::from_hours(90 * 24),
            grace: Duration::from_hours(60 * 24),
        }),
        ..Settings::default()
    };
    let audit = settings.audit();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(settings, vec![listener], Notify::none(), stop.clone()));

    // One with months left is not told anything, and has nothing to renew.
    let ben = issue(&authority, "ben", 200);
    let (done, err) = said(&blackstart(address, &ben, &["get", "nodes"]));
    assert!(done && !err.contains("ends on"), "{err}");
    let (done, err) = said(&blackstart(address, &ben, &["certificate", "renew"]));
    assert!(
        !done && err.contains("days left, and is renewed in the last 90"),
        "{err}"
    );

    let ann = issue(&authority, "ann", 20);
    let before = ann.read().unwrap();
    let (done, err) = said(&blackstart(address, &ann, &["get", "nodes"]));
    assert!(
        done && err.contains("renew it: blackstart certificate renew"),
        "{err}"
    );
    let doctor = blackstart(address, &ann, &["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(told.contains("blackstart certificate renew"), "{told}");
    let (done, err) = said(&blackstart(address, &ann, &["certificate", "renew"]));
    assert!(done, "{err}");
    let after = ann.read().unwrap();
    assert_ne!(*after.key, *before.key);
    assert!(days_left(&ann.certificate) > 300);
    assert_eq!(
        fs::metadata(&ann.key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let left: Vec<_> = fs::read_dir(&pki)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    // Nothing is left of either attempt.
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".next")),
        "{left:?}"
    );

    // It is ann, by the new one, with nothing to warn of.
    let (done, err) = said(&blackstart(address, &ann, &["get", "nodes"]));
    assert!(done && !err.contains("ends on"), "{err}");
    // All of it stands in the audit, and what is refused as well.
    let kept: String = files(&audit)
        .unwrap()
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let of = |operator: &str, outcome: &str| {
        let who = format!("\"operator {operator}\"");
        kept.lines()
            .any(|line| line.contains("RenewOperator") && line.contains(&who) && line.contains(outcome))
    };
    assert!(of("ann", "\"done\"") && of("ben", "\"refused\""), "{kept}");

    stop.cancel();
    timeout(Duration::from_secs(30), running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
