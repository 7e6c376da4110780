//! `testbed`: nodes to try things on, left standing until they are taken down.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::time::Instant;

use blackstart_tests::bed::{self, Bed, Wish};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::image;

/// The bed of this command.
const NAME: &str = "testbed";

/// Real nodes (containers with systemd) that lose power as real machines do
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Raise masters and workers with agents, and a coordinator; what is there is replaced
    Up {
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
        masters: u8,
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=100))]
        workers: u8,
    },
    /// Remove everything, of crashed test runs too
    Down {
        /// The image and the cache as well
        #[arg(long)]
        purge: bool,
    },
    /// What runs, and how to reach it
    Status,
    /// Cut the power of all nodes at once
    PowerLoss {
        /// The coordinator's machine too
        #[arg(long)]
        coordinator: bool,
    },
    /// Power on what is off
    PowerOn {
        /// Stays off; may be given several times
        #[arg(long, value_name = "NODE")]
        except: Vec<String>,
    },
    /// Run a command on a node
    Exec {
        node: String,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let docker = Docker::find().await?;
    let begun = Instant::now();
    match command {
        Command::Up { masters, workers } => {
            let mut bed = Bed::raise(&docker, NAME, &Wish::fleet(masters, workers)).await?;
            bed.keep();
            bed.kubelets_answer(bed.nodes(), Duration::from_mins(1)).await?;
            say(&format!("up in {:.1?}", begun.elapsed()));
            status(&bed).await
        }
        Command::Down { purge } => {
            for name in bed::left(&docker).await? {
                let word = if bed::remove(&docker, &name).await? {
                    "down"
                } else {
                    "in use, and left alone"
                };
                say(&format!("bed {name} is {word}"));
            }
            if purge {
                image::purge(&docker).await?;
            }
            Ok(())
        }
        Command::Status => status(&Bed::open(&docker, NAME).await?).await,
        Command::PowerLoss { coordinator } => {
            let bed = Bed::open(&docker, NAME).await?;
            bed.power_loss().await?;
            if coordinator {
                bed.coordinator()?.lose_power().await?;
            }
            say(&format!("dark after {:.1?}", begun.elapsed()));
            Ok(())
        }
        Command::PowerOn { except } => {
            let bed = Bed::open(&docker, NAME).await?;
            for name in &except {
                bed.node(name)?;
            }
            let coordinator = bed.coordinator()?;
            if coordinator.pid().is_none() {
                coordinator.start().await?;
            }
            let except: Vec<_> = except.iter().map(String::as_str).collect();
            bed.power_on_except(&except).await?;
            say(&format!("nodes have booted after {:.1?}", begun.elapsed()));
            Ok(())
        }
        Command::Exec { node, command } => {
            let bed = Bed::open(&docker, NAME).await?;
            let node = bed.node(&node)?;
            if !node.is_on() {
                bail!("node {} has no power", node.name());
            }
            let status = std::process::Command::new("docker")
                .args(["exec", "-i", node.container()])
                .args(&command)
                .status()?;
            if !status.success() {
                bail!("{command:?} ended with {status}");
            }
            Ok(())
        }
    }
}

async fn status(bed: &Bed) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<12} {:<14} {:<15} {:<6} {:<14} KUBELET",
        "NODE", "ROLE", "ADDRESS", "POWER", "GATE"
    )?;
    for declared in bed.declared() {
        let node = bed.node(&declared.name)?;
        let unit = async |unit: &str| {
            if node.is_on() {
                node.property(unit, "ActiveState").await
            } else {
                Ok("-".to_owned())
            }
        };
        writeln!(
            out,
            "{:<12} {:<14} {:<15} {:<6} {:<14} {}",
            declared.name,
            declared.role.word(),
            declared.address,
            if node.is_on() { "on" } else { "off" },
            unit("blackstart-gate.service").await?,
            unit("kubelet.service").await?,
        )?;
    }
    let coordinator = bed.coordinator()?;
    match coordinator.pid() {
        Some(pid) => writeln!(
            out,
            "\ncoordinator: process {pid}, log {}/coordinator.log",
            bed.dir().display()
        )?,
        None => writeln!(out, "\ncoordinator: does not run")?,
    }
    writeln!(out, "to use the blackstart command here:")?;
    for (name, value) in coordinator.environment() {
        writeln!(out, "  export {name}={value}")?;
    }
    Ok(())
}
