//! `blackstart describe node|run NAME`.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Context, meant};
use crate::client::Fleet;
use crate::failure::Failure;
use crate::output::{describe, runbook as output};
use crate::view::Node;

/// What can be described.
#[derive(Debug, Subcommand)]
pub enum DescribeCommand {
    /// Phase, boot, gate, health, conditions, units, disks and remedies of a node
    #[command(visible_aliases = ["no", "nodes"])]
    #[command(after_help = "\
Examples:
  blackstart describe node biz-4
  blackstart describe node biz-4 -o json")]
    Node(NameArgs),
    /// State, residue and every step of a run
    #[command(visible_aliases = ["runs"])]
    #[command(after_help = "\
Examples:
  blackstart describe run cold-start-3
  blackstart describe run cold-start-3 -o yaml
  blackstart describe run drain-2")]
    Run(NameArgs),
}

/// Which one.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name, or a run's id
    name: String,
}

pub(super) async fn run(command: DescribeCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    let now = Timestamp::now();
    match command {
        DescribeCommand::Node(NameArgs { name }) => {
            let detail = match fleet.node(&name).await {
                Err(Failure::NotFound { what, name, .. }) => {
                    let known: Vec<_> = fleet
                        .nodes(None)
                        .await?
                        .into_iter()
                        .map(|Node { name, .. }| name)
                        .collect();
                    let advice = Some(meant(&name, &known, "blackstart get nodes"));
                    return Err(Failure::NotFound { what, name, advice });
                }
                answer => answer?,
            };
            Ok(context
                .output
                .object("NodeDetail", &detail, |_| describe::node(&detail, now))?)
        }
        DescribeCommand::Run(NameArgs { name }) => {
            let detail = match fleet.run(&name).await {
                Err(Failure::NotFound { .. }) => return runbook(&mut fleet, context, &name).await,
                answer => answer?,
            };
            Ok(context
                .output
                .object("RunDetail", &detail, |_| describe::run(&detail, now))?)
        }
    }
}

/// A run of a runbook, as `blackstart runbook status` shows it.
async fn runbook(fleet: &mut Fleet, context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let run = match fleet.runbook_run(name).await {
        Err(Failure::NotFound { what, name, .. }) => {
            let known: Vec<_> = fleet.all_runs().await?.into_iter().map(|run| run.id).collect();
            let advice = Some(meant(&name, &known, "blackstart get runs"));
            return Err(Failure::NotFound { what, name, advice });
        }
        answer => answer?,
    };
    Ok(context.output.object("RunbookRun", &run, |_| output::run(&run))?)
}
