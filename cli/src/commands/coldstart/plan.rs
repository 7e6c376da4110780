//! `blackstart coldstart plan`.

use clap::Args;

use super::super::{Context, get};
use crate::failure::Failure;
use crate::output::plan;

/// Of what.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Only this cluster; may be given several times
    #[arg(short, long = "cluster", value_name = "NAME")]
    clusters: Vec<String>,
}

pub(super) async fn run(args: &PlanArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    get::check_clusters(&mut fleet, &args.clusters).await?;
    let plan = fleet.plan_cold_start(&args.clusters).await?;
    Ok(context
        .output
        .object("Plan", &plan, |each| plan::lines(&plan, each))?)
}
