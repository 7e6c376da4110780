//! Entry point of `blackstart-agent`.

use std::env;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use blackstart_agent::cli::{Cli, Exit};
use blackstart_agent::report::journal::{self, JournalLayer};
use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Each blocks at most one call; `TasksMax` of the unit leaves room for them.
const BLOCKING_THREADS: usize = 48;
/// A thread that waits for another such call ends after this. Calls that come every few seconds keep one, which a repair then finds ready; a
/// burst leaves none behind.
const BLOCKING_IDLE: Duration = Duration::from_secs(6);
/// A call that hangs in the kernel, on a disk that does not answer, must not keep the process for longer.
const LEAVE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.logs() {
        log(cli.lasts());
    }
    // The default provider can only be set once, and nobody else sets it: its answer says nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread for all that waits for nothing: between two, every signal would wake a processor that sleeps, and on a busy node wait for its
    // turn. What may hang goes to threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_keep_alive(BLOCKING_IDLE)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(cli.carry_out());
            runtime.shutdown_timeout(LEAVE);
            done
        }
        Err(error) => Err(Exit::Failed.because(format!("start the runtime: {error}"))),
    };
    match done {
        Ok(text) => match stdout()
            .write_all(text.as_bytes())
            .and_then(|()| stdout().flush())
        {
            // Whoever reads may have gone away, and then there is nobody to tell.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                let _ = writeln!(stderr(), "blackstart-agent: write to standard output: {error}");
                Exit::Failed.into()
            }
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        },
        Err(failure) => {
            let _ = stdout().write_all(failure.output.as_bytes());
            let _ = writeln!(stderr(), "blackstart-agent: {failure}");
            failure.exit.into()
        }
    }
}

/// To standard error; to the journal, with fields, where that is where standard error goes. Not of a process that ends soon: journald asks the
/// kernel whose an entry is, and of a process that is gone by then nobody can tell. A line on standard error comes by a stream that systemd
/// has labelled with the unit.
fn log(lasts: bool) {
    let filter = EnvFilter::new(env::var("BLACKSTART_LOG").unwrap_or_else(|_| "info".to_owned()));
    let stream = env::var_os("JOURNAL_STREAM");
    if lasts
        && journal::is_connected(stream.as_deref())
        && let Ok(layer) = JournalLayer::new()
    {
        return tracing_subscriber::registry().with(filter).with(layer).init();
    }
    let lines = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_env_filter(filter);
    if stream.is_some() {
        // Whoever takes them has timestamps.
        lines.without_time().finish().init();
    } else {
        lines.finish().init();
    }
}
