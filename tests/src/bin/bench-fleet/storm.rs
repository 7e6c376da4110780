//! Everybody comes at once: the first time, after a cut, and after the coordinator's own death.

use std::time::Duration;

use anyhow::Context;
use nix::unistd::Pid;
use tokio::time::Instant;

use blackstart_proto::v1::NodePhase;
use blackstart_tests::bench::figures::{Aim, Figure};
use blackstart_tests::bench::process::{Usage, processor};
use blackstart_tests::docker::say;
use blackstart_tests::fleet::Order;
use blackstart_tests::fleet::generator::Generator;
use blackstart_tests::fleet::stage::Stage;
use blackstart_tests::wait;

use crate::queries::{Queries, in_phase, nodes};

const DEADLINE: Duration = Duration::from_mins(5);

/// The first time: there is nothing to lose yet.
pub(super) async fn first(stage: &Stage, crowd: &mut Generator) -> anyhow::Result<Vec<Figure>> {
    let coordinator = pid(stage)?;
    let (took, spent) = until_registered(stage, crowd, coordinator, processor(coordinator)?).await?;
    Ok(figures("first contact", took, &spent, Aim::None))
}

/// Every connection breaks, and the coordinator goes on.
pub(super) async fn cut(stage: &Stage, crowd: &mut Generator) -> anyhow::Result<Vec<Figure>> {
    let coordinator = pid(stage)?;
    let queries = Queries::begin(stage.operator().await?);
    let (before, own) = (processor(coordinator)?, processor(crowd.pid()?)?);
    let dials = crowd.order(Order::Look).await?;
    let began = Instant::now();
    crowd.order(Order::Cut).await?;
    crowd.all_registered(DEADLINE).await?;
    let took = began.elapsed();
    let spent = Spent {
        coordinator: processor(coordinator)?.saturating_sub(before),
        generator: processor(crowd.pid()?)?.saturating_sub(own),
    };
    let after = crowd.order(Order::Look).await?;
    let failures = after.failures - dials.failures;
    if failures > 0 {
        say(&format!("an attempt that failed: {}", after.trouble));
    }
    all_ready(stage).await?;
    let times = queries.end().await?;
    let mut figures = figures("cut", took, &spent, Aim::AtMost(20.0));
    for (name, percent) in [("p50", 50), ("p99", 99)] {
        figures.push(Figure {
            name: format!("cut: get nodes meanwhile, {name}"),
            unit: "ms",
            value: times.milliseconds(percent),
            aim: Aim::None,
            peers: Vec::new(),
            how: "as when idle; every query was answered",
        });
    }
    figures.push(Figure {
        name: "cut: attempts that failed".to_owned(),
        unit: "",
        value: f64::from(u32::try_from(failures)?),
        aim: Aim::None,
        peers: Vec::new(),
        how: "dials that came to no session within the agent's 5 s",
    });
    figures.push(Figure {
        name: "cut: memory after it (Pss)".to_owned(),
        unit: "MiB",
        value: f64::from(u32::try_from(Usage::of(coordinator)?.pss)?) / 1024.0,
        aim: Aim::None,
        peers: Vec::new(),
        how: "smaps_rollup of the coordinator when all were back",
    });
    Ok(figures)
}

/// The coordinator is killed, and started again.
pub(super) async fn restart(stage: &Stage, crowd: &mut Generator) -> anyhow::Result<Vec<Figure>> {
    stage.coordinator().kill().await?;
    // Whoever was registered is not any more.
    crowd.order(Order::Cut).await?;
    stage.coordinator().start().await?;
    let coordinator = pid(stage)?;
    let (took, spent) = until_registered(stage, crowd, coordinator, Duration::ZERO).await?;
    Ok(figures("killed and started", took, &spent, Aim::AtMost(20.0)))
}

/// Processor time while everybody came.
struct Spent {
    coordinator: Duration,
    generator: Duration,
}

async fn until_registered(
    stage: &Stage,
    crowd: &mut Generator,
    coordinator: Pid,
    before: Duration,
) -> anyhow::Result<(Duration, Spent)> {
    let own = processor(crowd.pid()?)?;
    let took = crowd.all_registered(DEADLINE).await?;
    let spent = Spent {
        coordinator: processor(coordinator)?.saturating_sub(before),
        generator: processor(crowd.pid()?)?.saturating_sub(own),
    };
    all_ready(stage).await?;
    Ok((took, spent))
}

/// What agents were told is what operators are told.
async fn all_ready(stage: &Stage) -> anyhow::Result<()> {
    let mut operator = stage.operator().await?;
    wait::until("every node to be ready in the API", DEADLINE, async || {
        let nodes = nodes(&mut operator).await?;
        Ok((in_phase(&nodes, NodePhase::Ready) == nodes.len()).then_some(()))
    })
    .await
}

fn pid(stage: &Stage) -> anyhow::Result<Pid> {
    stage.coordinator().pid().context("the coordinator has ended")
}

fn figures(what: &str, took: Duration, spent: &Spent, aim: Aim) -> Vec<Figure> {
    vec![
        Figure {
            name: format!("{what}: until all are registered"),
            unit: "s",
            value: took.as_secs_f64(),
            aim,
            peers: Vec::new(),
            how: "until the first report of the last node is acknowledged; each came back with the agent's own back-off",
        },
        Figure {
            name: format!("{what}: processor meanwhile"),
            unit: "s",
            value: spent.coordinator.as_secs_f64(),
            aim: Aim::None,
            peers: vec![("the generator", spent.generator.as_secs_f64())],
            how: "utime and stime of both, which share the machine",
        },
    ]
}
