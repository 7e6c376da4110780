//! `blackstart hold|unhold|silence|unsilence`: keeps agents from acting.
//!
//! Silence only silences the agent; nothing is drained and no kubelet is touched.

use std::time::Duration;

use blackstart_proto::v1;
use clap::Args;
use jiff::Timestamp;

use super::{Context, meant};
use crate::cli::duration;
use crate::client::Fleet;
use crate::failure::Failure;
use crate::view::Hold;

/// For whom.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ForWhom {
    /// One node
    #[arg(short, long, value_name = "NAME")]
    node: Option<String>,
    /// A cluster's nodes
    #[arg(short, long, value_name = "NAME")]
    cluster: Option<String>,
    /// Every node
    #[arg(long)]
    fleet: bool,
}

/// Why, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Why: shown to whoever finds it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// It ends by itself after so long, such as 30m or 2h; without it, when it is lifted
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
}

/// Of `hold`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  blackstart hold --node biz-4 --reason 'being looked at' --for 2h
  blackstart hold --cluster business --remedy restart-unit --reason 'new kubelet'
  blackstart hold --fleet --reason 'network change' --for 1h")]
pub struct HoldArgs {
    #[command(flatten)]
    whom: ForWhom,
    /// This remedy, by its name in `get remedies`; without it every one
    #[arg(long, value_name = "REMEDY")]
    remedy: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// Of `unhold`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  blackstart unhold --node biz-4
  blackstart unhold --cluster business --remedy restart-unit")]
pub struct UnholdArgs {
    #[command(flatten)]
    whom: ForWhom,
    /// The remedy that was held; without it the hold of every one
    #[arg(long, value_name = "REMEDY")]
    remedy: Option<String>,
}

/// Of `silence`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  blackstart silence biz-4 --reason 'new disk' --for 4h")]
pub struct SilenceArgs {
    /// The node
    node: String,
    #[command(flatten)]
    why: Why,
}

/// Of `unsilence`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  blackstart unsilence biz-4")]
pub struct UnsilenceArgs {
    /// The node
    node: String,
}

impl ForWhom {
    fn node(name: String) -> Self {
        Self {
            node: Some(name),
            cluster: None,
            fleet: false,
        }
    }

    fn wire(self) -> (v1::HoldScope, String) {
        match (self.node, self.cluster) {
            (Some(node), _) => (v1::HoldScope::Node, node),
            (None, Some(cluster)) => (v1::HoldScope::Cluster, cluster),
            (None, None) => (v1::HoldScope::Fleet, String::new()),
        }
    }
}

pub(super) async fn hold(args: HoldArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    set(args.whom, args.remedy, false, args.why, context).await
}

pub(super) async fn silence(args: SilenceArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    set(ForWhom::node(args.node), None, true, args.why, context).await
}

pub(super) async fn unhold(args: UnholdArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    lift(args.whom, args.remedy, false, context).await
}

pub(super) async fn unsilence(args: UnsilenceArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    lift(ForWhom::node(args.node), None, true, context).await
}

async fn set(
    whom: ForWhom,
    remedy: Option<String>,
    silence: bool,
    why: Why,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    check(&mut fleet, &whom).await?;
    let (scope, target) = whom.wire();
    let length = why
        .length
        .map_or(0, |length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    let hold = fleet
        .set_hold(v1::SetHoldRequest {
            scope: scope.into(),
            target,
            remedy: remedy.unwrap_or_default(),
            silence,
            reason: why.reason,
            ends_in_ms: length,
        })
        .await?;
    Ok(context.output.one(&hold, Timestamp::now())?)
}

async fn lift(
    whom: ForWhom,
    remedy: Option<String>,
    silence: bool,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    let (scope, target) = whom.wire();
    let lifted = fleet
        .lift_hold(v1::LiftHoldRequest {
            scope: scope.into(),
            target: target.clone(),
            remedy: remedy.unwrap_or_default(),
            silence,
        })
        .await;
    let hold: Hold = lifted.map_err(|failure| match failure {
        Failure::NotFound { .. } => Failure::NotFound {
            what: if silence { "silence of node" } else { "hold of" },
            name: if target.is_empty() { "the fleet".to_owned() } else { target },
            advice: Some(
                "blackstart get holds; one with scope local is lifted on its node: blackstart-agent unhold, unsilence"
                    .to_owned(),
            ),
        },
        other @ (Failure::Usage { .. }
        | Failure::Unreachable(_)
        | Failure::Refused(_)
        | Failure::PermissionDenied(_)
        | Failure::Absent { .. }
        | Failure::RunDidNotSucceed(_)
        | Failure::Interrupted
        | Failure::ClosedPipe
        | Failure::Other { .. }) => other,
    })?;
    Ok(context.output.one(&hold, Timestamp::now())?)
}

/// The node or cluster is declared.
async fn check(fleet: &mut Fleet, whom: &ForWhom) -> Result<(), Failure> {
    super::get::check_clusters(fleet, whom.cluster.as_slice()).await?;
    let Some(name) = &whom.node else { return Ok(()) };
    let nodes = fleet.nodes(None).await?;
    let known: Vec<_> = nodes.into_iter().map(|node| node.name).collect();
    if known.contains(name) {
        return Ok(());
    }
    Err(Failure::NotFound {
        what: "node",
        name: name.clone(),
        advice: Some(meant(name, &known, "blackstart get nodes")),
    })
}
