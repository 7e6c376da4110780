//! `blackstart etcd`: the etcd of a cluster, asked of the agents on its masters.

mod fetch;

use std::path::PathBuf;

use self::fetch::fetch;
use blackstart_proto::v1;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Context;
use super::runbook::{How, begin};
use crate::failure::Failure;
use crate::output::{etcd as output, note};
use crate::view::EtcdSnapshot;

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
    /// Copy one to this machine, 0600, its hash verified; what a broken attempt has left is gone on with
    #[command(after_help = "\
Examples:
  blackstart etcd snapshot fetch business --to /backup/business.db
  blackstart etcd snapshot fetch business --from biz-2 --to /backup/
  blackstart etcd snapshot fetch business --from biz-2/c0ffee-4711-1764370000000.db --to b.db

It has every Secret of the cluster in it: for admins, and in the audit.")]
    Fetch(FetchArgs),
}

/// Of which cluster.
#[derive(Debug, Args)]
pub struct Of {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    cluster: String,
}

/// Of `snapshot fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    #[command(flatten)]
    of: Of,
    /// Where from: a node, or one of its snapshots; the newest of all unless it is given
    #[arg(long, value_name = "NODE[/FILE]")]
    from: Option<String>,
    /// Where to: a file, which is not there yet, or a directory
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
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
        EtcdCommand::Snapshot(SnapshotCommand::Fetch(FetchArgs { of, from, to })) => {
            let mut fleet = context.connect().await?;
            let etcd = fleet.etcd(&of.cluster).await?;
            let mut all: Vec<_> = etcd
                .members
                .into_iter()
                .flat_map(|member| member.snapshots)
                .collect();
            all.sort_by_key(|one| (std::cmp::Reverse(one.revision), one.age_ms));
            let wanted = from.as_deref().unwrap_or_default();
            let (node, file) = wanted.split_once('/').unwrap_or((wanted, ""));
            let is_wanted = |one: &EtcdSnapshot| {
                (node.is_empty() || one.node == node) && (file.is_empty() || one.file == file)
            };
            let Some(snapshot) = all.into_iter().find(is_wanted) else {
                return Err(Failure::NotFound {
                    what: "snapshot",
                    name: wanted.to_owned(),
                    advice: Some(format!("blackstart etcd snapshot list {}", of.cluster)),
                });
            };
            let to = if to.is_dir() { to.join(&snapshot.file) } else { to };
            fetch(&mut fleet, &of.cluster, &snapshot, &to).await?;
            note(format_args!(
                "{} is {}/{}, revision {}; its hash is verified",
                to.display(),
                snapshot.node,
                snapshot.file,
                snapshot.revision
            ));
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
