//! `blackstart drill`: rehearsals of outages.
//!
//! ```text
//! topology + seed ──► scenario (pure) ──► a ground holds it ──► history ──► laws (pure) ──► report
//!                                         sim: real coordinator and agents, simulated machines
//!                                         testbed: containers with systemd
//! ```
//!
//! The laws are judged from the machines' own records and the agents' ledgers, not from what the coordinator says of itself.

mod api;
mod coordinator;
mod fleet;
mod follow;
mod history;
mod laws;
mod masters;
mod power_loss;
mod report;
mod saboteur;
mod scenario;
mod seen;
mod show;
mod testbed;
mod topology;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;
use crate::output::table::Table;
use api::{ApiArgs, Chapter};
use coordinator::CoordinatorArgs;
use laws::Law;
use masters::{EtcdArgs, MastersArgs};
use report::Report;
use topology::Topology;

/// The examples of a drill of a chapter that goes through the Kubernetes API.
macro_rules! examples {
    ($drill:literal) => {
        concat!(
            "\
Examples:
  blackstart drill ",
            $drill,
            "                         needs nothing; ends within half a minute
  blackstart drill ",
            $drill,
            " --seed 7                the same scenario again
  blackstart drill ",
            $drill,
            " --report report.json    the whole outcome for programs

Coordinator, agents, runbooks and mTLS are real; seven machines are simulated, and a double
stands for the API server. The seed draws the node, the pods and the release of Kubernetes.
Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the chapter's end was reached; 6: not; 130: interrupted."
        )
    };
}

/// What to rehearse.
#[derive(Debug, Args)]
pub struct DrillArgs {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    /// Cut the power of a whole fleet, bring it back in disorder, and judge how it recovers
    #[command(after_help = "\
Examples:
  blackstart drill power-loss                        18 simulated nodes in 3 clusters; needs nothing
  blackstart drill power-loss --seed 7               the same machines return, in the same order
  blackstart drill power-loss --nodes 60             more workers
  blackstart drill power-loss --clusters business    a part of the fleet
  blackstart drill power-loss --report report.json   the whole outcome for programs
  blackstart drill power-loss --on testbed           six real nodes; needs root and Docker

Every drill draws anew which machines come back, when, and one or two that never do (one on the testbed); the
report names its seed. Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the cold start succeeded; 6: not; 130: interrupted.")]
    PowerLoss(PowerLossArgs),
    /// Kill a node with its pods: cordoned, its pods moved once it is proved to be off, taken back when repaired
    #[command(after_help = examples!("node-down"))]
    NodeDown(ApiArgs),
    /// Kill a node with its pods, and have its management controller say so: they move without anybody's word
    #[command(after_help = examples!("node-off"))]
    NodeOff(ApiArgs),
    /// Take a node into maintenance, emptied as disruption budgets allow, and back
    #[command(after_help = examples!("maintenance"))]
    Maintenance(ApiArgs),
    /// Overload a node with movable pods: the heaviest are moved until its load is low
    #[command(after_help = examples!("overload"))]
    Overload(ApiArgs),
    /// Have pods end over and over for want of their configuration: made again once it is there and you say so
    #[command(name = "crashloop", after_help = examples!("crashloop"))]
    CrashLoop(ApiArgs),
    /// Have pods killed for their memory: the limit is raised by half, once approved
    #[command(after_help = examples!("oom"))]
    Oom(ApiArgs),
    /// Have pods ask for more than any node has: explained, and seen to run once they ask for less
    #[command(after_help = examples!("pending"))]
    Pending(ApiArgs),
    /// Have an image that cannot be pulled: pods are made again once it can
    #[command(name = "imagepull", after_help = examples!("imagepull"))]
    ImagePull(ApiArgs),
    /// Cut a node off from its API servers: chosen pods leave it soon, tolerations are put back
    #[command(after_help = examples!("network-loss"))]
    NetworkLoss(ApiArgs),
    /// Have a declared Deployment lack pods: restarted, and followed until it is whole
    #[command(after_help = examples!("workload"))]
    Workload(ApiArgs),
    /// Have static pods of masters hang, expire and break: named, bounced one at a time, stopped where that does not help
    #[command(after_help = "\
Examples:
  blackstart drill control-plane                         needs nothing; ends within a minute
  blackstart drill control-plane --seed 7                the same scenario again
  blackstart drill control-plane --report report.json    the whole outcome for programs
  blackstart drill control-plane --on testbed            three real nodes; needs root and Docker

Coordinator, agents, runbooks and mTLS are real; static pods are processes, run from real manifests by
stand-ins for the kubelet. The seed draws which master each trouble comes to.
Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the chapter's end was reached; 6: not; 130: interrupted.")]
    ControlPlane(MastersArgs),
    /// Damage an etcd member while others write: replaced on its node, and nothing acknowledged is lost
    #[command(after_help = "\
Examples:
  blackstart drill etcd-member                         the etcd that is installed; without one, a double
  blackstart drill etcd-member --seed 7                the same member again
  blackstart drill etcd-member --database 256          with a database of 256 MiB
  blackstart drill etcd-member --etcd /opt/etcd/etcd   another etcd, with its etcdutl beside it
  blackstart drill etcd-member --on testbed            three real nodes; needs root and Docker

Coordinator, agents, runbooks and mTLS are real, and etcd where it is installed (apt-get install etcd-server
etcd-client): otherwise a double in this program stands for it, and the report says so. Members are run from
real manifests by stand-ins for the kubelet. Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the chapter's end was reached; 6: not; 130: interrupted.")]
    EtcdMember(EtcdArgs),
    /// Have two of three etcd members lose their data: restored by the word of two persons, and grown back to three
    #[command(after_help = "\
Examples:
  blackstart drill etcd-quorum                         the etcd that is installed; without one, a double
  blackstart drill etcd-quorum --database 256          with a database of 256 MiB
  blackstart drill etcd-quorum --report report.json    the whole outcome for programs
  blackstart drill etcd-quorum --on testbed            three real nodes; needs root and Docker

Coordinator, agents, runbooks and mTLS are real, and etcd where it is installed (apt-get install etcd-server
etcd-client): otherwise a double in this program stands for it, and the report says so. Members are run from
real manifests by stand-ins for the kubelet. Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the chapter's end was reached; 6: not; 130: interrupted.")]
    EtcdQuorum(EtcdArgs),
    /// Have all etcd members lose their data: restored from what loses least by the word of two persons, and what was told is lost
    #[command(after_help = "\
Examples:
  blackstart drill etcd-all                         the etcd that is installed; without one, a double
  blackstart drill etcd-all --database 256          with a database of 256 MiB
  blackstart drill etcd-all --etcd /opt/etcd/etcd   another etcd, with its etcdutl beside it
  blackstart drill etcd-all --on testbed            three real nodes; needs root and Docker

Coordinator, agents, runbooks and mTLS are real, and etcd where it is installed (apt-get install etcd-server
etcd-client): otherwise a double in this program stands for it, and the report says so. Members are run from
real manifests by stand-ins for the kubelet. Nothing of a drill stays behind but what --report and --keep ask for.

Exit code 0: every law held and the chapter's end was reached; 6: not; 130: interrupted.")]
    EtcdAll(EtcdArgs),
    /// List the drills and the laws that they check
    #[command(after_help = "\
Examples:
  blackstart drill list")]
    List,
    #[command(hide = true, name = coordinator::SUBCOMMAND)]
    Coordinator(CoordinatorArgs),
    #[command(hide = true, name = masters::part::SUBCOMMAND)]
    Part(masters::part::PartArgs),
    #[command(hide = true, name = masters::exec::SUBCOMMAND)]
    Exec(masters::exec::ExecArgs),
}

#[derive(Debug, Args)]
struct PowerLossArgs {
    /// How many nodes in all; each cluster keeps its three masters [default: the drill plan's 18; 6 on the testbed]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,

    /// Which scenario: the same seed draws the same one [default: another each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Only these clusters of the plan: management, business, paas; not on the testbed, which is one cluster
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    clusters: Vec<String>,

    /// Where it is held
    #[arg(long, value_enum, default_value_t = Ground::Sim, value_name = "GROUND")]
    on: Ground,

    /// Write the report to a file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Keep everything that the drill wrote (ledgers, logs, store, certificates) in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Break a law on purpose: the drill must find it
    #[arg(long, hide = true, value_enum)]
    sabotage: Option<Sabotage>,
}

/// Where a drill is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ground {
    /// Simulated machines in this process; the coordinator, agents, gates and mTLS are real
    Sim,
    /// Real nodes: containers with systemd on this machine; needs root and Docker
    Testbed,
}

impl Ground {
    const fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Testbed => "testbed",
        }
    }
}

/// What a test does behind the coordinator's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sabotage {
    /// Opens the gate of a worker before its masters are up
    EarlyWorker,
    /// Opens the gate of a master before the cluster that it depends on serves
    EarlyMaster,
}

/// Plays the etcd of a drill, if this program was started by that name; see `masters/double`.
pub fn play() -> Option<std::process::ExitCode> {
    let mut words = std::env::args_os();
    let called = PathBuf::from(words.next()?);
    // What is not text is no flag of etcd's.
    let arguments: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    masters::double::play(&called, &arguments)
}

/// Rehearses it. A drill that does not pass is [`Failure::RunDidNotSucceed`].
///
/// # Errors
/// It could not be held, or did not pass.
pub async fn run(args: DrillArgs, output: &mut Output) -> Result<(), Failure> {
    match args.command {
        DrillCommand::PowerLoss(args) => power_loss(args, output).await,
        DrillCommand::NodeDown(args) => api::run(Chapter::NodeDown, args, output).await,
        DrillCommand::NodeOff(args) => api::run(Chapter::NodeOff, args, output).await,
        DrillCommand::Maintenance(args) => api::run(Chapter::Maintenance, args, output).await,
        DrillCommand::Overload(args) => api::run(Chapter::Overload, args, output).await,
        DrillCommand::CrashLoop(args) => api::run(Chapter::CrashLoop, args, output).await,
        DrillCommand::Oom(args) => api::run(Chapter::Oom, args, output).await,
        DrillCommand::Pending(args) => api::run(Chapter::Pending, args, output).await,
        DrillCommand::ImagePull(args) => api::run(Chapter::ImagePull, args, output).await,
        DrillCommand::NetworkLoss(args) => api::run(Chapter::NetworkLoss, args, output).await,
        DrillCommand::Workload(args) => api::run(Chapter::Workload, args, output).await,
        DrillCommand::ControlPlane(args) => masters::run(masters::Chapter::ControlPlane, args, output).await,
        DrillCommand::EtcdMember(args) => masters::run_etcd(masters::Chapter::EtcdMember, args, output).await,
        DrillCommand::EtcdQuorum(args) => masters::run_etcd(masters::Chapter::EtcdQuorum, args, output).await,
        DrillCommand::EtcdAll(args) => masters::run_etcd(masters::Chapter::EtcdAll, args, output).await,
        DrillCommand::Part(args) => masters::part::serve(args).await,
        DrillCommand::Exec(args) => masters::exec::become_it(&args),
        DrillCommand::List => list(output),
        DrillCommand::Coordinator(args) => coordinator::serve(args).await,
    }
}

async fn power_loss(args: PowerLossArgs, output: &mut Output) -> Result<(), Failure> {
    // Short enough to be typed again.
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..100_000));
    let history = match args.on {
        Ground::Sim => {
            let order = power_loss::Order {
                topology: Topology::new(&args.clusters, args.nodes)?,
                seed,
                sabotage: args.sabotage,
                keep: args.keep.clone(),
            };
            Box::pin(power_loss::hold(&order, output)).await?
        }
        Ground::Testbed => {
            let order = testbed::Order {
                workers: testbed::workers(&args.clusters, args.nodes, args.sabotage)?,
                seed,
                sabotage: args.sabotage,
                keep: args.keep.clone(),
            };
            Box::pin(testbed::hold(&order, output)).await?
        }
    };
    let mut report = Report::of("power-loss", args.on.name(), seed, &history);
    report.again = again(&args, seed);
    report.kept = args.keep;
    if let Some(path) = &args.report {
        write(path, &report)?;
    }
    let marks = output.is_for_people();
    output.object("DrillReport", &report, |_| report.lines(marks))?;
    // Before whatever is told on standard error.
    output.flush()?;
    match report.failure() {
        None => Ok(()),
        Some(why) => Err(Failure::RunDidNotSucceed(why)),
    }
}

/// Options that hold the same drill once more.
fn again(args: &PowerLossArgs, seed: u64) -> String {
    let on = match args.on {
        Ground::Sim => None,
        Ground::Testbed => Some("--on testbed".to_owned()),
    };
    let nodes = args.nodes.map(|nodes| format!("--nodes {nodes}"));
    let clusters = (!args.clusters.is_empty()).then(|| format!("--clusters {}", args.clusters.join(",")));
    let options = [on, Some(format!("--seed {seed}")), nodes, clusters];
    options.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn write(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let failed = |why: String| Failure::other(format!("write the report to {}: {why}", path.display()));
    let mut text = serde_json::to_string_pretty(report).map_err(|error| failed(error.to_string()))?;
    text.push('\n');
    fs::write(path, text).map_err(|error| failed(error.to_string()))
}

fn list(output: &mut Output) -> Result<(), Failure> {
    let mut drills = Table::new(["DRILL", "REHEARSES"]);
    drills.row(vec![
        "power-loss".into(),
        "the whole fleet loses power, coordinator included; machines return in disorder, one or two never; on simulated machines or on the testbed"
            .into(),
    ]);
    for chapter in Chapter::ALL {
        drills.row(vec![chapter.name().into(), chapter.rehearses().into()]);
    }
    for chapter in masters::Chapter::ALL {
        drills.row(vec![chapter.name().into(), chapter.rehearses().into()]);
    }
    output.table(&drills)?;
    output.line("")?;
    let mut laws = Table::new(["LAWS OF", "LAW", "SAYS"]);
    for law in Law::ALL {
        laws.row(vec![
            "power-loss".into(),
            law.name().into(),
            law.sentence().into(),
        ]);
    }
    for law in api::Law::ALL {
        laws.row(vec![
            "the others".into(),
            law.name().into(),
            law.sentence().into(),
        ]);
    }
    for law in masters::Law::ALL {
        laws.row(vec![
            "those on masters".into(),
            law.name().into(),
            law.sentence().into(),
        ]);
    }
    output.table(&laws)?;
    Ok(())
}
