//! What Prometheus is told: off unless `metrics.listen` is set.
//!
//! ```text
//!  loop ──counts──► Meters ─┐
//!  Window: picture, ledger ─┴─► page: a registry made anew for each scrape
//! ```
//!
//! Gauges are made of the picture at each scrape, so that nothing that is gone is told of for ever. Every metric stands in
//! `docs/metrics.md`; a test holds the two together.

mod page;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::metrics::{self, Draw, Labels};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use tokio_util::sync::CancellationToken;

use crate::ledger::Outcome;
use crate::remedy::Remedy;
use crate::signal::Signal;

use crate::local::window::Window;

/// Serves at `address` until `stop`. That it cannot never takes the agent down: it is tried again.
pub async fn serve(address: SocketAddr, meters: Meters, window: Window, stop: CancellationToken) {
    metrics::serve(address, draw(meters, window), stop).await;
}

fn draw(meters: Meters, window: Window) -> Draw {
    Arc::new(move || page::page(&meters, &window))
}

/// Seconds that a pass of the loop may take. It waits for nothing, so what is long here is a machine without processors or memory to spare.
const PASS_SECONDS: [f64; 10] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// What is counted as it happens. Its clones count into the same.
#[derive(Debug, Clone)]
pub struct Meters {
    signals: Family<Labels<1>, Counter>,
    remedies: Family<Labels<2>, Counter>,
    passes: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            signals: Family::default(),
            remedies: Family::default(),
            passes: Histogram::new(PASS_SECONDS),
        }
    }
}

impl Meters {
    /// A signal came.
    pub fn seen(&self, signal: &Signal) {
        let labels = [("signal", signal.name().to_owned())];
        self.signals.get_or_create(&labels).inc();
    }

    /// A remedy was carried out.
    pub fn ended(&self, remedy: &Remedy, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Succeeded { .. } => "succeeded",
            Outcome::Failed { .. } => "failed",
        };
        let labels = [
            ("remedy", remedy.name().to_owned()),
            ("outcome", outcome.to_owned()),
        ];
        self.remedies.get_or_create(&labels).inc();
    }

    /// The loop looked at everything, and took so long.
    pub fn passed(&self, took: Duration) {
        self.passes.observe(took.as_secs_f64());
    }
}
