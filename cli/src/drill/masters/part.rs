//! What stands for a static pod of a control plane in a drill: a process that answers on a health port, and can be ill.
//!
//! It is this command again, under a hidden name, and ends when its standard input does: it cannot outlive the drill. How it is, a file says,
//! which is read at each question: `well`; `hung PID`, of which only the process of that number is ill, so that a new one is well; `broken`, with
//! which no process stays alive.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};

use crate::failure::Failure;

/// The hidden subcommand of `blackstart drill`.
pub(in crate::drill) const SUBCOMMAND: &str = "part";

/// The last words of one that is broken.
pub(super) const LAST_WORDS: &str = "panic: unknown feature gate NoSuchFeature";

/// What the hidden subcommand is given.
#[derive(Debug, Args)]
pub(in crate::drill) struct PartArgs {
    /// Where it answers
    address: SocketAddr,
    /// The file that says how it is
    mood: PathBuf,
}

/// How one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Hung(u32),
    Broken,
}

impl Mood {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        match text.trim().split_once(' ') {
            Some(("hung", pid)) => pid.parse().map_or(Self::Well, Self::Hung),
            _ if text.trim() == "broken" => Self::Broken,
            _ => Self::Well,
        }
    }

    pub(super) fn write(self, path: &Path) -> io::Result<()> {
        fs::write(
            path,
            match self {
                Self::Well => "well".to_owned(),
                Self::Hung(pid) => format!("hung {pid}"),
                Self::Broken => "broken".to_owned(),
            },
        )
    }
}

/// Answers until nobody holds its standard input any more.
pub(in crate::drill) async fn serve(args: PartArgs) -> Result<(), Failure> {
    if Mood::read(&args.mood) == Mood::Broken {
        return Err(Failure::other(LAST_WORDS));
    }
    let failed = |error: io::Error| Failure::other(format!("listen on {}: {error}", args.address));
    let listener = TcpListener::bind(args.address).await.map_err(failed)?;
    let orphaned = async {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd(stdin)?
            .read_to_end(&mut Vec::new())
            .await
    };
    let answers = async {
        // A hung one takes connections and says nothing on them.
        let mut held = Vec::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            match Mood::read(&args.mood) {
                Mood::Hung(pid) if pid == std::process::id() => held.push(stream),
                Mood::Broken => return,
                Mood::Hung(_) | Mood::Well => answer(stream).await,
            }
        }
    };
    tokio::select! {
        () = answers => Err(Failure::other(LAST_WORDS)),
        _ended = orphaned => Ok(()),
    }
}

async fn answer(mut stream: TcpStream) {
    let mut question = [0; 1024];
    // Whoever only looks whether somebody listens has gone by now.
    let _asked = stream.read(&mut question).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let _gone = stream.write_all(answer).await;
}
