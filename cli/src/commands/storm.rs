//! `blackstart storm thaw`: ends a freeze by an operator's word.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;

/// What is done to a storm.
#[derive(Debug, Subcommand)]
pub enum StormCommand {
    /// Let the cluster's nodes mend a condition by themselves again
    #[command(after_help = "\
Examples:
  blackstart get storms
  blackstart storm thaw --cluster business UnitFailed
  blackstart storm thaw --cluster business")]
    Thaw(ThawArgs),
}

/// Which.
#[derive(Debug, Args)]
pub struct ThawArgs {
    /// The cluster
    #[arg(short, long, value_name = "NAME")]
    cluster: String,
    /// The condition; without it every one that is frozen
    condition: Option<String>,
}

pub(super) async fn run(command: StormCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let StormCommand::Thaw(ThawArgs { cluster, condition }) = command;
    let mut fleet = context.connect().await?;
    super::get::check_clusters(&mut fleet, std::slice::from_ref(&cluster)).await?;
    let ended = fleet.thaw(&cluster, condition.as_deref()).await?;
    Ok(context.output.list(&ended, Timestamp::now())?)
}
