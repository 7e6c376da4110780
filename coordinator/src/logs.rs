//! Where a coordinator's log goes: to standard error, which is the journal under systemd, and to a collector that speaks OTLP, where one is
//! configured. Every line with its fields is a record of OTLP with attributes.
//!
//! The collector is never waited for: its records stand in a queue of 2048 (the SDK's default), and what finds no room there is dropped. That
//! it takes nothing is said once, and so is that it takes something again.

use std::fmt::Debug;
use std::fs;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as Exporter, SdkLoggerProvider};
use tokio::task::spawn_blocking;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// A collector has so long for a batch.
const DEADLINE: Duration = Duration::from_secs(5);
/// The last records may take so long at the end.
const LAST: Duration = Duration::from_secs(2);
/// What the export says of itself is no record: it would be exported, and say something of that.
const OWN: [&str; 7] = [
    "blackstart_coordinator::logs=off",
    "h2=off",
    "hyper=off",
    "hyper_util=off",
    "opentelemetry=off",
    "tonic=off",
    "tower=off",
];

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// Where it speaks OTLP over gRPC, without TLS: `http://127.0.0.1:4317`.
    pub endpoint: String,
}

/// What is sent to a collector; nothing without one.
#[derive(Debug)]
#[must_use = "what is on its way at the end is lost without it"]
pub struct Sent(Option<SdkLoggerProvider>);

impl Sent {
    /// Gives the last records out, within two seconds.
    pub async fn end(self) {
        if let Some(provider) = self.0 {
            // A collector that is away was told of already.
            let _ended = spawn_blocking(move || provider.shutdown_with_timeout(LAST)).await;
        }
    }
}

/// Begins to log, as `BLACKSTART_LOG` says (`info` without it). For the first thing that a program does, inside a runtime.
///
/// # Errors
/// The collector's address cannot be used.
pub fn begin(otlp: Option<&OtlpSettings>) -> Result<Sent, ExporterBuildError> {
    let provider = otlp.map(provider).transpose()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(filter());
    let records = provider.as_ref().map(|provider| {
        let own = OWN.iter().filter_map(|directive| directive.parse().ok());
        OpenTelemetryTracingBridge::new(provider).with_filter(own.fold(filter(), EnvFilter::add_directive))
    });
    tracing_subscriber::registry().with(lines).with(records).init();
    Ok(Sent(provider))
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("BLACKSTART_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

fn provider(otlp: &OtlpSettings) -> Result<SdkLoggerProvider, ExporterBuildError> {
    let exporter = LogExporter::builder()
        .with_tonic()
        .with_endpoint(&otlp.endpoint)
        .with_timeout(DEADLINE)
        .build()?;
    let told = Told {
        exporter,
        endpoint: otlp.endpoint.clone(),
        is_away: AtomicBool::new(false),
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let resource = Resource::builder_empty()
        .with_service_name("blackstart-coordinator")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("host.name", host.trim().to_owned()))
        .build();
    Ok(SdkLoggerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(told)
        .build())
}

/// Says once that the collector takes nothing, and once that it does again.
#[derive(Debug)]
struct Told {
    exporter: LogExporter,
    endpoint: String,
    is_away: AtomicBool,
}

impl Exporter for Told {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let done = self.exporter.export(batch).await;
        let was_away = self.is_away.swap(done.is_err(), Ordering::Relaxed);
        match &done {
            Err(error) if !was_away => {
                tracing::warn!(
                    collector = self.endpoint,
                    %error,
                    "the log does not reach the collector (otlp); it goes on here"
                );
            }
            Ok(()) if was_away => {
                tracing::info!(collector = self.endpoint, "the log reaches the collector again");
            }
            Ok(()) | Err(_) => {}
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
