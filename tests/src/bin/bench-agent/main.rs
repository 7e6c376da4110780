//! `bench-agent`: what the agent takes, and how soon it reacts; beside monit and Prometheus' node exporter on the same node, in
//! the same run.
//!
//! | module | story |
//! |---|---|
//! | `stage` | the node: everything enabled, 10,000 logs, the peers told to watch the same |
//! | `load` | memory and processor: idle, a flood in the kernel's log, a log that grows |
//! | `reaction` | a unit dies, dockerd freezes, a disk fills |
//! | `ways` | what freeing a log costs, by the example `bench_reclaim` |
//!
//! Its exit code says whether it could measure, not whether aims were met: speed is no test.

mod load;
mod reaction;
mod stage;
mod ways;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use blackstart_tests::bench::figures::Report;
use blackstart_tests::bench::machine;
use blackstart_tests::docker::{Docker, say};

/// What the agent takes, and how soon it reacts, beside monit and the node exporter
#[derive(Debug, Parser)]
struct Args {
    /// The idle window, seconds; the agent walks its globs every 300
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..))]
    idle: u64,
    /// The window of each flood, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..))]
    flood: u64,
    /// How often the kubelet is killed
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
    rounds: u32,
    /// Size of the log that is freed in each way
    #[arg(long, default_value = "3GiB")]
    size: String,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    only: Vec<Part>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Idle,
    KernelLog,
    GrowingLog,
    Death,
    Freeze,
    Fill,
    Ways,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    if args.only != [Part::Ways] {
        let docker = Docker::find().await?;
        let bed = stage::set(&docker).await?;
        let node = bed.node(stage::NODE)?;
        let address = bed.declared()[0].address;
        let flood = Duration::from_secs(args.flood);
        // What a start costs is not what idling costs.
        tokio::time::sleep(Duration::from_secs(10)).await;
        for part in &args.only {
            figures.extend(match part {
                Part::Idle => load::idle(node, address, Duration::from_secs(args.idle)).await?,
                Part::KernelLog => load::kernel_log(node, address, flood).await?,
                Part::GrowingLog => load::growing_log(node, address, flood).await?,
                Part::Death => reaction::death(node, args.rounds).await?,
                Part::Freeze => reaction::freeze(node).await?,
                Part::Fill => reaction::fill(node).await?,
                Part::Ways => continue,
            });
        }
        bed.take_down().await?;
    }
    if args.only.contains(&Part::Ways) {
        figures.extend(ways::measure(&args.size).await?);
    }
    let report = Report {
        subject: "agent",
        machine: machine(),
        figures,
    };
    let text = match args.output {
        Form::Table => report.table(),
        Form::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    write!(std::io::stdout(), "{text}")?;
    Ok(())
}
