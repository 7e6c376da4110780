//! `blackstart coldstart`: plan, start, follow and steer a cold start.

mod plan;
mod report;
mod start;
mod steer;
mod watch;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Context, meant};
use crate::client::Fleet;
use crate::failure::Failure;
use crate::output::words::age_at;
use crate::view::Run;

/// The runbook whose runs these commands steer.
const RUNBOOK: &str = "cold-start";

/// What can be done with a cold start.
#[derive(Debug, Subcommand)]
pub enum ColdstartCommand {
    /// Show what a cold start would do; nothing is done
    #[command(after_help = "\
Examples:
  blackstart coldstart plan
  blackstart coldstart plan --cluster business -o wide
  blackstart coldstart plan -o json > plan.json")]
    Plan(plan::PlanArgs),
    /// Begin a cold start by your word
    #[command(after_help = "\
Examples:
  blackstart coldstart start --reason \"power is back in hall 2\" --watch
  blackstart coldstart start --cluster management --cluster business
  blackstart coldstart start --yes --reason \"drill\"     without asking, for scripts")]
    Start(start::StartArgs),
    /// Follow a run until it ends; Ctrl-C leaves it running
    #[command(after_help = "\
Examples:
  blackstart coldstart watch                the active one
  blackstart coldstart watch cold-start-3
  blackstart coldstart watch -o json        the whole run again at each change, one a line

Exit code 0: it succeeded; 6: it was aborted; 130: you left, it goes on.")]
    Watch(RunArgs),
    /// Begin no new step until resumed; what was begun is followed to its end
    #[command(after_help = "\
Examples:
  blackstart coldstart pause
  blackstart coldstart pause cold-start-3")]
    Pause(RunArgs),
    /// Go on after a pause, or try a halted step again
    #[command(after_help = "\
Examples:
  blackstart coldstart resume
  blackstart coldstart resume cold-start-3")]
    Resume(RunArgs),
    /// End a run: what was not begun never is; held kubelets keep their dead-man time
    #[command(after_help = "\
Examples:
  blackstart coldstart abort
  blackstart coldstart abort cold-start-3")]
    Abort(RunArgs),
    /// Write a run down as a document: summary, timeline and a Gantt chart
    #[command(after_help = "\
Examples:
  blackstart coldstart report                                 the latest, as Markdown
  blackstart coldstart report cold-start-3 --file report.html  one page with the chart, to keep or to send
  blackstart coldstart report --file chart.svg --lang zh")]
    Report(report::ReportArgs),
}

/// Which run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Its id; the active cold start if not given
    run: Option<String>,
}

pub(super) async fn run(command: ColdstartCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        ColdstartCommand::Plan(args) => plan::run(&args, context).await,
        ColdstartCommand::Start(args) => start::run(&args, context).await,
        ColdstartCommand::Watch(args) => {
            let mut fleet = context.connect().await?;
            let id = which(&mut fleet, args.run).await?;
            watch::follow(&id, fleet, context).await
        }
        ColdstartCommand::Pause(args) => steer::run(steer::Verb::Pause, args, context).await,
        ColdstartCommand::Resume(args) => steer::run(steer::Verb::Resume, args, context).await,
        ColdstartCommand::Abort(args) => steer::run(steer::Verb::Abort, args, context).await,
        ColdstartCommand::Report(args) => report::run(args, context).await,
    }
}

/// The run that was named, or the one that is active.
async fn which(fleet: &mut Fleet, named: Option<String>) -> Result<String, Failure> {
    match named {
        Some(id) => Ok(id),
        None => active(&fleet.runs().await?, Timestamp::now()),
    }
}

fn active(runs: &[Run], now: Timestamp) -> Result<String, Failure> {
    let cold_starts = || runs.iter().filter(|run| run.runbook == RUNBOOK);
    if let Some(run) = cold_starts().find(|run| run.state.is_active()) {
        return Ok(run.id.clone());
    }
    let last = cold_starts().max_by_key(|run| run.started_at);
    let (what, advice) = match last {
        Some(run) => (
            format!(
                "no cold start is active; {} {} {} ago",
                run.id,
                run.state.word().to_lowercase(),
                ended(run, now)
            ),
            format!("blackstart describe run {}", run.id),
        ),
        None => (
            "no cold start is active, and none is known".to_owned(),
            "blackstart coldstart plan".to_owned(),
        ),
    };
    Err(Failure::Absent { what, advice })
}

/// The cold start that began last.
fn latest(runs: &[Run]) -> Result<String, Failure> {
    let cold_starts = runs.iter().filter(|run| run.runbook == RUNBOOK);
    let last = cold_starts.max_by_key(|run| run.started_at);
    last.map(|run| run.id.clone()).ok_or_else(|| Failure::Absent {
        what: "no cold start is known".to_owned(),
        advice: "blackstart get runs".to_owned(),
    })
}

/// How long ago it ended.
fn ended(run: &Run, now: Timestamp) -> String {
    let took = jiff::SignedDuration::from_millis(i64::try_from(run.elapsed_ms).unwrap_or(i64::MAX));
    age_at(run.started_at.and_then(|at| at.checked_add(took).ok()), now)
}

/// A call about a run, with the runs that there are if it is not one of them.
async fn of_known<T>(fleet: &mut Fleet, answer: Result<T, Failure>) -> Result<T, Failure> {
    match answer {
        Err(Failure::NotFound { what, name, .. }) => {
            let known: Vec<_> = fleet.runs().await?.into_iter().map(|run| run.id).collect();
            let advice = Some(meant(&name, &known, "blackstart get runs"));
            Err(Failure::NotFound { what, name, advice })
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::RunState;

    fn run(id: &str, runbook: &str, state: RunState, started: i64) -> Run {
        Run {
            id: id.into(),
            runbook: runbook.into(),
            about: None,
            state,
            started_at: Timestamp::from_second(started).ok(),
            elapsed_ms: 60_000,
            steps_total: 1,
            steps_done: 0,
            residue: Vec::new(),
            reason: String::new(),
            waiting_on: Vec::new(),
        }
    }

    #[test]
    fn the_active_cold_start_is_meant_and_never_a_rejoin() {
        let runs = [
            run("cold-start-1", RUNBOOK, RunState::Succeeded, 0),
            run("rejoin-2", "rejoin", RunState::Running, 50),
            run("cold-start-3", RUNBOOK, RunState::Halted, 60),
        ];
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(active(&runs, now).unwrap(), "cold-start-3");
        let failure = active(&runs[..2], Timestamp::from_second(240).unwrap()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "no cold start is active; cold-start-1 succeeded 3m ago"
        );
        assert_eq!(failure.exit(), crate::failure::Exit::NotFound);
    }
}
