//! `blackstart node`: what is done about one node, whatever it is.

use clap::Subcommand;

use super::{Context, runbook, trust};
use crate::failure::Failure;

/// Of `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// It is not well.
    #[command(flatten)]
    Unwell(runbook::NodeCommand),
    /// Who it is.
    #[command(flatten)]
    Identity(trust::NodeCommand),
}

pub(super) async fn run(command: NodeCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        NodeCommand::Unwell(command) => runbook::node(command, context).await,
        NodeCommand::Identity(command) => trust::node(command, context).await,
    }
}
