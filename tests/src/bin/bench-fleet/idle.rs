//! Everybody is in session and reports: what the coordinator takes, and how soon it answers.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use blackstart_tests::bench::figures::{Aim, Figure};
use blackstart_tests::bench::process::{Usage, processor};
use blackstart_tests::fleet::generator::Generator;
use blackstart_tests::fleet::stage::Stage;

use crate::queries::Queries;

/// What a beginning costs is not what idling costs.
const SETTLE: Duration = Duration::from_secs(15);

pub(super) async fn measure(
    stage: &Stage,
    crowd: &Generator,
    interval: Duration,
    window: Duration,
) -> anyhow::Result<Vec<Figure>> {
    sleep(SETTLE.max(interval)).await;
    let coordinator = stage.coordinator().pid().context("the coordinator has ended")?;
    let generator = crowd.pid()?;
    let began = Instant::now();
    let (before, beside) = (processor(coordinator)?, processor(generator)?);
    sleep(window).await;
    let share = |spent: Duration| 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let own = share(processor(coordinator)?.saturating_sub(before));
    let others = share(processor(generator)?.saturating_sub(beside));
    let usage = Usage::of(coordinator)?;

    // Apart from the window: a list of every node, five times a second, is no idling.
    let queries = Queries::begin(stage.operator().await?);
    sleep(window).await;
    let times = queries.end().await?;
    let mib = |kib: u64| Duration::from_millis(kib).as_secs_f64() * 1000.0 / 1024.0;
    let figure = |name: &str, unit, value, aim, how| Figure {
        name: name.to_owned(),
        unit,
        value,
        aim,
        peers: Vec::new(),
        how,
    };
    let memory = "smaps_rollup of the coordinator after the window";
    let asked =
        "ListNodes of the whole fleet over one mTLS connection, as `get nodes` does, five times a second";
    Ok(vec![
        figure(
            "idle: memory (Pss)",
            "MiB",
            mib(usage.pss),
            Aim::AtMost(250.0),
            memory,
        ),
        figure("idle: memory (RSS)", "MiB", mib(usage.rss), Aim::None, memory),
        Figure {
            peers: vec![("the generator", others)],
            ..figure(
                "idle: processor",
                "% of a core",
                own,
                Aim::AtMost(10.0),
                "utime and stime of the coordinator over the window; every node reports once in the interval",
            )
        },
        figure(
            "idle: get nodes, p50",
            "ms",
            times.milliseconds(50),
            Aim::None,
            asked,
        ),
        figure(
            "idle: get nodes, p99",
            "ms",
            times.milliseconds(99),
            Aim::AtMost(50.0),
            asked,
        ),
    ])
}
