//! `blackstart pods|workload|node heal-cni`: what is wrong with pods, and runbooks that mend them.

use blackstart_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use super::runbook::{How, begin};
use crate::cli::duration;
use crate::failure::Failure;
use crate::output::note;

/// Of `pods`.
#[derive(Debug, Subcommand)]
pub enum PodsCommand {
    /// Say what is wrong with pods, why, and what to do; does nothing
    #[command(after_help = "\
Examples:
  blackstart pods diagnose --cluster biz -n gateway-system
  blackstart pods diagnose --cluster biz -n gateway-system gateway-proxy-64969dc8c8-tghjp
  blackstart pods diagnose --cluster biz -A -o json")]
    Diagnose(DiagnoseArgs),
    /// Mend pods: made again, memory raised, a stuck end finished with proof
    #[command(after_help = "\
Examples:
  blackstart pods heal --cluster biz -n gateway-system --dry-run
  blackstart pods heal --cluster biz -n gateway-system gateway-proxy-64969dc8c8-tghjp --wait
  blackstart pods heal --cluster biz -n skiff-nsf --skip-back-off      what they need is back, and you know it
  blackstart pods heal --cluster biz -n skiff-nsf nsf-redis-0 --proof 'power off at the BMC, seen off'
  blackstart pods heal --cluster biz -n gateway-system --rollback      templates as they were before")]
    Heal(HealArgs),
}

/// Of `workload`.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// The declared workloads, wanted and available
    #[command(after_help = "\
Examples:
  blackstart workload get
  blackstart workload get -o json")]
    Get,
    /// Make a workload whole: rolling restart, memory, tolerations
    #[command(after_help = "\
Examples:
  blackstart workload heal gateway-proxy --dry-run
  blackstart workload heal gateway-proxy --wait
  blackstart workload heal nsf-server --add-memory 1000Mi --wait
  blackstart workload heal nsf-server --rollback
  blackstart workload heal statefulset/nsf-redis --cluster biz -n skiff-nsf")]
    Heal(WorkloadArgs),
}

/// Where pods are.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The cluster, as the inventory calls it
    #[arg(long, value_name = "CLUSTER")]
    cluster: String,
    /// The namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
}

/// Of `pods diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// One pod; without it all of the namespace
    #[arg(value_name = "POD", conflicts_with = "all_namespaces")]
    pod: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Every namespace of the cluster
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// How mending is asked for.
#[derive(Debug, Args)]
pub(crate) struct Mend {
    /// Why; it stands in the run
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Put back what earlier runs changed in templates, and nothing else
    #[arg(long)]
    rollback: bool,
    /// Pods have to be well for so long before the run ends
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    steady: std::time::Duration,
    /// Begin it although too much of its cluster is not well at once; it is logged with your name
    #[arg(long)]
    despite_storm: bool,
    #[command(flatten)]
    how: How,
}

/// Of `pods heal`.
#[derive(Debug, Args)]
pub struct HealArgs {
    /// One pod; without it all of the namespace
    #[arg(value_name = "POD")]
    pod: Option<String>,
    #[command(flatten)]
    place: Place,
    /// What pods need is back, though nothing says so: have them made again, past their back-off
    #[arg(long)]
    skip_back_off: bool,
    /// Raise memory by so much in place of half (of pods that were killed for it)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    add_memory: Option<u64>,
    /// How you know that the machine of a pod that does not end is off
    #[arg(long, value_name = "TEXT", default_value = "")]
    proof: String,
    #[command(flatten)]
    mend: Mend,
}

/// Of `workload heal`.
#[derive(Debug, Args)]
pub struct WorkloadArgs {
    /// As it is declared, or KIND/NAME
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    /// Of one that is not declared: its cluster
    #[arg(long, value_name = "CLUSTER", default_value = "")]
    cluster: String,
    /// Of one that is not declared: its namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Raise requests and limits of memory by so much: 500Mi or 1000Mi, says the plan
    #[arg(long, value_name = "SIZE", value_parser = size)]
    add_memory: Option<u64>,
    #[command(flatten)]
    mend: Mend,
}

/// Of `node heal-cni`.
#[derive(Debug, Args)]
pub struct CniArgs {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    mend: Mend,
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "Mi" | "MiB" => Some(20),
        "Gi" | "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size such as 500Mi or 1Gi".to_owned())
}

fn request(runbook: &str, mend: &Mend) -> v1::RunbookRequest {
    v1::RunbookRequest {
        runbook: runbook.to_owned(),
        reason: mend.reason.clone(),
        rollback: mend.rollback,
        despite_storm: mend.despite_storm,
        steady_ms: u64::try_from(mend.steady.as_millis()).unwrap_or(u64::MAX),
        ..v1::RunbookRequest::default()
    }
}

pub(super) async fn pods(command: PodsCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        PodsCommand::Diagnose(args) => {
            let request = v1::DiagnosePodsRequest {
                cluster: args.place.cluster,
                namespace: if args.all_namespaces {
                    String::new()
                } else {
                    args.place.namespace
                },
                pod: args.pod.unwrap_or_default(),
            };
            let (found, lacks) = context.connect().await?.diagnose_pods(request).await?;
            for lack in lacks {
                note(format_args!("not looked at: {lack}"));
            }
            Ok(context.output.list(&found, Timestamp::now())?)
        }
        PodsCommand::Heal(args) => {
            let request = v1::RunbookRequest {
                cluster: args.place.cluster,
                namespace: args.place.namespace,
                pod: args.pod.unwrap_or_default(),
                skip_back_off: args.skip_back_off,
                add_memory: args.add_memory.unwrap_or_default(),
                proof: args.proof,
                ..request("pods-heal", &args.mend)
            };
            begin(request, &args.mend.how, context).await
        }
    }
}

pub(super) async fn workload(command: WorkloadCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        WorkloadCommand::Get => {
            let workloads = context.connect().await?.workloads().await?;
            Ok(context.output.list(&workloads, Timestamp::now())?)
        }
        WorkloadCommand::Heal(args) => {
            let request = v1::RunbookRequest {
                cluster: args.cluster,
                namespace: args.namespace,
                workload: args.workload,
                add_memory: args.add_memory.unwrap_or_default(),
                ..request("workload-heal", &args.mend)
            };
            begin(request, &args.mend.how, context).await
        }
    }
}

pub(super) async fn cni(args: CniArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let request = v1::RunbookRequest {
        node: args.node,
        ..request("node-component", &args.mend)
    };
    begin(request, &args.mend.how, context).await
}
