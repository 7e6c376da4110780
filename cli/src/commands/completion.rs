//! `blackstart completion SHELL`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Context;
use crate::cli::Cli;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  source <(blackstart completion bash)                                   in this shell
  blackstart completion bash > /etc/bash_completion.d/blackstart         for everybody
  blackstart completion zsh > \"${fpath[1]}/_blackstart\"
  blackstart completion fish > ~/.config/fish/completions/blackstart.fish";

/// Completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: SupportedShell,
}

/// Shells that are tested.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &CompletionArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let shell = match args.shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "blackstart", &mut script);
    Ok(context.output.raw(&script)?)
}
