//! `blackstart etcd`: the etcd of a cluster, asked of the agents on its masters.

use blackstart_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use super::runbook::{How, begin};
use crate::failure::Failure;
use crate::output::{etcd as output, note};

/// What is done with etcd.
#[derive(Debug, Subcommand)]
pub enum EtcdCommand {
    /// Members, quorum, leader, lag, alarms, certificates and snapshots; works while the API server is down
    #[command(after_help = "\
Examples:
  blackstart etcd status business
  blackstart etcd status business -o wide
  blackstart etcd status business -o json")]
    Status(Of),
    /// Snapshots that the agents on the masters keep
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// What is done with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take one on two masters, verified (runbook etcd-snapshot)
    #[command(after_help = "\
Examples:
  blackstart etcd snapshot take business --dry-run
  blackstart etcd snapshot take business --yes --wait")]
    Take(TakeArgs),
    /// Those that there are; each was verified when it was taken
    #[command(after_help = "\
Examples:
  blackstart etcd snapshot list business
  blackstart etcd snapshot list business -o json")]
    List(Of),
    /// Have the agents read them again and compare the hashes
    #[command(after_help = "\
Examples:
  blackstart etcd snapshot verify business
  blackstart etcd snapshot verify business --timeout 5m")]
    Verify(Of),
}

/// Of which cluster.
#[derive(Debug, Args)]
pub struct Of {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    cluster: String,
}

/// Of `snapshot take`.
#[derive(Debug, Args)]
pub struct TakeArgs {
    #[command(flatten)]
    of: Of,
    /// Why; it stands in the run
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    how: How,
}

pub(super) async fn run(command: EtcdCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        EtcdCommand::Status(Of { cluster }) => {
            let etcd = context.connect().await?.etcd(&cluster).await?;
            let now = Timestamp::now();
            Ok(context
                .output
                .object("Etcd", &etcd, |wide| output::status(&etcd, wide, now))?)
        }
        EtcdCommand::Snapshot(SnapshotCommand::List(Of { cluster })) => {
            let etcd = context.connect().await?.etcd(&cluster).await?;
            let mut all: Vec<_> = etcd
                .members
                .into_iter()
                .flat_map(|member| member.snapshots)
                .collect();
            all.sort_by_key(|one| one.age_ms);
            Ok(context.output.list(&all, Timestamp::now())?)
        }
        EtcdCommand::Snapshot(SnapshotCommand::Verify(Of { cluster })) => {
            let (all, lacks) = context.connect().await?.verify_etcd_snapshots(&cluster).await?;
            for lack in &lacks {
                note(format_args!("not read again: {lack}"));
            }
            context.output.list(&all, Timestamp::now())?;
            let damaged = all.iter().filter(|one| one.damage.is_some()).count();
            if damaged > 0 {
                return Err(Failure::other(format!(
                    "{damaged} of {} snapshots are damaged",
                    all.len()
                )));
            }
            Ok(())
        }
        EtcdCommand::Snapshot(SnapshotCommand::Take(TakeArgs { of, reason, how })) => {
            let request = v1::RunbookRequest {
                runbook: "etcd-snapshot".to_owned(),
                cluster: of.cluster,
                reason,
                ..v1::RunbookRequest::default()
            };
            begin(request, &how, context).await
        }
    }
}
