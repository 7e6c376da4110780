//! `bench-repair`: how long from a kubelet's death to the agent's request for its restart, and until it runs again; beside
//! systemd's own `Restart=always` `RestartSec=0` for a sibling on the same node, in the same run, turn by turn.
//!
//! What is timed, and by which clock: [`blackstart_tests::bench::repair`].

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::time::sleep;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::bench::repair::{Bus, DEADLINE, Repair};
use blackstart_tests::bench::{machine, percentile, sorted};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

const SIBLING: &str = "sibling.service";
/// After each kill. Two make a turn, so the agent has verified the last repair (it watches a restarted unit for a second) before the next.
const REST: Duration = Duration::from_millis(800);

/// Death of a kubelet to its restart by the agent, beside systemd's own Restart=always
#[derive(Debug, Parser)]
struct Args {
    /// How often each is killed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=90))]
    rounds: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-repair: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let docker = Docker::find().await?;
    let sibling = "[Unit]\nDescription=restarted by systemd itself\nStartLimitIntervalSec=0\n\n\
                   [Service]\nExecStart=/usr/bin/stand-in-kubelet --healthz 127.0.0.1:10249 --behaviour /run/sibling\n\
                   Restart=always\nRestartSec=0\n";
    let wish = Wish {
        units: vec![(SIBLING, sibling.to_owned())],
        // Neither budget nor back-off: each kill is a first one.
        agent: |_| Yaml::default().with("restart", "{restarts: 100, backoff_first: 0s, backoff_max: 0s}"),
        ..Wish::single(Runs::Agents)
    };
    let bed = Bed::raise(&docker, "bench-repair", &wish).await?;
    let node = bed.node("worker-1")?;
    bed.kubelets_answer(bed.nodes(), Duration::from_secs(30)).await?;
    let what = "the agent to run";
    wait::until(what, DEADLINE, async || {
        node.main_pid("blackstart-agent.service").await
    })
    .await?;
    let mut bus = Bus::connect(node).await?;
    let (mut by_agent, mut by_systemd) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        sleep(REST).await;
        by_agent.push(
            bus.kubelet_round(node)
                .await
                .with_context(|| format!("round {round}"))?,
        );
        sleep(REST).await;
        by_systemd.push(
            bus.sibling_round(node, SIBLING)
                .await
                .with_context(|| format!("round {round}"))?,
        );
    }
    let deeds = node.ledger().await?;
    let restarts = deeds.iter().filter(|deed| deed.remedy == "restart-unit").count();
    bed.take_down().await?;
    let text = report(&by_agent, &by_systemd);
    write!(std::io::stdout(), "{text}")?;
    if restarts != by_agent.len() {
        bail!(
            "{} kills, and {restarts} restarts in the agent's ledger",
            by_agent.len()
        );
    }
    Ok(())
}

fn report(by_agent: &[Repair], by_systemd: &[u64]) -> String {
    let request = by_agent.iter().map(|repair| repair.request);
    let running = by_agent.iter().map(|repair| repair.running);
    let rows = [
        ("agent: restart requested", sorted(request)),
        ("agent: running again", sorted(running)),
        (
            "systemd Restart=always: running again",
            sorted(by_systemd.iter().copied()),
        ),
    ];
    let mut text = format!(
        "{:<40}{:>9}{:>9}{:>9}{:>9}   ms after SIGKILL, {} each\n",
        "",
        "p50",
        "p90",
        "p99",
        "max",
        by_systemd.len()
    );
    for (name, times) in rows {
        let _ = write!(text, "{name:<40}");
        for percent in [50, 90, 99, 100] {
            let time = percentile(&times, percent);
            let _ = write!(text, "{:>9}", format!("{}.{:02}", time / 1000, time % 1000 / 10));
        }
        text.push('\n');
    }
    text + &format!("on {}\n", machine())
}
