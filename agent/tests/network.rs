//! The way out of a real network namespace, as its kernel tells of it: routes are taken away and put back, a link loses its carrier.
//!
//! The test begins itself again inside a namespace of its own (`unshare`), with a `/sys` of that namespace, so that nothing of the machine's
//! network is touched and nothing is left behind, whatever happens.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; a skipped one says so"
)]

use std::process::Command;
use std::time::Duration;

use blackstart_agent::condition::{Condition, ConditionKind};
use blackstart_agent::config::{CniSettings, DnsSettings, NetworkSettings};
use blackstart_agent::diagnose::network::Network;
use blackstart_agent::signal::Signal;
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::network::{self, Sources, Surroundings};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Set in the namespace.
const INSIDE: &str = "BLACKSTART_TEST_NAMESPACE";
/// For what an event brings; looks without one are an hour apart.
const SOON: Duration = Duration::from_secs(30);
const HOLD: Duration = Duration::from_millis(300);

/// Runs this test once more, inside. `true` there.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mounted = "mount -t sysfs sysfs /sys && ip link set lo up && exec \"$0\" \"$@\"";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", script]);
        command
    };
    let probe = unshare("mount -t sysfs sysfs /sys && ip link add veth0 type veth peer name veth1").output();
    let trouble = match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = trouble {
        println!("SKIPPED: no network namespace with a veth can be made: {why}");
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "in CI this has to run"
        );
        return false;
    }
    let this = std::env::current_exe().unwrap();
    let ended = unshare(mounted)
        .arg(this)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(ended.success(), "{test} failed in its namespace");
    false
}

fn ip(arguments: &str) {
    let ended = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(ended.success(), "ip {arguments}");
}

/// Watcher and diagnosis as the agent joins them.
struct Watched {
    signals: mpsc::Receiver<Signal>,
    diagnosis: Network,
    stop: CancellationToken,
}

impl Watched {
    fn begin(runtime_dir: &std::path::Path) -> Self {
        Self::begin_with(runtime_dir, NetworkSettings::default())
    }

    fn begin_with(runtime_dir: &std::path::Path, settings: NetworkSettings) -> Self {
        let settings = NetworkSettings {
            hold: HOLD,
            interval: if settings.dns.is_some() {
                HOLD
            } else {
                Duration::from_hours(1)
            },
            cni: CniSettings {
                watch: false,
                ..CniSettings::default()
            },
            ..settings
        };
        let (send, signals) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let around = Surroundings {
            sources: Sources::default(),
            runtime_dir: runtime_dir.to_owned(),
            coordinator: None,
            beat: Beat::begin(),
        };
        tokio::spawn(network::watch(settings.clone(), around, send, stop.clone()));
        Self {
            signals,
            diagnosis: Network::new(settings),
            stop,
        }
    }

    /// Waits until so many conditions stand, and tells them.
    async fn until(&mut self, count: usize) -> Vec<Condition> {
        let reached = async {
            loop {
                let now = Instant::now();
                let standing = self.diagnosis.conditions(now);
                if standing.len() == count {
                    return standing;
                }
                let next = self.diagnosis.next_change(now);
                tokio::select! {
                    Some(signal) = self.signals.recv() => self.diagnosis.observe(&signal, Instant::now()),
                    () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                }
            }
        };
        timeout(SOON, reached).await.expect("no event came")
    }

    /// Waits for the first look, after which events are all that comes.
    async fn looked(&mut self) {
        let first = timeout(SOON, self.signals.recv()).await.unwrap().unwrap();
        self.diagnosis.observe(&first, Instant::now());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn evidence(conditions: &[Condition]) -> &str {
    assert_eq!(conditions[0].key.kind, ConditionKind::NetworkIsolated);
    &conditions[0].evidence
}

#[tokio::test]
async fn a_way_out_that_is_cut_is_told_by_the_kernels_events_and_so_is_its_return() {
    if !inside("a_way_out_that_is_cut_is_told_by_the_kernels_events_and_so_is_its_return") {
        return;
    }
    ip("link add veth0 type veth peer name veth1");
    ip("address add 10.77.0.2/24 dev veth0");
    ip("link set veth0 up");
    ip("link set veth1 up");
    let run = tempfile::tempdir().unwrap();
    let mut node = Watched::begin(run.path());
    node.looked().await;
    ip("route add default via 10.77.0.1");
    // Told when its first look is taken in, whichever of the two events that is.
    node.until(0).await;
    while !run.path().join("default-route").exists() {
        node.looked().await;
    }

    ip("route delete default");
    let told = node.until(1).await;
    assert_eq!(
        evidence(&told),
        "no default route; the last one was by veth0, which has carrier"
    );
    // An agent that begins now knows of it all the same.
    let mut next = Watched::begin(run.path());
    next.until(1).await;
    drop(next);
    ip("route add default via 10.77.0.1");
    node.until(0).await;

    // The other end goes down: routes stay, the carrier is gone.
    ip("link set veth1 down");
    let told = node.until(1).await;
    assert_eq!(
        evidence(&told),
        "no carrier under the default route: veth0, which has no carrier"
    );
    ip("link set veth1 up");
    node.until(0).await;

    ip("link set veth0 down");
    let told = node.until(1).await;
    assert_eq!(
        evidence(&told),
        "no default route; the last one was by veth0, which is set down"
    );
    ip("link set veth0 up");
    ip("route add default via 10.77.0.1");
    node.until(0).await;
}

#[tokio::test]
async fn a_default_route_by_ipv6_alone_is_one_and_a_node_that_never_had_any_is_left_in_peace() {
    if !inside("a_default_route_by_ipv6_alone_is_one_and_a_node_that_never_had_any_is_left_in_peace") {
        return;
    }
    ip("link add veth0 type veth peer name veth1");
    ip("link set veth0 up");
    ip("link set veth1 up");
    let run = tempfile::tempdir().unwrap();
    let mut node = Watched::begin(run.path());
    node.looked().await;
    ip("link set veth0 down");
    node.looked().await;
    assert_eq!(node.diagnosis.next_change(Instant::now()), None);
    ip("link set veth0 up");
    ip("-6 address add fd77::2/64 dev veth0 nodad");
    ip("-6 route add default via fd77::1 dev veth0");
    while !run.path().join("default-route").exists() {
        node.looked().await;
    }
    ip("-6 route delete default");
    let told = node.until(1).await;
    assert!(evidence(&told).starts_with("no default route"), "{told:?}");
    ip("-6 route add default via fd77::1 dev veth0");
    node.until(0).await;
}

/// A name server that knows every name, or none.
async fn name_server(knows: watch::Receiver<bool>) {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    loop {
        let mut asked = [0; 512];
        let (_, from) = socket.recv_from(&mut asked).await.unwrap();
        let (code, answers) = if *knows.borrow() { (0x80, 1) } else { (0x83, 0) };
        let answer = [asked[0], asked[1], 0x81, code, 0, 1, 0, answers, 0, 0, 0, 0];
        socket.send_to(&answer, from).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_no_server_knows_is_told_until_one_does() {
    if !inside("a_name_that_no_server_knows_is_told_until_one_does") {
        return;
    }
    let run = tempfile::tempdir().unwrap();
    let resolv_conf = run.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
    let dns = DnsSettings {
        resolv_conf,
        hold: HOLD,
        ..DnsSettings::of("api.example")
    };
    let settings = NetworkSettings {
        default_route: false,
        dns: Some(dns),
        ..NetworkSettings::default()
    };
    let knows = watch::Sender::new(true);
    let server = tokio::spawn(name_server(knows.subscribe()));
    let mut node = Watched::begin_with(run.path(), settings);
    node.looked().await;
    node.until(0).await;

    knows.send(false).unwrap();
    let told = node.until(1).await;
    assert_eq!(told[0].key.kind, ConditionKind::DnsFailing);
    assert!(told[0].evidence.contains("127.0.0.1: no such name"), "{told:?}");
    assert!(told[0].escalated);
    knows.send(true).unwrap();
    node.until(0).await;

    // The server dies.
    server.abort();
    let told = node.until(1).await;
    assert_eq!(told[0].key.kind, ConditionKind::DnsFailing);
    let _server = tokio::spawn(name_server(knows.subscribe()));
    node.until(0).await;
}
