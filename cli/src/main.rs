//! Entry point of `blackstart`.

use std::process::ExitCode;

use blackstart::cli::{Cli, Environment};
use clap::Parser;

fn main() -> ExitCode {
    if let Some(ended) = blackstart::drill::play() {
        return ended;
    }
    let environment = Environment::read();
    let cli = Cli::parse();
    // The default provider can only be set once, and nobody else sets it: its answer says nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return blackstart::no_runtime(&environment, &error),
    };
    runtime.block_on(blackstart::run(cli, &environment))
}
