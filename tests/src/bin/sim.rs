//! Simulates cold starts, seed after seed, and stops at the first law that is broken.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use blackstart_tests::sim::{Mutation, Outcome, simulate};
use clap::Parser;
use tokio::time::Instant;

/// Simulates whole cold starts and looks for broken laws.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens in it.
    #[arg(long)]
    trace: bool,
    /// Break something on purpose; `all`: each break in turn, and each has to be found.
    #[arg(long)]
    mutation: Option<String>,
    /// How many at a time; 0: as many as there are processors.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.mutation.as_deref() == Some("all") {
        return mutations(&arguments);
    }
    let mutation = match &arguments.mutation {
        Some(name) => Some(Mutation::named(name).with_context(|| {
            let names: Vec<_> = Mutation::ALL.iter().map(ToString::to_string).collect();
            format!(
                "there is no mutation {name}; there are: all, {}",
                names.join(", ")
            )
        })?),
        None => None,
    };
    if let Some(seed) = arguments.seed {
        let outcome = simulate(seed, mutation, arguments.trace)?;
        if arguments.trace || outcome.violation.is_some() {
            tell(&outcome);
        }
        println!(
            "seed {seed}: {} lines, {} s simulated, hash {:016x}",
            outcome.lines,
            outcome.simulated_ms / 1000,
            outcome.hash
        );
        return Ok(verdict(outcome.violation.is_none()));
    }
    let began = Instant::now();
    let (found, sum) = search(&arguments, mutation)?;
    let took = began.elapsed();
    println!(
        "{} seeds in {:.1} s: {:.0} seeds/s, {:.0} simulated hours",
        sum.seeds,
        took.as_secs_f64(),
        rate(sum.seeds, took),
        Duration::from_millis(sum.simulated_ms).as_secs_f64() / 3600.0
    );
    match &found {
        Some(outcome) => {
            tell(outcome);
            println!(
                "again: cargo run --release -p blackstart-tests --bin sim -- --seed {} --trace",
                outcome.seed
            );
        }
        None => println!("no law was broken"),
    }
    Ok(verdict(found.is_none()))
}

#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    simulated_ms: u64,
}

/// The first seed that breaks a law, and what was done to find it.
fn search(arguments: &Arguments, mutation: Option<Mutation>) -> Result<(Option<Outcome>, Sum)> {
    let jobs = match arguments.jobs {
        0 => thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let next = AtomicU64::new(arguments.first);
    let end = AtomicU64::new(arguments.first.saturating_add(arguments.seeds));
    let work = || -> Result<(Option<Outcome>, Sum)> {
        let (mut found, mut sum) = (None, Sum::default());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return Ok((found, sum));
            }
            let outcome = simulate(seed, mutation, false)?;
            sum.seeds += 1;
            sum.simulated_ms += outcome.simulated_ms;
            if outcome.violation.is_some() {
                // Lower ones that others are at may still be found.
                end.fetch_min(seed, Ordering::Relaxed);
                found.get_or_insert(outcome);
            }
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let (mut first, mut sum): (Option<Outcome>, Sum) = (None, Sum::default());
    for result in results {
        let Ok(result) = result else {
            bail!("a simulation panicked");
        };
        let (found, part) = result?;
        sum.seeds += part.seeds;
        sum.simulated_ms += part.simulated_ms;
        first = match (first, found) {
            (Some(one), Some(other)) => Some(if one.seed < other.seed { one } else { other }),
            (one, other) => one.or(other),
        };
    }
    Ok((first, sum))
}

/// Each deliberate break in turn.
fn mutations(arguments: &Arguments) -> Result<ExitCode> {
    let mut all_found = true;
    for mutation in Mutation::ALL {
        let (found, sum) = search(arguments, Some(mutation))?;
        let right = found.as_ref().and_then(|outcome| outcome.violation.as_ref());
        match (right, &found) {
            (Some(violation), Some(outcome)) if mutation.breaks().contains(&violation.law) => {
                println!(
                    "{mutation}: found by law {} at seed {}",
                    violation.law, outcome.seed
                );
            }
            (Some(violation), Some(outcome)) => {
                all_found = false;
                println!(
                    "{mutation}: found by the wrong law, {} at seed {}: {}",
                    violation.law, outcome.seed, violation.what
                );
            }
            (None, _) | (_, None) => {
                all_found = false;
                println!("{mutation}: NOT FOUND in {} seeds", sum.seeds);
            }
        }
    }
    Ok(verdict(all_found))
}

fn tell(outcome: &Outcome) {
    for line in &outcome.trace {
        println!("{line}");
    }
    if let Some(violation) = &outcome.violation {
        println!(
            "law {} broken at step {} of seed {}: {}",
            violation.law, outcome.lines, outcome.seed, violation.what
        );
    }
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}
