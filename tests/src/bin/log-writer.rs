//! Writes a log of numbered records at a steady rate, as an application that has gone mad, and looks after its tail.
//!
//! Runs on a node. What came of it is written to standard output as one line of JSON, whatever it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nix::sys::statvfs::statvfs;
use serde_json::json;
use tokio::time::Instant;

use blackstart_tests::docker::say;
use blackstart_tests::records::{MIB, RECORD, Records, check_tail};

/// Written at once, bytes.
const CHUNK: u64 = 256 << 10;
/// Between two looks at the tail.
const LOOK: Duration = Duration::from_secs(1);
/// A look may fall into the middle of a reclaim: so often is it tried again.
const TRIES: u32 = 20;

/// Writes numbered records at a steady rate
#[derive(Debug, Clone, Parser)]
struct Args {
    /// The log; made anew
    file: PathBuf,
    /// Bytes a second
    #[arg(long, default_value_t = 100_000_000)]
    rate: u64,
    /// For so long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Open it with `O_APPEND`
    #[arg(long)]
    append: bool,
    /// Delete it once it is open
    #[arg(long)]
    delete: bool,
    /// The end of it that must be whole, MiB
    #[arg(long, default_value_t = 16)]
    tail: u64,
}

/// What the tail looked like meanwhile.
#[derive(Debug, Default)]
struct Seen {
    looks: u64,
    least_available: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("log-writer: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(directory) = args.file.parent() {
        fs::create_dir_all(directory).context("make the log's directory")?;
    }
    let log = OpenOptions::new()
        .create_new(true)
        .write(true)
        .append(args.append)
        .open(&args.file)
        .with_context(|| format!("make {}", args.file.display()))?;
    let reader = File::open(&args.file)?;
    if args.delete {
        fs::remove_file(&args.file)?;
    }
    let (done, until_done) = channel();
    let looking = {
        let (args, reader) = (args.clone(), reader.try_clone()?);
        std::thread::spawn(move || look(&args, &reader, &until_done))
    };
    let (written, error) = write(args, log);
    drop(done);
    let seen = looking
        .join()
        .map_err(|_| anyhow::anyhow!("the look at the tail panicked"))?;
    let last = seen.and_then(|seen| Ok((seen, settled_tail(&reader, args.tail)?)));
    let report = match &last {
        Ok((seen, last)) => json!({
            "records": written / RECORD as u64,
            "error": error.map(|error| error.to_string()),
            "last_record": last,
            "looks": seen.looks,
            "least_available": seen.least_available,
            "tail": "whole",
        }),
        Err(broken) => json!({
            "records": written / RECORD as u64,
            "error": error.map(|error| error.to_string()),
            "tail": format!("{broken:#}"),
        }),
    };
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// Writes until the time is over or an error comes; bytes written.
fn write(args: &Args, mut log: File) -> (u64, Option<io::Error>) {
    let mut records = Records::new(CHUNK);
    let (_never, pace): (Sender<()>, _) = channel();
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        if let Err(error) = log.write_all(records.next_chunk()) {
            return (written, Some(error));
        }
        written += CHUNK;
        let due = Duration::from_nanos(written.saturating_mul(1_000_000_000 / args.rate.max(1)));
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            // Nobody ever sends: this only waits.
            let _ = pace.recv_timeout(early);
        }
    }
    (written, None)
}

/// Looks at the tail every second, and at what is left of the file system.
fn look(args: &Args, reader: &File, until_done: &Receiver<()>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let directory = args.file.parent().context("find the log's directory")?;
    while until_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let fs = statvfs(directory)?;
        let available = fs.blocks_available() * fs.fragment_size();
        seen.least_available = Some(
            seen.least_available
                .map_or(available, |least| least.min(available)),
        );
        if reader.metadata()?.len() > args.tail * MIB {
            settled_tail(reader, args.tail)?;
            seen.looks += 1;
        }
    }
    Ok(seen)
}

/// The number of the tail's last record. A log that is being reclaimed moves under the eye: then it is looked at again.
fn settled_tail(reader: &File, mib: u64) -> anyhow::Result<u64> {
    let mut tries = 1;
    loop {
        match check_tail(reader, mib * MIB) {
            Err(_) if tries < TRIES => tries += 1,
            looked => return looked,
        }
    }
}
