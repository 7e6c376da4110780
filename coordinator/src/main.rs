//! Entry point of `blackstart-coordinator`.

use std::io::{self, Write};
use std::process::ExitCode;

use blackstart_coordinator::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The default provider can only be set once, and nobody else sets it: its answer says nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "blackstart-coordinator: start the asynchronous runtime: {error}"
            );
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::execute(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain, and plainly: a configuration may have many errors, each in a line.
            let _ = writeln!(io::stderr(), "blackstart-coordinator: {error:#}");
            if let Some(advice) = cli::advice(&error) {
                let _ = writeln!(io::stderr(), "{advice}");
            }
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
