//! `blackstart runbook|drain|maintenance`: plans, runs and steers runbooks.

use std::time::Duration;

use blackstart_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tokio::time::sleep;

use super::{Absence, Context};
use crate::cli::duration;
use crate::failure::Failure;
use crate::output::runbook as output;
use crate::output::{confirm, note};
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
  blackstart runbook plan drain biz-4 --delete-local-data -o json")]
    Plan(Asked),
    /// Begin a runbook
    #[command(after_help = "\
Examples:
  blackstart runbook run node-down biz-4
  blackstart runbook run node-down biz-4 --proof 'power off at the BMC, seen off' --wait
  blackstart runbook run maintenance-end biz-4 --yes")]
    Run(RunArgs),
    /// Approve of the step that waits for it; after a failure, have it tried again
    #[command(after_help = "\
Examples:
  blackstart runbook status
  blackstart runbook approve drain-3")]
    Approve(Which),
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
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    options: Options,
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

/// Which run.
#[derive(Debug, Args)]
pub struct Which {
    /// Its id, as `runbook status` shows it
    #[arg(value_name = "RUN")]
    run: String,
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
            let request = request(asked.runbook, asked.node, asked.options);
            let plan = context.connect().await?.plan_runbook(request).await?;
            show_plan(&plan, context)
        }
        RunbookCommand::Run(args) => {
            let Asked {
                runbook,
                node,
                options,
            } = args.asked;
            begin(request(runbook, node, options), &args.how, context).await
        }
        RunbookCommand::Approve(Which { run }) => {
            let run = context.connect().await?.approve_runbook(&run).await?;
            show_run(&run, context)
        }
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

fn request(runbook: String, node: String, options: Options) -> v1::RunbookRequest {
    v1::RunbookRequest {
        runbook,
        node,
        reason: options.reason,
        drain_within_ms: u64::try_from(options.within.as_millis()).unwrap_or(u64::MAX),
        delete_local_data: options.delete_local_data,
        delete_unmanaged: options.delete_unmanaged,
        proof: options.proof,
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
