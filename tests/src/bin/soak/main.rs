//! `soak`: one real node under random faults for a while. Nothing may grow, every fault that can be mended is mended, and no
//! remedy is begun without a fault before it or oftener than its budget.
//!
//! ```text
//! seed ──► faults, one after another ──► node ◄── agent ──► ledger ──┐
//!                                          └── a sample a second ────┴──► judge ──► report, exit code
//! ```
//! A seed repeats the order of faults and their parameters; when each is mended is the node's to say.

mod faults;
mod judge;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use blackstart_tests::bed::{Bed, Wish};
use blackstart_tests::bench::machine;
use blackstart_tests::bench::process::Usage;
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::node::{self, DISK, Node};
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

use faults::{AGENT, Field, Kind};
use judge::{Injected, Remedy, Sample, Violation, growth, remedies};

/// What one kubelet that does not start may cost, as the node's agent is configured.
const RESTARTS: usize = 6;
const KILL_RESTARTS: usize = 4;
const NODE: &str = "master-1";
const DISK_BYTES: u64 = 1 << 30;
/// After a fault is mended, remedies of it may still end, and health has to refill the budget.
const REST: std::ops::Range<u64> = 2000..6000;

/// One real node under random faults: nothing grows, nothing is mended wrongly
#[derive(Debug, Parser)]
struct Args {
    /// For so long
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Repeats the faults of a run
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("soak: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn wish() -> Wish {
    Wish {
        disk_bytes: DISK_BYTES,
        agent: |_| {
            Yaml::default()
                .with(
                    "restart",
                    format!(
                        "{{restarts: {RESTARTS}, kill_restarts: {KILL_RESTARTS}, backoff_first: 200ms, backoff_max: 1s, \
                         inactive_hold: 3s, window: 1s}}"
                    ),
                )
                .with("logs", format!("{{globs: [\"{DISK}/app/**\"], keep_tail: 16MiB}}"))
        },
        programs: vec!["log-writer"],
        ..Wish::fleet(1, 0)
    }
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    let docker = Docker::find().await?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..10_000));
    let bed = Bed::raise(&docker, "soak", &wish()).await?;
    let node = bed.node(NODE)?;
    bed.kubelets_answer(bed.nodes(), Duration::from_mins(1)).await?;
    let pid = wait::until("the agent to run", Duration::from_mins(1), async || {
        node.main_pid(AGENT).await
    })
    .await?;
    say(&format!("soak: {} minutes, seed {seed}", args.minutes));
    let stop = CancellationToken::new();
    let sampling = tokio::spawn(sample(pid, stop.clone()));
    let end = Instant::now() + Duration::from_secs(args.minutes * 60);
    let injected = inject(&bed, node, seed, end).await?;
    stop.cancel();
    let samples = sampling.await?;
    let ledger = ledger(node).await?;
    let mut violations = remedies(&injected, &ledger);
    violations.extend(ran_through(node, pid).await?);
    let growth = growth(&samples);
    violations.extend(
        growth
            .iter()
            .filter(|growth| growth.is_too_much())
            .cloned()
            .map(Violation::Grew),
    );
    let mut text = report(&injected, &ledger, samples.len());
    for growth in growth {
        let _ = writeln!(
            text,
            "{:<14}{:>8} → {:>8}   most {}",
            growth.measure, growth.first, growth.last, growth.most
        );
    }
    let _ = writeln!(text, "on {}", machine());
    for violation in &violations {
        let _ = writeln!(text, "VIOLATION: {violation}");
    }
    let _ = match violations.len() {
        0 => writeln!(text, "nothing grew, and nothing was mended wrongly"),
        count => writeln!(
            text,
            "{count} violations; again with: make soak ARGS=\"--minutes {} --seed {seed}\"",
            args.minutes
        ),
    };
    write!(std::io::stdout(), "{text}")?;
    bed.take_down().await?;
    Ok(violations.is_empty())
}

/// Every kind in an order of its own, again and again.
async fn inject(bed: &Bed, node: &Node, seed: u64, end: Instant) -> anyhow::Result<Vec<Injected>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let config = node::directory(bed.dir(), node.name()).join("etc/agent.yaml");
    let field = Field {
        bed,
        node,
        text: fs::read_to_string(&config).context("read the agent's configuration")?,
        config,
    };
    let mut injected: Vec<Injected> = Vec::new();
    loop {
        let mut kinds = Kind::ALL;
        kinds.shuffle(&mut random);
        for kind in kinds {
            if Instant::now() >= end {
                return Ok(injected);
            }
            let number = injected.len() + 1;
            let subject = format!("{DISK}/app/{number}");
            fs::create_dir_all(node.path(&subject)?)?;
            say(&format!("soak: {number}: {kind}"));
            let begun = now();
            let done = field.inject(kind, &subject, &mut random).await;
            let trouble = done.err().map(|error| format!("{error:#}"));
            if let Some(trouble) = &trouble {
                say(&format!("soak: {number}: {kind}: not mended: {trouble}"));
            }
            sleep(Duration::from_millis(random.random_range(REST))).await;
            injected.push(Injected {
                number,
                kind,
                begun,
                ended: now(),
                trouble,
                subject,
            });
        }
    }
}

/// Looks at the agent each second.
async fn sample(pid: nix::unistd::Pid, stop: CancellationToken) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut turns = interval(Duration::from_secs(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return samples,
            _ = turns.tick() => {}
        }
        // Gone: that it did not run through is found elsewhere.
        let Ok(usage) = Usage::of(pid) else { continue };
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        samples.push(Sample {
            dirty: usage.dirty,
            rss: usage.rss,
            descriptors: count(usage.descriptors),
            threads: count(usage.threads),
        });
    }
}

/// What the agent did of its own accord.
async fn ledger(node: &Node) -> anyhow::Result<Vec<Remedy>> {
    let deeds = node.ledger().await?.into_iter();
    Ok(deeds
        // Books of its own, and what the coordinator asked for.
        .filter(|deed| deed.remedy != "refill-budget" && deed.command_id.is_none())
        .map(|deed| Remedy {
            name: deed.remedy,
            subject: deed.subject,
            begun: deed.begun_unix_ms,
            succeeded: deed.succeeded,
            detail: deed.detail,
        })
        .collect())
}

/// It is the same process that it was.
async fn ran_through(node: &Node, pid: nix::unistd::Pid) -> anyhow::Result<Option<Violation>> {
    let restarts = node.property(AGENT, "NRestarts").await?;
    let same = node.main_pid(AGENT).await? == Some(pid);
    Ok((!same || restarts != "0")
        .then(|| Violation::Restarted(format!("systemd restarted it {restarts} times"))))
}

/// By the wall clock, as the ledger has it: the node's is the machine's.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn report(injected: &[Injected], ledger: &[Remedy], seconds: usize) -> String {
    let mut text = format!(
        "{} faults, {} remedies, {seconds} samples\n",
        injected.len(),
        ledger.len()
    );
    let mut kinds: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for fault in injected {
        let (count, longest) = kinds.entry(fault.kind).or_default();
        *count += 1;
        *longest = (*longest).max(fault.ended - fault.begun);
    }
    for (kind, (count, longest)) in kinds {
        let _ = writeln!(
            text,
            "{count:>4} × {kind:<40} at most {:.1} s",
            Duration::from_millis(longest).as_secs_f64()
        );
    }
    let mut names: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for remedy in ledger {
        let (count, failed) = names.entry(&remedy.name).or_default();
        *count += 1;
        *failed += usize::from(remedy.succeeded == Some(false));
    }
    for (name, (count, failed)) in names {
        let _ = writeln!(text, "{count:>4} × {name}, {failed} of them in vain");
    }
    text
}
