//! Half of a fleet loses its power at once: nobody closes a connection, and nothing is said any more. Then the first node is back.

use std::time::Duration;

use anyhow::Context;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{ListRunsRequest, NodePhase};
use tokio::time::Instant;
use tonic::transport::Channel;

use blackstart_tests::bench::figures::{Aim, Figure};
use blackstart_tests::bench::process::processor;
use blackstart_tests::fleet::Order;
use blackstart_tests::fleet::generator::Generator;
use blackstart_tests::fleet::stage::Stage;
use blackstart_tests::wait;

use crate::queries::{in_phase, nodes};

/// The agent's own.
const INTERVAL: Duration = Duration::from_secs(2);
/// The coordinator's own: a session that was not heard of for so long is silent.
const SILENT_AFTER: Duration = Duration::from_secs(6);
const DEADLINE: Duration = Duration::from_mins(5);
/// `NVSentinel`'s tests/scale-tests/results: P90 of its decision on 750 of 1,500 nodes.
const NVSENTINEL: (&str, f64) = ("NVSentinel, published P90", 418.6);

pub(super) async fn measure(fleet: usize) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::set(fleet).await?;
    let mut crowd = Generator::start(&stage.pki(), stage.coordinator().address(), fleet, INTERVAL).await?;
    crowd.all_registered(DEADLINE).await?;
    let coordinator = stage.coordinator().pid().context("the coordinator has ended")?;
    let mut operator = stage.operator().await?;
    let lost = fleet / 2;

    let before = processor(coordinator)?;
    crowd.order(Order::Dark(lost)).await?;
    wait::until("the lost nodes to be silent in the API", DEADLINE, async || {
        let nodes = nodes(&mut operator).await?;
        Ok((in_phase(&nodes, NodePhase::Silent) == lost).then_some(()))
    })
    .await?;
    // Since the last word of the last of them.
    let seen = crowd.order(Order::Look).await?.quiet;

    let began = Instant::now();
    crowd.order(Order::Back(1)).await?;
    let runs = wait::until("the power event to be decided", DEADLINE, async || {
        let runs = runs(&mut operator).await?;
        Ok((!runs.is_empty()).then_some(runs))
    })
    .await?;
    let decided = began.elapsed();
    let spent = processor(coordinator)?.saturating_sub(before);
    anyhow::ensure!(
        runs.iter().all(|reason| reason.starts_with("power event")),
        "what began is something else: {runs:?}"
    );
    drop(crowd);
    stage.coordinator().stop().await?;

    let of = format!("{lost} of {fleet} lost");
    let figure = |what: &str, value: Duration, aim, peers, how| Figure {
        name: format!("{of}: {what}"),
        unit: "s",
        value: value.as_secs_f64(),
        aim,
        peers,
        how,
    };
    Ok(vec![
        figure(
            "last word to all silent in the API",
            seen,
            Aim::None,
            Vec::new(),
            "connections stay open, and pings are not answered; 6 s of it are three missed reports",
        ),
        figure(
            "evidence complete to all silent in the API",
            seen.saturating_sub(SILENT_AFTER),
            Aim::AtMost(2.0),
            vec![NVSENTINEL],
            "the same without the 6 s",
        ),
        figure(
            "first node back to a power event and its cold start in the API",
            decided,
            Aim::AtMost(2.0),
            vec![NVSENTINEL],
            "from the word to the generator, so with the wait before the dial and the handshake, to a run in ListRuns",
        ),
        figure(
            "processor from loss to decision",
            spent,
            Aim::None,
            Vec::new(),
            "utime and stime of the coordinator",
        ),
    ])
}

/// Why each run began.
async fn runs(operator: &mut FleetServiceClient<Channel>) -> anyhow::Result<Vec<String>> {
    let listed = operator.list_runs(ListRunsRequest::default()).await;
    let runs = listed.context("list the runs")?.into_inner().runs;
    Ok(runs.into_iter().map(|run| run.reason).collect())
}
