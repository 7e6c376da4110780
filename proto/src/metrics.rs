//! What agents and coordinators tell Prometheus, and how it is served.
//!
//! ```text
//!  a page: a registry made anew for each scrape ──► serve: GET /metrics
//! ```

mod serve;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub use serve::{accept, serve};

/// Labels of a family: names and values.
pub type Labels<const N: usize> = [(&'static str, String); N];

/// Draws what a scrape is answered with; on a thread that may block.
pub type Draw = Arc<dyn Fn() -> Result<String, fmt::Error> + Send + Sync>;

/// One scrape. Gauges are made of what is known at the time, so that nothing that is gone is told of for ever.
#[derive(Debug)]
pub struct Page(Registry);

impl Page {
    /// An empty one; every name begins with `prefix` and a `_`.
    pub fn new(prefix: &str) -> Self {
        Self(Registry::with_prefix(prefix))
    }

    /// Something that is counted elsewhere.
    pub fn counted(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    /// One value.
    pub fn gauge(&mut self, name: &str, help: &str, value: i64) {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// A value for each of several labels.
    pub fn family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, i64)>,
    ) where
        Labels<N>: EncodeLabelSet,
    {
        let family = Family::<Labels<N>, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    /// In the text format of `OpenMetrics`.
    ///
    /// # Errors
    /// A label cannot be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// As a gauge has it.
pub fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
