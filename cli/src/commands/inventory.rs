//! `blackstart inventory lint FILE`.

use std::path::PathBuf;

use blackstart_coordinator::inventory::{InventoryError, load};
use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;
use crate::output::local;
use crate::output::words::count;
use crate::view::Lint;

/// What can be done with a declared fleet.
#[derive(Debug, Subcommand)]
pub enum InventoryCommand {
    /// Say everything that is wrong or suspicious, with line and field
    #[command(after_help = "\
Examples:
  blackstart inventory lint /etc/blackstart/inventory.yaml
  blackstart inventory lint inventory.yaml -o json

Errors: names and addresses that stand twice, unknown or circular dependencies, clusters without a
node or a control plane, addresses that are none, a `power_loss_order` that names a cluster twice,
forgets one or contradicts `after`. Exit code 0: none, perhaps warnings; 2: errors.")]
    Lint(LintArgs),
}

/// Which file.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// The inventory
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(command: &InventoryCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let InventoryCommand::Lint(LintArgs { file }) = command;
    let lint = match load(file) {
        Ok(loaded) => Lint::passed(file, &loaded.inventory, loaded.warnings),
        Err(InventoryError::Invalid(problems)) => Lint::failed(file, problems.list),
        Err(InventoryError::Read { path, source }) => {
            return Err(Failure::Usage {
                what: format!("read inventory {}: {source}", path.display()),
                advice: Some("name a file of UTF-8 text that can be read".to_owned()),
            });
        }
    };
    context
        .output
        .object("InventoryLint", &lint, |_| local::lint(&lint))?;
    if lint.errors.is_empty() {
        return Ok(());
    }
    // Before the failure is told on the other stream.
    context.output.flush()?;
    Err(Failure::usage(format!(
        "{} in {}",
        count(lint.errors.len(), "error"),
        lint.file
    )))
}
