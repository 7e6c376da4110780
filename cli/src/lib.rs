//! The operator's command.
//!
//! ```text
//!  cli ──► settings ──► client ──mTLS──► coordinator
//!   │     (contexts)      │
//!   ▼                     ▼ view/ (own shapes, also those of `-o json`)
//!  commands/ ──────────► output/ (the only module that prints)
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`cli`] | what may be typed, and what is taken from the environment |
//! | `settings` | which coordinator, and with which certificate: flags, environment, a file of contexts |
//! | `client` | one connection to the fleet's service; every failure becomes a [`failure::Failure`] |
//! | `view` | what the commands show; made from wire types here and nowhere else |
//! | `commands` | one file a command |
//! | `output` | tables, JSON, YAML, colours, the live view |
//! | `doctor` | is this installation as it should be: pure checks over what was seen |
//! | `report` | a run as a document to keep |
//! | [`failure`] | why it did not work, what to try, and the exit code |
//! | [`drill`] | rehearsals |

pub mod cli;
mod client;
mod commands;
mod doctor;
pub mod drill;
pub mod failure;
pub mod output;
mod report;
mod settings;
mod view;

use std::process::ExitCode;

use crate::cli::{Cli, Environment};
use crate::failure::Failure;
use crate::output::Output;

/// Carries out one command, and tells what went wrong on standard error.
pub async fn run(cli: Cli, environment: &Environment) -> ExitCode {
    let mut output = Output::new(cli.output, environment);
    let result = Box::pin(commands::run(cli, environment, &mut output)).await;
    let result = result.and_then(|()| output.flush().map_err(Failure::from));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::tell_failure(&failure, environment);
            failure.exit().into()
        }
    }
}

/// What to say and return when not even the runtime could be started.
pub fn no_runtime(environment: &Environment, error: &std::io::Error) -> ExitCode {
    let failure = Failure::other(format!("start the runtime: {error}"));
    output::tell_failure(&failure, environment);
    failure.exit().into()
}
