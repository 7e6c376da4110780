//! Drills of the chapters of the operators' plan that go through the Kubernetes API.
//!
//! ```text
//! seed ─► cast ─► a chapter's script (pure) ─► rehearsal ─► chronicle ─► laws (pure) ─► report
//!                  one file each                  │ ground: API server double, real coordinator, real agents
//! ```
//!
//! The laws are judged from the double's own record of requests and writes, the machines' records and the agents' ledgers; the
//! coordinator's word counts for what it planned, which it is held to, and for what it said to be missing.

mod cast;
mod chronicle;
mod crashloop;
mod deed;
mod events;
mod ground;
mod imagepull;
mod laws;
mod maintenance;
mod network_loss;
mod node_down;
mod node_off;
mod objects;
mod oom;
mod overload;
mod pending;
mod rehearsal;
mod report;
mod saboteur;
mod script;
mod shown;
mod sights;
mod workload_heal;

use std::path::PathBuf;

use blackstart_proto::v1::RunbookRequest;
use clap::Args;

use self::cast::Cast;
use self::chronicle::Chronicle;
use self::ground::Ground;
pub(super) use self::laws::Law;
use self::rehearsal::Rehearsal;
use self::report::{Held, Report};
use self::saboteur::Sabotage;
use self::script::Script;
use super::power_loss::{Place, interrupted, keep_logs};
use super::show::Show;
use super::topology::Topology;
use crate::failure::Failure;
use crate::output::{Output, note};

/// So many times as fast as real ones live the clusters of these drills: what takes a cluster a minute takes three seconds.
pub(super) const SPEED: u32 = 20;
/// The cluster of the plan that they are held on: three masters, four workers.
const CLUSTER: &str = "business";

/// How a drill is asked for.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// Which scenario: the same seed draws the same one [default: another each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

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

/// A chapter that is rehearsed. A new one is a variant, a file, and a line in each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chapter {
    NodeDown,
    NodeOff,
    Maintenance,
    Overload,
    CrashLoop,
    Oom,
    Pending,
    ImagePull,
    NetworkLoss,
    Workload,
}

impl Chapter {
    pub(super) const ALL: [Self; 10] = [
        Self::NodeDown,
        Self::NodeOff,
        Self::Maintenance,
        Self::Overload,
        Self::CrashLoop,
        Self::Oom,
        Self::Pending,
        Self::ImagePull,
        Self::NetworkLoss,
        Self::Workload,
    ];

    /// The drill's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NodeDown => "node-down",
            Self::NodeOff => "node-off",
            Self::Maintenance => "maintenance",
            Self::Overload => "overload",
            Self::CrashLoop => "crashloop",
            Self::Oom => "oom",
            Self::Pending => "pending",
            Self::ImagePull => "imagepull",
            Self::NetworkLoss => "network-loss",
            Self::Workload => "workload",
        }
    }

    /// As the operators' plan calls it.
    const fn title(self) -> &'static str {
        match self {
            Self::NodeDown | Self::NodeOff => "操作系统宕机",
            Self::Maintenance => "硬件维修",
            Self::Overload => "节点负载过高",
            Self::CrashLoop | Self::Oom | Self::ImagePull => "Pod 故障恢复",
            Self::Pending => "节点资源空间不足",
            Self::NetworkLoss => "节点网络异常",
            Self::Workload => "GatewayProxy / NSF 故障恢复",
        }
    }

    /// For `drill list`.
    pub(super) const fn rehearses(self) -> &'static str {
        match self {
            Self::NodeDown => {
                "a worker dies with its pods: cordoned, its pods moved once it is proved to be off, taken back when it is repaired"
            }
            Self::NodeOff => {
                "a worker dies with its pods: they are moved once its management controller says that it is off, without anybody's word"
            }
            Self::Maintenance => {
                "a worker is emptied as budgets allow, its kubelet stopped, and taken back after its repair"
            }
            Self::Overload => {
                "a worker is overloaded by movable pods: the heaviest that budgets let go are moved, until its load is low"
            }
            Self::CrashLoop => {
                "pods end over and over for want of a ConfigMap: made again once it is there and an operator says so"
            }
            Self::Oom => {
                "pods are killed for their memory: the limit is raised by half, once an operator approves"
            }
            Self::Pending => {
                "pods ask for more than any node has: explained, and seen to run once they ask for less"
            }
            Self::ImagePull => {
                "an image cannot be pulled: pods are made again once it can and an operator says so"
            }
            Self::NetworkLoss => {
                "a worker is cut off and lives: chosen pods leave it soon, and tolerations are put back when it is reached"
            }
            Self::Workload => "a declared Deployment lacks pods: restarted, and followed until it is whole",
        }
    }

    fn script(self, cast: &Cast) -> Script {
        match self {
            Self::NodeDown => node_down::script(cast),
            Self::NodeOff => node_off::script(cast),
            Self::Maintenance => maintenance::script(cast),
            Self::Overload => overload::script(cast),
            Self::CrashLoop => crashloop::script(cast),
            Self::Oom => oom::script(cast),
            Self::Pending => pending::script(cast),
            Self::ImagePull => imagepull::script(cast),
            Self::NetworkLoss => network_loss::script(cast),
            Self::Workload => workload_heal::script(cast),
        }
    }
}

/// A request about the pods of [`OURS`](objects::OURS), which have to be well for two seconds.
fn heal(runbook: &str) -> RunbookRequest {
    RunbookRequest {
        runbook: runbook.to_owned(),
        cluster: CLUSTER.to_owned(),
        namespace: objects::OURS.to_owned(),
        reason: "they do not run".to_owned(),
        steady_ms: 2_000,
        ..RunbookRequest::default()
    }
}

/// Rehearses it. A drill that does not pass is [`Failure::RunDidNotSucceed`].
pub(super) async fn run(chapter: Chapter, args: ApiArgs, output: &mut Output) -> Result<(), Failure> {
    // Short enough to be typed again.
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..100_000));
    let topology = Topology::new(&[CLUSTER.to_owned()], None)?;
    let cast = Cast::draw(&topology, seed);
    let chronicle = Box::pin(hold(chapter, &args, (seed, &topology, &cast), output)).await?;
    let held = Held {
        drill: chapter.name(),
        chapter: chapter.title(),
        seed,
        minor: cast.release.minor,
    };
    let mut report = Report::of(held, &chronicle);
    report.kept = args.keep;
    if let Some(path) = &args.report {
        super::write(path, &report)?;
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

/// Holds it. Ctrl-C ends it early; whichever way it ends, nothing of it goes on.
async fn hold(
    chapter: Chapter,
    args: &ApiArgs,
    (seed, topology, cast): (u64, &Topology, &Cast),
    output: &mut Output,
) -> Result<Chronicle, Failure> {
    let place = Place::new(args.keep.as_deref(), topology.machines().count())?;
    if let Place::Kept(dir) = &place {
        keep_logs(dir)?;
    }
    let script = chapter.script(cast);
    let mut ground = Ground::prepare(&place, topology, cast, &script).await?;
    let mut show = Show::new(output);
    let title = format!("{} on sim, seed {seed}", chapter.name());
    let rehearsed = async {
        let rehearsal = Rehearsal::begin(title, &script, &mut ground, &mut show, output).await?;
        rehearsal.hold(&script, cast, args.sabotage).await
    };
    let held = tokio::select! {
        held = rehearsed => held,
        asked = interrupted() => Err(asked),
    };
    ground.coordinator.kill().await;
    ground.fleet.cut_power();
    show.end(output)?;
    if matches!(held, Err(Failure::Interrupted)) {
        note("the drill was broken off; nothing of it goes on");
    }
    held
}
