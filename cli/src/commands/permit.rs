//! `blackstart permit release`: takes a permit back by an operator's word.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use crate::failure::Failure;

/// What is done to permits.
#[derive(Debug, Subcommand)]
pub enum PermitCommand {
    /// Take back what a node has or waits for, so that the next one has its turn; what it is doing goes on
    #[command(after_help = "\
Examples:
  blackstart get permits
  blackstart permit release biz-2 --reason 'it will not come back'")]
    Release(ReleaseArgs),
}

/// Whose, and why.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The node
    node: String,
    /// Why: stands in the events
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn run(command: PermitCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let PermitCommand::Release(ReleaseArgs { node, reason }) = command;
    let mut fleet = context.connect().await?;
    let released = fleet.release_permit(&node, &reason).await?;
    Ok(context.output.list(&released, Timestamp::now())?)
}
