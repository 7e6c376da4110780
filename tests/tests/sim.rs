//! Whole cold starts in simulated time: no law is broken, every deliberate break is found, and a seed repeats itself.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use blackstart_tests::sim::{Mutation, Outcome, simulate};

/// So many seeds without a break; `make sim` looks at more.
const SEEDS: u64 = 200;
/// A break has to be found within so many.
const PATIENCE: u64 = 1_000;

/// The first of these seeds that breaks a law.
fn search(seeds: u64, mutation: Option<Mutation>) -> Option<Outcome> {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(seeds));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = simulate(seed, mutation, false).unwrap();
            if outcome.violation.is_some() {
                end.fetch_min(seed, Ordering::Relaxed);
                return Some(outcome);
            }
        }
    };
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap())
            .min_by_key(|outcome| outcome.seed)
    })
}

#[test]
fn no_seed_breaks_a_law() {
    if let Some(outcome) = search(SEEDS, None) {
        panic!(
            "seed {}: {:?}\n{}\nagain: make sim SEED={}",
            outcome.seed,
            outcome.violation.unwrap(),
            outcome.trace.join("\n"),
            outcome.seed
        );
    }
}

#[test]
fn every_deliberate_break_is_found_by_its_law() {
    for mutation in Mutation::ALL {
        let outcome = search(PATIENCE, Some(mutation));
        let outcome = outcome.unwrap_or_else(|| panic!("{mutation} is not found within {PATIENCE} seeds"));
        let violation = outcome.violation.unwrap();
        assert!(
            mutation.breaks().contains(&violation.law),
            "{mutation}, seed {}: {violation:?}",
            outcome.seed
        );
    }
}

#[test]
fn a_seed_repeats_itself_to_the_last_line() {
    for seed in 0..12 {
        let (once, again) = (
            simulate(seed, None, true).unwrap(),
            simulate(seed, None, true).unwrap(),
        );
        assert_eq!(once, again, "seed {seed}");
    }
    let (one, other) = (
        simulate(1, None, false).unwrap(),
        simulate(2, None, false).unwrap(),
    );
    assert_ne!(one.hash, other.hash, "two seeds are two worlds");
}
