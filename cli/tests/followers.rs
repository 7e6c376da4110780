//! The command before coordinators of which none leads that could be reached: what it shows, and what it says of it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../coordinator/tests/etcd/mod.rs"]
mod etcd;
#[path = "../../coordinator/tests/oidc/mod.rs"]
mod oidc;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use blackstart_coordinator::pki::Authority;
use tokio::time::Instant;

use self::etcd::{Etcd, free_port, is_here};
use self::oidc::{AUDIENCE, ISSUER, Provider};

const DEADLINE: Duration = Duration::from_secs(90);

const INVENTORY: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane}
      - {name: biz-2, address: 10.0.0.2}
";

/// A coordinator, killed when dropped.
struct Coordinator {
    process: Child,
    address: SocketAddr,
}

impl Coordinator {
    fn start(root: &Path, name: &str, member: SocketAddr) -> Self {
        Self::with(root, name, member, "")
    }

    /// `more`: of its configuration.
    fn with(root: &Path, name: &str, member: SocketAddr, more: &str) -> Self {
        let (at, address) = (root.join(name), free_port());
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("boot_id"), name).unwrap();
        let (dir, pki) = (at.display(), root.join("pki"));
        let (root, pki) = (root.display(), pki.display());
        let text = format!(
            "\
listen: [\"{address}\"]
tls: {{ca: {pki}/ca.crt, certificate: {pki}/{name}.crt, key: {pki}/{name}.key}}
state_dir: {dir}/state
runtime_dir: {dir}/run
boot_id_file: {dir}/boot_id
inventory: {root}/inventory.yaml
store: {{etcd: {{endpoints: [\"http://{member}\"], lease_ttl: 10m, name: {name}}}}}
{more}"
        );
        fs::write(at.join("coordinator.yaml"), text).unwrap();
        let log = File::create(at.join("log")).unwrap();
        // The command has a coordinator in it, for drills.
        let process = Command::new(env!("CARGO_BIN_EXE_blackstart"))
            .args(["drill", "coordinator"])
            .arg(at.join("coordinator.yaml"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _status = self.process.wait();
    }
}

struct Operator {
    pki: PathBuf,
    coordinators: Vec<SocketAddr>,
}

impl Operator {
    fn says(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blackstart"));
        for address in &self.coordinators {
            command.args(["--coordinator", &address.to_string()]);
        }
        let file = |name| self.pki.join(name);
        command.arg("--tls-ca").arg(file("ca.crt"));
        command.arg("--tls-cert").arg(file("ann.crt"));
        command.arg("--tls-key").arg(file("ann.key"));
        command.args(arguments).env_clear().output().unwrap()
    }

    /// Until it is answered as wanted.
    fn until(&self, arguments: &[&str], wanted: impl Fn(&Output) -> bool) -> Output {
        let until = Instant::now() + DEADLINE;
        loop {
            let answer = self.says(arguments);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{arguments:?}: {answer:?}");
        }
    }
}

#[test]
fn without_a_leader_what_is_stored_is_shown_with_its_age_and_commands_are_not_done() {
    if !is_here("the command before followers") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let authority = Authority::create(&root.join("pki")).unwrap();
    authority.issue_coordinator("one").unwrap();
    authority.issue_coordinator("two").unwrap();
    authority.issue_operator("ann").unwrap();
    fs::write(root.join("inventory.yaml"), INVENTORY).unwrap();
    let etcd = Etcd::start(1);
    let member = etcd.addresses()[0];

    let first = Coordinator::start(root, "one", member);
    let mut ann = Operator {
        pki: root.join("pki"),
        coordinators: vec![first.address],
    };
    let hold = ["hold", "--node", "biz-2", "--reason", "disks are changed"];
    let set = ann.until(&hold, |answer| answer.status.success());
    assert!(set.stderr.is_empty(), "the leader itself answered: {set:?}");
    let second = Coordinator::start(root, "two", member);
    ann.coordinators = vec![second.address];
    // It knows only the one that follows, and is sent on.
    ann.until(&["get", "holds"], |answer| {
        answer.status.success() && String::from_utf8_lossy(&answer.stdout).contains("biz-2")
    });
    drop(first);

    let shown = ann.until(&["get", "holds"], |answer| answer.status.success());
    let (table, notes) = (
        String::from_utf8(shown.stdout).unwrap(),
        String::from_utf8(shown.stderr).unwrap(),
    );
    assert!(
        table.contains("biz-2") && table.contains("disks are changed"),
        "{table}"
    );
    assert!(notes.contains("two follows and reached no leader"), "{notes}");
    let json = ann.says(&["get", "holds", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["via"]["coordinator"], "two");
    assert!(
        json["via"]["store_age_ms"].is_u64() && json["via"]["leader"].is_null(),
        "{json}"
    );
    assert_eq!(json["items"].as_array().unwrap().len(), 1);

    let refused = ann.says(&["--timeout", "2s", "unhold", "--node", "biz-2"]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{why}");
    assert!(
        why.contains("not done: one leads and was not reached from two"),
        "{why}"
    );
    assert!(why.contains("blackstart get coordinators"), "{why}");
}

#[test]
fn a_token_is_enough_also_where_a_coordinator_that_follows_passes_the_call_on() {
    if !is_here("the command with a token") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let authority = Authority::create(&root.join("pki")).unwrap();
    authority.issue_coordinator("one").unwrap();
    authority.issue_coordinator("two").unwrap();
    fs::write(root.join("inventory.yaml"), INVENTORY).unwrap();
    let (provider, keys) = (Provider::new(), root.join("oidc-keys.json"));
    provider.publish(&keys);
    let more = format!(
        "operators: [{{name: ann, role: admin}}]\noidc: {{issuer: '{ISSUER}', audience: {AUDIENCE}, keys: {}}}\n",
        keys.display()
    );
    let etcd = Etcd::start(1);
    let member = etcd.addresses()[0];
    let leads = Coordinator::with(root, "one", member, &more);
    let token = root.join("token");
    fs::write(&token, provider.token("ann", 600)).unwrap();
    let says = |address: SocketAddr, arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_blackstart"))
            .args(["--coordinator", &address.to_string()])
            .arg("--tls-ca")
            .arg(root.join("pki/ca.crt"))
            .arg("--token-file")
            .arg(&token)
            .args(arguments)
            .env_clear()
            .output()
            .unwrap()
    };
    let until = |address, arguments: &[&str]| {
        let end = Instant::now() + DEADLINE;
        loop {
            let answer = says(address, arguments);
            if answer.status.success() {
                return String::from_utf8(answer.stdout).unwrap();
            }
            assert!(Instant::now() < end, "{arguments:?}: {answer:?}");
        }
    };
    until(leads.address, &["hold", "--node", "biz-2", "--reason", "disks"]);
    let follows = Coordinator::with(root, "two", member, &more);
    let shown = until(follows.address, &["get", "holds"]);
    assert!(shown.contains("ann") && shown.contains("biz-2"), "{shown}");
    // What has ended is told, and what to do.
    fs::write(&token, provider.token("ann", -600)).unwrap();
    let told = says(follows.address, &["get", "holds"]);
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("the token has ended 60"), "{told}");
}
