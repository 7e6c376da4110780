//! How soon the agent notices and acts: a unit dies, a runtime freezes, a disk fills.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use blackstart_tests::bench::repair::Bus;
use blackstart_tests::bench::{percentile, sorted};
use blackstart_tests::docker::say;
use blackstart_tests::node::{DISK, Node};
use blackstart_tests::records::RECORD;
use blackstart_tests::wait;

use crate::stage::{self, DOCKER, SIBLING};
use blackstart_tests::bench::figures::{Aim, Figure};

/// The agent watches a restarted unit for a second.
const REST: Duration = Duration::from_millis(1600);
/// No reaction may take longer.
const DEADLINE: Duration = Duration::from_mins(1);
/// As fast as the machine allows.
const FAST: u64 = 1_000_000_000;
const SECONDS: u64 = 20;

/// A kubelet dies, so many times.
pub(crate) async fn death(node: &Node, rounds: u32) -> anyhow::Result<Vec<Figure>> {
    let mut bus = Bus::connect(node).await?;
    let (mut requested, mut running, mut by_systemd) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        sleep(REST).await;
        let repair = bus.kubelet_round(node).await;
        let repair = repair.with_context(|| format!("round {round}"))?;
        requested.push(repair.request);
        running.push(repair.running);
        let sibling = bus.sibling_round(node, SIBLING).await;
        by_systemd.push(sibling.with_context(|| format!("round {round}"))?);
    }
    let millis = |times: &[u64], percent| {
        let times = sorted(times.iter().copied());
        Duration::from_micros(percentile(&times, percent)).as_secs_f64() * 1000.0
    };
    let how = "CLOCK_MONOTONIC from just before the kubelet's SIGKILL until the agent's RestartUnit passes on the node's bus, and until \
               systemd says that it runs again; beside a sibling with Restart=always and RestartSec=0, turn by turn";
    let figure = |name: &str, times: &[u64], percent, aim, peers| Figure {
        name: format!("death of a unit to {name}"),
        unit: "ms",
        value: millis(times, percent),
        aim,
        peers,
        how,
    };
    let systemd = |percent| vec![("systemd itself", millis(&by_systemd, percent))];
    Ok(vec![
        figure("the request, p50", &requested, 50, Aim::AtMost(5.0), Vec::new()),
        figure("the request, p90", &requested, 90, Aim::None, Vec::new()),
        figure("running again, p50", &running, 50, Aim::None, systemd(50)),
        figure("running again, p90", &running, 90, Aim::None, systemd(90)),
    ])
}

/// dockerd is stopped where it stands.
pub(crate) async fn freeze(node: &Node) -> anyhow::Result<Vec<Figure>> {
    let pid = node
        .main_pid(DOCKER)
        .await?
        .context("docker.service does not run")?;
    let begun = Instant::now();
    kill(pid, Signal::SIGSTOP)?;
    wait::until("the agent to tell that docker hangs", DEADLINE, async || {
        let answer = node
            .exec(&["blackstart-agent", "conditions", "--output=json"])
            .await?;
        Ok(answer.contains("RuntimeHung").then_some(()))
    })
    .await?;
    let raised = begun.elapsed();
    wait::until("the agent to restart docker", DEADLINE, async || {
        let new = node.main_pid(DOCKER).await?;
        Ok(new.filter(|new| *new != pid))
    })
    .await?;
    let restarted = begun.elapsed();
    stage::running(node, DOCKER).await?;
    let figure = |name: &str, value: Duration, aim, how| Figure {
        name: format!("freeze of dockerd to {name}"),
        unit: "s",
        value: value.as_secs_f64(),
        aim,
        peers: Vec::new(),
        how,
    };
    Ok(vec![
        figure(
            "RuntimeHung",
            raised,
            Aim::AtMost(15.0),
            "SIGSTOP to the node's dockerd until `blackstart-agent conditions` has RuntimeHung (asked every 50 ms)",
        ),
        figure(
            "a new dockerd",
            restarted,
            Aim::None,
            "until docker.service has another main process; its goroutines are dumped before it is killed",
        ),
    ])
}

/// How a disk fared under a writer.
#[derive(Debug, Default)]
struct Fared {
    first_byte: Option<Instant>,
    first_reclaim: Option<Instant>,
    peak_percent: f64,
}

/// A log is written as fast as the machine allows.
pub(crate) async fn fill(node: &Node) -> anyhow::Result<Vec<Figure>> {
    let stop = CancellationToken::new();
    let watching = tokio::task::spawn_blocking({
        let (stop, disk) = (stop.clone(), node.path(DISK)?);
        move || watch(&disk, &stop)
    });
    let log = format!("{DISK}/app/service-1/fast.log");
    let (rate, seconds) = (format!("--rate={FAST}"), format!("--seconds={SECONDS}"));
    let command = ["log-writer", &log, "--append", "--tail=16", &rate, &seconds];
    let written_from = SystemTime::now();
    let answer = node.exec_within(Duration::from_mins(2), &command).await;
    stop.cancel();
    let (answer, fared) = (answer?, watching.await??);
    let begun = u64::try_from(written_from.duration_since(UNIX_EPOCH)?.as_millis())?;
    let deeds = node.ledger().await?;
    let first = deeds
        .iter()
        .find(|deed| deed.begun_unix_ms > begun && deed.subject == log);
    let decided = first
        .context("no remedy of the log is in the ledger")?
        .begun_unix_ms
        - begun;
    std::fs::remove_file(node.path(&log)?)?;
    say(&format!("the fast writer: {answer}; {fared:?}"));
    let report: serde_json::Value = serde_json::from_str(&answer)?;
    let records = report["records"].as_u64().context("the writer's records")?;
    let rate = Duration::from_micros(records * RECORD as u64 / SECONDS).as_secs_f64();
    let begun = fared.first_byte.context("nothing was written")?;
    let reclaimed = fared.first_reclaim.context("nothing was reclaimed")?;
    ensure!(report["error"].is_null(), "the writer saw an error: {answer}");
    let how = "statvfs of the disk of 4 GiB every 2 ms: from the first look with 1 MiB more in use to the first with 16 MiB less than before";
    let figure = |name: &str, unit, value, aim| Figure {
        name: format!("fast writer: {name}"),
        unit,
        value,
        aim,
        peers: Vec::new(),
        how,
    };
    Ok(vec![
        figure(
            "its command to the first intent in the ledger",
            "s",
            Duration::from_millis(decided).as_secs_f64(),
            Aim::None,
        ),
        figure("its rate over 20 s", "MB/s", rate, Aim::None),
        figure(
            "first byte to first reclaim",
            "s",
            reclaimed.duration_since(begun).as_secs_f64(),
            Aim::None,
        ),
        figure("peak use of the disk", "%", fared.peak_percent, Aim::AtMost(99.0)),
    ])
}

/// Looks at a disk until `stop`.
fn watch(disk: &std::path::Path, stop: &CancellationToken) -> anyhow::Result<Fared> {
    const BEGUN: u64 = 1 << 20;
    const LESS: u64 = 16 << 20;
    let (_never, pace) = std::sync::mpsc::channel::<()>();
    let mut fared = Fared::default();
    let (mut least, mut most) = (u64::MAX, 0);
    while !stop.is_cancelled() {
        let seen = statvfs(disk)?;
        let (total, available) = (seen.blocks(), seen.blocks_available());
        let used = (total - available) * seen.fragment_size();
        let now = Instant::now();
        least = least.min(used);
        if fared.first_byte.is_none() && used > least + BEGUN {
            fared.first_byte = Some(now);
        }
        most = most.max(used);
        if fared.first_byte.is_some() && fared.first_reclaim.is_none() && used + LESS < most {
            fared.first_reclaim = Some(now);
        }
        let percent = 100.0
            - 100.0 * Duration::from_secs(available).as_secs_f64() / Duration::from_secs(total).as_secs_f64();
        fared.peak_percent = fared.peak_percent.max(percent);
        // Nobody ever sends: this only waits.
        let _ = pace.recv_timeout(Duration::from_millis(2));
    }
    Ok(fared)
}
