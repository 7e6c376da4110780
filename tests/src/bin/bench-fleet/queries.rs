//! `get nodes`, again and again, while something else is measured.

use std::time::Duration;

use anyhow::Context;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{ListNodesRequest, NodePhase, NodeSummary};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use blackstart_tests::bench::{percentile, sorted};

/// Between the end of one query and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Every node that the API tells.
pub(super) async fn nodes(operator: &mut FleetServiceClient<Channel>) -> anyhow::Result<Vec<NodeSummary>> {
    let listed = operator.list_nodes(ListNodesRequest::default()).await;
    Ok(listed.context("list the nodes")?.into_inner().nodes)
}

/// How many of them are in this phase.
pub(super) fn in_phase(nodes: &[NodeSummary], phase: NodePhase) -> usize {
    nodes.iter().filter(|node| node.phase() == phase).count()
}

/// Queries that are being made.
pub(super) struct Queries {
    stop: oneshot::Sender<()>,
    made: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Queries {
    pub(super) fn begin(mut operator: FleetServiceClient<Channel>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let made = tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let asked = Instant::now();
                nodes(&mut operator).await?;
                times.push(asked.elapsed());
                tokio::select! {
                    _ = &mut stopped => return Ok(times),
                    () = sleep(PAUSE) => {}
                }
            }
        });
        Self { stop, made }
    }

    /// What each took. That one failed is an error: all are to be answered.
    pub(super) async fn end(self) -> anyhow::Result<Times> {
        // It may have ended by an error, which follows.
        let _ended = self.stop.send(());
        let times = self.made.await??;
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Ok(Times(sorted(times.iter().map(micros))))
    }
}

/// Microseconds, in rising order.
pub(super) struct Times(Vec<u64>);

impl Times {
    pub(super) fn milliseconds(&self, percent: usize) -> f64 {
        Duration::from_micros(percentile(&self.0, percent)).as_secs_f64() * 1000.0
    }
}
