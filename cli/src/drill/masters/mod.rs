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
pub(super) mod double;
mod etcd;
mod kubelet;
mod laws;
mod machine;
pub(super) mod part;
mod rehearsal;
mod report;
mod saboteur;
mod writer;

use std::path::{Path, PathBuf};

use clap::Args;

use self::bed::Bed;
use self::chronicle::Chronicle;
pub(super) use self::laws::Law;
use self::rehearsal::Rehearsal;
use self::report::{EtcdReport, Report};
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

    /// The etcd that is run, with its etcdctl or etcdutl beside it; or `double` for the one in this program
    /// [default: /usr/bin/etcd where it is installed, otherwise `double`]
    #[arg(long, value_name = "PROGRAM")]
    etcd: Option<PathBuf>,

    /// How large its database is, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2048))]
    database: u32,
}

/// The etcd of a drill.
#[derive(Debug, Clone)]
struct Etcd {
    which: Which,
    mib: usize,
}

/// Which etcd is run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// One that is installed.
    Real(PathBuf),
    /// The one in this program.
    Double,
}

/// Where packages put it.
const INSTALLED: &str = "/usr/bin/etcd";
/// How `--etcd` names the one in this program.
const DOUBLE: &str = "double";

impl Which {
    /// What was asked for; otherwise the one that is `installed`, if it is.
    fn choose(asked: Option<PathBuf>, installed: &Path) -> Result<Self, Failure> {
        let is_whole = |program: &Path| {
            let mut tools = ["etcdutl", "etcdctl"]
                .map(|tool| program.with_file_name(tool))
                .into_iter();
            program.exists() && tools.any(|tool| tool.exists())
        };
        match asked {
            Some(asked) if asked.as_os_str() == DOUBLE => Ok(Self::Double),
            Some(asked) if is_whole(&asked) => Ok(Self::Real(asked)),
            Some(asked) => Err(Failure::Other {
                what: format!(
                    "there is no {} with an etcdutl or etcdctl beside it",
                    asked.display()
                ),
                advice: Some(format!("{INSTALL}, or --etcd PROGRAM, or --etcd {DOUBLE}")),
            }),
            None if is_whole(installed) => Ok(Self::Real(installed.to_owned())),
            None => Ok(Self::Double),
        }
    }

    /// For the report.
    fn told(&self) -> EtcdReport {
        match self {
            Self::Real(program) => EtcdReport {
                program: Some(program.clone()),
                double_of: None,
                note: None,
            },
            Self::Double => EtcdReport {
                program: None,
                double_of: Some(double::VERSION),
                note: self.note(),
            },
        }
    }

    /// What is to be known of it, where that is not a real one.
    fn note(&self) -> Option<String> {
        match self {
            Self::Real(_) => None,
            Self::Double => Some(format!(
                "a double of etcd, which plays {}, stands for the real one; {INSTALL}, and the drill runs that",
                double::VERSION
            )),
        }
    }
}

/// How a real one is had.
const INSTALL: &str = "apt-get install etcd-server etcd-client";

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
    let etcd = Etcd {
        which: Which::choose(args.etcd, Path::new(INSTALLED))?,
        mib: usize::try_from(args.database).unwrap_or(1),
    };
    if let Some(told) = etcd.which.note() {
        note(told);
    }
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
    report.etcd = etcd.as_ref().map(|etcd| etcd.which.told());
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
    let program = match etcd.map(|etcd| &etcd.which) {
        None => None,
        Some(Which::Real(program)) => Some(program.clone()),
        Some(Which::Double) => {
            let made = double::programs(place.dir());
            Some(made.map_err(|error| Failure::other(format!("put a double of etcd in place: {error}")))?)
        }
    };
    let mut rehearsal = Rehearsal::begin(Bed::start(place, CLUSTER, program.as_deref())?).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_etcd_is_taken_where_there_is_one_and_the_double_where_there_is_none_or_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let there = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let etcd = there("etcd");
        let choose = |asked: Option<&str>| Which::choose(asked.map(PathBuf::from), &etcd);
        assert_eq!(choose(None).unwrap(), Which::Double, "its tool is missing");
        there("etcdctl");
        assert_eq!(choose(None).unwrap(), Which::Real(etcd.clone()));
        assert_eq!(choose(Some("double")).unwrap(), Which::Double);
        let Err(Failure::Other { what, advice }) = choose(Some("/nowhere/etcd")) else {
            panic!("what was asked for is not replaced by something else");
        };
        assert!(what.contains("/nowhere/etcd") && advice.unwrap().contains("--etcd double"));
        assert!(Which::Real(etcd.clone()).note().is_none());
        let note = Which::Double.note().unwrap();
        assert!(
            note.contains(double::VERSION) && note.contains("apt-get install"),
            "{note}"
        );
    }
}
