//! `blackstart coldstart start`.

use clap::Args;

use super::super::{Context, get};
use super::watch;
use crate::client::Fleet;
use crate::failure::Failure;
use crate::output::table::Line;
use crate::output::words::count;
use crate::output::{confirm, note};

/// Of what, and why.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Only this cluster; may be given several times
    #[arg(short, long = "cluster", value_name = "NAME")]
    clusters: Vec<String>,
    /// Why; it stands in the run and in the audit
    #[arg(short, long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Follow it until it ends
    #[arg(short, long)]
    watch: bool,
}

pub(super) async fn run(args: &StartArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    if !args.yes && !context.environment.stdin_is_terminal {
        return Err(Failure::Usage {
            what: "a cold start wants your yes, and there is no terminal to ask on".to_owned(),
            advice: Some("--yes; look first with: blackstart coldstart plan".to_owned()),
        });
    }
    let mut fleet = context.connect().await?;
    get::check_clusters(&mut fleet, &args.clusters).await?;
    if !args.yes && !ask(args, &mut fleet).await? {
        return Err(Failure::other("not started: the answer was not yes"));
    }
    let reason = args
        .reason
        .clone()
        .unwrap_or_else(|| match &context.environment.user {
            Some(user) => format!("asked for by {user} with blackstart coldstart start"),
            None => "asked for with blackstart coldstart start".to_owned(),
        });
    let run = fleet.start_cold_start(&args.clusters, &reason).await?;
    if args.watch {
        return watch::follow(&run.id, fleet, context).await;
    }
    let lines = |_| {
        vec![
            Line::new(format!(
                "{} started: {}",
                run.id,
                count(run.steps_total as usize, "step")
            )),
            Line::new(format!("follow it: blackstart coldstart watch {}", run.id)),
        ]
    };
    Ok(context.output.object("Run", &run, lines)?)
}

/// Says what is about to happen, and asks.
async fn ask(args: &StartArgs, fleet: &mut Fleet) -> Result<bool, Failure> {
    let plan = fleet.plan_cold_start(&args.clusters).await?;
    let mut clusters: Vec<&str> = Vec::new();
    for name in plan.steps.iter().filter_map(|step| step.cluster.as_deref()) {
        if !clusters.contains(&name) {
            clusters.push(name);
        }
    }
    let nodes = plan.steps.iter().filter(|step| step.node.is_some()).count();
    note(format_args!(
        "Cold start of {} in {}: {} (whole plan: blackstart coldstart plan)",
        count(nodes, "node"),
        count(clusters.len(), "cluster"),
        clusters.join(", ")
    ));
    plan.notes
        .iter()
        .for_each(|line| note(format_args!("note: {}", crate::output::words::harmless(line))));
    confirm("Start it?").map_err(|error| Failure::other(format!("ask on the terminal: {error}")))
}
