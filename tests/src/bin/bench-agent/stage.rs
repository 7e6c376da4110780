//! The node that is measured: the agent with everything that it can watch, and its peers beside it, each told to watch the same.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use blackstart_tests::bed::{Bed, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node::{DISK, Node};
use blackstart_tests::settings::Yaml;
use blackstart_tests::topology::Declared;
use blackstart_tests::wait;

pub(crate) const AGENT: &str = "blackstart-agent.service";
pub(crate) const MONIT: &str = "monit.service";
pub(crate) const EXPORTER: &str = "prometheus-node-exporter.service";
pub(crate) const DOCKER: &str = "docker.service";
pub(crate) const SIBLING: &str = "sibling.service";
/// The only node.
pub(crate) const NODE: &str = "master-1";
/// Size of its disk, bytes.
pub(crate) const DISK_BYTES: u64 = 4 << 30;
/// Watched logs, and the directories they are in.
pub(crate) const LOGS: usize = 10_000;
const DIRECTORIES: usize = 400;
/// Each has so many bytes.
const LOG_BYTES: usize = 6000;
const AGENT_METRICS: u16 = 9469;
const EXPORTER_METRICS: u16 = 9100;
/// Until everything runs.
const DEADLINE: Duration = Duration::from_mins(2);

/// dockerd as Debian starts it, with its files on the node's disk and without a network.
const DOCKERD: &str = "[Unit]\nDescription=Docker\nAfter=docker.socket containerd.service\nRequires=docker.socket\n\
    Wants=containerd.service\nStartLimitIntervalSec=0\n\n\
    [Service]\nType=notify\nExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock \
    --data-root=/var/lib/node-disk/docker --iptables=false --ip-masq=false --bridge=none\n\
    Delegate=yes\nKillMode=process\n";
/// What systemd restarts by itself.
const SIBLINGD: &str = "[Unit]\nStartLimitIntervalSec=0\n\n\
    [Service]\nExecStart=/usr/bin/stand-in-kubelet --healthz 127.0.0.1:10249 --behaviour /run/sibling\n\
    Restart=always\nRestartSec=0\n";
const MONITD: &str = "[Service]\nExecStart=/usr/bin/monit -I -c /etc/monit/bench.rc\n";
const EXPORTERD: &str = "[Service]\nExecStart=/usr/bin/prometheus-node-exporter --collector.systemd\n";

/// The shipped defaults, and what is off in them: a coordinator, an API server, metrics.
fn everything(node: &Declared) -> Yaml {
    let [a, b, c, _] = node.address.octets();
    let pki = "/etc/blackstart/pki";
    Yaml::default()
        .with("units", "[kubelet.service, docker.service, containerd.service]")
        .with("kubelet", "{address: 127.0.0.1:10248}")
        .with("api_server", "{https: false}")
        .with(
            "coordinator",
            format!(
                "{{addresses: [\"{a}.{b}.{c}.1:7443\"], ca: {pki}/ca.crt, certificate: {pki}/node.crt, \
                 key: {pki}/node.key, report_interval: 2s}}"
            ),
        )
        .with(
            "disks",
            format!("[{{mount_point: {DISK}}}, {{mount_point: /run}}]"),
        )
        .with(
            "logs",
            format!("{{globs: [\"{DISK}/app/**\", \"/opt/*/logs/*\"]}}"),
        )
        .with("metrics", format!("{{listen: \"0.0.0.0:{AGENT_METRICS}\"}}"))
        // Neither budget nor back-off: each death is a first one.
        .with("restart", "{restarts: 100, backoff_first: 0s, backoff_max: 0s}")
}

/// The node, up, with all three at work.
pub(crate) async fn set(docker: &Docker) -> anyhow::Result<Bed> {
    let wish = Wish {
        disk_bytes: DISK_BYTES,
        agent: everything,
        units: vec![
            (DOCKER, DOCKERD.to_owned()),
            (MONIT, MONITD.to_owned()),
            (EXPORTER, EXPORTERD.to_owned()),
            (SIBLING, SIBLINGD.to_owned()),
        ],
        programs: vec!["log-writer"],
        packages: vec!["docker.io", "monit", "prometheus-node-exporter"],
        devices: vec!["/dev/kmsg"],
        ..Wish::fleet(1, 0)
    };
    let bed = Bed::raise(docker, "bench-agent", &wish).await?;
    let node = bed.node(NODE)?;
    make_logs(node)?;
    node.write("/etc/monit/bench.rc", &monitrc())?;
    // It refuses one that others may read.
    fs::set_permissions(
        node.path("/etc/monit/bench.rc")?,
        fs::Permissions::from_mode(0o600),
    )?;
    for unit in [AGENT, MONIT] {
        // Both have begun before the logs were there.
        node.exec(&["systemctl", "restart", unit]).await?;
    }
    for unit in [
        AGENT,
        MONIT,
        EXPORTER,
        DOCKER,
        "kubelet.service",
        "containerd.service",
    ] {
        running(node, unit).await?;
    }
    Ok(bed)
}

/// Waits until a unit runs.
pub(crate) async fn running(node: &Node, unit: &str) -> anyhow::Result<()> {
    wait::until(&format!("{unit} to run"), DEADLINE, async || {
        let state = node.property(unit, "ActiveState").await?;
        Ok((state == "active").then_some(()))
    })
    .await
}

fn log_path(number: usize) -> String {
    format!(
        "{DISK}/app/service-{}/{:02}.log",
        number % DIRECTORIES,
        number / DIRECTORIES
    )
}

fn make_logs(node: &Node) -> anyhow::Result<()> {
    let line = b"INFO one line of a log like any other, of some length\n";
    let text: Vec<u8> = line.iter().copied().cycle().take(LOG_BYTES).collect();
    for number in 0..DIRECTORIES {
        let directory = node.path(&format!("{DISK}/app/service-{number}"))?;
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    }
    for number in 0..LOGS {
        fs::write(node.path(&log_path(number))?, &text).context("make the watched logs")?;
    }
    Ok(())
}

/// Looks every 5 s, as the agent does at memory and load, and at the logs every 5 min as the agent does while no disk is short.
fn monitrc() -> String {
    let mut text = format!(
        "set daemon 5\nset pidfile /run/monit.pid\nset idfile /run/monit.id\nset statefile /run/monit.state\n\
         set limits {{ fileContentBuffer: 512 B }}\n\
         check system node\n  if loadavg (1min) > 16 then alert\n  if memory usage > 95% then alert\n\
         check process kubelet matching \"stand-in-kubelet\"\n  if failed port 10248 protocol http request \"/healthz\" then alert\n\
         check process docker matching \"dockerd\"\n  if failed unixsocket /run/docker.sock then alert\n\
         check process containerd matching \"/usr/bin/containerd\"\n\
         check filesystem disk with path {DISK}\n  if space usage > 85% then alert\n  if inode usage > 85% then alert\n\
         check filesystem run with path /run\n  if space usage > 85% then alert\n"
    );
    for number in 0..LOGS {
        let _ = writeln!(
            text,
            "check file log{number} with path {} every 60 cycles\n  if size > 64 MB then alert",
            log_path(number)
        );
    }
    text
}

/// Reads the metrics of the agent and of the exporter, as Prometheus does.
pub(crate) async fn scrape(address: std::net::Ipv4Addr) -> anyhow::Result<()> {
    for port in [AGENT_METRICS, EXPORTER_METRICS] {
        let at = SocketAddr::from((address, port));
        let read = async {
            let mut stream = TcpStream::connect(at).await?;
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "no metrics");
            Ok(())
        };
        read.await.with_context(|| format!("scrape {at}"))?;
    }
    Ok(())
}
