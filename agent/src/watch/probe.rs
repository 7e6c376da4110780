//! A health endpoint → [`Signal::Probe`].
//!
//! Asked at once, then on its interval, twice as often while it fails: what is down is noticed to be up again, or
//! to be truly down, sooner. It is on this node, so nodes that ask in step burden nobody, and it falls on the beat of everything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::beat::Beat;
use crate::config::ProbeSettings;
use crate::host::Host;
use crate::signal::{ProbeOutcome, ProbeSignal, ProbeTarget, Signal};

/// Never asked again sooner than this after an answer.
const SHORTEST: Duration = Duration::from_millis(50);

/// Probes `target` until `stop`, and tells what came of each probe.
pub async fn watch<H: Host>(
    host: Arc<H>,
    target: ProbeTarget,
    settings: ProbeSettings,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    loop {
        let begun = Instant::now();
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = host.probe(target, settings.deadline) => outcome,
        };
        let took = begun.elapsed();
        let next = beat
            .due(begun, pause(&settings, &outcome))
            .max(Instant::now() + SHORTEST);
        tokio::select! {
            () = stop.cancelled() => return,
            sent = signals.send(Signal::Probe(ProbeSignal { target, outcome, took })) => if sent.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next) => {}
        }
    }
}

/// From the beginning of one probe to that of the next.
fn pause(settings: &ProbeSettings, outcome: &ProbeOutcome) -> Duration {
    match outcome {
        ProbeOutcome::Healthy | ProbeOutcome::Unobservable { .. } => settings.interval,
        ProbeOutcome::Unhealthy { .. } | ProbeOutcome::TimedOut | ProbeOutcome::Refused => {
            settings.while_failing()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::host::{HostError, UnitAction};
    use crate::signal::{DiskSignal, UnitSignal};

    /// Answers two probes, hangs in the next two, then answers again.
    #[derive(Default)]
    struct Hangs(AtomicUsize);

    impl Host for Hangs {
        async fn watch_units(&self, _: Vec<String>, _: mpsc::Sender<Signal>, _: CancellationToken) {}

        async fn unit_state(&self, _: &str) -> Result<UnitSignal, HostError> {
            Err(HostError::Unreachable(String::new()))
        }

        async fn unit_action(&self, _: &str, _: UnitAction) -> Result<(), HostError> {
            Err(HostError::Unreachable(String::new()))
        }

        async fn probe(&self, _: ProbeTarget, deadline: Duration) -> ProbeOutcome {
            if (2..4).contains(&self.0.fetch_add(1, Ordering::Relaxed)) {
                sleep(deadline).await;
                return ProbeOutcome::TimedOut;
            }
            ProbeOutcome::Healthy
        }

        fn disk_usage(&self, _: &Path) -> io::Result<DiskSignal> {
            Err(io::ErrorKind::Unsupported.into())
        }

        async fn shutting_down(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_asked_sooner() {
        let (signals, mut told) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let settings = ProbeSettings {
            interval: Duration::from_secs(10),
            deadline: Duration::from_millis(500),
            ..ProbeSettings::new(1, "/")
        };
        let probing = tokio::spawn(watch(
            Arc::new(Hangs::default()),
            ProbeTarget::ApiServer,
            settings,
            signals,
            Beat::begin(),
            stop.clone(),
        ));
        let start = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..5 {
            let Some(Signal::Probe(probe)) = told.recv().await else {
                panic!("no probe")
            };
            assert_eq!(probe.target, ProbeTarget::ApiServer);
            seen.push((probe.outcome, start.elapsed().as_secs()));
        }
        let outcomes: Vec<_> = seen.iter().map(|(outcome, _)| outcome.clone()).collect();
        assert_eq!(
            outcomes,
            [
                ProbeOutcome::Healthy,
                ProbeOutcome::Healthy,
                ProbeOutcome::TimedOut,
                ProbeOutcome::TimedOut,
                ProbeOutcome::Healthy,
            ]
        );
        assert_eq!(seen[0].1, 0);
        assert!((9..=11).contains(&(seen[1].1)), "{seen:?}");
        assert!((18..=22).contains(&(seen[2].1)), "{seen:?}");
        assert!(seen[4].1 - seen[2].1 <= 3, "{seen:?}");
        stop.cancel();
        timeout(Duration::from_secs(1), probing).await.unwrap().unwrap();
    }
}
