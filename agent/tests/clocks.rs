//! The wall clock goes wrong, from the watcher to a condition and its end. The clock is a test's own: a machine's is everybody's.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use blackstart_agent::condition::{Condition, ConditionKind};
use blackstart_agent::config::ClockSettings;
use blackstart_agent::diagnose::clock::{Clock, JUMP_TOLD};
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::clock::{self, Clocks};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const NOW: u64 = 1_790_000_000;
const YEAR: u64 = 365 * 24 * 3600;
/// More than lies between two looks.
const SOON: Duration = Duration::from_mins(5);

static WALL: AtomicU64 = AtomicU64::new(NOW);
static BOOT: AtomicU64 = AtomicU64::new(100);
static KEPT: AtomicBool = AtomicBool::new(true);

fn read() -> Clocks {
    Clocks {
        wall: Duration::from_secs(WALL.load(Ordering::SeqCst)),
        boot: Duration::from_secs(BOOT.load(Ordering::SeqCst)),
        synchronised: Some(KEPT.load(Ordering::SeqCst)),
    }
}

/// Looks until the diagnosis is like that.
async fn until(
    signals: &mut mpsc::Receiver<blackstart_agent::signal::Signal>,
    diagnosis: &mut Clock,
    like: impl Fn(&[Condition]) -> bool,
) -> Vec<Condition> {
    let reached = timeout(SOON, async {
        loop {
            let signal = signals.recv().await.unwrap();
            diagnosis.observe(&signal, Instant::now());
            let standing = diagnosis.conditions(Instant::now());
            if like(&standing) {
                return standing;
            }
        }
    });
    reached
        .await
        .unwrap_or_else(|_| panic!("never; {:?}", diagnosis.conditions(Instant::now())))
}

fn has(standing: &[Condition], kind: ConditionKind) -> bool {
    standing.iter().any(|one| one.key.kind == kind)
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_falls_back_is_told_and_so_is_its_return() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (send, mut signals) = mpsc::channel(1);
    let watching = tokio::spawn(clock::watch(
        dir.path().to_owned(),
        read,
        Vec::new(),
        send,
        Beat::begin(),
        stop.clone(),
    ));
    let settings = ClockSettings::default();
    let mut diagnosis = Clock::new(settings.clone());
    // It is kept: this is the time that the node trusts from now on.
    until(&mut signals, &mut diagnosis, <[_]>::is_empty).await;

    WALL.store(NOW - YEAR, Ordering::SeqCst);
    let told = until(&mut signals, &mut diagnosis, |standing| {
        has(standing, ConditionKind::ClockBehind) && has(standing, ConditionKind::ClockJumped)
    })
    .await;
    assert!(
        told[0].evidence.contains(&format!("{YEAR}s behind")) && told[0].escalated,
        "{told:?}"
    );
    let jumped = told.iter().find(|one| one.key.kind == ConditionKind::ClockJumped);
    assert!(jumped.unwrap().evidence.contains("jumped back by"), "{told:?}");

    // Somebody puts it right, which is a jump as well, and that is told for a while.
    WALL.store(NOW, Ordering::SeqCst);
    let told = until(&mut signals, &mut diagnosis, |standing| {
        !has(standing, ConditionKind::ClockBehind)
    })
    .await;
    assert!(told[0].evidence.contains("jumped ahead by"), "{told:?}");
    assert_eq!(diagnosis.conditions(Instant::now() + JUMP_TOLD), []);

    KEPT.store(false, Ordering::SeqCst);
    tokio::time::advance(JUMP_TOLD).await;
    until(&mut signals, &mut diagnosis, <[_]>::is_empty).await;
    tokio::time::advance(settings.unsynchronised_hold).await;
    until(&mut signals, &mut diagnosis, |standing| {
        has(standing, ConditionKind::ClockUnsynchronised)
    })
    .await;
    KEPT.store(true, Ordering::SeqCst);
    until(&mut signals, &mut diagnosis, <[_]>::is_empty).await;
    stop.cancel();
    watching.await.unwrap();
}
