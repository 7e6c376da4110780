//! What it costs to free the head of a log, by the example `bench_reclaim` of the agent, which is built beside this program.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::Command;

use blackstart_tests::coordinator::program;
use blackstart_tests::docker::say;

use crate::figures::{Aim, Figure};

/// Runs of each way; the median counts.
const RUNS: &str = "5";
const DEADLINE: Duration = Duration::from_mins(15);

#[derive(Debug, Deserialize)]
struct Answer {
    ways: Vec<Way>,
}

#[derive(Debug, Deserialize)]
struct Way {
    name: String,
    median_seconds: f64,
}

pub(crate) async fn measure(size: &str) -> anyhow::Result<Vec<Figure>> {
    let mut command = Command::new(program("examples/bench_reclaim")?);
    command
        .args(["--size", size, "--runs", RUNS, "--output", "json"])
        .kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .with_context(|| format!("bench_reclaim did not end within {DEADLINE:?}"))?
        .context("run bench_reclaim")?;
    if !output.status.success() {
        bail!(
            "bench_reclaim: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).context("read what bench_reclaim wrote")?;
    say(&format!("{answer:?}"));
    let of = |name: &str| {
        let way = answer.ways.iter().find(|way| way.name == name);
        way.map(|way| way.median_seconds)
            .with_context(|| format!("bench_reclaim did not measure {name}"))
    };
    let (truncate, collapse, punch, copy) = (
        of("truncate(0)")?,
        of("collapse")?,
        of("punch")?,
        of("copytruncate")?,
    );
    let how = "bench_reclaim: all but the last 64 MiB of a synced log on ext4, a writer holds it open; medians of 5, turn by turn; \
               3 GiB unless --size says otherwise";
    let figure = |name: &str, value, aim| Figure {
        name: format!("freeing a log: {name}"),
        unit: "×",
        value,
        aim,
        peers: vec![("truncate(0), s", truncate), ("copytruncate, s", copy)],
        how,
    };
    Ok(vec![
        figure(
            "collapse to a bare truncate",
            collapse / truncate,
            Aim::AtMost(1.2),
        ),
        figure("punch to a bare truncate", punch / truncate, Aim::AtMost(1.2)),
        figure(
            "copy and truncate to the dearer of both",
            copy / collapse.max(punch),
            Aim::AtLeast(5.0),
        ),
    ])
}
