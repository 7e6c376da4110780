//! What stands for a static pod of a control plane in a drill: a process that answers on a health port, and can be ill.
//!
//! It is this command again, under a hidden name, and ends when its standard input does: it cannot outlive the drill. How it is, a file says,
//! which is read at each question: `well`; `hung PID`, of which only the process of that number is ill, so that a new one is well; `broken`, with
//! which no process stays alive.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use blackstart_tests::component;
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::failure::Failure;

/// The hidden subcommand of `blackstart drill`.
pub(in crate::drill) const SUBCOMMAND: &str = "part";

/// What the hidden subcommand is given.
#[derive(Debug, Args)]
pub(in crate::drill) struct PartArgs {
    /// Where it answers
    address: SocketAddr,
    /// The file that says how it is
    mood: PathBuf,
}

/// Answers until nobody holds its standard input any more.
pub(in crate::drill) async fn serve(args: PartArgs) -> Result<(), Failure> {
    let orphaned = async {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd(stdin)?
            .read_to_end(&mut Vec::new())
            .await
    };
    tokio::select! {
        ended = component::serve(args.address, &args.mood) => {
            ended.map_err(|error| Failure::other(format!("answer on {}: {error}", args.address)))
        }
        _ended = orphaned => Ok(()),
    }
}
