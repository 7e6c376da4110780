//! Drills of the chapters that are about masters themselves, where the API server may be what is down.
//!
//! ```text
//! seed ─► a chapter's script ─► rehearsal ─► chronicle ─► laws (pure) ─► report
//!                                  │ bed: static pods that are processes, stand-in kubelets, real agents, a real coordinator
//! ```
//!
//! The laws are judged from what kubelets and health ports showed, from the manifests on the disk and from the agents' ledgers; the
//! coordinator's word counts for what it planned and for what it said to be missing.

mod bed;
mod chronicle;
mod control_plane;
mod etcd;
mod kubelet;
mod laws;
mod machine;
pub(super) mod part;
mod rehearsal;
mod report;
mod saboteur;
mod writer;

use std::path::PathBuf;

use clap::Args;

use self::bed::Bed;
use self::chronicle::Chronicle;
pub(super) use self::laws::Law;
use self::rehearsal::Rehearsal;
use self::report::Report;
use self::saboteur::Sabotage;
use super::power_loss::{Place, interrupted, keep_logs};
use crate::failure::Failure;
use crate::output::{Output, note};

/// The cluster of the plan that they are held on.
const CLUSTER: &str = "business";

/// How a drill is asked for.
#[derive(Debug, Args)]
pub(super) struct MastersArgs {
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

/// How a drill of etcd is asked for.
#[derive(Debug, Args)]
pub(super) struct EtcdArgs {
    #[command(flatten)]
    more: MastersArgs,

    /// The etcd that is run; its etcdctl or etcdutl lies beside it
    #[arg(long, value_name = "PROGRAM", default_value = "/usr/bin/etcd")]
    etcd: PathBuf,

    /// How large its database is, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2048))]
    database: u32,
}

/// The etcd of a drill.
#[derive(Debug, Clone)]
struct Etcd {
    program: PathBuf,
    mib: usize,
}

/// A chapter that is rehearsed. A new one is a variant, a file, and a line in each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chapter {
    ControlPlane,
    EtcdMember,
    EtcdQuorum,
    EtcdAll,
}

impl Chapter {
    pub(super) const ALL: [Self; 4] = [
        Self::ControlPlane,
        Self::EtcdMember,
        Self::EtcdQuorum,
        Self::EtcdAll,
    ];

    /// The drill's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::EtcdMember => "etcd-member",
            Self::EtcdQuorum => "etcd-quorum",
            Self::EtcdAll => "etcd-all",
        }
    }

    /// As the operators' plan calls it.
    const fn title(self) -> &'static str {
        match self {
            Self::ControlPlane => "静态 Pod 故障",
            Self::EtcdMember | Self::EtcdQuorum | Self::EtcdAll => "etcd 节点故障",
        }
    }

    /// For `drill list`.
    pub(super) const fn rehearses(self) -> &'static str {
        match self {
            Self::ControlPlane => {
                "an API server hangs, a certificate expires, a controller manager does not start any more: named, bounced one at a time, stopped where that does not help"
            }
            Self::EtcdMember => {
                "an etcd member's database is damaged while others write: bounced, then replaced on its node, and nothing acknowledged is lost"
            }
            Self::EtcdQuorum => {
                "two of three members lose their data: restored from the one that is left by the word of two persons, and grown back to three"
            }
            Self::EtcdAll => {
                "all members lose their data: restored from what loses least by the word of two persons who were told what is lost, and that and no more is"
            }
        }
    }
}

/// Rehearses a chapter of etcd.
pub(super) async fn run_etcd(chapter: Chapter, args: EtcdArgs, output: &mut Output) -> Result<(), Failure> {
    let tools = ["etcdutl", "etcdctl"].map(|tool| args.etcd.with_file_name(tool));
    if !args.etcd.exists() || !tools.iter().any(|tool| tool.exists()) {
        return Err(Failure::Other {
            what: format!(
                "there is no {} with an etcdutl or etcdctl beside it",
                args.etcd.display()
            ),
            advice: Some("apt-get install etcd-server etcd-client, or --etcd PROGRAM".to_owned()),
        });
    }
    let etcd = Etcd {
        program: args.etcd,
        mib: usize::try_from(args.database).unwrap_or(1),
    };
    rehearse_and_report(chapter, args.more, Some(etcd), output).await
}

/// Rehearses another one. A drill that does not pass is [`Failure::RunDidNotSucceed`].
pub(super) async fn run(chapter: Chapter, args: MastersArgs, output: &mut Output) -> Result<(), Failure> {
    rehearse_and_report(chapter, args, None, output).await
}

async fn rehearse_and_report(
    chapter: Chapter,
    args: MastersArgs,
    etcd: Option<Etcd>,
    output: &mut Output,
) -> Result<(), Failure> {
    // Short enough to be typed again.
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..100_000));
    let chronicle = Box::pin(hold(chapter, &args, seed, etcd.as_ref())).await?;
    let mut report = Report::of((chapter.name(), chapter.title()), seed, &chronicle);
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
    args: &MastersArgs,
    seed: u64,
    etcd: Option<&Etcd>,
) -> Result<Chronicle, Failure> {
    let place = Place::new(args.keep.as_deref(), 3)?;
    if let Place::Kept(dir) = &place {
        keep_logs(dir)?;
    }
    let held = tokio::select! {
        held = rehearse((chapter, seed), &place, etcd, args.sabotage) => held,
        asked = interrupted() => Err(asked),
    };
    if matches!(held, Err(Failure::Interrupted)) {
        note("the drill was broken off; nothing of it goes on");
    }
    held
}

async fn rehearse(
    (chapter, seed): (Chapter, u64),
    place: &Place,
    etcd: Option<&Etcd>,
    sabotage: Option<Sabotage>,
) -> Result<Chronicle, Failure> {
    let mut rehearsal = Rehearsal::begin(Bed::start(
        place,
        CLUSTER,
        etcd.map(|etcd| etcd.program.as_path()),
    )?)
    .await?;
    let mib = etcd.map_or(1, |etcd| etcd.mib);
    let kept = match chapter {
        Chapter::ControlPlane => {
            control_plane::hold(&mut rehearsal, seed, sabotage.is_none()).await?;
            None
        }
        Chapter::EtcdMember => Some(etcd::member(&mut rehearsal, seed, mib).await?),
        Chapter::EtcdQuorum => Some(etcd::quorum(&mut rehearsal, seed, mib).await?),
        Chapter::EtcdAll => Some(etcd::all(&mut rehearsal, seed, mib).await?),
    };
    if let Some(sabotage) = sabotage {
        saboteur::work(sabotage, &rehearsal.bed).await?;
    }
    rehearsal.end().await?;
    if sabotage == Some(Sabotage::RogueAgent) {
        saboteur::forge(&rehearsal.bed)?;
        let master = &rehearsal.bed.masters[0];
        let ledger = super::fleet::ledger(&master.name, &master.ledger())?;
        rehearsal.chronicle.ledgers[0].1 = ledger;
    }
    let Rehearsal {
        bed, mut chronicle, ..
    } = rehearsal;
    control_plane::look_at_manifests(&bed, &mut chronicle.manifests);
    etcd::look_at_manifests(&bed, &mut chronicle.manifests);
    if let Some(kept) = kept {
        chronicle.no_copy = etcd::look_for_copies(&bed, &kept.aside, kept.snapshots);
    }
    if let Some(sabotage) = sabotage {
        saboteur::tamper(sabotage, &mut chronicle);
    }
    Ok(chronicle)
}
