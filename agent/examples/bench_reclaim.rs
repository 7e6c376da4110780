//! What it costs to free the head of a large log, beside `truncate(0)` and copy-then-truncate.
//!
//! ```text
//! cargo run --release -p blackstart-agent --example bench_reclaim -- --size 3GiB --runs 5
//! ```
//!
//! Makes an ext4 image of its own on a loop device (root), with a quarter more than `--size`; fills one log, writes
//! it to disk, and times each way of freeing all but its last 64 MiB while a writer holds it open. The ways take
//! turns, so that a noisy machine hits all of them.
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use blackstart_agent::config::LogSettings;
use blackstart_agent::reclaim::plan::Method;
use blackstart_agent::reclaim::{Rules, reclaim};
use clap::Parser;
use tokio::time::Instant;

use support::{Mounted, seen};

const KEEP: u64 = 64 << 20;

/// Times the ways to free a log.
#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the log: a number with MiB or GiB.
    #[arg(long, default_value = "1GiB", value_parser = size)]
    size: u64,
    /// Runs of each way; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Json,
}

fn size(text: &str) -> Result<u64, String> {
    let parsed = [("GiB", 30), ("MiB", 20)].iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    parsed
        .filter(|size| *size >= 4 * KEEP)
        .ok_or_else(|| "expected at least 256MiB, such as 3GiB".to_owned())
}

#[derive(Debug, Clone, Copy)]
enum Way {
    TruncateToNothing,
    Collapse,
    Punch,
    CopyTruncate,
}

impl Way {
    const ALL: [Self; 4] = [
        Self::TruncateToNothing,
        Self::Collapse,
        Self::Punch,
        Self::CopyTruncate,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::TruncateToNothing => "truncate(0)",
            Self::Collapse => "collapse",
            Self::Punch => "punch",
            Self::CopyTruncate => "copytruncate",
        }
    }

    const fn keeps(self) -> &'static str {
        match self {
            Self::TruncateToNothing => "nothing",
            Self::Collapse | Self::Punch => "64 MiB",
            Self::CopyTruncate => "a copy of all",
        }
    }

    fn run(self, log: &Path, root: &Path) -> anyhow::Result<Duration> {
        // Removing the copy is no part of making it.
        let mut copy = None;
        let start = Instant::now();
        match self {
            Self::TruncateToNothing => OpenOptions::new().write(true).open(log)?.set_len(0)?,
            Self::Collapse => by_reclaim(log, root, Method::Collapse)?,
            Self::Punch => by_reclaim(log, root, Method::Punch)?,
            Self::CopyTruncate => {
                // Elsewhere, as on a disk that is nearly full; logrotate's copy is not synced either.
                let copy = copy.insert(tempfile::tempfile()?);
                let mut from = OpenOptions::new().read(true).write(true).open(log)?;
                io::copy(&mut from, copy)?;
                from.set_len(0)?;
            }
        }
        Ok(start.elapsed())
    }
}

fn by_reclaim(log: &Path, root: &Path, method: Method) -> anyhow::Result<()> {
    let rules = Rules::new(&LogSettings {
        globs: vec![format!("{}/**", root.display())],
        keep_tail: KEEP,
        ..LogSettings::default()
    })?;
    let done = reclaim(&seen(log), &rules, false)?;
    ensure!(done.method == Some(method), "{method} was not possible: {done}");
    Ok(())
}

fn fill(log: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(log)?;
    let chunk: Vec<u8> = b"2026-01-01T00:00:00Z INFO one line of a log like any other, of some length\n"
        .iter()
        .copied()
        .cycle()
        .take(1 << 20)
        .collect();
    for _ in 0..bytes >> 20 {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn machine() -> String {
    let read = |path: &str| {
        let mut text = String::new();
        File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_or_else(|_| "unknown".to_owned(), |_| text.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, kernel {}", read("/proc/sys/kernel/osrelease"))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.runs == 0 {
        bail!("--runs must be at least 1");
    }
    let fs = Mounted::ext4(arguments.size + arguments.size / 4)
        .map_err(anyhow::Error::msg)
        .context("make an ext4 image to work on (needs root, mkfs.ext4 and a loop device)")?;
    let log = fs.root().join("app.log");
    let mut times: Vec<(Way, Vec<Duration>)> = Way::ALL.map(|way| (way, Vec::new())).into();
    for turn in 0..arguments.runs {
        // None always comes after the same other, whose work the disk may still be at.
        for at in 0..times.len() {
            let place = (turn + at) % times.len();
            let (way, times) = &mut times[place];
            fill(&log, arguments.size)?;
            let mut writer = OpenOptions::new()
                .write(true)
                .append(!matches!(way, Way::Punch))
                .open(&log)?;
            writer.seek(SeekFrom::End(0))?;
            times.push(way.run(&log, fs.root())?);
            writer.write_all(b"the writer goes on\n")?;
            drop(writer);
            fs::remove_file(&log)?;
        }
    }
    let medians: Vec<_> = times
        .into_iter()
        .map(|(way, times)| (way, median(times)))
        .collect();
    match arguments.output {
        Form::Table => table(&arguments, &medians),
        Form::Json => {
            let ways: Vec<_> = medians
                .iter()
                .map(|(way, median)| {
                    serde_json::json!({"name": way.name(), "median_seconds": median.as_secs_f64()})
                })
                .collect();
            println!("{}", serde_json::json!({"ways": ways, "size": arguments.size}));
        }
    }
    Ok(())
}

fn table(arguments: &Arguments, medians: &[(Way, Duration)]) {
    println!(
        "Freeing a log of {} MiB on ext4 (loop device), {} runs each; {}",
        arguments.size >> 20,
        arguments.runs,
        machine()
    );
    println!("{:<14} {:>10} {:>12}  keeps", "way", "median s", "truncate(0)=1");
    let base = medians.first().map(|(_, median)| *median).unwrap_or_default();
    for (way, median) in medians {
        println!(
            "{:<14} {:>10.3} {:>13.2}  {}",
            way.name(),
            median.as_secs_f64(),
            median.as_secs_f64() / base.as_secs_f64(),
            way.keeps()
        );
    }
}
