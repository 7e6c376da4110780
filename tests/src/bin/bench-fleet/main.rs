//! `bench-fleet`: what one coordinator takes that ten thousand agents are in session with, and how it bears their loss and return.
//!
//! | module | story |
//! |---|---|
//! | `idle` | memory and processor while everybody reports; what queries take meanwhile |
//! | `storm` | every session is cut at once, and comes back; the coordinator is killed, and started again |
//! | `loss` | half of a smaller fleet loses its power |
//! | `leases` | as many leases kept alive in etcd |
//! | `queries` | `get nodes`, again and again, beside something else |
//!
//! Its exit code says whether it could measure, not whether aims were met: speed is no test.

mod idle;
mod leases;
mod loss;
mod queries;
mod storm;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use blackstart_tests::bench::figures::Report;
use blackstart_tests::bench::machine;
use blackstart_tests::docker::say;
use blackstart_tests::fleet::crowd::{self, Crowd};
use blackstart_tests::fleet::generator::Generator;
use blackstart_tests::fleet::stage::Stage;

/// What one coordinator takes with thousands of agents in session
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold the sessions; what bench-fleet starts beside the coordinator
    #[command(hide = true)]
    Sessions(Crowd),
}

#[derive(Debug, Args)]
struct Bench {
    /// Agents in session
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    nodes: u32,
    /// Seconds between two reports of one agent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// The window of the idle figures, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..))]
    idle: u64,
    /// Nodes of the fleet of which half loses its power
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(20..=60_000))]
    fleet: u32,
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
    Storm,
    Restart,
    Loss,
    Leases,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran = match cli.command {
        Some(Command::Sessions(crowd)) => crowd::run(crowd).await,
        None => run(&cli.bench).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-fleet: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.nodes as usize;
    let interval = Duration::from_secs(bench.interval);
    let window = Duration::from_secs(bench.idle);
    let asked = |part| bench.only.contains(&part);
    let mut figures = Vec::new();
    if asked(Part::Idle) || asked(Part::Storm) || asked(Part::Restart) {
        let stage = Stage::set(nodes).await?;
        let mut crowd =
            Generator::start(&stage.pki(), stage.coordinator().address(), nodes, interval).await?;
        figures.extend(storm::first(&stage, &mut crowd).await?);
        if asked(Part::Idle) {
            figures.extend(idle::measure(&stage, &crowd, interval, window).await?);
        }
        if asked(Part::Storm) {
            figures.extend(storm::cut(&stage, &mut crowd).await?);
        }
        if asked(Part::Restart) {
            figures.extend(storm::restart(&stage, &mut crowd).await?);
        }
        drop(crowd);
        stage.coordinator().stop().await?;
    }
    if asked(Part::Loss) {
        figures.extend(loss::measure(bench.fleet as usize).await?);
    }
    if asked(Part::Leases) {
        match leases::measure(nodes, interval, window).await? {
            Some(of_etcd) => figures.extend(of_etcd),
            None => say("SKIPPED leases: etcd is not installed (Debian: etcd-server)"),
        }
    }
    let report = Report {
        subject: "coordinator",
        machine: machine(),
        figures,
    };
    let text = match bench.output {
        Form::Table => report.table(),
        Form::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    write!(std::io::stdout(), "{text}")?;
    Ok(())
}
