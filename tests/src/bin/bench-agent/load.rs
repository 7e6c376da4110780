//! What the three take: idle, and while the kernel's log and a log are flooded.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use blackstart_tests::bench::process::{Spent, Stopwatch, Usage};
use blackstart_tests::docker::say;
use blackstart_tests::node::{DISK, Node};

use crate::figures::{Aim, Figure};
use crate::stage::{self, AGENT, EXPORTER, MONIT};

/// Between two scrapes, as Prometheus has it by default in most installations.
const SCRAPE: Duration = Duration::from_secs(15);
/// Lines of the kernel's log a second: 45,000 a minute.
const KMSG_RATE: u64 = 750;
/// Lines are written so often.
const KMSG_TICK: Duration = Duration::from_millis(20);
/// Bytes a second of the log that grows.
const LOG_RATE: u64 = 100_000_000;
/// Whether processes may write to the kernel's log as fast as they like.
const KMSG_LIMIT: &str = "/proc/sys/kernel/printk_devkmsg";

/// What went by for each of the three.
struct Window {
    agent: Spent,
    monit: Spent,
    exporter: Spent,
}

impl Window {
    /// Lasts `span`; both that have metrics are scraped.
    async fn over(node: &Node, address: Ipv4Addr, span: Duration) -> anyhow::Result<Self> {
        let [agent, monit, exporter] = [
            Stopwatch::start(node, AGENT).await?,
            Stopwatch::start(node, MONIT).await?,
            Stopwatch::start(node, EXPORTER).await?,
        ];
        let scrapes = async {
            let mut turns = interval(SCRAPE);
            loop {
                turns.tick().await;
                if let Err(error) = stage::scrape(address).await {
                    return error;
                }
            }
        };
        tokio::select! {
            error = scrapes => return Err(error),
            () = sleep(span) => {}
        }
        Ok(Self {
            agent: agent.stop(node).await?,
            monit: monit.stop(node).await?,
            exporter: exporter.stop(node).await?,
        })
    }

    fn figures(&self, name: &str, aim: f64, how: &'static str) -> Vec<Figure> {
        let peers = [("monit", &self.monit), ("node_exporter", &self.exporter)];
        let mut figures = vec![Figure {
            name: name.to_owned(),
            unit: "% of a core",
            value: self.agent.process,
            aim: Aim::AtMost(aim),
            peers: peers.map(|(peer, spent)| (peer, spent.process)).into(),
            how,
        }];
        // Not every node counts for each unit.
        if let Some(group) = self.agent.group {
            figures.push(Figure {
                name: format!("{name}, control group"),
                unit: "% of a core",
                value: group,
                aim: Aim::None,
                peers: peers
                    .into_iter()
                    .filter_map(|(peer, spent)| Some((peer, spent.group?)))
                    .collect(),
                how,
            });
        }
        figures
    }
}

fn told(what: &str, window: &Window) {
    let one = |spent: &Spent| {
        format!(
            "{:.2} % user, {:.2} % system, {:.0} sleeps a second",
            spent.user, spent.system, spent.sleeps
        )
    };
    say(&format!(
        "{what}: agent {}; monit {}; exporter {}",
        one(&window.agent),
        one(&window.monit),
        one(&window.exporter)
    ));
}

/// Nothing happens for so long.
pub(crate) async fn idle(node: &Node, address: Ipv4Addr, span: Duration) -> anyhow::Result<Vec<Figure>> {
    let window = Window::over(node, address, span).await?;
    told("idle", &window);
    let mut memory = Vec::new();
    for unit in [AGENT, MONIT, EXPORTER] {
        let pid = node
            .main_pid(unit)
            .await?
            .with_context(|| format!("{unit} does not run"))?;
        let usage = Usage::of(pid)?;
        say(&format!("{unit}: {usage:?}"));
        memory.push(usage);
    }
    let [agent, monit, exporter] = memory[..] else {
        anyhow::bail!("three were asked");
    };
    let mib = |kib: u64| Duration::from_secs(kib).as_secs_f64() / 1024.0;
    let mut figures = vec![Figure {
        name: "idle: memory".to_owned(),
        unit: "MiB",
        value: mib(agent.pss),
        aim: Aim::AtMost(12.0),
        peers: vec![("monit", mib(monit.pss)), ("node_exporter", mib(exporter.pss))],
        how: "Pss of /proc/PID/smaps_rollup at the end of the idle window",
    }];
    figures.extend(window.figures(
        "idle: processor",
        0.1,
        "the process's CPU clock, and CPUUsageNSec of the unit, over the idle window; 10,000 logs in 400 directories, \
         both metrics pages scraped every 15 s, monit looks every 5 s and at the logs every 5 min",
    ));
    Ok(figures)
}

/// 45,000 lines a minute in the kernel's log.
pub(crate) async fn kernel_log(
    node: &Node,
    address: Ipv4Addr,
    span: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let limit = std::fs::read_to_string(KMSG_LIMIT).with_context(|| format!("read {KMSG_LIMIT}"))?;
    // The kernel takes it with its newline only.
    std::fs::write(KMSG_LIMIT, "on\n").with_context(|| format!("write {KMSG_LIMIT}"))?;
    let stop = CancellationToken::new();
    let writing = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || flood(&stop)
    });
    let window = Window::over(node, address, span).await;
    stop.cancel();
    let written = writing.await?;
    std::fs::write(KMSG_LIMIT, format!("{}\n", limit.trim()))
        .with_context(|| format!("write {KMSG_LIMIT}"))?;
    let (window, written) = (window?, written?);
    told(&format!("flood of the kernel's log, {written} lines"), &window);
    Ok(window.figures(
            "kernel log, 45,000 lines a minute",
            2.0,
            "as idle, while a process writes 750 lines a second to /dev/kmsg, which the node shares (its journald reads them too)",
        ))
}

/// Writes lines until `stop`; how many.
fn flood(stop: &CancellationToken) -> anyhow::Result<u64> {
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    let (_never, pace) = std::sync::mpsc::channel::<()>();
    let begun = Instant::now();
    let mut written = 0;
    while !stop.is_cancelled() {
        let due = u64::try_from(begun.elapsed().as_millis())? * KMSG_RATE / 1000;
        while written < due {
            // Debug messages: none reaches a console.
            writeln!(
                log,
                "<7>bench: eth0: line {written} of a driver that has much to say about its queue"
            )
            .context("write to /dev/kmsg")?;
            written += 1;
        }
        // Nobody ever sends: this only waits.
        let _ = pace.recv_timeout(KMSG_TICK);
    }
    Ok(written)
}

/// A log grows by 100 MB/s.
pub(crate) async fn growing_log(
    node: &Node,
    address: Ipv4Addr,
    span: Duration,
) -> anyhow::Result<Vec<Figure>> {
    let log = format!("{DISK}/app/service-0/growing.log");
    let (rate, seconds) = (
        format!("--rate={LOG_RATE}"),
        format!("--seconds={}", span.as_secs() + 20),
    );
    let command = ["log-writer", &log, "--append", "--tail=16", &rate, &seconds];
    let writing = node.exec_within(span + Duration::from_mins(1), &command);
    let measuring = async {
        // Until the disk is short of space, nobody has to look at the log.
        sleep(Duration::from_secs(5)).await;
        Window::over(node, address, span).await
    };
    let (answer, window) = tokio::join!(writing, measuring);
    let (answer, window) = (answer?, window?);
    std::fs::remove_file(node.path(&log)?)?;
    told("growing log", &window);
    say(&format!("the writer of the growing log: {answer}"));
    let mut figures = window.figures(
            "logs growing by 100 MB/s",
            2.0,
            "as idle, while log-writer appends 100 MB/s to one of the logs on the disk of 4 GiB, which the agent reclaims; freeing the blocks is in it",
        );
    figures.push(Figure {
        name: "of it in user mode".to_owned(),
        unit: "% of a core",
        value: window.agent.user,
        aim: Aim::None,
        peers: Vec::new(),
        how: "utime alone: the rest is the kernel's, which frees what was reclaimed",
    });
    Ok(figures)
}
