//! `blackstart runbook|drain|maintenance`: plans, runs and steers runbooks.

use std::time::Duration;

use blackstart_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tokio::time::sleep;

use super::heal::CniArgs;
use super::{Absence, Context, heal};
use crate::cli::duration;
use crate::failure::Failure;
use crate::output::runbook as output;
use crate::output::{confirm, note, words};
use crate::view::{RunbookPlan, RunbookRun};

/// Between two looks at a run that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is done with runbooks.
#[derive(Debug, Subcommand)]
pub enum RunbookCommand {
    /// The runbooks that there are
    #[command(after_help = "\
Examples:
  blackstart runbook list
  blackstart runbook list -o json")]
    List,
    /// What a runbook would do, and what is missing for the rest; does nothing
    #[command(after_help = "\
Examples:
  blackstart runbook plan node-down biz-4
  blackstart runbook plan drain biz-4 --delete-local-data -o json
  blackstart runbook plan resource-shortage --cluster business
  blackstart runbook plan resource-shortage --cluster business --pod gateway-system/gateway-proxy-0
  blackstart runbook plan overload biz-4 --threshold 70
  blackstart runbook plan network-loss biz-4
  blackstart runbook plan cold-start-verify --cluster business
  blackstart runbook plan etcd-member biz-3
  blackstart runbook plan etcd-member biz-3 --on biz-4
  blackstart runbook plan etcd-quorum --cluster business
  blackstart runbook plan etcd-all --cluster business
  blackstart runbook plan control-plane --cluster business
  blackstart runbook plan control-plane --cluster business --etcd-servers https://10.0.0.1:2379,https://10.0.0.2:2379")]
    Plan(Asked),
    /// Begin a runbook
    #[command(after_help = "\
Examples:
  blackstart runbook run node-down biz-4
  blackstart runbook run node-down biz-4 --proof 'power off at the BMC, seen off' --wait
  blackstart runbook run maintenance-end biz-4 --yes
  blackstart runbook run overload biz-4 --dry-run
  blackstart runbook run overload biz-4 --threshold 70 --hold 5m --at-most 3 --wait
  blackstart runbook run network-loss biz-4 --workload gateway-system/deployment/gateway-proxy --tolerate 3s
  blackstart runbook run resource-shortage --cluster business --wait
  blackstart runbook run cold-start-verify --cluster business --wait
  blackstart runbook run etcd-member biz-3 --on biz-4 --wait
  blackstart runbook run control-plane biz-1 --component apiserver --wait
  blackstart runbook run control-plane --cluster business --restart --wait")]
    Run(RunArgs),
    /// Approve of what a run waits for; after a failure, have the step tried again
    #[command(after_help = "\
On a terminal it shows what that is and asks. What is approved is what was shown, or named: if the run waits for something
else by then, it is refused.

Examples:
  blackstart runbook status
  blackstart runbook approve drain-3
  blackstart runbook approve drain-3 delete-remaining --yes")]
    Approve(ApproveArgs),
    /// The runs, or one of them
    #[command(after_help = "\
Examples:
  blackstart runbook status
  blackstart runbook status maintenance-begin-2
  blackstart runbook status maintenance-begin-2 -o json")]
    Status(Perhaps),
    /// Put back what a run changed, and end it
    #[command(after_help = "\
Examples:
  blackstart runbook abort drain-3
  blackstart runbook abort drain-3 --wait")]
    Abort(AbortArgs),
}

/// Of `maintenance`.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Silence its agent, cordon and drain it, and stop its kubelet
    #[command(after_help = "\
Examples:
  blackstart maintenance begin biz-4 --reason 'new memory' --dry-run
  blackstart maintenance begin biz-4 --reason 'new memory' --delete-local-data --wait")]
    Begin(NodeArgs),
    /// Start its kubelet, await that it is ready, and uncordon it
    #[command(after_help = "\
Examples:
  blackstart maintenance end biz-4 --dry-run
  blackstart maintenance end biz-4 --wait")]
    End(NodeArgs),
}

/// Of `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Restart the kubelet of a node that does not answer, or move its pods once it is proved dead (node-down)
    #[command(after_help = "\
Examples:
  blackstart node down biz-4 --dry-run
  blackstart node down biz-4 --proof 'power off at the BMC, seen off' --wait")]
    Down(WrongArgs),
    /// Let pods leave a node that its cluster cannot reach, until it is reached again (network-loss)
    #[command(after_help = "\
Examples:
  blackstart node unreachable biz-4 --dry-run
  blackstart node unreachable biz-4 --workload gateway-system/deployment/gateway-proxy --tolerate 3s --wait")]
    Unreachable(WrongArgs),
    /// Move the heaviest pods of a node away, one after the other, until its load is low (overload)
    #[command(after_help = "\
Examples:
  blackstart node relieve biz-4 --dry-run
  blackstart node relieve biz-4 --threshold 70 --hold 5m --at-most 3 --wait")]
    Relieve(WrongArgs),
    /// Restart a node's kubelet if it is not well, make its CNI pod again if that is not ready, and verify both (node-component)
    #[command(after_help = "\
Examples:
  blackstart node heal-cni biz-4 --dry-run
  blackstart node heal-cni biz-4 --wait")]
    HealCni(CniArgs),
}

/// What is wrong with which node.
#[derive(Debug, Args)]
pub struct WrongArgs {
    #[command(flatten)]
    of: NodeArgs,
    #[command(flatten)]
    more: More,
}

/// Of a command that is a runbook by itself.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    how: How,
}

/// Of `drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  blackstart drain biz-4 --dry-run
  blackstart drain biz-4 --delete-local-data --within 5m --wait
  blackstart maintenance end biz-4          takes it back")]
pub struct DrainArgs {
    #[command(flatten)]
    of: NodeArgs,
}

/// Which runbook, of which node.
#[derive(Debug, Args)]
pub struct Asked {
    /// Its name, as `runbook list` shows it
    #[arg(value_name = "RUNBOOK")]
    runbook: String,
    /// The node; not for runbooks of a whole cluster
    #[arg(value_name = "NODE", required_unless_present = "cluster")]
    node: Option<String>,
    /// The cluster, of a runbook that is about no node (resource-shortage, cold-start-verify, etcd-snapshot, etcd-quorum, etcd-all, control-plane)
    #[arg(long, value_name = "CLUSTER", conflicts_with = "node")]
    cluster: Option<String>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    more: More,
    #[command(flatten)]
    masters: Masters,
}

/// What `control-plane` and `etcd-member` are told.
#[derive(Debug, Default, Args)]
struct Masters {
    /// This static pod only: apiserver, controller-manager, scheduler (control-plane)
    #[arg(long, value_name = "NAME", default_value = "")]
    component: String,
    /// Bounce them one after the other, also those that are well (control-plane)
    #[arg(long, conflicts_with = "etcd_servers")]
    restart: bool,
    /// What API servers are told of etcd from now on, one after the other, after your approval of the difference (control-plane)
    #[arg(long, value_name = "URL,...", default_value = "")]
    etcd_servers: String,
    /// The node that is to have the member from now on: another one, of the same cluster, that has none (etcd-member)
    #[arg(long, value_name = "NODE", default_value = "")]
    on: String,
}

/// What only some runbooks are told.
#[derive(Debug, Default, Args)]
pub(crate) struct More {
    /// Explain and await these pods only (resource-shortage)
    #[arg(long = "pod", value_name = "NAMESPACE/NAME")]
    pods: Vec<String>,
    /// Let the pods of this workload leave a node that is not reached sooner (network-loss)
    #[arg(long = "workload", value_name = "NAMESPACE/KIND/NAME")]
    workloads: Vec<String>,
    /// How long they stay (network-loss) [default: as the coordinator is configured, 3s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    tolerate: Option<Duration>,
    /// Percent of what the node has for pods, above which it has too much to do (overload) [default: 80]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    threshold: Option<u32>,
    /// How long the load has to be lower (overload) [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    hold: Option<Duration>,
    /// No more pods than this are moved (overload) [default: 5]
    #[arg(long, value_name = "PODS", value_parser = clap::value_parser!(u32).range(1..=100))]
    at_most: Option<u32>,
}

/// What a runbook may do.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Why; it stands in the run
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How long pods may take to go before you are asked
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    within: Duration,
    /// Pods with an emptyDir may be evicted: its content is lost
    #[arg(long)]
    delete_local_data: bool,
    /// Pods that no controller makes again may be evicted
    #[arg(long)]
    delete_unmanaged: bool,
    /// How you know that the machine is off (node-down)
    #[arg(long, value_name = "TEXT", default_value = "")]
    proof: String,
    /// Begin it although too much of its cluster is not well at once; it is logged with your name
    #[arg(long)]
    despite_storm: bool,
}

/// How it is begun.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Follow it until it ends, or wants you
    #[arg(short, long)]
    wait: bool,
}

/// Of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    how: How,
}

/// Of `approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Its id, as `runbook status` shows it
    #[arg(value_name = "RUN")]
    run: String,
    /// The step that is approved of and no other one; `proposal` or `storm` where the run waits for that
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// Do not ask on the terminal
    #[arg(short, long)]
    yes: bool,
}

/// Which run, if one.
#[derive(Debug, Args)]
pub struct Perhaps {
    /// Its id; without it all are listed
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

/// Of `abort`.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// Its id
    #[arg(value_name = "RUN")]
    run: String,
    /// Wait until it has put back what it changed
    #[arg(short, long)]
    wait: bool,
}

pub(super) async fn run(command: RunbookCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        RunbookCommand::List => {
            let runbooks = context.connect().await?.runbooks().await?;
            Ok(context.output.list(&runbooks, Timestamp::now())?)
        }
        RunbookCommand::Plan(asked) => {
            let request = of_asked(asked);
            let plan = context.connect().await?.plan_runbook(request).await?;
            show_plan(&plan, context)
        }
        RunbookCommand::Run(args) => begin(of_asked(args.asked), &args.how, context).await,
        RunbookCommand::Approve(args) => approve(args, context).await,
        RunbookCommand::Status(Perhaps { run: None }) => {
            let runs = context.connect().await?.runbook_runs().await?;
            Ok(context.output.list(&runs, Timestamp::now())?)
        }
        RunbookCommand::Status(Perhaps { run: Some(run) }) => {
            let run = context.connect().await?.runbook_run(&run).await?;
            show_run(&run, context)
        }
        RunbookCommand::Abort(AbortArgs { run, wait }) => {
            let run = context.connect().await?.abort_runbook(&run).await?;
            if !wait {
                return show_run(&run, context);
            }
            let ended = follow(&run.id, context).await?;
            show_run(&ended, context)
        }
    }
}

/// Approves of what was named, or else of what is shown now.
async fn approve(args: ApproveArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let ApproveArgs { run, step, yes } = args;
    let mut fleet = context.connect().await?;
    let mut asks = step;
    // Who names the step has seen it; who is to be asked sees it now.
    let is_asked = !yes && context.environment.stdin_is_terminal;
    if asks.is_none() || is_asked {
        let look = fleet.runbook_run(&run).await?;
        let named = asks.as_ref().is_none_or(|step| look.asks.as_ref() == Some(step));
        if asks.is_none() {
            asks.clone_from(&look.asks);
        }
        if let Some(what) = look.asks.as_ref().filter(|_| named) {
            let why = output::asked(&look);
            note(format_args!("{what} of {run}: {}", words::harmless(&why)));
            if is_asked {
                let answer = confirm("Approve of it?");
                if !answer.map_err(|error| Failure::other(format!("ask on the terminal: {error}")))? {
                    return Err(Failure::other("not approved: the answer was not yes"));
                }
            }
        }
    }
    let run = fleet.approve_runbook(&run, asks.as_deref()).await?;
    show_run(&run, context)
}

pub(super) async fn maintenance(
    command: MaintenanceCommand,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let (runbook, args) = match command {
        MaintenanceCommand::Begin(args) => ("maintenance-begin", args),
        MaintenanceCommand::End(args) => ("maintenance-end", args),
    };
    begin(
        request(runbook.to_owned(), args.node, args.options),
        &args.how,
        context,
    )
    .await
}

pub(super) async fn drain(args: DrainArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let NodeArgs { node, options, how } = args.of;
    begin(request("drain".to_owned(), node, options), &how, context).await
}

fn of_asked(asked: Asked) -> v1::RunbookRequest {
    let Asked {
        runbook,
        node,
        cluster,
        options,
        more,
        masters,
    } = asked;
    v1::RunbookRequest {
        cluster: cluster.unwrap_or_default(),
        component: masters.component,
        restart: masters.restart,
        etcd_servers: masters.etcd_servers,
        on: masters.on,
        ..with(request(runbook, node.unwrap_or_default(), options), more)
    }
}

fn with(request: v1::RunbookRequest, more: More) -> v1::RunbookRequest {
    // Less than a second would be as if nothing had been said.
    let seconds = |asked: Option<Duration>| {
        asked.map_or(0, |asked| {
            u32::try_from(asked.as_secs().max(1)).unwrap_or(u32::MAX)
        })
    };
    v1::RunbookRequest {
        pods: more.pods,
        workloads: more.workloads,
        tolerate_seconds: seconds(more.tolerate),
        threshold_percent: more.threshold.unwrap_or_default(),
        hold_seconds: seconds(more.hold),
        at_most: more.at_most.unwrap_or_default(),
        ..request
    }
}

/// `blackstart node`: the same runbooks, by what is wrong with a node.
pub(super) async fn node(command: NodeCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let (runbook, args) = match command {
        NodeCommand::Down(args) => ("node-down", args),
        NodeCommand::Unreachable(args) => ("network-loss", args),
        NodeCommand::Relieve(args) => ("overload", args),
        NodeCommand::HealCni(args) => return heal::cni(args, context).await,
    };
    let NodeArgs { node, options, how } = args.of;
    let request = with(request(runbook.to_owned(), node, options), args.more);
    begin(request, &how, context).await
}

fn request(runbook: String, node: String, options: Options) -> v1::RunbookRequest {
    v1::RunbookRequest {
        runbook,
        node,
        reason: options.reason,
        drain_within_ms: u64::try_from(options.within.as_millis()).unwrap_or(u64::MAX),
        delete_local_data: options.delete_local_data,
        delete_unmanaged: options.delete_unmanaged,
        proof: options.proof,
        despite_storm: options.despite_storm,
        ..v1::RunbookRequest::default()
    }
}

pub(super) async fn begin(
    request: v1::RunbookRequest,
    how: &How,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    if how.dry_run {
        let plan = fleet.plan_runbook(request).await?;
        return show_plan(&plan, context);
    }
    if !how.yes {
        if !context.environment.stdin_is_terminal {
            return Err(Failure::Usage {
                what: "a runbook wants your yes, and there is no terminal to ask on".to_owned(),
                advice: Some("--yes; look first with --dry-run".to_owned()),
            });
        }
        let plan = fleet.plan_runbook(request.clone()).await?;
        for line in output::plan(&plan) {
            note(line.paint(false));
        }
        let asked = confirm("Begin it?");
        if !asked.map_err(|error| Failure::other(format!("ask on the terminal: {error}")))? {
            return Err(Failure::other("not begun: the answer was not yes"));
        }
    }
    let run = fleet.start_runbook(request).await?;
    if !how.wait {
        return show_run(&run, context);
    }
    let run = follow(&run.id, context).await?;
    show_run(&run, context)?;
    match run.state {
        "succeeded" => Ok(()),
        state => Err(Failure::RunDidNotSucceed(format!(
            "run {} is {state}: {}",
            run.id,
            run.waiting_on.as_deref().unwrap_or("see its steps")
        ))),
    }
}

/// Until it ends or wants somebody. A coordinator that goes away meanwhile is waited for.
async fn follow(id: &str, context: &mut Context<'_>) -> Result<RunbookRun, Failure> {
    let mut absence = Absence::default();
    let mut fleet = None;
    let mut told = None;
    loop {
        let look = async {
            let mut there = match fleet.take() {
                Some(there) => there,
                None => context.connect().await?,
            };
            let run = there.runbook_run(id).await?;
            fleet = Some(there);
            Ok(run)
        };
        match look.await {
            Ok(run) => {
                absence.over();
                let now = (run.current.clone(), run.waiting_on.clone());
                if context.output.is_for_people()
                    && told.as_ref() != Some(&now)
                    && let (Some(step), waiting) = &now
                {
                    note(format_args!(
                        "{step}: waits for {}",
                        waiting.as_deref().unwrap_or("its turn")
                    ));
                }
                told = Some(now);
                if run.has_ended() || run.wants_approval {
                    return Ok(run);
                }
                sleep(LOOK_EVERY).await;
            }
            Err(failure) => absence.wait(failure).await?,
        }
    }
}

fn show_plan(plan: &RunbookPlan, context: &mut Context<'_>) -> Result<(), Failure> {
    context
        .output
        .object("RunbookPlan", plan, |_| output::plan(plan))?;
    Ok(())
}

fn show_run(run: &RunbookRun, context: &mut Context<'_>) -> Result<(), Failure> {
    Ok(context.output.object("RunbookRun", run, |_| output::run(run))?)
}
