//! Stands in for a component of the control plane: answers every request with 200, until it is stopped.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use blackstart_tests::docker::say;
use clap::Parser;

/// How long a client may take to ask.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Answers every request with 200.
#[derive(Debug, Parser)]
struct Args {
    /// Where
    #[arg(long)]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    match serve(Args::parse().listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("component: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(listen: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    say(&format!("component answers on {listen}"));
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_read_timeout(Some(REQUEST_DEADLINE))?;
        // Whatever a client does wrong is its own matter.
        let mut head = [0; 4096];
        if stream.read(&mut head).is_ok() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _gone = stream.write_all(answer);
        }
    }
    Ok(())
}
